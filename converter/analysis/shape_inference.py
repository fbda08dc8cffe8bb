"""Static shapes inside a function, by TensorFlow's own shape inference.

Calls, branches and loops are followed: what they call is inferred for the arguments that they pass, and what it
returns stands in their place. So the nodes of a function come in portions, those that need no call first, and every
function is imported once for each combination of argument shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converter.analysis import tpu
from converter.analysis.arguments import Argument, Handle, Known, filled, join, shape_of
from converter.analysis.shape_graph import FunctionShapes, OpError, ShapeGraph
from converter.errors import ConversionError
from converter.graph import calls, ops, outside, refs, shapes
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_INT64, NodeDef
from converter.graph.scope_index import ScopeIndex, scope_index
from converter.graph.shapes import Shape


class ShapeInferenceError(ConversionError):
    """A body cannot compute arguments of these shapes: two of its tensors do not fit each other."""


def infer(model: Model, function_name: str, argument_shapes: Sequence[Shape] | None = None) -> FunctionShapes:
    """Shapes in the body of a function of the library, or in the main graph (`model.MAIN_GRAPH`).

    Args:
      argument_shapes: one for each argument; without them, the shapes that the exporter recorded.

    Raises:
      ShapeInferenceError: the body cannot compute arguments of these shapes.
    """
    return Inference(model).infer(function_name, argument_shapes)


class Inference:
    """Inference in a model that does not change meanwhile; what was found out of a function is kept."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[tuple[str, tuple[Argument, ...]], FunctionShapes | ShapeInferenceError | None] = {}

    def infer(self, function_name: str, arguments: Sequence[Argument] | None = None) -> FunctionShapes:
        """As the function `infer`; an argument may be a `Handle`, too."""
        scope = self._model.scope(function_name)
        if arguments is None and scope.function is not None:
            arguments = shapes.declared_shapes(scope.function)
        captured = self._captured(function_name)
        known = (captured.get(i, argument) for i, argument in enumerate(arguments or ()))
        found = self._scope(scope, tuple(known))
        if found is None:
            raise ShapeInferenceError(f'The shapes inside "{scope.name}" cannot be inferred: it calls itself.')
        return found

    def _captured(self, function_name: str) -> dict[int, Handle]:
        """Arguments of a function that are variables of the object graph: older exporters tell of them there only."""
        nodes = self._model.object_graph.nodes
        captured = {i: nodes[node_id] for i, node_id in outside.captures_of(self._model, function_name).items()}
        return {
            i: Handle(saved.variable.dtype, shapes.from_proto(saved.variable.shape))
            for i, saved in captured.items()
            if saved.WhichOneof("kind") == "variable"
        }

    def _scope(self, scope: Scope, arguments: tuple[Argument, ...]) -> FunctionShapes | None:
        """None for a function that is being inferred already: it is recursive."""
        key = (scope.name, arguments)
        if key not in self._known:
            self._known[key] = None
            try:
                self._known[key] = self._inferred(scope, arguments)
            except ShapeInferenceError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, ShapeInferenceError):
            raise known
        return known

    def _inferred(self, scope: Scope, arguments: tuple[Argument, ...]) -> FunctionShapes:
        try:
            return self._imported(scope, arguments, keep_recorded=True)
        except (ValueError, OpError, ShapeInferenceError):
            # Shapes that were recorded for other arguments may contradict these: they are knowledge, not truth.
            pass
        try:
            return self._imported(scope, arguments, keep_recorded=False)
        except (ValueError, OpError, ShapeInferenceError) as error:
            cause = error.__cause__ if isinstance(error, ShapeInferenceError) else error
            given = ", ".join(shapes.text(shape_of(a)) for a in arguments) or "none"
            raise ShapeInferenceError(
                f'The shapes inside "{scope.name}" cannot be inferred for arguments of the shapes {given}: {cause}. '
                "Check that the function can compute such arguments."
            ) from cause

    def _imported(self, scope: Scope, arguments: tuple[Argument, ...], keep_recorded: bool) -> FunctionShapes:
        graph = ShapeGraph(self._model, scope, keep_recorded)
        graph.add_arguments(arguments)
        pending: list[NodeDef] = []
        portions, ring = _portions(scope_index(self._model, scope.name), self._is_apart)
        for nodes in portions:
            for node in pending:
                self._add_apart(graph, node)
            pending = [node for node in nodes if self._is_apart(node)]
            graph.add_nodes([node for node in nodes if not self._is_apart(node)])
        for node in pending:
            self._add_apart(graph, node)
        for call in filter(self._is_call, ring):
            graph.add_call(call, None)
        graph.add_nodes([node for node in ring if not self._is_call(node)])
        return graph.shapes

    def _is_apart(self, node: NodeDef) -> bool:
        """Whether more is known of what a node gives than TensorFlow tells, once all before it is inferred."""
        return node.op in ("TensorListStack", "Where") or self._is_call(node)

    def _add_apart(self, graph: ShapeGraph, node: NodeDef) -> None:
        known = graph.shapes
        if self._is_call(node):
            graph.add_call(node, self._results(node, known))
        elif node.op == "Where" and (condition := known.value(node.input[0])) is not None:
            found = np.argwhere(condition)
            graph.add_call(node, [Known(DT_INT64, found.shape, tuple(map(int, found.flat)))])
        elif node.op == "TensorListStack" and (length := known.length(node.input[0])) is not None:
            counted = NodeDef()
            counted.CopyFrom(node)
            counted.attr["num_elements"].i = length
            graph.add_nodes([counted])
        else:
            graph.add_nodes([node])

    def _is_call(self, node: NodeDef) -> bool:
        passed = calls.passes_to(node, self._model)
        return passed is not None and any(name in self._model.functions for name in passed[1])

    def _results(self, node: NodeDef, known: FunctionShapes) -> list[Argument] | None:
        """Shapes of what a call, branch or loop returns for the inputs that it has; None if nothing can be said."""
        given = [known.passed(ref) for ref in refs.data_inputs(node)]
        called = calls.called_functions(node, self._model)
        if node.op in ops.LOOPS:
            return self._loop(node.attr["body"].func.name, given)
        if node.op in ops.BRANCHES:
            branches = [self._function(name, given[1:]) for name in called]
            return [join(each) for each in zip(*branches, strict=True)] if all(branches) else None
        if node.op == tpu.TPU_CALL:
            given = given[:-1]  # the TPU ordinal
        return self._returned(called[0], given)

    def _loop(self, body: str, variables: list[Argument]) -> list[Argument] | None:
        first = True
        while True:
            results = self._function(body, variables)
            if results is None:
                return None
            pairs = list(zip(variables, results, strict=True))
            # A list that was made without knowing its elements holds what the body puts into it.
            joined = [filled(*pair) if first else join(pair) for pair in pairs]
            if joined == variables:
                return variables
            variables, first = joined, False

    def _function(self, name: str, arguments: list[Argument]) -> list[Argument] | None:
        """What a function returns; None if it cannot compute these arguments, as one turn of a loop perhaps cannot."""
        try:
            return self._returned(name, arguments)
        except ShapeInferenceError:
            return None

    def _returned(self, name: str, arguments: list[Argument]) -> list[Argument] | None:
        function = self._model.functions.get(name)
        if function is None:
            return None
        inside = self._scope(Scope.of(function), tuple(arguments))
        if inside is None:
            return None
        return [inside.returned(i) for i in range(len(function.signature.output_arg))]


def _portions(
    index: ScopeIndex, is_apart: Callable[[NodeDef], bool]
) -> tuple[Sequence[Sequence[NodeDef]], Sequence[NodeDef]]:
    """The nodes of a scope so that each node comes after the portion that holds the last on which it depends of those
    that are added apart, as calls are.

    Apart, the nodes of loops of the main graph (NextIteration), which are rings, and what depends on those.
    """
    ordered, ring = index.in_order()
    after: dict[str, int] = {}
    portions: list[list[NodeDef]] = [[]]
    for node in ordered:
        number = max((after.get(refs.producer_of(ref), 0) for ref in refs.data_inputs(node)), default=0)
        after[node.name] = number + is_apart(node)
        if number == len(portions):
            portions.append([])
        portions[number].append(node)
    return portions, ring
