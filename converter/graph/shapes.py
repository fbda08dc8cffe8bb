"""Static shapes: as tuples, as protos, as text, and as a function declares them."""

from __future__ import annotations

from collections.abc import Sequence

from converter.graph.protos import FunctionDef, TensorShapeProto

Shape = tuple[int | None, ...] | None
"""Sizes of a tensor's dimensions, None for an unknown size; None in place of all of it for an unknown rank."""

RECORDED = "_output_shapes"
"""The attribute in which the exporter recorded shapes, of a node's outputs or of an argument."""


def declared_shape(function: FunctionDef, index: int) -> Shape:
    """The shape that the exporter recorded for an argument: in its attributes, else in `_input_shapes`."""
    if index in function.arg_attr and RECORDED in function.arg_attr[index].attr:
        recorded = function.arg_attr[index].attr[RECORDED].list.shape
        if recorded:
            return from_proto(recorded[0])
    if "_input_shapes" in function.attr:
        recorded = function.attr["_input_shapes"].list.shape
        if index < len(recorded):
            return from_proto(recorded[index])
    return None


def declared_shapes(function: FunctionDef) -> list[Shape]:
    """`declared_shape` of every argument."""
    return [declared_shape(function, i) for i in range(len(function.signature.input_arg))]


def from_proto(proto: TensorShapeProto) -> Shape:
    """TensorShapeProto -> Shape."""
    return None if proto.unknown_rank else tuple(None if d.size < 0 else int(d.size) for d in proto.dim)


def to_proto(shape: Shape) -> TensorShapeProto:
    """Shape -> TensorShapeProto."""
    if shape is None:
        return TensorShapeProto(unknown_rank=True)
    dims = [TensorShapeProto.Dim(size=-1 if size is None else size) for size in shape]
    return TensorShapeProto(dim=dims)


def text(shape: Shape) -> str:
    """As TensorFlow's input signatures spell it: '[None, 4]', '[]', 'unknown rank'."""
    return "unknown rank" if shape is None else f"[{', '.join(str(size) for size in shape)}]"


def join(found: Sequence[Shape]) -> Shape:
    """What shapes have in common."""
    first = found[0]
    if first is None or any(s is None or len(s) != len(first) for s in found):
        return None
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*[s or () for s in found], strict=True))


def fits(shape: Shape, other: Shape) -> bool:
    """Whether `shape` is `other`, or knows more of the same."""
    if other is None or shape is None:
        return other is None
    return len(shape) == len(other) and all(b is None or a == b for a, b in zip(shape, other, strict=True))


def refine(shape: Shape, other: Shape) -> Shape:
    """`shape` with what `other` knows besides; where they contradict each other, `shape` is right."""
    if shape is None:
        return other
    if other is None or len(other) != len(shape):
        return shape
    return tuple(b if a is None else a for a, b in zip(shape, other, strict=True))
