"""Ops that move the rows of a batch: into other dimensions, into blocks, by index, into lists and out of them.

Each rule takes the node and the values of its inputs, and gives those of its outputs; None where the op does nothing of
the kind to the rows and its labels say enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from converter.passes.batching.rows.site import Extent, Extents, Site
from converter.passes.batching.rows.values import CONSTANT, Axis, Effect, Value, spoiled, union

Fold = Callable[[Site, Sequence[Value]], list[Value] | None]


def lost(site: Site, effect: Effect, how: str) -> list[Value]:
    return [spoiled(site.cause(effect, how))] * len(site.outputs)


# --- sizes and places ---------------------------------------------------------------------------------------------


def sizes(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Shape, ShapeN, Size: the number of rows, unless no input grows with it."""
    found = []
    for i, value in enumerate(values):
        if value.axis is None and not value.varies:
            found.append(CONSTANT)
            continue
        known = site.output_values(i)
        if known is not None and np.array_equal(*known):
            found.append(CONSTANT)
        else:
            effect = Effect.COUNTS if known is not None else Effect.UNKNOWN
            found.append(Value(count=site.cause(effect, "gives the number of rows in the batch")))
    return found


def numbers(site: Site, values: Sequence[Value]) -> list[Value] | None:
    if any(v.spoiled or v.rows or v.turn for v in values):
        return None
    if not any(v.count for v in values):
        return [CONSTANT] * len(site.outputs)
    return [Value(place=site.cause(Effect.PLACES, "numbers the rows of the batch"))] * len(site.outputs)


# --- blocks -------------------------------------------------------------------------------------------------------


