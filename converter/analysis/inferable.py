"""The nodes of a model as shape inference takes them: stripped of what it does not need, or must not believe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from converter.graph import ops, refs
from converter.graph.model import Model, Scope
from converter.graph.nodes import make_node, type_attr
from converter.graph.protos import DT_INVALID, AttrValue, DataType, NodeDef, TensorShapeProto
from converter.graph.shapes import RECORDED

# Only small constants, such as the target of a Reshape, decide about shapes; large ones would cost time and memory.
LARGE_CONST_ELEMENTS = 1024


def shape_attr(shape: TensorShapeProto) -> AttrValue:
    return AttrValue(shape=shape)


def recorded_shapes(node: NodeDef) -> Sequence[TensorShapeProto]:
    """Shapes that the exporter recorded for the outputs of a node; loops and branches have an attribute for it."""
    for attr in (RECORDED, "output_shapes"):
        if attr in node.attr:
            return node.attr[attr].list.shape
    return ()


def inferable(original: NodeDef, keep_recorded: bool) -> NodeDef:
    """A copy of a node that calls nothing; a large constant is known by its shape alone."""
    if original.op == "Const" and _elements(original) > LARGE_CONST_ELEMENTS:
        tensor = original.attr["value"].tensor
        return make_node("", "Placeholder", dtype=type_attr(tensor.dtype), shape=shape_attr(tensor.tensor_shape))
    node = type(original)()
    node.CopyFrom(original)
    node.device = ""
    node.attr.pop("_class", None)
    if not keep_recorded:
        node.attr.pop(RECORDED, None)
    del node.input[:]
    node.input.extend(refs.data_inputs(original))
    return node


def _elements(const: NodeDef) -> int:
    count = 1
    for dim in const.attr["value"].tensor.tensor_shape.dim:
        count *= dim.size
    return count


def tensors_of(model: Model, scope: Scope, unknown: Collection[str]) -> Iterator[tuple[str, DataType]]:
    """Tensors that nodes of ops `unknown` to TensorFlow make and something uses, each with its dtype."""
    for node in scope.nodes:
        definition = None if node.name in unknown else ops.op_def(node.op, model)
        inputs = refs.data_inputs(node)
        slots = [s.dtype for s in ops.input_slots(node, definition)] if definition else [DT_INVALID] * len(inputs)
        for ref, dtype in zip(inputs, slots, strict=False):
            if dtype and refs.producer_of(ref) in unknown:
                yield refs.canonical_ref(ref, scope), dtype
    if scope.function is not None:
        for result in scope.function.signature.output_arg:
            ref = scope.function.ret[result.name]
            if refs.producer_of(ref) in unknown:
                yield ref, result.type
