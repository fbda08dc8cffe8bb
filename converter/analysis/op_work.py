"""FLOPs and bytes of one op, from the shapes of what it takes and gives.

Both are figures of the graph and not of a chip: a compiler fuses ops and keeps what lies between them on the chip.

FLOPs
1. Products sum up: two operations, a multiplication and an addition, for each term. MatMul, BatchMatMul, Einsum, Conv.
2. Any other op that computes floating-point values: one operation for each element of the largest of its tensors, so
   that a Mean of [8, 100] costs 800 and an AddV2 of [8, 100] and [100] as well.
3. Casts, ops that move values, and ops on integers: none. A program inside one op (XlaCallModule) is not looked into.

Bytes: those of all tensors that the op takes and gives. Ops that pass on what they get (Identity, Reshape) or name it
(ReadVariableOp, Const) touch none; of what an op picks from (Gather, Slice), as much as it gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from converter.graph import ops, tensors
from converter.graph.protos import (
    DT_BFLOAT16,
    DT_COMPLEX64,
    DT_COMPLEX128,
    DT_DOUBLE,
    DT_FLOAT,
    DT_HALF,
    DT_RESOURCE,
    DT_STRING,
    DT_VARIANT,
    DataType,
    NodeDef,
)
from converter.graph.shapes import Shape

_FLOATING = {
    DT_HALF,
    DT_BFLOAT16,
    DT_FLOAT,
    DT_DOUBLE,
    DT_COMPLEX64,
    DT_COMPLEX128,
}
_WITHOUT_ELEMENTS = {DT_STRING, DT_RESOURCE, DT_VARIANT}
_UNTOUCHED = {
    *("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "XlaSharding"),
    *("Reshape", "Squeeze", "ExpandDims", "Const", "ReadVariableOp", "Shape", "ShapeN", "Size", "Rank", "NoOp"),
    *("Placeholder", "PlaceholderWithDefault", *ops.TPU_MARKERS),
}
_NO_COMPUTATION = ops.MOVEMENT | _UNTOUCHED | ops.VARIABLE_LOOKUPS | {"Cast", "XlaCallModule"}
_PICKS = {"Slice", "StridedSlice"} | ops.LOOKUPS | ops.VARIABLE_LOOKUPS
# What these take is known; of other products (XlaDot, gradients of filters), no terms are counted.
_CONVOLUTIONS = {"Conv", "Conv2D", "Conv3D", "DepthwiseConv2dNative"}
# Input 1 is the filter, input 2 what goes in.
_TRANSPOSED_CONVOLUTIONS = {"Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput"}


@dataclass(frozen=True)
class Work:
    """What has to be done: floating-point operations, and bytes read and written."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class TypedShape:
    """A tensor that an op takes or gives. `dtype` is that of types.proto."""

    dtype: DataType
    shape: Shape

    @property
    def elements(self) -> int:
        """Unknown dimensions, and all of a shape of unknown rank, count as 1."""
        return math.prod(1 if size is None else size for size in self.shape or ())

    @property
    def bytes(self) -> int:
        """Strings, resources and variants have none."""
        return 0 if self.dtype in _WITHOUT_ELEMENTS else self.elements * tensors.bytes_per_element(self.dtype)


def op_work(node: NodeDef, taken: Sequence[TypedShape], given: Sequence[TypedShape]) -> Work:
    """The work of a node that calls no function. `taken` and `given` are its data inputs and outputs."""
    return Work(_flops(node, taken, given), _bytes(node.op, taken, given))


def _flops(node: NodeDef, taken: Sequence[TypedShape], given: Sequence[TypedShape]) -> int:
    floats = [t for t in (*taken, *given) if t.dtype in _FLOATING]
    if node.op in _NO_COMPUTATION or not floats:
        return 0
    terms = _terms(node, taken, given)
    return max(t.elements for t in floats) if terms is None else 2 * terms


def _terms(node: NodeDef, taken: Sequence[TypedShape], given: Sequence[TypedShape]) -> int | None:
    """How many products are summed up; None for an op that sums none up."""
    family = ops.product(node.op)
    if family is ops.Product.MATRIX:
        transposed = any(attr in node.attr and node.attr[attr].b for attr in ("transpose_a", "adj_x"))
        return given[0].elements * _size(taken[0], -2 if transposed else -1)
    if family is ops.Product.EINSUM:
        return _einsum_terms(node.attr["equation"].s.decode(), taken)
    if node.op in _CONVOLUTIONS:
        # A filter is [..., in, out]; of a grouped convolution, it holds the channels of one group.
        channels = _size(taken[1], -2) if family is not ops.Product.DEPTHWISE else 1
        return given[0].elements * _window(taken[1]) * channels
    if node.op in _TRANSPOSED_CONVOLUTIONS:
        channels = _size(taken[1], -2) if family is not ops.Product.DEPTHWISE else 1
        return taken[2].elements * _window(taken[1]) * channels
    return None


def _size(tensor: TypedShape, axis: int) -> int:
    shape = tensor.shape or ()
    return (shape[axis] or 1) if len(shape) >= -axis else 1


def _window(weights: TypedShape) -> int:
    return math.prod(size or 1 for size in (weights.shape or ())[:-2])


def _einsum_terms(equation: str, taken: Sequence[TypedShape]) -> int | None:
    """One term for every combination of indices. A single operand is only summed up or transposed."""
    operands = equation.replace(" ", "").partition("->")[0].split(",")
    if len(operands) < 2:
        return None
    sizes: dict[str | int, int] = {}
    for labels, tensor in zip(operands, taken, strict=True):
        shape = tensor.shape or ()
        before, dots, after = labels.partition("...")
        ellipsis = range(len(shape) - len(before) - len(after)) if dots else range(0)
        # Dimensions under the ellipsis are counted from the right, as broadcasting does.
        named: list[str | int] = [*before, *(i - len(ellipsis) for i in ellipsis), *after]
        for label, size in zip(named, shape, strict=False):
            sizes[label] = max(sizes.get(label, 1), size or 1)
    return math.prod(sizes.values())


def _bytes(op: str, taken: Sequence[TypedShape], given: Sequence[TypedShape]) -> int:
    if op in _UNTOUCHED:
        return 0
    results = sum(t.bytes for t in given)
    if op in _PICKS:
        return 2 * results + sum(t.bytes for t in taken[1:])
    return sum(t.bytes for t in taken) + results
