"""Follows the rows of a batch through a function, through what it calls, and around its loops.

Sizes are inferred for batches of two sizes: what differs is made of the number of rows. Sizes that requests decide, the
length of a text say, are set to some that the function can compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from converter.analysis import tpu
from converter.analysis.arguments import Argument
from converter.analysis.shape_graph import FunctionShapes
from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import calls, ops
from converter.graph.model import Model
from converter.graph.protos import DT_VARIANT, FunctionDef, NodeDef
from converter.graph.refs import data_inputs, producer_of
from converter.graph.scope_index import scope_index
from converter.passes.batching.rows.finished import Loop, kept
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.transfer import transfer
from converter.passes.batching.rows.turns import (
    after_turns,
    counters_from_0,
    fills,
    is_by_turn,
    reads_written,
    stays,
    visits_all,
)
from converter.passes.batching.rows.values import CONSTANT, Cause, Effect, Value, either, is_mixed, spoiled

_MAX_TURNS = 16
_Arguments = tuple[tuple[Argument, ...], tuple[Argument, ...]]


class RowFlow:
    """Answers for a model that does not change meanwhile, for batches of two sizes."""

    def __init__(self, model: Model, inference: Inference, sizes: tuple[int, int]) -> None:
        self.model = model
        self.sizes = sizes
        self._inference = inference
        self._known: dict[tuple[str, tuple[Value, ...], _Arguments, frozenset[int]], list[Value]] = {}
        self._turns: dict[tuple[str, tuple[Value, ...], _Arguments, frozenset[int]], int] = {}

    def results(
        self, function: str, values: Sequence[Value], arguments: _Arguments, counters: frozenset[int] = frozenset()
    ) -> list[Value]:
        """The values of a function's results for these of its arguments.

        Args:
          arguments: shapes of the arguments in a batch of each of the two sizes.
          counters: of the body of a loop, which arguments number its turns from 0.

        Raises:
          ShapeInferenceError: the function cannot compute such arguments.
        """
        key = (function, tuple(values), arguments, counters)
        if key not in self._known:
            scope = self.model.scope(function)
            outputs = len(scope.function.signature.output_arg) if scope.function is not None else 0
            self._known[key] = [
                spoiled(Cause(Effect.UNKNOWN, function, function, "function", "calls itself"))
            ] * outputs
            body = _Body(self, self.model.functions[function], self.views(function, arguments), counters)
            self._known[key] = body.run(values)
            self._turns[key] = body.turns_per_row
        return self._known[key]

    def turns_per_row(self, body: str, values: Sequence[Value], arguments: _Arguments, counters: frozenset[int]) -> int:
        """How many turns of this loop, whose results are known, look at each row; 0 if it is no loop over the rows."""
        return self._turns[body, tuple(values), arguments, counters]

    def inside(self, function: str, values: Sequence[Value], arguments: _Arguments) -> Callable[[str], Value]:
        """The values of all tensors of which a function's results are made."""
        body = _Body(self, self.model.functions[function], self.views(function, arguments), frozenset())
        body.run(values)
        return body.of

    def views(self, function: str, arguments: _Arguments) -> tuple[FunctionShapes, FunctionShapes]:
        first, second = (self._inference.infer(function, each) for each in arguments)
        return first, second


