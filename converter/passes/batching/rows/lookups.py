"""Reading and writing by index among the rows of a batch: each row must look in its own place only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converter.graph import tensors
from converter.passes.batching.rows.folds import lost
from converter.passes.batching.rows.site import Site, growing_axis
from converter.passes.batching.rows.units import in_row
from converter.passes.batching.rows.values import CONSTANT, Axis, Effect, Value, either, union


def gather_rows(site: Site, values: Sequence[Value]) -> list[Value] | None:
    params, index = values[0], values[1]
    at = site.constant(2) if len(values) > 2 else np.array(0)
    rank = site.rank(0)
    if params.axis is None or at is None or not rank or params.axis.dim != int(at) % rank:
        return None
    shared = site.int_attr("batch_dims")
    if shared < 0:
        return lost(site, Effect.UNKNOWN, "looks up by dimensions that are counted from the end")
    return _looked_up(site, params, index, None, params.axis.dim - shared)


def gather_nd_rows(site: Site, values: Sequence[Value]) -> list[Value] | None:
    params, index, known = values[0], values[1], site.extents(1)
    if params.axis is None or known is None or known[-1] is None or params.axis.dim >= known[-1].fixed:
        return None
    return _looked_up(site, params, index, params.axis.dim, 0)


def crop_rows(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Of images, each box from the one that box_ind names."""
    if values[0].axis is None or values[0].axis.dim != 0:
        return None
    found = _looked_up(site, values[0], values[2], None, 0, index_input=2)
    if found is None or found[0].spoiled:
        return found
    boxes = values[1]
    if boxes.by_row and boxes.axis != values[2].axis:
        return lost(site, Effect.UNKNOWN, "meets boxes that lie in another order")
    return [replace(union([found[0], boxes], found[0].axis), place=values[0].place or boxes.place)]


def _looked_up(
    site: Site, params: Value, index: Value, component: int | None, shift: int, index_input: int = 1
) -> list[Value] | None:
    """Looks up among the rows: each row must look in its own place only."""
    if not params.by_row or params.axis is None:
        return None
    if index.axis is None:
        if site.constant(index_input) is None and not index.turn:
            return lost(site, Effect.UNKNOWN, "picks rows by an index that is no plain counter")
        return lost(site, Effect.MIXES, "gives the same row to all")
    axis = Axis(index.axis.dim + shift, index.axis.outer, index.axis.inner)
    known = site.values(index_input)
    if known is not None:
        own = _own(site, known, params.axis, index.axis, component)
        if own is None:
            if params.moved is not None:
                return lost(site, Effect.UNKNOWN, f"looks up other rows behind {params.moved}")
            return [replace(params, axis=axis, moved=site.cause(Effect.MOVES, "looks up other rows"))]
        return [replace(params, axis=axis, place=params.place or own.place, count=params.count or own.count)]
    if index.moved is not None:
        return lost(site, Effect.UNKNOWN, f"picks rows by what cannot be followed: {index.moved}")
    if index.place is None:
        return lost(site, Effect.MIXES, "looks up among all rows by what a row holds")
    if params.axis.outer != 1 or not _within(index, params.axis, component):
        return lost(site, Effect.UNKNOWN, "looks up rows by an index that need not be their own")
    return [replace(union([params, index], axis), place=params.place, count=params.count)]


def _within(index: Value, looked: Axis, component: int | None) -> bool:
    """Whether an index of a row's place and of what it holds stays in the row, and tells nothing else of it."""
    units = index.units if component is not None or len(index.units) == 1 else ()
    at = component or 0
    others = (unit for i, unit in enumerate(units) if i != at)
    return at < len(units) and units[at] == looked.inner and not any(others)


def _own(site: Site, known: Sequence[tensors.Array], looked: Axis, index: Axis, component: int | None) -> Value | None:
    """What else an index tells that names, for every row, indices of that row; None if it names others."""
    first, second = (in_row(v, s, looked, index, component) for v, s in zip(known, site.sizes, strict=True))
    if first is None or second is None:
        return None
    if any((each != each[:1]).any() for each in (first, second)):
        return Value(place=site.cause(Effect.PLACES, "looks for every row at what its place says"))
    if not np.array_equal(first[0], second[0]):
        return Value(count=site.cause(Effect.COUNTS, "looks at what the number of rows says"))
    return CONSTANT


