"""The nodes of one scope in a throw-away TensorFlow graph, which infers their shapes. Nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.tensor_util import try_evaluate_constant
from tensorflow.python.ops import handle_data_util

from converter.analysis.arguments import Argument, Handle, Known, shape_of
from converter.analysis.inferable import LARGE_CONST_ELEMENTS, inferable, recorded_shapes, shape_attr, tensors_of
from converter.graph import ops, shapes, tensors
from converter.graph.model import Model, Scope
from converter.graph.nodes import const_node, make_node, type_attr
from converter.graph.protos import (
    DT_INT32,
    DT_RESOURCE,
    DT_VARIANT,
    ArgDef,
    DataType,
    FunctionDef,
    GraphDef,
    NodeDef,
    TensorShapeProto,
)
from converter.graph.refs import canonical_ref, data_inputs, maker_of, producer_of
from converter.graph.scope_index import ScopeIndex, scope_index
from converter.graph.shapes import Shape

# Ops that put an item into a list -> which of their inputs it is.
_ITEM = {"TensorListSetItem": 2, "TensorListPushBack": 1}
OpError = tf.errors.OpError
_NODE = re.compile(r"\{\{node (\w+)\}\}")  # as TensorFlow's messages name nodes
# As an argument, only a size or a shape is worth knowing; every value that comes is inferred anew.
_PASSED_ELEMENTS = 16


class FunctionShapes:
    """The shapes of all tensors of one function, or of the main graph; look-ups are made when asked for."""

    def __init__(
        self,
        graph: tf.Graph,
        tensors: dict[str, tuple[str, int]],
        lengths: dict[str, int],
        index: ScopeIndex,
        custom: frozenset[str],
    ) -> None:
        """
        Args:
          tensors: reference as the scope spells it (canonical) -> operation in the graph and output number.
          lengths: of lists that are arguments or come from calls, by reference.
          custom: nodes whose ops TensorFlow does not know.
        """
        self._graph = graph
        self._tensors = tensors
        self._lengths = lengths
        self._index = index
        self._scope = index.scope
        self._custom = custom

    def of(self, ref: str) -> Shape:
        """The shape of a tensor, spelled as an input of a node of this scope is.

        Raises:
          KeyError: there is no such tensor.
        """
        tensor = self._tensor(ref)
        return None if tensor is None or tensor.shape.rank is None else tuple(tensor.shape.as_list())

    def passed(self, ref: str) -> Argument:
        """The tensor as an argument, or a result, of a call."""
        tensor = self._tensor(ref)
        if tensor is None:
            return None
        if tensor.dtype not in (tf.resource, tf.variant):
            return self._known(ref, tensor)
        data = handle_data_util.get_resource_handle_data(tensor)
        if not data.is_set or len(data.shape_and_type) != 1:
            return self.of(ref)
        handle = Handle(data.shape_and_type[0].dtype, shapes.from_proto(data.shape_and_type[0].shape))
        item = self._last_item(ref) if tensor.dtype == tf.variant else None
        # TensorFlow tells the shape with which a list was made; what is put into it may be known better.
        put = None if item is None else self.of(item)
        length = self.length(ref) if tensor.dtype == tf.variant else None
        return Handle(handle.dtype, handle.shape if put is None else put, length)

    def length(self, ref: str) -> int | None:
        """How many elements a list has, if shapes and constants alone decide it."""
        ref = canonical_ref(ref, self._scope)
        node = self._index.producer(ref)
        if ref in self._lengths or node is None:
            return self._lengths.get(ref)
        if node.op in ("Identity", "TensorListSetItem") and not ops.grows_list(node):
            return self.length(node.input[0])
        if node.op == "TensorListFromTensor":
            shape = self.of(node.input[0])
            return shape[0] if shape else None
        number = self.value(data_inputs(node)[1]) if node.op == "TensorListReserve" else None
        return None if number is None else int(number)

    def value(self, ref: str) -> tensors.Array | None:
        """What a tensor holds, if shapes and constants alone decide it and it is small."""
        tensor = self._tensor(ref)
        if tensor is None or tensor.dtype in (tf.resource, tf.variant):
            return None
        count = tensor.shape.num_elements()
        if count is None or count > LARGE_CONST_ELEMENTS:
            return None
        value = try_evaluate_constant(tensor)
        return None if value is None else np.asarray(value)

    def _known(self, ref: str, tensor: tf.Tensor) -> Argument:
        """The shape of a tensor that is passed on, or all of it."""
        count = tensor.shape.num_elements()
        if count is None or count > _PASSED_ELEMENTS or not tensor.dtype.is_integer:
            return self.of(ref)
        value = self.value(ref)
        if value is None:
            return self.of(ref)
        return Known(tensor.dtype.as_datatype_enum, value.shape, tuple(int(v) for v in value.flat))

    def argument(self, index: int) -> Shape:
        function = self._function
        return self.of(function.signature.input_arg[index].name)

    def result(self, index: int) -> Shape:
        return shape_of(self.returned(index))

    def returned(self, index: int) -> Argument:
        """A result as what a call of the function gives."""
        function = self._function
        return self.passed(function.ret[function.signature.output_arg[index].name])

    @property
    def _function(self) -> FunctionDef:
        assert self._scope.function is not None  # the main graph has neither arguments nor results
        return self._scope.function

    def _tensor(self, ref: str) -> tf.Tensor | None:
        ref = canonical_ref(ref, self._scope)
        if ref not in self._tensors:
            if producer_of(ref) in self._custom:
                return None
            raise KeyError(ref)
        operation, output = self._tensors[ref]
        return self._graph.get_operation_by_name(operation).outputs[output]

    def _last_item(self, ref: str) -> str | None:
        """What was put last into the list `ref`."""
        node = maker_of(ref, self._index.nodes)
        return None if node is None or node.op not in _ITEM else data_inputs(node)[_ITEM[node.op]]


class ShapeGraph:
    """A graph that grows by portions of one scope's nodes, under names of its own."""

    def __init__(self, model: Model, scope: Scope, keep_recorded: bool) -> None:
        self._model = model
        self._scope = scope
        self._keep_recorded = keep_recorded
        self._graph = tf.Graph()
        self._tensors: dict[str, tuple[str, int]] = {}
        self._lengths: dict[str, int] = {}
        self._count = 0
        custom = frozenset(n.name for n in scope.nodes if not self._is_registered(n))
        self._custom_tensors = dict(tensors_of(model, scope, custom)) if custom else {}
        self.shapes = FunctionShapes(self._graph, self._tensors, self._lengths, scope_index(model, scope.name), custom)

    def _is_registered(self, node: NodeDef) -> bool:
        return node.op in self._model.functions or ops.is_registered(node.op)

    def add_arguments(self, arguments: Sequence[Argument]) -> None:
        declared = [] if self._scope.function is None else self._scope.function.signature.input_arg
        if len(arguments) != len(declared):
            raise ValueError(f"{len(arguments)} argument shapes for {len(declared)} arguments")
        made = [node for a, given in zip(declared, arguments, strict=True) for node in self._argument(a, given)]
        made += [self._placeholder(ref, dtype, shapes.to_proto(None)) for ref, dtype in self._custom_tensors.items()]
        self._import(made)

    def _argument(self, declared: ArgDef, given: Argument) -> list[NodeDef]:
        if declared.type == DT_RESOURCE and len(declared.handle_data) == 1:
            given = Handle(declared.handle_data[0].dtype, shapes.from_proto(declared.handle_data[0].shape))
        return self._value(declared.name, declared.type, given)

    def _value(self, ref: str, dtype: DataType, known: Argument) -> list[NodeDef]:
        """Nodes that give the tensor `ref`, of which this is known: a handle comes from an op that makes such."""
        if isinstance(known, Handle) and dtype == DT_RESOURCE:
            attrs = {"dtype": type_attr(known.dtype), "shape": shape_attr(shapes.to_proto(known.shape))}
            return [self._made(ref, make_node("", "VarHandleOp", **attrs))]
        if isinstance(known, Handle) and dtype == DT_VARIANT:
            if known.length is not None:
                self._lengths[ref] = known.length
            sizes = -1 if known.shape is None else [-1 if size is None else size for size in known.shape]
            inputs = [f"{ref}/element_shape", f"{ref}/max_num_elements"]
            shape = self._made(inputs[0], const_node("", np.array(sizes, np.int32)))
            room = self._made(inputs[1], const_node("", np.int32(-1)))
            attrs = {"element_dtype": type_attr(known.dtype), "shape_type": type_attr(DT_INT32)}
            return [shape, room, self._made(ref, make_node("", "EmptyTensorList", inputs, **attrs))]
        if isinstance(known, Known) and known.dtype == dtype:
            value = np.array(known.values, tensors.numpy_dtype(dtype)).reshape(known.shape)
            return [self._made(ref, const_node("", value))]
        return [self._placeholder(ref, dtype, shapes.to_proto(shape_of(known)))]

    def add_nodes(self, originals: Iterable[NodeDef]) -> None:
        """Adds nodes that depend on what is there and on each other only."""
        made = []
        for original in originals:
            if not self._is_registered(original):
                continue
            node = self._named(inferable(original, self._keep_recorded))
            for i, slot in enumerate(self._outputs(original)):
                self._tensors[self._ref(original, slot, i)] = (node.name, i)
            made.append(node)
        self._import(made)

    def add_call(self, call: NodeDef, results: Sequence[Argument] | None) -> None:
        """Adds what a call returns."""
        recorded = [shapes.from_proto(s) for s in recorded_shapes(call)] if self._keep_recorded else []
        made: list[NodeDef] = []
        for i, slot in enumerate(self._outputs(call)):
            known = results[i] if results is not None and i < len(results) else None
            if i < len(recorded) and not isinstance(known, Handle | Known):
                known = shapes.refine(known, recorded[i])
            made += self._value(self._ref(call, slot, i), slot.dtype, known)
        self._import(made)

    def _outputs(self, node: NodeDef) -> list[ops.ArgSlot]:
        definition = ops.op_def(node.op, self._model)
        assert definition is not None  # of a registered op, or of a call
        return ops.output_slots(node, definition)

    def _ref(self, node: NodeDef, slot: ops.ArgSlot, number: int) -> str:
        return canonical_ref(self._scope.ref(node.name, slot.arg, slot.index, number), self._scope)

    def _placeholder(self, ref: str, dtype: DataType, shape: TensorShapeProto) -> NodeDef:
        return self._made(ref, make_node("", "Placeholder", dtype=type_attr(dtype), shape=shape_attr(shape)))

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
                found = self._tensors.get(canonical_ref(ref, self._scope))
                if found is None:
                    raise ValueError(f'the tensor "{ref}" does not exist')
                operation, output = found
                node.input[i] = f"{operation}:{output}"
                if operation not in new:
                    existing[node.input[i]] = self._graph.get_operation_by_name(operation).outputs[output]
        graph_def = GraphDef(node=nodes, versions=self._model.graph_def.versions)
        try:
            with self._graph.as_default():
                tf.graph_util.import_graph_def(graph_def, input_map=existing, name="")
        except (ValueError, OpError) as error:
            raise ValueError(_NODE.sub(lambda found: self._named_in_model(found[1]), str(error))) from error

    def _named_in_model(self, name: str) -> str:
        ref = next((ref for ref, (operation, _) in self._tensors.items() if operation == name), name)
        return f"{{{{node {producer_of(ref)}}}}}"
