"""Static shapes inside a function, by TensorFlow's own shape inference.

The function's body is imported into a throw-away graph, its arguments as placeholders. Nothing runs. Calls, branches
and loops are followed: what they call is inferred for the arguments that they pass, and what it returns stands in
their place. So the nodes come in portions, those that need no call first, and every function is imported once for
each combination of argument shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops import handle_data_util

from converter import graph_edit, ops, shapes, tpu
from converter.errors import ConversionError
from converter.graph_edit import make_node, type_attr
from converter.model import MAIN_GRAPH, FunctionDef, Model, NodeDef, Scope
from converter.shapes import RECORDED, Shape

_CALLS = {"PartitionedCall", "StatefulPartitionedCall", tpu.TPU_CALL, tpu.BATCH_CALL}
# Only small constants, such as the target of a Reshape, decide about shapes; large ones would cost time and memory.
_LARGE_CONST_ELEMENTS = 1024


class ShapeInferenceError(ConversionError):
    """A body cannot compute arguments of these shapes: two of its tensors do not fit each other."""


@dataclass(frozen=True)
class Handle:
    """What is known of a resource argument: type and shape of its variable."""

    dtype: int
    shape: Shape


Argument = Shape | Handle


@dataclass(frozen=True)
class FunctionShapes:
    """The shapes of all tensors of one function, or of the main graph; look-ups are made when asked for."""

    _graph: Any
    _tensors: dict[str, tuple[str, int]]
    """Reference as the scope spells it (canonical) -> operation in the graph and output number."""
    _scope: Scope
    _custom: frozenset[str]
    """Nodes whose ops TensorFlow does not know."""

    def of(self, ref: str) -> Shape:
        """The shape of a tensor, spelled as an input of a node of this scope is.

        Raises:
          KeyError: there is no such tensor.
        """
        tensor = self._tensor(ref)
        return None if tensor is None or tensor.shape.rank is None else tuple(tensor.shape.as_list())

    def passed(self, ref: str) -> Argument:
        """The tensor as an argument of a call."""
        tensor = self._tensor(ref)
        if tensor is not None and tensor.dtype == tf.resource:
            data = handle_data_util.get_resource_handle_data(tensor)
            if data.is_set and len(data.shape_and_type) == 1:
                return Handle(data.shape_and_type[0].dtype, shapes.from_proto(data.shape_and_type[0].shape))
        return self.of(ref)

    def argument(self, index: int) -> Shape:
        function: FunctionDef = self._scope.function
        return self.of(function.signature.input_arg[index].name)

    def result(self, index: int) -> Shape:
        function: FunctionDef = self._scope.function
        return self.of(function.ret[function.signature.output_arg[index].name])

    def _tensor(self, ref: str) -> Any:
        ref = graph_edit.canonical_ref(ref, self._scope)
        if ref not in self._tensors:
            if graph_edit.producer_of(ref) in self._custom:
                return None
            raise KeyError(ref)
        operation, output = self._tensors[ref]
        return self._graph.get_operation_by_name(operation).outputs[output]


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
        scope = self._model.main_scope() if function_name == MAIN_GRAPH else self._model.scope(function_name)
        if arguments is None and scope.function is not None:
            arguments = [
                shapes.declared_shape(scope.function, i) for i in range(len(scope.function.signature.input_arg))
            ]
        found = self._scope(scope, tuple(arguments or ()))
        if found is None:
            raise ShapeInferenceError(f'The shapes inside "{scope.name}" cannot be inferred: it calls itself.')
        return found

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
        except (ValueError, tf.errors.OpError, ShapeInferenceError):
            # Shapes that were recorded for other arguments may contradict these: they are knowledge, not truth.
            pass
        try:
            return self._imported(scope, arguments, keep_recorded=False)
        except (ValueError, tf.errors.OpError, ShapeInferenceError) as error:
            cause = error.__cause__ or error
            given = ", ".join(shapes.text(_shape(a)) for a in arguments) or "none"
            raise ShapeInferenceError(
                f'The shapes inside "{scope.name}" cannot be inferred for arguments of the shapes {given}: {cause}. '
                "Check that the function can compute such arguments."
            ) from cause

    def _imported(self, scope: Scope, arguments: tuple[Argument, ...], keep_recorded: bool) -> FunctionShapes:
        graph = _Import(self._model, scope, keep_recorded)
        graph.add_arguments(arguments)
        calls: list[NodeDef] = []
        portions, ring = _portions(scope, self._is_call)
        for nodes in portions:
            for call in calls:
                graph.add_call(call, self._results(call, graph.shapes))
            calls = [node for node in nodes if self._is_call(node)]
            graph.add_nodes([node for node in nodes if not self._is_call(node)])
        for call in calls:
            graph.add_call(call, self._results(call, graph.shapes))
        for call in filter(self._is_call, ring):
            graph.add_call(call, None)
        graph.add_nodes([node for node in ring if not self._is_call(node)])
        return graph.shapes

    def _is_call(self, node: NodeDef) -> bool:
        return (
            node.op in _CALLS or node.op in ops.BRANCHES or node.op in ops.LOOPS or node.op in self._model.functions
        ) and bool(graph_edit.called_functions(node, self._model))

    def _results(self, node: NodeDef, known: FunctionShapes) -> list[Shape] | None:
        """Shapes of what a call, branch or loop returns for the inputs that it has; None if nothing can be said."""
        given = [known.passed(ref) for ref in graph_edit.data_inputs(node)]
        called = graph_edit.called_functions(node, self._model)
        if node.op in ops.LOOPS:
            return self._loop(node.attr["body"].func.name, given)
        if node.op in ops.BRANCHES:
            branches = [self._function(name, given[1:]) for name in called]
            return [shapes.join(each) for each in zip(*branches, strict=True)] if all(branches) else None
        if node.op == tpu.TPU_CALL:
            given = given[:-1]  # the TPU ordinal
        return self._returned(called[0], given)

    def _loop(self, body: str, variables: list[Argument]) -> list[Shape] | None:
        while True:
            results = self._function(body, variables)
            if results is None:
                return None
            joined = [_join(pair) for pair in zip(variables, results, strict=True)]
            if joined == variables:
                return [_shape(variable) for variable in variables]
            variables = joined

    def _function(self, name: str, arguments: list[Argument]) -> list[Shape] | None:
        """What a function returns; None if it cannot compute these arguments, as one turn of a loop perhaps cannot."""
        try:
            return self._returned(name, arguments)
        except ShapeInferenceError:
            return None

    def _returned(self, name: str, arguments: list[Argument]) -> list[Shape] | None:
        function = self._model.functions.get(name)
        if function is None:
            return None
        inside = self._scope(Scope.of(function), tuple(arguments))
        if inside is None:
            return None
        return [inside.result(i) for i in range(len(function.signature.output_arg))]


def _shape(argument: Argument) -> Shape:
    return () if isinstance(argument, Handle) else argument


def _join(pair: tuple[Argument, Shape]) -> Argument:
    return pair[0] if isinstance(pair[0], Handle) else shapes.join([pair[0], pair[1]])


def _portions(scope: Scope, is_call: Callable[[NodeDef], bool]) -> tuple[list[list[NodeDef]], list[NodeDef]]:
    """The nodes of a scope so that each node comes after the portion that holds the last call on which it depends.

    Apart, the nodes of loops of the main graph (NextIteration), which are rings, and what depends on those.
    """
    ordered, ring = graph_edit.in_order(scope)
    after: dict[str, int] = {}
    portions: list[list[NodeDef]] = [[]]
    for node in ordered:
        number = max((after.get(graph_edit.producer_of(ref), 0) for ref in graph_edit.data_inputs(node)), default=0)
        after[node.name] = number + is_call(node)
        if number == len(portions):
            portions.append([])
        portions[number].append(node)
    return portions, ring


class _Import:
    """A graph that grows by portions of one scope's nodes, under names of its own."""

    def __init__(self, model: Model, scope: Scope, keep_recorded: bool) -> None:
        self._model = model
        self._scope = scope
        self._keep_recorded = keep_recorded
        self._graph = tf.Graph()
        self._tensors: dict[str, tuple[str, int]] = {}
        self._count = 0
        custom = {n.name: n for n in scope.nodes if not self._is_registered(n)}
        self._custom_tensors = dict(_custom_op_tensors(model, scope, custom)) if custom else {}
        self.shapes = FunctionShapes(self._graph, self._tensors, scope, frozenset(custom))

    def _is_registered(self, node: NodeDef) -> bool:
        return node.op in self._model.functions or op_def_registry.get(node.op) is not None

    def add_arguments(self, arguments: Sequence[Argument]) -> None:
        declared = [] if self._scope.function is None else self._scope.function.signature.input_arg
        if len(arguments) != len(declared):
            raise ValueError(f"{len(arguments)} argument shapes for {len(declared)} arguments")
        made = [self._argument(a, given) for a, given in zip(declared, arguments, strict=True)]
        made += [
            self._placeholder(ref, dtype, graph_edit.unknown_shape()) for ref, dtype in self._custom_tensors.items()
        ]
        self._import(made)

    def _argument(self, declared: Any, given: Argument) -> NodeDef:
        if declared.type == types_pb2.DT_RESOURCE:
            handles = declared.handle_data
            if len(handles) == 1:
                given = Handle(handles[0].dtype, shapes.from_proto(handles[0].shape))
            if isinstance(given, Handle):
                # A handle carries the shape of its variable; of the ops that can be imported, this one makes such.
                shape = _shape_attr(shapes.to_proto(given.shape))
                return self._made(
                    declared.name, make_node("", "VarHandleOp", dtype=type_attr(given.dtype), shape=shape)
                )
        return self._placeholder(declared.name, declared.type, shapes.to_proto(_shape(given)))

    def add_nodes(self, originals: Iterable[NodeDef]) -> None:
        """Adds nodes that depend on what is there and on each other only."""
        made = []
        for original in originals:
            if not self._is_registered(original):
                continue
            definition = ops.op_def(original.op, self._model)
            node = self._named(_inferable_node(original, self._keep_recorded))
            for i, slot in enumerate(ops.output_slots(original, definition)):
                self._tensors[self._ref(original, slot, i)] = (node.name, i)
            made.append(node)
        self._import(made)

    def add_call(self, call: NodeDef, results: Sequence[Shape] | None) -> None:
        """Adds what a call returns."""
        recorded = [shapes.from_proto(s) for s in _recorded(call)] if self._keep_recorded else []
        made = []
        for i, slot in enumerate(ops.output_slots(call, ops.op_def(call.op, self._model))):
            shape = results[i] if results is not None and i < len(results) else None
            if i < len(recorded):
                shape = shapes.refine(shape, recorded[i])
            made.append(self._placeholder(self._ref(call, slot, i), slot.dtype, shapes.to_proto(shape)))
        self._import(made)

    def _ref(self, node: NodeDef, slot: ops.ArgSlot, number: int) -> str:
        return graph_edit.canonical_ref(self._scope.ref(node.name, slot.arg, slot.index, number), self._scope)

    def _placeholder(self, ref: str, dtype: int, shape: Any) -> NodeDef:
        return self._made(ref, make_node("", "Placeholder", dtype=type_attr(dtype), shape=_shape_attr(shape)))

    def _made(self, ref: str, node: NodeDef) -> NodeDef:
        """Gives a node a name and its one output the reference `ref`."""
        self._tensors[ref] = (self._named(node).name, 0)
        return node

    def _named(self, node: NodeDef) -> NodeDef:
        # The names of a model may collide with those that importing in portions makes unique.
        node.name = f"n{self._count}"
        self._count += 1
        return node

    def _import(self, nodes: Sequence[NodeDef]) -> None:
        new = {node.name for node in nodes}
        existing = {}
        for node in nodes:
            for i, ref in enumerate(node.input):
                found = self._tensors.get(graph_edit.canonical_ref(ref, self._scope))
                if found is None:
                    raise ValueError(f'the tensor "{ref}" does not exist')
                operation, output = found
                node.input[i] = f"{operation}:{output}"
                if operation not in new:
                    existing[node.input[i]] = self._graph.get_operation_by_name(operation).outputs[output]
        graph_def = graph_pb2.GraphDef(node=nodes, versions=self._model.graph_def.versions)
        with self._graph.as_default():
            tf.graph_util.import_graph_def(graph_def, input_map=existing, name="")