def scatter_rows(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """Writes into a tensor, or into zeros, by index."""
    onto, index, updates = (values[0], values[1], values[2]) if site.node.op != "ScatterNd" else (CONSTANT, *values[:2])
    place = 0 if site.node.op == "ScatterNd" else 1
    if any(v.spoiled for v in (onto, index, updates)):
        return None
    known, rank = site.extents(place), site.rank(place)
    if known is None or rank is None or known[-1] is None or known[-1].grows:
        return lost(site, Effect.UNKNOWN, "writes by an index of unknown size")
    depth = int(known[-1].fixed)
    if index.axis is None:
        return _written_to_fixed_places(site, (onto, index, updates), depth, rank)
    target = onto.axis or growing_axis(site.output_extents(0))
    given = site.values(place)
    if target is None or target.dim >= depth:
        return lost(site, Effect.UNKNOWN, "writes rows by an index that cannot be followed")
    if given is None and (target.outer != 1 or not _within(index, target, target.dim)):
        return lost(site, Effect.UNKNOWN, "writes rows by an index that need not be their own")
    if updates.by_row and updates.axis != index.axis:
        return lost(site, Effect.UNKNOWN, "writes rows that lie in another order")
    own = CONSTANT if given is None else _own(site, given, target, index.axis, target.dim)
    if own is None:
        if onto.rows:
            return lost(site, Effect.MIXES, "writes to other rows")
        if updates.moved is not None:
            return lost(site, Effect.UNKNOWN, f"writes rows that stand elsewhere to other places: {updates.moved}")
        return [replace(updates, axis=target, moved=site.cause(Effect.MOVES, "writes to other rows"))]
    made = union([onto, index, updates], target)
    return [replace(made, place=onto.place or updates.place or own.place, count=made.count or own.count)]


def _written_to_fixed_places(site: Site, values: tuple[Value, Value, Value], depth: int, rank: int) -> list[Value]:
    """By an index of `rank` dimensions that is the same for every batch, and names `depth` dimensions."""
    onto, index, updates = values
    axis = updates.axis
    if axis is not None and updates.by_row:
        if axis.dim < rank - 1:
            return lost(site, Effect.UNKNOWN, "writes rows to fixed places")
        axis = replace(axis, dim=depth + axis.dim - (rank - 1))
    if onto.by_row and onto.axis is not None and onto.axis.dim < depth and not index.varies:
        return lost(site, Effect.MIXES, "writes to certain rows only")
    written = site.output_extents(0)
    if written is None or any(e is None or e.grows for e in written[:depth]):
        return lost(site, Effect.UNKNOWN, "writes to certain places among those of the rows")
    moved = replace(updates, axis=axis)
    return [either([onto, index, moved], site.cause(Effect.UNKNOWN, "writes rows into one another"))]


def segment_rows(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """UnsortedSegmentSum and its like: what is in a segment must be of the segment's own row."""
    data, ids = values[:2]
    written, rank = site.output_extents(0), site.rank(1)
    if written is None or rank is None:
        return None
    if not ids.varies and ids.axis is None:
        if data.axis is None or data.axis.dim < rank:
            return None
        return [replace(data, axis=replace(data.axis, dim=data.axis.dim - rank + 1))]
    target, given, sizes = growing_axis(written[:1]), site.values(1), site.extents(1)
    if target is None or ids.axis is None or sizes is None or sum(e is None or e.grows for e in sizes) != 1:
        return lost(site, Effect.UNKNOWN, "makes segments that cannot be followed")
    own = CONSTANT if _within(ids, target, None) else None
    if given is not None:
        own = _own(site, given, target, ids.axis, None)
    if own is None or data.axis != ids.axis:
        return lost(site, Effect.UNKNOWN, "makes segments that need not be of one row")
    return [replace(union([data, ids], target), place=data.place or own.place, count=data.count or own.count)]


def update_slice(site: Site, values: Sequence[Value]) -> list[Value] | None:
    """XlaDynamicUpdateSlice: an update as large as the tensor along the rows begins at their start."""
    old, new = site.extents(0), site.extents(1)
    axis = values[0].axis or values[1].axis
    if axis is None or old is None or new is None:
        return None
    if old[axis.dim] is None or old[axis.dim] != new[axis.dim]:
        return lost(site, Effect.UNKNOWN, "writes to a part of the rows")
    return [either(values[:2], site.cause(Effect.MIXES, "combines different rows"))]
