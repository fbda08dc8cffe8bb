"""Static shapes inside a function, by TensorFlow's own shape inference.

The function's body is imported into a throw-away graph, its arguments as placeholders. Nothing runs. Calls are
followed into what they call; those that TensorFlow cannot follow (the TPU's, the batching op's) become calls that it
can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2, tensor_shape_pb2, types_pb2
from tensorflow.python.framework import op_def_registry

from converter import graph_edit, ops, tpu
from converter.errors import ConversionError
from converter.graph_edit import make_node, type_attr
from converter.model import MAIN_GRAPH, FunctionDef, Model, NodeDef, Scope

Shape = tuple[int | None, ...] | None
"""Sizes of a tensor's dimensions, None for an unknown size; None in place of all of it for an unknown rank."""

_RECORDED = "_output_shapes"
_FOLLOWED = ("PartitionedCall", "StatefulPartitionedCall", tpu.TPU_CALL, tpu.BATCH_CALL)
_CALL = "StatefulPartitionedCall"
# Only small constants, such as the target of a Reshape, decide about shapes; large ones would cost time and memory.
_LARGE_CONST_ELEMENTS = 1024


class ShapeInferenceError(ConversionError):
    """A body cannot compute arguments of these shapes: two of its tensors do not fit each other."""


@dataclass(frozen=True)
class FunctionShapes:
    """The shapes of all tensors of one function, or of the main graph; look-ups are made when asked for."""

    _graph: Any
    _tensors: dict[str, tuple[str, int]]
    """Reference as the scope spells it (canonical) -> operation in the graph and output number."""
    _arguments: tuple[str, ...]
    _results: tuple[str, ...]
    _custom: frozenset[str]
    """Nodes whose ops TensorFlow does not know."""
    _main: bool

    def of(self, ref: str) -> Shape:
        """The shape of a tensor, spelled as an input of a node of this scope is.

        Raises:
          KeyError: there is no such tensor.
        """
        if self._main and ":" not in ref:
            ref = f"{ref}:0"
        found = self._tensors.get(ref)
        if found is None and graph_edit.producer_of(ref) in self._custom:
            return None
        if found is None:
            raise KeyError(ref)
        operation, output = found
        shape = self._graph.get_operation_by_name(operation).outputs[output].shape
        return None if shape.rank is None else tuple(shape.as_list())

    def argument(self, index: int) -> Shape:
        return self.of(self._arguments[index])

    def result(self, index: int) -> Shape:
        return self.of(self._results[index])


def infer(model: Model, function_name: str, argument_shapes: Sequence[Shape] | None = None) -> FunctionShapes:
    """Shapes in the body of a function of the library, or in the main graph (`model.MAIN_GRAPH`).

    Args:
      argument_shapes: one for each argument; without them, the shapes that the exporter recorded.

    Raises:
      ShapeInferenceError: the body cannot compute arguments of these shapes.
    """
    scope = model.main_scope() if function_name == MAIN_GRAPH else model.scope(function_name)
    given = argument_shapes
    if given is None and scope.function is not None:
        given = [declared_shape(scope.function, i) for i in range(len(scope.function.signature.input_arg))]
    return _Inference(model).scope(scope, tuple(given or ()))