def _shape_attr(shape: Any) -> Any:
    attr = type_attr(0)
    attr.shape.CopyFrom(shape)
    return attr


def _recorded(node: NodeDef) -> Any:
    """Shapes that the exporter recorded for the outputs of a node; loops and branches have an attribute for it."""
    for attr in (RECORDED, "output_shapes"):
        if attr in node.attr:
            return node.attr[attr].list.shape
    return ()


def _inferable_node(original: NodeDef, keep_recorded: bool) -> NodeDef:
    """A copy of a node that calls nothing."""
    if original.op == "Const" and _elements(original) > _LARGE_CONST_ELEMENTS:
        tensor = original.attr["value"].tensor
        return make_node("", "Placeholder", dtype=type_attr(tensor.dtype), shape=_shape_attr(tensor.tensor_shape))
    node = type(original)()
    node.CopyFrom(original)
    node.device = ""
    node.attr.pop("_class", None)
    if not keep_recorded:
        node.attr.pop(RECORDED, None)
    del node.input[:]
    node.input.extend(graph_edit.data_inputs(original))
    return node


def _elements(const: NodeDef) -> int:
    count = 1
    for dim in const.attr["value"].tensor.tensor_shape.dim:
        count *= dim.size
    return count


def _custom_op_tensors(model: Model, scope: Scope, unknown: dict[str, NodeDef]) -> Iterator[tuple[str, int]]:
    """Tensors that ops unknown to TensorFlow make and something uses, each with its dtype."""
    for node in scope.nodes:
        definition = None if node.name in unknown else ops.op_def(node.op, model)
        refs = graph_edit.data_inputs(node)
        slots = [s.dtype for s in ops.input_slots(node, definition)] if definition else [0] * len(refs)
        for ref, dtype in zip(refs, slots, strict=False):
            if dtype and graph_edit.producer_of(ref) in unknown:
                yield graph_edit.canonical_ref(ref, scope), dtype
    if scope.function is not None:
        for result in scope.function.signature.output_arg:
            ref = scope.function.ret[result.name]
            if graph_edit.producer_of(ref) in unknown:
                yield ref, result.type