class _Body:
    def __init__(
        self,
        flow: RowFlow,
        function: FunctionDef,
        views: tuple[FunctionShapes, FunctionShapes],
        counters: frozenset[int],
    ) -> None:
        self._flow = flow
        self._arguments = [a.name for a in function.signature.input_arg]
        self._counters = {self._arguments[i] for i in counters}
        self._model = flow.model
        self._index = scope_index(flow.model, function.signature.name)
        self._nodes = self._index.nodes
        self._function = function
        self._scope = self._index.scope
        self._views = views
        self._tensors: dict[str, Value] = {}
        # What an op gives of which nobody knows the outputs.
        self._custom: dict[str, Value] = {}

    def run(self, values: Sequence[Value]) -> list[Value]:
        self._tensors |= dict(zip(self._arguments, values, strict=True))
        needed = self._needed()
        for node in self._index.in_order()[0]:
            if node.name in needed:
                self._add(node)
        return [self.of(self._function.ret[r.name]) for r in self._function.signature.output_arg]

    @property
    def turns_per_row(self) -> int:
        turns = [v.turn for v in self._tensors.values() if v.turn is not None and v.turn.body == self._scope.name]
        return max((turn.axis.outer * turn.axis.inner for turn in turns), default=0)

    def _needed(self) -> set[str]:
        """Nodes of which a result is made."""
        nodes = self._nodes
        stack = [producer_of(ref) for ref in self._function.ret.values()]
        found: set[str] = set()
        while stack:
            name = stack.pop()
            if name in nodes and name not in found:
                found.add(name)
                stack += [producer_of(ref) for ref in data_inputs(nodes[name])]
        return found

    def of(self, ref: str) -> Value:
        known = self._tensors.get(ref)
        return known if known is not None else self._custom.get(producer_of(ref), CONSTANT)

    def _add(self, node: NodeDef) -> None:
        refs = data_inputs(node)
        values = [self.of(ref) for ref in refs]
        how = "reads a variable that was written before" if reads_written(node, self._nodes) else ""
        if not how and not any(v.varies or v.axis for v in values):
            return  # and what is not stored is constant
        definition = ops.op_def(node.op, self._model)
        if definition is None or how:
            how = how or "is an op that TensorFlow does not know"
            self._custom[node.name] = spoiled(Cause(Effect.UNKNOWN, self._scope.name, node.name, node.op, how))
            return
        slots = ops.output_slots(node, definition)
        outputs = tuple(self._scope.ref(node.name, slot.arg, slot.index, i) for i, slot in enumerate(slots))
        site = Site(
            node,
            self._scope.name,
            tuple(refs),
            outputs,
            self._views,
            self._flow.sizes,
            lists=any(slot.dtype == DT_VARIANT for slot in slots),
            by_turn=is_by_turn(node, self._nodes, self._arguments, self._counters),
        )
        found = self._called(site, values)
        if found is None:
            found = transfer(site, values)
        self._tensors |= dict(zip(outputs, found, strict=True))

    # --- calls --------------------------------------------------------------------------------------------------

    def _called(self, site: Site, values: list[Value]) -> list[Value] | None:
        passed = calls.passes_to(site.node, self._model)
        if passed is None or not any(name in self._model.functions for name in passed[1]):
            return None
        first, names = passed
        last = len(values) - (site.node.op == tpu.TPU_CALL)
        try:
            if site.node.op in ops.LOOPS:
                return self._loop(site, values)
            arguments = self._passed(site.inputs[first:last])
            if site.node.op in ops.BRANCHES:
                return self._branch(site, values, names, arguments)
            return self._flow.results(names[0], values[first:last], arguments)
        except ShapeInferenceError as error:
            how = f"cannot be followed: {str(error.__cause__ or error).partition(chr(10))[0]}"
            return [spoiled(site.cause(Effect.UNKNOWN, how))] * len(site.outputs)

    def _passed(self, refs: Sequence[str]) -> _Arguments:
        first, second = (tuple(view.passed(ref) for ref in refs) for view in self._views)
        return first, second

    def _branch(self, site: Site, values: list[Value], names: list[str], arguments: _Arguments) -> list[Value]:
        chooses = values[0]
        known = site.constant(0)
        if known is not None and known.size == 1 and len(names) > 1 and chooses.count is None:
            index = int(known) if site.node.op.endswith("Case") else int(not known)
            return self._flow.results(names[min(max(index, 0), len(names) - 1)], values[1:], arguments)
        found = [self._flow.results(name, values[1:], arguments) for name in names]
        apart = site.cause(Effect.UNKNOWN, "has its rows elsewhere in each of its branches")
        results = [either(each, apart) for each in zip(*found, strict=True)]
        if chooses.spoiled or chooses.rows:
            return [spoiled(site.cause(Effect.UNKNOWN, "takes a branch that the rows decide together"))] * len(results)
        return [
            replace(r, turn=r.turn or chooses.turn, count=r.count or chooses.count, place=r.place or chooses.place)
            for r in results
        ]

    def _loop(self, site: Site, values: list[Value]) -> list[Value]:
        body, cond = (site.node.attr[a].func.name for a in ("body", "cond"))
        # What goes around a loop has the shapes that all turns have in common: those of its results.
        arguments = self._passed(site.outputs)
        counters = counters_from_0(self._model.functions[body], site.inputs, self._views)
        changes = [not same for same in stays(self._model.functions[body])]
        state = self._steady(site, body, values, arguments, counters)
        per_row = 0 if state is None else self._flow.turns_per_row(body, state, arguments, counters)
        if per_row:
            # Then the number of a turn is the place of a row.
            place = site.cause(Effect.PLACES, "numbers the rows of the batch")
            unsure = site.cause(Effect.UNKNOWN, "changes in every turn what rows may see")
            tensors = [a.type != DT_VARIANT for a in self._model.functions[body].signature.input_arg]
            numbered = [
                replace(v, place=place if i in counters else v.place or unsure) if changes[i] and tensors[i] else v
                for i, v in enumerate(values)
            ]
            state = self._steady(site, body, numbered, arguments, counters)
        if state is None:
            return [spoiled(site.cause(Effect.UNKNOWN, "changes in every turn"))] * len(values)
        (goes_on,) = self._flow.results(cond, state, arguments)
        how = ""
        if goes_on.spoiled or goes_on.rows:
            if not per_row:
                changes = [not kept for kept in self._kept(site, state, arguments)]
            how = f"runs until all rows are done{f': {goes_on.spoiled}' if goes_on.spoiled else ''}"
        elif per_row and not self._visits_all(site, [rows * per_row for rows in self._flow.sizes], counters):
            how = "need not give each row a turn"
        filled = [
            self._is_filled(site, i, v, counters) if c else None
            for i, (v, c) in enumerate(zip(state, changes, strict=True))
        ]
        if not how:
            changes = [c and not each for c, each in zip(changes, filled, strict=True)]
            if goes_on.turn and is_mixed([goes_on, *itertools.compress(state, changes)]):
                how = "runs for all rows until the row of an outer loop's turn is done"
        lost = spoiled(site.cause(Effect.UNKNOWN, how or "need not give each item of a list a turn"))
        return [
            (lost if how or (each is False and not v.spoiled) else after_turns(v, goes_on)) if c else v
            for v, c, each in zip(state, changes, filled, strict=True)
        ]

    def _visits_all(self, site: Site, turns: Sequence[int], counters: frozenset[int]) -> bool:
        cond = site.node.attr["cond"].func.name
        views = self._flow.views(cond, self._passed(site.outputs))
        return visits_all(self._model.functions[cond], views, counters, turns)

    def _is_filled(self, site: Site, index: int, value: Value, counters: frozenset[int]) -> bool | None:
        """Whether each item of a list of rows, or of as many items as there are rows, gets a turn; None of others."""
        body = self._model.functions[site.node.attr["body"].func.name]
        if body.signature.input_arg[index].type != DT_VARIANT:
            return None
        sure = fills(body, index, site.inputs[index], self._nodes)
        first = value.axis is not None and value.axis.dim == 0
        if first and value.by_row:
            return sure
        lengths = [length for view in self._views if (length := view.length(site.outputs[index])) is not None]
        if not first and len(set(lengths)) < 2:
            return None
        return sure and len(lengths) == 2 and self._visits_all(site, lengths, counters)

    def _kept(self, site: Site, state: list[Value], arguments: _Arguments) -> list[bool]:
        body, cond = (site.node.attr[a].func.name for a in ("body", "cond"))
        in_cond = self._flow.inside(cond, state, arguments)
        functions = self._model.functions
        return kept(
            Loop(
                functions[cond],
                functions[body],
                site.inputs,
                self._nodes,
                lambda ref: not self.of(ref).varies,
                lambda ref: not in_cond(ref).varies,
            )
        )

    def _steady(
        self, site: Site, body: str, values: list[Value], arguments: _Arguments, counters: frozenset[int]
    ) -> list[Value] | None:
        """What goes around a loop in all its turns; None if it does not become steady."""
        apart = site.cause(Effect.UNKNOWN, "has its rows elsewhere after each turn")
        state = list(values)
        for _ in range(_MAX_TURNS):
            results = self._flow.results(body, state, arguments, counters)
            following = [self._after_turn(site, *pair, apart) for pair in zip(state, results, strict=True)]
            if following == state:
                return state
            state = following
        return None

    @staticmethod
    def _after_turn(site: Site, before: Value, after: Value, apart: Cause) -> Value:
        if after.turn is not None and after.turn.body == site.node.attr["body"].func.name:
            return spoiled(site.cause(Effect.MIXES, "carries a value from one row to the next"))
        return either([before, after], apart)
