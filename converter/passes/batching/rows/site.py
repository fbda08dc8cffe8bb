"""One node as the rules about rows see it: its inputs' and outputs' sizes at two batch sizes, and constant operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from converter.analysis.shape_graph import FunctionShapes
from converter.graph import tensors
from converter.graph.protos import NodeDef
from converter.graph.shapes import Shape
from converter.passes.batching.rows.values import Axis, Cause, Effect


@dataclass(frozen=True)
class Extent:
    """The size of a dimension: `fixed` plus `per_row` for every row of the batch."""

    fixed: Fraction
    per_row: Fraction

    @property
    def grows(self) -> bool:
        return self.per_row != 0

    @property
    def is_rows(self) -> bool:
        """Whether it is a whole number of indices for every row."""
        return self.fixed == 0 and self.per_row > 0 and self.per_row.denominator == 1


Extents = tuple[Extent | None, ...]
"""Of the dimensions of a tensor; None for a size that inference does not know."""


def extents(shapes: Sequence[Shape], sizes: tuple[int, int]) -> Extents | None:
    """From the shapes of a tensor for batches of two sizes; None if its rank is not known."""
    first, second = shapes
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(_extent(a, b, sizes) for a, b in zip(first, second, strict=True))


def _extent(first: int | None, second: int | None, sizes: tuple[int, int]) -> Extent | None:
    if first is None or second is None:
        return None
    per_row = Fraction(second - first, sizes[1] - sizes[0])
    return Extent(first - per_row * sizes[0], per_row)


@dataclass(frozen=True)
class Site:
    """A node of a function, its data inputs and its outputs as the function spells them.

    Attributes:
      views: what is known of the function's tensors for batches of `sizes` rows.
      lists: whether its outputs are lists of tensors, of which inference tells no shape.
      by_turn: whether the node's index is the plain counter of the loop that it stands in.
    """

    node: NodeDef
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    views: tuple[FunctionShapes, FunctionShapes]
    sizes: tuple[int, int]
    lists: bool = False
    by_turn: bool = False

    def cause(self, effect: Effect, how: str) -> Cause:
        return Cause(effect, self.function, self.node.name, self.node.op, how)

    def extents(self, index: int) -> Extents | None:
        """Of input `index`."""
        return extents([view.of(self.inputs[index]) for view in self.views], self.sizes)

    def output_extents(self, index: int) -> Extents | None:
        return extents([view.of(self.outputs[index]) for view in self.views], self.sizes)

    def rank(self, index: int) -> int | None:
        known = self.extents(index)
        return None if known is None else len(known)

    def output_rank(self, index: int = 0) -> int | None:
        known = self.output_extents(index)
        return None if known is None else len(known)

    def is_single(self, index: int) -> bool:
        """Whether input `index` has one element, for all rows the same."""
        known = self.extents(index)
        return known is not None and all(e is not None and not e.grows and e.fixed == 1 for e in known)

    def constant(self, index: int) -> tensors.Array | None:
        """What input `index` holds, if it is small and the same for every batch."""
        values = self.values(index)
        return values[0] if values is not None and np.array_equal(*values) else None

    def values(self, index: int) -> tuple[tensors.Array, tensors.Array] | None:
        """What input `index` holds in a batch of each of the two sizes, if shapes decide it."""
        return self._values(self.inputs[index])

    def output_values(self, index: int) -> tuple[tensors.Array, tensors.Array] | None:
        return self._values(self.outputs[index])

    def _values(self, ref: str) -> tuple[tensors.Array, tensors.Array] | None:
        first, second = (view.value(ref) for view in self.views)
        return None if first is None or second is None else (first, second)

    def int_attr(self, name: str, default: int = 0) -> int:
        return int(self.node.attr[name].i) if name in self.node.attr else default

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.node.attr[name].b) if name in self.node.attr else default

    def text(self, name: str, default: str = "") -> str:
        return str(self.node.attr[name].s.decode()) if name in self.node.attr else default


def growing_axis(known: Extents | None) -> Axis | None:
    """Where the rows must lie in a tensor that has but one dimension for them."""
    for dim, extent in enumerate(known or ()):
        if extent is not None and extent.is_rows:
            return Axis(dim, 1, int(extent.per_row))
    return None