def reshape(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """[b, t, d] to [b * t, d] and back: what stands before the rows, and behind, must still be whole dimensions."""
    value = values[0]
    if value.axis is None:
        return [value]
    before, target = site.extents(0), site.output_extents(0)
    first = next((d for d, e in enumerate(target or ()) if e is None or e.grows or e.fixed != 1), None)
    if before is not None and target is not None and first is not None and _leads(before, value.axis):
        extent = target[first]
        if extent is not None and extent.is_rows and extent.per_row == 1:
            return [replace(value, axis=Axis(first))]
    around = None if before is None else _around(before, value.axis)
    if around is None:
        return unless_constant(site, value, Effect.UNKNOWN, "reshapes a tensor of which not all sizes are known")
    front, back = around
    after = _completed(site.output_extents(0), front * back)
    growing = [d for d, e in enumerate(after or ()) if e is not None and e.grows]
    if after is None or len(growing) != 1:
        return unless_constant(site, value, Effect.UNKNOWN, "reshapes the rows to sizes that are not known")
    (dim,) = growing
    extent = after[dim]
    if extent is None or not extent.is_rows:
        return unless_constant(site, value, Effect.UNKNOWN, "splits the rows into groups")
    ahead = math.prod(int(e.fixed) for e in after[:dim] if e is not None)
    outer, rest = divmod(front, ahead) if ahead else (0, 1)
    if rest == 0 and outer > 0 and int(extent.per_row) % outer == 0:
        return [replace(value, axis=Axis(dim, outer, int(extent.per_row) // outer))]
    if extent.per_row == 1:
        return unless_constant(site, value, Effect.MOVES, f"makes a dimension {dim} of the rows in which they mix")
    return unless_constant(site, value, Effect.UNKNOWN, "lays the rows into one another")


def _leads(known: Extents, axis: Axis) -> bool:
    """Whether rows are what the first dimension counts first: what belongs to one stands together."""
    return axis.outer == 1 and all(e is not None and not e.grows and e.fixed == 1 for e in known[: axis.dim])


def unless_constant(site: Site, value: Value, effect: Effect, how: str) -> list[Value]:
    """The value is lost, unless it is the same for all rows."""
    if value.by_row:
        return lost(site, effect, how)
    return [replace(value, axis=None)] * len(site.outputs)


def _around(known: Extents, axis: Axis) -> tuple[int, int] | None:
    """How many indices there are before and behind a row; None if a size is not known."""
    parts = []
    for extents in (known[: axis.dim], known[axis.dim + 1 :]):
        sizes = [e.fixed for e in extents if e is not None and not e.grows]
        if len(sizes) != len(extents):
            return None
        parts.append(int(math.prod(sizes)))
    return parts[0] * axis.outer, parts[1] * axis.inner


def _completed(known: Extents | None, per_row: int) -> Extents | None:
    """The sizes of a tensor of `per_row` elements a row, of which one is not known; None if several are not."""
    if known is None or sum(e is None for e in known) > 1:
        return None
    if None not in known:
        return known
    others = [e for e in known if e is not None]
    given = math.prod(e.per_row if e.grows else e.fixed for e in others)
    if given == 0 or sum(e.grows for e in others) > 1:
        return None
    size = Fraction(per_row) / given
    missing = Extent(size, Fraction(0)) if any(e.grows for e in others) else Extent(Fraction(0), size)
    return tuple(missing if e is None else e for e in known)


def concat_blocks(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Of blocks of rows: as many outer indices as blocks."""
    first = site.node.op == "Concat"
    parts = list(values[1:] if first else values[:-1])
    axis = site.constant(0 if first else len(values) - 1)
    ranks = [site.rank(i + first) for i in range(len(parts))]
    if axis is None or None in ranks or not ranks[0]:
        return None
    dim = int(axis) % ranks[0]
    along = [v for v in parts if v.axis is not None and v.axis.dim == dim]
    if not any(v.by_row for v in along):
        return None
    folds = {v.axis for v in along}
    (fold,) = folds if len(folds) == 1 else (None,)
    orders = {v.moved is None for v in along}
    if len(along) < len(parts) or fold is None or fold.outer != 1 or len(orders) > 1:
        return lost(site, Effect.UNKNOWN, "puts other things behind the rows")
    return [union(parts, Axis(dim, len(parts), fold.inner))]


def split_blocks(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Blocks of rows come apart again."""
    of, by = (1, 0) if site.node.op == "Split" else (0, 2)
    value, at, rank = values[of], site.constant(by), site.rank(of)
    if value.axis is None or at is None or not rank or value.axis.dim != int(at) % rank or not value.by_row:
        return None
    found = []
    for i in range(len(site.outputs)):
        known = site.output_extents(i)
        extent = None if known is None else known[value.axis.dim]
        blocks = None if extent is None or not extent.is_rows else extent.per_row / value.axis.inner
        if blocks is None or blocks.denominator != 1 or blocks > value.axis.outer:
            if value.moved is not None:
                return lost(site, Effect.UNKNOWN, f"splits rows that stand elsewhere: {value.moved}")
            return lost(site, Effect.PICKS, "splits the rows of the batch")
        found.append(replace(value, axis=Axis(value.axis.dim, int(blocks), value.axis.inner)))
    return found


def part_of_blocks(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Slice and StridedSlice of whole blocks of rows."""
    axis, known, begin = values[0].axis, site.output_extents(0), site.values(1)
    moved = any(site.int_attr(f"{m}_mask") for m in ("ellipsis", "new_axis", "shrink_axis"))
    if axis is None or axis.outer == 1 or known is None or begin is None or moved or axis.dim >= len(begin[0]):
        return None
    block = [axis.inner * size for size in site.sizes]
    skipped = [0 if site.int_attr("begin_mask") >> axis.dim & 1 else int(b[axis.dim]) for b in begin]
    strides = site.constant(3) if len(values) > 3 else None
    extent = known[axis.dim]
    if any(s % b for s, b in zip(skipped, block, strict=True)):
        return None
    if len(values) > 3 and (strides is None or strides[axis.dim] != 1):
        return None
    if extent is None or not extent.is_rows or extent.per_row % axis.inner:
        return None
    return [replace(values[0], axis=replace(axis, outer=int(extent.per_row) // axis.inner))]


def tile(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Copies of all rows, one behind the other."""
    axis, before, after = values[0].axis, site.extents(0), site.output_extents(0)
    if axis is None or before is None:
        return None
    times = site.values(1)
    if times is not None and times[0][axis.dim] == times[1][axis.dim]:
        copies = int(times[0][axis.dim])
        return [replace(values[0], axis=replace(axis, outer=axis.outer * copies))] if copies else None
    old, new = before[axis.dim], None if after is None else after[axis.dim]
    if old is None or new is None or not old.is_rows or not new.is_rows:
        return unless_constant(site, values[0], Effect.UNKNOWN, "repeats the rows an unknown number of times")
    return [replace(values[0], axis=Axis(axis.dim, axis.outer * int(new.per_row / old.per_row), axis.inner))]


def space_to_batch(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return _blocks(site, values[0], lambda axis, count: axis.outer * count)


def batch_to_space(site: Site, values: Sequence[Value]) -> list[Value] | None:
    return _blocks(site, values[0], lambda axis, count: axis.outer / count)


def _blocks(site: Site, value: Value, outer: Callable[[Axis, int], float]) -> list[Value] | None:
    sizes = site.constant(1)
    if value.axis is None or not value.by_row:
        return None
    blocks = None if sizes is None else outer(value.axis, int(np.prod(sizes)))
    if value.axis.dim or blocks is None or blocks != int(blocks):
        return lost(site, Effect.UNKNOWN, "moves the rows in blocks that cannot be followed")
    return [replace(value, axis=Axis(0, int(blocks), value.axis.inner))]