class _Inference:
    """One call of `infer`, with what it found out about the functions on the way."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._graph = _CallGraph(model)
        self._results: dict[tuple[str, tuple[Shape, ...]], list[Shape] | None] = {}

    def scope(self, scope: Scope, arguments: tuple[Shape, ...]) -> FunctionShapes:
        keep_recorded, known = True, dict[str, list[Shape]]()
        controlled = [node for node in scope.nodes if self._reaches_control_flow(node)]
        while True:
            try:
                shapes = _import(self._model, scope, arguments, known, keep_recorded)
            except (ValueError, tf.errors.OpError) as error:
                if not keep_recorded:
                    raise ShapeInferenceError(
                        f'The shapes inside "{scope.name}" cannot be inferred for arguments of the shapes '
                        f"{', '.join(text(s) for s in arguments) or 'none'}: {error}. Check that the function can "
                        "compute such arguments."
                    ) from error
                # Shapes that were recorded for other arguments may contradict these: they are knowledge, not truth.
                keep_recorded, known = False, {}
                continue
            # TensorFlow takes the shapes that a loop or branch declares; what they compute may say more, and what is
            # known of one may tell more about the next.
            better = {node.name: s for node in controlled if (s := self._outputs(node, scope, shapes)) is not None}
            if better == known:
                return shapes
            known = better

    def _reaches_control_flow(self, node: NodeDef) -> bool:
        called = graph_edit.called_functions(node, self._model)
        if node.op in (*ops.BRANCHES, *ops.LOOPS) or not called:
            return bool(called)
        return any(
            inner.op in (*ops.BRANCHES, *ops.LOOPS)
            for name in graph_edit.reachable(self._graph, called)
            for inner in self._model.functions[name].node_def
        )

    def _outputs(self, node: NodeDef, scope: Scope, shapes: FunctionShapes) -> list[Shape] | None:
        """Shapes of what a call, branch or loop returns for the inputs that it has; None if nothing can be said."""
        given = [shapes.of(ref) for ref in graph_edit.data_inputs(node)]
        if node.op in ops.LOOPS:
            return self._loop(node.attr["body"].func.name, given)
        called = graph_edit.called_functions(node, self._model)
        if node.op in ops.BRANCHES:
            branches = [self._function(name, given[1:]) for name in called]
            return [join(each) for each in zip(*branches, strict=True)] if all(branches) else None
        if node.op == tpu.TPU_CALL:
            given = given[:-1]
        return self._function(called[0], given) if node.op in _FOLLOWED or node.op == called[0] else None

    def _loop(self, body: str, variables: list[Shape]) -> list[Shape] | None:
        while True:
            results = self._function(body, variables)
            if results is None:
                return None
            joined = [join(pair) for pair in zip(variables, results, strict=True)]
            if joined == variables:
                return variables
            variables = joined

    def _function(self, name: str, arguments: list[Shape]) -> list[Shape] | None:
        key = (name, tuple(arguments))
        if key not in self._results:
            self._results[key] = None  # what a recursive function sees of itself
            function = self._model.functions[name]
            try:
                inside = self.scope(Scope.of(function), key[1])
            except ShapeInferenceError:
                return None
            self._results[key] = [inside.result(i) for i in range(len(function.signature.output_arg))]
        return self._results[key]


def declared_shape(function: FunctionDef, index: int) -> Shape:
    """The shape that the exporter recorded for an argument: in its attributes, else in `_input_shapes`."""
    if index in function.arg_attr and _RECORDED in function.arg_attr[index].attr:
        recorded = function.arg_attr[index].attr[_RECORDED].list.shape
        if recorded:
            return from_proto(recorded[0])
    if "_input_shapes" in function.attr:
        recorded = function.attr["_input_shapes"].list.shape
        if index < len(recorded):
            return from_proto(recorded[index])
    return None


def from_proto(proto: Any) -> Shape:
    """TensorShapeProto -> Shape."""
    return None if proto.unknown_rank else tuple(None if d.size < 0 else int(d.size) for d in proto.dim)


def to_proto(shape: Shape) -> Any:
    """Shape -> TensorShapeProto."""
    if shape is None:
        return tensor_shape_pb2.TensorShapeProto(unknown_rank=True)
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=-1 if size is None else size) for size in shape]
    return tensor_shape_pb2.TensorShapeProto(dim=dims)


def text(shape: Shape) -> str:
    """As TensorFlow's input signatures spell it: '[None, 4]', '[]', 'unknown rank'."""
    return "unknown rank" if shape is None else f"[{', '.join(str(size) for size in shape)}]"


def join(found: Sequence[Shape]) -> Shape:
    """What shapes have in common."""
    first = found[0]
    if first is None or any(s is None or len(s) != len(first) for s in found):
        return None
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*[s or () for s in found], strict=True))


def _import(
    model: Model, scope: Scope, shapes: Sequence[Shape], known: Mapping[str, Sequence[Shape]], keep_recorded: bool
) -> FunctionShapes:
    """`known`: outputs of some nodes, to add to what TensorFlow infers."""
    nodes, tensors, custom = _inferable(model, scope, keep_recorded)
    for node in nodes:
        if node.name in known:
            node.attr[_RECORDED].CopyFrom(graph_edit.shape_list_attr(to_proto(s) for s in known[node.name]))
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    graph_def = graph_pb2.GraphDef(versions=model.graph_def.versions)
    if scope.function is not None:
        declared = scope.function.signature.input_arg
        if len(shapes) != len(declared):
            raise ValueError(f"{len(shapes)} argument shapes for {len(declared)} arguments")
        arguments = tuple(a.name for a in declared)
        results = tuple(scope.function.ret[r.name] for r in scope.function.signature.output_arg)
        graph_def.node.extend(_argument_node(a, s) for a, s in zip(declared, shapes, strict=True))
        tensors.update((a, (a, 0)) for a in arguments)
    graph_def.node.extend(_flat_refs(node, tensors) for node in nodes)
    called = dict.fromkeys(f for node in scope.nodes for f in graph_edit.called_functions(node, model))
    for name in graph_edit.reachable(_CallGraph(model), called):
        graph_def.library.function.append(_inferable_function(model, name))
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return FunctionShapes(graph, tensors, arguments, results, frozenset(custom), scope.function is None)


