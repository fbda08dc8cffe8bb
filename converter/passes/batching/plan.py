"""Decides what is batched: which functions, signatures and TPU calls, with which options, and what is left and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from converter.analysis import resolve, tpu
from converter.errors import ConversionError
from converter.graph import calls, edit
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import DT_RESOURCE, DT_VARIANT, FunctionDef, NodeDef
from converter.options.slices import BatchOptions, FunctionKind
from converter.passes.batching.captures import Captures, Origin, is_one
from converter.passes.pass_result import Skip

# What may stand beside a call in a function that does nothing of its own.
_GLUE = ("Identity", "IdentityN", "NoOp", "Const", "Cast", "EnsureShape", "Reshape", "TPUOrdinalSelector")
_UNBATCHABLE = {DT_RESOURCE: "a resource", DT_VARIANT: "a variant"}


@dataclass(frozen=True)
class Target:
    """Something to put behind a new BatchFunction.

    Attributes:
      name: what the user calls it.
      what: "function", "signature", "TPU function" or "TPU call".
      function: the batching op has its arguments and results.
      inputs: indices of the arguments that belong to the request.
      call: for a TPU call that is replaced where it stands; None where the whole of `function` is batched.
      scope: what holds `call`.
      group: equal for calls in place that may share a queue.
    """

    name: str
    what: str
    function: str
    inputs: tuple[int, ...]
    options: BatchOptions
    call: NodeDef | None = None
    scope: Scope | None = None
    group: int = 0


@dataclass(frozen=True)
class Update:
    """A BatchFunction of the model that gets new options."""

    name: str
    scope: Scope
    node: NodeDef
    options: BatchOptions


@dataclass
class Plan:
    """Everything that one run of the pass does, and what it leaves alone."""

    targets: list[Target] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


def make_plan(model: Model, options: tuple[BatchOptions, ...]) -> Plan:
    """What `options` ask for in this model; changes nothing.

    Raises:
      ConversionError: a component does not exist, is named twice, cannot be batched, runs on the TPU, or would be
        batched inside of another batch.
    """
    return _Planner(model, options).plan


class _Planner:
    def __init__(self, model: Model, options: tuple[BatchOptions, ...]) -> None:
        self.model = model
        self.plan = Plan()
        self._captures = Captures(model)
        self._groups: list[tuple[tuple[object, ...], list[frozenset[Origin]]]] = []
        self._graph = calls.call_graph(model)
        self._batching = edit.nodes_where(model, lambda n: bool(n.op == tpu.BATCH_CALL))
        self._computations = tpu.tpu_computations(model)
        entries = {o.component: o for o in options}
        references = tuple(o.component for o in options if o.component is not None)
        for resolved in resolve.resolve_all(model, references, "batch_options"):
            self._component(resolved, entries[resolved.reference])
        self._refuse_double_batching()
        self._update_existing(entries.get(None))
        self._tpu_functions(entries.get(None))

    # --- components

    def _component(self, resolved: resolve.ResolvedFunction, options: BatchOptions) -> None:
        name, function = resolved.given, resolved.function
        if function in tpu.tpu_scopes(self.model):
            raise ConversionError(
                f'"{name}" ({function}) cannot be batched: it is called on the TPU, and the batching op can only run '
                "on the CPU. Name a function that is called on the CPU: the TPU function itself, or one that calls it."
            )
        scope = self.model.scope(function)
        existing = [n for n in scope.nodes if n.op == tpu.BATCH_CALL]
        if existing and _only_calls(scope, tpu.BATCH_CALL):
            self.plan.updates += [Update(name, scope, node, options) for node in existing]
            return
        inputs = self._inputs_of(function)
        problem = self._obstacle(self.model.functions[function], inputs)
        if problem:
            raise ConversionError(f'"{name}" ({function}) cannot be batched: {problem}')
        what = "signature" if resolved.reference.kind is FunctionKind.SIGNATURE_NAME else "function"
        self.plan.targets.append(Target(name, what, function, inputs, options))

    def _inputs_of(self, function: str) -> tuple[int, ...]:
        count = len(self.model.functions[function].signature.input_arg)
        return tuple(i for i in range(count) if not self._captures.argument(function, i))

    def _obstacle(self, function: FunctionDef, inputs: tuple[int, ...]) -> str:
        """Why the batching op could not even be built; empty if it can."""
        arguments, results = function.signature.input_arg, function.signature.output_arg
        if not inputs:
            return (
                "it has no input that belongs to the request, found only variables and constants; the batching op "
                "needs at least one. Name a function that takes the request's tensors."
            )
        if not results:
            return "it returns nothing; the batching op needs at least one output to split. Let it return its results."
        for i in inputs:
            if arguments[i].type in _UNBATCHABLE:
                return (
                    f'its argument "{arguments[i].name}" is {_UNBATCHABLE[arguments[i].type]} that is not the same in '
                    "every call, and only tensors with rows can be batched. Name a function that takes plain tensors, "
                    "and captures its variables."
                )
        for result in results:
            if result.type in _UNBATCHABLE:
                return (
                    f'its result "{result.name}" is {_UNBATCHABLE[result.type]}, and only tensors with rows can be '
                    "batched. Name a function that returns plain tensors."
                )
        return ""

    def _refuse_double_batching(self) -> None:
        components = {t.function: t.name for t in self.plan.targets}
        components.update((u.scope.name, u.name) for u in self.plan.updates)
        updated = {u.scope.name for u in self.plan.updates}
        for function, name in components.items():
            reached = calls.reachable(self._graph, self._graph[function])
            for other, other_name in components.items():
                if other in reached and other != function:
                    raise _nested(f'"{name}" ({function})', f'"{other_name}" ({other})')
            for scope, node in self._batching:
                existing = f'the batching op "{node.name}" in {scope.name}'
                if scope.name in reached or (scope.name == function and function not in updated):
                    raise _nested(f'"{name}" ({function})', existing)
                if function in calls.reachable(self._graph, [node.attr["f"].func.name]):
                    raise _nested(existing, f'"{name}" ({function})')

    # --- what is batched already

    def _update_existing(self, default: BatchOptions | None) -> None:
        taken = {(u.scope.name, u.node.name) for u in self.plan.updates}
        for scope, node in self._batching:
            if (scope.name, node.name) in taken:
                continue
            name = self._update_name(scope, node)
            if default is not None:
                self.plan.updates.append(Update(name, scope, node, default))
            else:
                reason = f'keeps the options of its batching op "{node.name}": batch_options name other components'
                self.plan.skips.append(Skip(name, reason))

    def _update_name(self, scope: Scope, node: NodeDef) -> str:
        aliases = self.model.meta_graph.meta_info_def.function_aliases
        inside = calls.reachable(self._graph, [node.attr["f"].func.name])
        on_tpu = [tpu.display_name(self.model, c) for c in self._computations if c.scope.name in inside]
        if scope.name in aliases:
            return str(aliases[scope.name])
        return on_tpu[0] if len(on_tpu) == 1 else scope.name

    # --- TPU functions

    def _tpu_functions(self, default: BatchOptions | None) -> None:
        batched = {t.function: t.name for t in self.plan.targets}
        inside = {
            name: batch
            for root, batch in [*batched.items(), *((n.attr["f"].func.name, s.name) for s, n in self._batching)]
            for name in calls.reachable(self._graph, [root])
        }
        direct = self._unbatched_calls(batched)
        sites: dict[str, int] = {}
        for computation in self._computations:
            name = computation.function.signature.name
            sites[name] = sites.get(name, 0) + 1
        for computation in self._computations:
            name = tpu.display_name(self.model, computation)
            outside = self._reached(computation.scope.name, direct, batched)
            if computation.scope.name in inside and not outside:
                continue
            if computation.scope.name in inside:
                reason = (
                    f'is called both inside of the batch of "{inside[computation.scope.name]}" and outside of it; a '
                    "batching op here would batch twice, so the calls outside are not batched"
                )
                self.plan.skips.append(Skip(name, reason))
            elif default is None:
                reason = (
                    "is not batched: batch_options name other components, which replaces the default of batching every "
                    "TPU function, and none of them calls it"
                )
                self.plan.skips.append(Skip(name, reason))
            else:
                shared = sites[computation.function.signature.name] > 1
                self._tpu_function(name, computation, default, shared)

    def _unbatched_calls(self, batched: Collection[str]) -> dict[str, list[str]]:
        """The call graph without calls that a batching op makes, or that come out of a planned batch."""
        direct: dict[str, list[str]] = {}
        for scope in self.model.scopes():
            if scope.name not in batched:
                nodes = (n for n in scope.nodes if n.op != tpu.BATCH_CALL)
                callees = dict.fromkeys(f for n in nodes for f in calls.called_functions(n, self.model))
                direct[scope.name] = [f for f in callees if f not in batched]
        return direct

    def _reached(self, scope_name: str, direct: dict[str, list[str]], batched: Collection[str]) -> bool:
        """Whether a way from the signatures to this scope is in `direct`."""
        signatures = [self.model.signature_function(key) for key in self.model.signatures]
        roots = [MAIN_GRAPH, *(s for s in signatures if s is not None)]
        if scope_name not in calls.reachable(self._graph, roots):
            # No signature needs it: what counts is who can call it from Python.
            roots = list(self.model.object_graph.concrete_functions)
        return scope_name in calls.reachable(direct, [r for r in roots if r not in batched])

    def _tpu_function(self, name: str, computation: tpu.TpuComputation, options: BatchOptions, shared: bool) -> None:
        scope, call, function = computation.scope, computation.call, computation.function
        if scope.function is not None and not shared and _only_calls(scope, tpu.TPU_CALL):
            target = Target(name, "TPU function", scope.name, self._inputs_of(scope.name), options)
            problem = self._obstacle(scope.function, target.inputs)
        else:
            given = edit.data_inputs(call)[:-1]
            inputs = tuple(i for i, ref in enumerate(given) if not self._captures.tensor(scope, ref))
            captured = [self._captures.tensor_origins(scope, ref) for i, ref in enumerate(given) if i not in inputs]
            ordinal = _ordinal(scope, call)
            key = (function.signature.name, inputs, ordinal and ordinal.SerializeToString())
            group = self._group(key, [origins or frozenset() for origins in captured])
            target = Target(
                name, "TPU call", function.signature.name, inputs, options, call=call, scope=scope, group=group
            )
            problem = self._obstacle(function, inputs)
            if any(n.name.startswith(tpu.reshape_prefixes(call)) for n in scope.nodes):
                problem = (
                    "an earlier conversion reshaped what crosses at its call, which has no batch dimension since; give "
                    "batch_options when converting the original model, or with io_shape_optimization: DISABLED"
                )
            elif ordinal is None:
                problem = "the TPU core that it runs on is computed for each call, so its calls cannot be merged"
        if problem:
            self.plan.skips.append(Skip(name, f"is not batched: {problem}"))
        else:
            self.plan.targets.append(target)

    def _group(self, key: tuple[object, ...], captured: list[frozenset[Origin]]) -> int:
        """The number of the queue for a call in place: calls of one function share it if they capture the same."""
        for number, (other, found) in enumerate(self._groups):
            pairs = list(zip(captured, found, strict=False))
            if key == other and all(a & b and is_one(a | b) for a, b in pairs):
                self._groups[number] = (key, [a | b for a, b in pairs])
                return number
        self._groups.append((key, captured))
        return len(self._groups) - 1


def ordinal_producer(scope: Scope, call: NodeDef) -> NodeDef | None:
    """The node that gives a TPU call its core, if it is one that may be copied next to the call."""
    producer = edit.producer_of(edit.data_inputs(call)[-1])
    node = next((n for n in scope.nodes if n.name == producer), None)
    return node if node is not None and node.op in ("TPUOrdinalSelector", "Const") else None


def _ordinal(scope: Scope, call: NodeDef) -> NodeDef | None:
    node = ordinal_producer(scope, call)
    if node is None:
        return None
    nameless = type(node)()
    nameless.CopyFrom(node)
    nameless.name = ""
    del nameless.input[:]
    return nameless


def _only_calls(scope: Scope, op: str) -> bool:
    """Whether a function does nothing but call: one node of type `op`, and glue."""
    return sum(n.op == op for n in scope.nodes) == 1 and all(n.op == op or n.op in _GLUE for n in scope.nodes)


def _nested(outer: str, inner: str) -> ConversionError:
    return ConversionError(
        f"Batching both {outer} and {inner} would batch twice: the first calls the second, found one batch inside of "
        "another, expected one on each way from a signature to the TPU. Keep one of the two in batch_options; if the "
        "model was batched before, convert the original model instead."
    )


def batched_within(model: Model, functions: Iterable[str]) -> list[str]:
    """Names of the TPU functions that run in these functions or in what they call."""
    inside = set(calls.reachable(calls.call_graph(model), functions))
    found = (tpu.display_name(model, c) for c in tpu.tpu_computations(model) if c.scope.name in inside)
    return list(dict.fromkeys(found))
