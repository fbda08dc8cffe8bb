"""Indices that stay within their own row, as those that pick one of the beams of each row do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.graph import tensors
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import Axis, Value

# Of what is false of such indices: none is negative.
_NEVER = (0,)
_PARTS = {"BroadcastTo", "Slice", "StridedSlice", "Tile", "Transpose"}
_BY_NUMBER = {"Slice", "StridedSlice"}
_COPIES = {"Cast", "EnsureShape", "ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient"}


def units_of(site: Site, values: Sequence[Value]) -> tuple[int | None, ...]:
    """The units of a node's output; empty if it gives no such indices."""
    op, rank, known = site.node.op, site.output_rank(), site.output_extents(0)
    if sum(e is None or e.grows for e in known or ()) > 1:
        return ()  # of two dimensions one may be that of the places, and the other that of the rows
    if op in _COPIES:
        return values[0].units if len(values[0].units) == 1 or _keeps_components(site, len(values[0].units)) else ()
    if op in _PARTS:
        fixed = op not in _BY_NUMBER or not any(v.count for v in values[1:])
        return values[0].units if len(values[0].units) == 1 and fixed else ()
    if op == "Less" and values[0].units and site.constant(1) is not None and not np.any(site.constant(1)):
        return _NEVER
    if op == "SelectV2" and values[0].units == _NEVER:
        return values[2].units
    if op in ("Add", "AddV2"):
        return _sum(site, values)
    if rank is None:
        return ()
    if op == "Pack" and site.int_attr("axis") in (-1, rank - 1):
        return _components(site, values)
    axis = site.constant(len(values) - 1) if op == "ConcatV2" else None
    if axis is not None and int(axis) in (-1, rank - 1):
        widths = [known[-1] for i in range(len(values) - 1) if (known := site.extents(i))]
        if all(w is not None and not w.grows and w.fixed == 1 for w in widths):
            return _components(site, values[:-1])
    return ()


def _keeps_components(site: Site, count: int) -> bool:
    before, after = site.extents(0), site.output_extents(0)
    ends = [known[-1] if known else None for known in (before, after)]
    return all(end is not None and not end.grows and end.fixed == count for end in ends)


def _components(site: Site, values: Sequence[Value]) -> tuple[int | None, ...]:
    found = tuple(_unit(site, i, value, exact=False) for i, value in enumerate(values))
    told = all(unit or not (v.place or v.count) for unit, v in zip(found, values, strict=True))
    return found if any(found) and told else ()


def _sum(site: Site, values: Sequence[Value]) -> tuple[int | None, ...]:
    """The first index of each row, and what its data say: those are taken to be less than what a row has."""
    for i, j in ((0, 1), (1, 0)):
        unit = _unit(site, i, values[i], exact=True)
        if unit is not None and unit > 1 and values[j].place is None and values[j].count is None:
            return (unit,)
    return ()


def _unit(site: Site, index: int, value: Value, *, exact: bool) -> int | None:
    """`exact`: that it is the first of its row's."""
    if len(value.units) == 1:
        return None if exact else value.units[0]
    known, axis = site.values(index), value.axis
    if known is None or axis is None or value.place is None:
        return None
    found = set()
    within = True
    for given, rows in zip(known, site.sizes, strict=True):
        shape = [-1 if d == axis.dim else 1 for d in range(given.ndim)]
        row = np.broadcast_to((np.arange(given.shape[axis.dim]) // axis.inner % rows).reshape(shape), given.shape)
        unit = int(given[row == 1].flat[0])
        told = in_row(given, rows, axis, axis, None)
        within = within and told is not None and bool((told == told[:1]).all())
        found.add(unit if np.array_equal(given, row * unit) else 0)
    (unit,) = found if len(found) == 1 else (0,)
    if unit > 0:
        return unit
    return axis.inner if within and not exact else None


def in_row(values: tensors.Array, rows: int, looked: Axis, index: Axis, component: int | None) -> tensors.Array | None:
    """For every row, where within its own an index looks; None if it looks at other rows."""
    named = values if component is None else values[..., component]
    size = named.shape[index.dim]
    own = (np.arange(size) // index.inner % rows).reshape([-1 if d == index.dim else 1 for d in range(named.ndim)])
    if size != index.outer * rows * index.inner or np.any(named // looked.inner % rows != own):
        return None
    within = named // (looked.inner * rows) * looked.inner + named % looked.inner
    if component is None:
        values = within
    else:
        values = values.copy()
        values[..., component] = within
    split = (*values.shape[: index.dim], index.outer, rows, index.inner, *values.shape[index.dim + 1 :])
    return np.moveaxis(values.reshape(split), index.dim + 1, 0)
