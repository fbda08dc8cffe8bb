"""Places of arguments and results of functions, which whoever calls these has to agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.analysis import tpu
from converter.graph import calls, ops, outside, refs
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_FLOAT, DT_VARIANT, CapturedTensor, NodeDef
from converter.passes.bfloat16.kinds import Kind, KindFlow
from converter.passes.bfloat16.places import Places, Site, Tensor, named_tensor

_FLOAT, _VARIANT = DT_FLOAT, DT_VARIANT

Ends = Sequence[int | None]
"""Places of the inputs or outputs of a call, or of the arguments or results of a function."""


class FunctionEnds:
    """The ends of the functions of a type graph, joined with those of the calls of them.

    Attributes:
      arguments, results: function -> its places; None for what is neither float32 nor variant.
    """

    def __init__(self, model: Model, places: Places, kinds: KindFlow) -> None:
        self.arguments: dict[str, list[int | None]] = {}
        self.results: dict[str, list[int | None]] = {}
        self._model = model
        self._places = places
        self._kinds = kinds
        self._called: set[str] = set()

    def add_function(self, scope: Scope) -> list[Tensor]:
        """Makes the places of a function, none of the main graph; returns its arguments that have one."""
        tensors: list[Tensor] = []
        if scope.function is None:
            return tensors
        signature = scope.function.signature
        for attr, arguments, places in (
            ("argument", signature.input_arg, self.arguments),
            ("result", signature.output_arg, self.results),
        ):
            own = places[scope.name] = []
            for i, argument in enumerate(arguments):
                if argument.type not in (_FLOAT, _VARIANT):
                    own.append(None)
                    continue
                holds_float = argument.type == _FLOAT or any(d.dtype == _FLOAT for d in argument.handle_data)
                place = self._places.new(True, Site(scope, None, attr, i) if holds_float else None)
                own.append(place)
                if attr == "argument":
                    tensors.append(Tensor(scope, None, argument.name, 0, place, place))
        return tensors

    def all_of(self, function: str) -> list[int]:
        """The places of a function."""
        return [p for p in (*self.arguments.get(function, ()), *self.results.get(function, ())) if p is not None]

    def join_call(self, node: NodeDef, given: Ends, got: Ends, unknown: Kind) -> bool:
        """Joins what a call passes and gets with the ends of what it calls; False for any other node.

        Args:
          unknown: the kind of what it gets from a function that is not looked into.
        """
        called = passed(node, self._model)
        if called is None:
            return False
        offset, names = called
        for name in names:
            self._called.add(name)
            self._join_all(given[offset:], self.arguments.get(name), name)
            # A loop's condition takes what its body takes, but gives something else.
            if node.op not in ops.LOOPS or name == node.attr["body"].func.name:
                self._join_all(got, self.results.get(name), name)
                self._receive(name, got, unknown)
        if node.op in ops.LOOPS and names[0] in self.arguments:
            self._join_all(self.arguments[names[0]], self.results[names[0]], names[0])
        return True

    def flow_through(self, node: NodeDef, given: Ends, got: Ends, unknown: Kind) -> None:
        """Values pass a BatchFunction as they do any call, though its types and those of its function stay."""
        for name in calls.called_functions(node, self._model):
            self._called.add(name)
            self._kinds.add_flows(given, self.arguments.get(name, ()))
            self._kinds.add_flows(self.results.get(name, ()), got)
            self._receive(name, got, unknown)

    def add_free_arguments(self, scope: Scope, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Arguments that callers outside of these scopes may set can be anything, but for what is bound to them.

        Args:
          tensors: those of every scope, once all are known.
        """
        name, objects = scope.name, self._model.object_graph
        if scope.function is None:
            return
        if name in self._called and name not in objects.concrete_functions:
            return
        captures = outside.captures_of(self._model, name)
        for i, place in enumerate(self.arguments[name]):
            if place is None:
                continue
            bound = objects.nodes[captures[i]] if i in captures else None
            if bound is not None and bound.WhichOneof("kind") == "captured_tensor":
                self._add_captured(bound.captured_tensor, place, tensors)
            elif bound is None or bound.WhichOneof("kind") != "constant":
                self._kinds.add_floor(place, Kind.GIVEN)

    def _join_all(self, own: Ends, theirs: Ends | None, function: str) -> None:
        reason = f'is passed to or from "{function}", which stays as it is'
        for a, b in zip(own, theirs if theirs is not None else [None] * len(own), strict=False):
            self._places.join(a, b, reason)

    def _receive(self, function: str, got: Ends, unknown: Kind) -> None:
        if function not in self.results:
            for place in got:
                if place is not None:
                    self._kinds.add_floor(place, unknown)

    def _add_captured(self, captured: CapturedTensor, place: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """An argument that is bound to a tensor inside of a function."""
        name = captured.concrete_function
        tensor = named_tensor(tensors[name].values(), captured.name) if name in tensors else None
        function = self._model.functions.get(name)
        nodes = () if function is None else function.node_def
        if tensor is not None:
            self._kinds.add_flow(tensor.vertex, place)
        elif not any(n.op == "Const" and n.name == refs.producer_of(captured.name) for n in nodes):
            self._kinds.add_floor(place, Kind.GIVEN)


def follows_calls(node: NodeDef, model: Model) -> bool:
    """Whether the types that `node` passes to the functions it refers to can be changed along with these."""
    called = passed(node, model)
    return called is not None and set(called[1]) == set(calls.called_functions(node, model))


def passed(node: NodeDef, model: Model) -> tuple[int, list[str]] | None:
    """As `calls.passes_to`, but of a BatchFunction: the batching thread feeds its function with what requests hold."""
    return None if node.op == tpu.BATCH_CALL else calls.passes_to(node, model)