class _CallGraph(dict[str, list[str]]):
    """`graph_edit.call_graph`, of those functions only that are asked for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def get(self, name: str, default: Any = ()) -> Any:
        nodes = self._model.functions[name].node_def if name in self._model.functions else ()
        return [f for node in nodes for f in graph_edit.called_functions(node, self._model)]


def _argument_node(argument: Any, shape: Shape) -> NodeDef:
    handles = argument.handle_data
    if argument.type == types_pb2.DT_RESOURCE and len(handles) == 1:
        # A handle carries the shape of its variable; of the ops that can be imported, this one makes such a handle.
        return make_node(
            argument.name, "VarHandleOp", dtype=type_attr(handles[0].dtype), shape=_shape_attr(handles[0].shape)
        )
    return _placeholder(argument.name, argument.type, to_proto(shape))


def _placeholder(name: str, dtype: int, shape: Any) -> NodeDef:
    return make_node(name, "Placeholder", dtype=type_attr(dtype), shape=_shape_attr(shape))


def _shape_attr(shape: Any) -> Any:
    attr = type_attr(0)
    attr.shape.CopyFrom(shape)
    return attr


def _inferable_function(model: Model, name: str) -> FunctionDef:
    """A copy of a function that TensorFlow can instantiate and follow."""
    function = function_pb2.FunctionDef()
    function.CopyFrom(model.functions[name])
    nodes, tensors, _ = _inferable(model, model.scope(name), keep_recorded=False)
    # In a function the replaced nodes are spelled by their own output args, and all of those are called "output".
    replaced = {n.name for n in nodes if n.op in (_CALL, "Placeholder")}
    renamed = {ref: f"{operation}:output:{i}" for ref, (operation, i) in tensors.items() if operation in replaced}
    graph_edit.replace_body(function, nodes, dict(function.ret), control=[])
    graph_edit.rewire(Scope.of(function), renamed)
    return function


def _inferable(
    model: Model, scope: Scope, keep_recorded: bool
) -> tuple[list[NodeDef], dict[str, tuple[str, int]], dict[str, NodeDef]]:
    """Copies of the nodes of a scope that TensorFlow can infer, where each tensor is among them, and unknown nodes."""
    nodes: list[NodeDef] = []
    tensors: dict[str, tuple[str, int]] = {}
    unknown: dict[str, NodeDef] = {}
    for original in scope.nodes:
        definition = ops.op_def(original.op, model)
        if definition is None or not (original.op in model.functions or op_def_registry.get(original.op)):
            unknown[original.name] = original
            continue
        for i, slot in enumerate(ops.output_slots(original, definition)):
            tensors[graph_edit.canonical_ref(scope.ref(original.name, slot.arg, slot.index, i), scope)] = (
                original.name,
                i,
            )
        nodes.append(_inferable_node(original, keep_recorded))
    for ref, dtype in _custom_op_tensors(model, scope, unknown):
        name = "custom_op/" + "/".join(ref.split(":"))
        nodes.append(_placeholder(name, dtype, graph_edit.unknown_shape()))
        tensors[ref] = (name, 0)
    return nodes, tensors, unknown


def _inferable_node(original: NodeDef, keep_recorded: bool) -> NodeDef:
    node = type(original)()
    if original.op == "Const" and _elements(original) > _LARGE_CONST_ELEMENTS:
        tensor = original.attr["value"].tensor
        return _placeholder(original.name, tensor.dtype, tensor.tensor_shape)
    node.CopyFrom(original)
    node.device = ""
    node.attr.pop("_class", None)
    if not keep_recorded:
        node.attr.pop(_RECORDED, None)
    del node.input[:]
    node.input.extend(graph_edit.data_inputs(original))
    if node.op in (tpu.TPU_CALL, tpu.BATCH_CALL):
        _as_plain_call(node)
    return node


def _as_plain_call(node: NodeDef) -> None:
    arguments = list(node.attr["Tin"].list.type) if "Tin" in node.attr else []
    if node.op == tpu.TPU_CALL:
        del node.input[-1]  # the TPU ordinal
    elif "Tcaptured" in node.attr:
        arguments += node.attr["Tcaptured"].list.type
    kept = {k: node.attr[k] for k in ("f", "Tout", _RECORDED) if k in node.attr}
    node.CopyFrom(make_node(node.name, _CALL, node.input, Tin=graph_edit.type_list_attr(arguments), **kept))


def _elements(const: NodeDef) -> int:
    count = 1
    for dim in const.attr["value"].tensor.tensor_shape.dim:
        count *= dim.size
    return count


def _custom_op_tensors(model: Model, scope: Scope, unknown: dict[str, NodeDef]) -> Iterator[tuple[str, int]]:
    """Tensors that ops unknown to TensorFlow make and something uses, each with its dtype."""
    used: dict[str, int] = {}
    for node in scope.nodes:
        definition = None if node.name in unknown else ops.op_def(node.op, model)
        refs = graph_edit.data_inputs(node)
        slots = [s.dtype for s in ops.input_slots(node, definition)] if definition else [0] * len(refs)
        for ref, dtype in zip(refs, slots, strict=False):
            if dtype and graph_edit.producer_of(ref) in unknown:
                used[graph_edit.canonical_ref(ref, scope)] = dtype
    if scope.function is not None:
        for result in scope.function.signature.output_arg:
            ref = scope.function.ret[result.name]
            if graph_edit.producer_of(ref) in unknown:
                used[ref] = result.type
    yield from used.items()


def _flat_refs(node: NodeDef, tensors: dict[str, tuple[str, int]]) -> NodeDef:
    """Spells the inputs of a node as the main graph does."""
    for i, ref in enumerate(node.input):
        operation, output = tensors.get(ref) or tensors[f"{ref}:0"]
        node.input[i] = f"{operation}:{output}"
    return node
