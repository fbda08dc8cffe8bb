"""What one node does to the rows of a batch: its inputs' values give its outputs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from converter.graph import ops, tensors
from converter.passes.batching.rows.clamps import clamped
from converter.passes.batching.rows.labels import PART, UNSURE, Label, Labels
from converter.passes.batching.rows.moved import behind, moved_again, reorders
from converter.passes.batching.rows.ops import fold_of, labels_of
from converter.passes.batching.rows.site import Extents, Site, growing_axis
from converter.passes.batching.rows.steady import is_steady
from converter.passes.batching.rows.units import units_of
from converter.passes.batching.rows.values import ROWS, Axis, Cause, Effect, Value, is_mixed, spoiled, union, worst

# Inputs that say how large or where, and are no part of what comes out.
_TABLE: tuple[tuple[str, tuple[int, ...]], ...] = (
    (
        """All Any ArgMax ArgMin BatchToSpaceND Bincount BroadcastTo Cumprod Cumsum CumulativeLogsumexp DenseBincount
        EuclideanNorm ExpandDims Max Mean Min MirrorPad Multinomial OneHot Pad PadV2 Prod ReduceJoin Reshape ResizeArea
        ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseV2 SpaceToBatchND Sum TensorListFromTensor
        TensorListSetItem TensorListStack Tile TopKV2 Transpose""",
        (1,),
    ),
    (
        "Concat Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput Fill RandomStandardNormal "
        " RandomUniform RandomUniformInt Split TruncatedNormal",
        (0,),
    ),
    ("ConcatV2", (-1,)),
    (
        "GatherV2 LinSpace ScatterNd UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum "
        "XlaDynamicUpdateSlice",
        (2,),
    ),
    ("EmptyTensorList TensorListReserve", (0, 1)),
    ("Roll Slice SplitV TensorListGetItem XlaDynamicSlice", (1, 2)),
    ("StridedSlice", (1, 2, 3)),
    ("Range", (0, 1, 2)),
)
_SETTINGS = {op: settings for names, settings in _TABLE for op in names.split()}
# Of these, settings decide about sizes alone.
_SIZES_ONLY = {"Reshape", "Fill", "BroadcastTo", "Tile", "RandomUniform", "RandomStandardNormal", "TruncatedNormal"}
_SIZES_ONLY |= {"Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput"}


_PARTS = {"Slice", "StridedSlice"}


def transfer(site: Site, values: Sequence[Value]) -> list[Value]:
    """The values of a node's outputs, for a node that calls nothing."""
    settings = {i % len(values) for i in _SETTINGS.get(site.node.op, ()) if values}
    data = [v for i, v in enumerate(values) if i not in settings]
    steady = is_steady(site, values)
    found = _transferred(site, values, data, settings)
    if not steady and site.node.op in _SIZES_ONLY:
        found = [replace(v, count=v.count or _unsteady(site, values, settings)) for v in found]
    laid = any(v.axis for v in data)
    found = [_checked(site, i, v, steady=steady, laid=laid) for i, v in enumerate(found)]
    units = units_of(site, values) if any(v.place for v in found) else ()
    return [replace(v, units=units) for v in clamped(site, values, found)]


def _unsteady(site: Site, values: Sequence[Value], settings: set[int]) -> Cause | None:
    """What sizes are made of that are the same for two numbers of rows and need not be for others."""
    counts = (values[i].count for i in sorted(settings) if values[i].count and site.constant(i) is not None)
    return next(counts, None)


def _transferred(site: Site, values: Sequence[Value], data: Sequence[Value], settings: set[int]) -> list[Value]:
    count = len(site.outputs)
    bad = worst(v.spoiled for v in data)
    picked = site.node.op in ops.LOOKUPS and bad is not None and bad is values[1].spoiled and values[0].rows
    # Rows that were put in another order may be put back into theirs.
    if picked and (values[0].spoiled is None or values[0].spoiled.effect is Effect.UNKNOWN) and _many(site):
        return [spoiled(site.cause(Effect.UNKNOWN, f"picks rows by what cannot be followed: {bad}"))] * count
    if bad is not None:
        known = bad.effect is Effect.UNKNOWN or fold_of(site.node.op) is not None or labels_of(site) is not None
        unknown = f"is an op that the converter cannot follow, behind {bad}"
        return [spoiled(behind(site, data, bad) if known else site.cause(Effect.UNKNOWN, unknown))] * count
    set_by = [values[i] for i in sorted(settings)]
    if any(v.spoiled or v.rows for v in set_by):
        return [spoiled(site.cause(Effect.UNKNOWN, "has a size or a place that the rows decide together"))] * count
    fold = fold_of(site.node.op)
    found = None if fold is None else fold(site, values)
    if found is not None:
        return found
    if is_mixed(values):
        return [spoiled(site.cause(Effect.MIXES, "combines the row of a loop's turn with other rows"))] * count
    if any(v.turn for v in values):
        return [union(values, None)] * count
    if not any(v.axis for v in data):
        made = union(data, None)
        if site.node.op not in _SIZES_ONLY:
            made = replace(made, count=made.count or next((v.count for v in set_by if v.count), None))
        return [made] * count
    labels = labels_of(site)
    if labels is not None:
        return _labelled(site, labels, values, settings)
    if any(v.rows for v in data):
        return [spoiled(site.cause(Effect.UNKNOWN, "is an op whose rows the converter cannot follow"))] * count
    return [union(data, None)] * count


def _many(site: Site) -> bool:
    """Whether there may be as many indices as rows: the same index for all rows surely mixes them."""
    known = site.extents(1)
    return known is None or any(e is None or e.grows for e in known)


def _labelled(site: Site, labels: Labels, values: Sequence[Value], settings: set[int]) -> list[Value]:
    kept = {label for output in labels.outputs for label in output if label is not None}
    along: dict[Label, list[Value]] = {}
    causes: list[Cause | None] = []
    counts: list[Cause | None] = []
    data = []
    for i, value in enumerate(values):
        if i in settings:
            continue
        data.append(value)
        if value.axis is None:
            continue
        given = labels.inputs[i] if i < len(labels.inputs) else ()
        counts.append(
            _summed(site, i, value.axis, [label if label in kept or label == PART else None for label in given])
        )
        label = given[value.axis.dim] if value.axis.dim < len(given) else UNSURE
        if label in kept and label not in (PART, UNSURE):
            along.setdefault(label, []).append(value)
        elif value.rows and i == 0 and label != UNSURE and reorders(site, value.axis.dim):
            moved = site.cause(Effect.MOVES, f"puts the rows in another order, in {_where(site, i, value.axis)}")
            if value.moved is not None:
                return [spoiled(moved_again(site, value.moved))] * len(site.outputs)
            return [replace(value, moved=moved)] * len(site.outputs)
        elif value.rows:
            causes.append(_consumed(site, i, label, value))
        elif label not in (PART, UNSURE):
            counts.append(site.cause(Effect.COUNTS, "works along the number of rows"))
    causes += [_conflict(site, found) for found in along.values()]
    lines = [label for label, found in along.items() if any(v.rows for v in found)]
    if len(lines) > 1:
        causes.append(site.cause(Effect.MIXES, "combines every row with every other"))
    bad = worst(causes)
    if bad is not None:
        return [spoiled(bad)] * len(site.outputs)
    made = union(data, None)
    counts += [_otherwise(site, i, value, labels, along) for i, value in enumerate(values) if i not in settings]
    counts += [_set_by_number(site, i, values) for i in sorted(settings)]
    made = replace(made, count=made.count or next((c for c in counts if c), None))
    return [replace(made, axis=_axis(output, along)) for output in labels.outputs]


def _summed(site: Site, index: int, axis: Axis, labels: Sequence[Label]) -> Cause | None:
    """Why the output depends on the number of rows: beside the rows, another dimension of that size is lost."""
    known = site.extents(index) or ()
    lost = [label in (None, UNSURE) for d, label in enumerate(labels) if d != axis.dim and _grows(known, d)]
    return site.cause(Effect.UNKNOWN, "works along the number of rows") if any(lost) else None


def _grows(known: Extents, dim: int) -> bool:
    extent = known[dim] if dim < len(known) else None
    return extent is not None and extent.grows


def _otherwise(
    site: Site, index: int, value: Value, labels: Labels, along: Mapping[Label, Sequence[Value]]
) -> Cause | None:
    """Why rows may not meet in a constant what is meant for all: it has them in another order."""
    if value.axis is None or value.rows or index >= len(labels.inputs) or _is_uniform(site.values(index)):
        return None
    label = labels.inputs[index][value.axis.dim] if value.axis.dim < len(labels.inputs[index]) else None
    folds = {(v.axis.outer, v.axis.inner) for v in along.get(label, ()) if v.axis is not None}
    return site.cause(Effect.UNKNOWN, "meets constants that lie in another order") if len(folds) > 1 else None


def _is_uniform(values: Sequence[tensors.Array] | None) -> bool:
    return values is not None and all(not v.size or bool((v == v.flat[0]).all()) for v in values)


def _set_by_number(site: Site, index: int, values: Sequence[Value]) -> Cause | None:
    """Why a setting makes the output depend on the number of rows: it says more than that all of them are meant."""
    count, axis = values[index].count, values[0].axis
    if count is None or site.node.op in _SIZES_ONLY:
        return None
    known = site.values(index)
    if known is None:
        return site.cause(Effect.UNKNOWN, f"may have a size or a place that depends on the number of rows: {count}")
    if known[0].shape != known[1].shape:
        return count
    differ = np.flatnonzero(np.any(np.atleast_2d(known[0] != known[1]), axis=0))
    behind = site.int_attr("ellipsis_mask") | site.int_attr("new_axis_mask")
    rows = {axis.dim} if axis is not None and site.node.op in _PARTS and not behind & (1 << axis.dim) - 1 else set()
    return count if set(differ.tolist()) - rows else None


def _where(site: Site, index: int, axis: Axis) -> str:
    return f'dimension {axis.dim} of "{site.inputs[index]}"'


def _consumed(site: Site, index: int, label: Label, value: Value) -> Cause:
    axis = value.axis or ROWS
    where = _where(site, index, axis)
    if label == PART and value.moved is not None:
        return moved_again(site, value.moved)
    if label == UNSURE or (label == PART and (axis.outer, axis.inner) != (1, 1)):
        return site.cause(Effect.UNKNOWN, f"takes the rows in {where}, where they cannot be followed")
    how = "picks some of the rows" if label == PART else "works across the rows of the batch"
    return site.cause(Effect.PICKS if label == PART else Effect.MIXES, f"{how}, in {where}")


def _conflict(site: Site, found: Sequence[Value]) -> Cause | None:
    """Rows that lie along one dimension in two ways do not meet their own."""
    folds = {(v.axis.outer, v.axis.inner) for v in found if v.axis is not None and v.rows}
    # Side by side, they may part again.
    orders = {v.moved is None for v in found if v.rows and site.node.op not in ("Concat", "ConcatV2", "Pack")}
    return site.cause(Effect.MIXES, "combines different rows") if len(folds) > 1 or len(orders) > 1 else None


def _axis(output: Sequence[Label], along: dict[Label, list[Value]]) -> Axis | None:
    """Of an output, where the rows lie; of two dimensions the one in which contents differ."""
    ranked = sorted(
        (
            (not any(v.rows for v in along[label]), not any(v.by_row for v in along[label]), dim)
            for dim, label in enumerate(output)
            if label in along
        ),
    )
    if not ranked:
        return None
    dim = ranked[0][-1]
    value = max(along[output[dim]], key=lambda v: (v.rows, v.by_row))
    return None if value.axis is None else replace(value.axis, dim=dim)


def _checked(site: Site, index: int, value: Value, *, steady: bool, laid: bool) -> Value:
    """Holds what a rule says against the sizes that inference knows.

    Args:
      laid: whether inputs of the node have an axis.
    """
    if value.spoiled is not None or value.turn or site.lists:
        return value
    known = site.output_extents(index)
    if value.axis is not None:
        extent = known[value.axis.dim] if known is not None and value.axis.dim < len(known) else None
        fits = extent is None or (extent.is_rows and extent.per_row == value.axis.outer * value.axis.inner)
        if known is not None and (value.axis.dim >= len(known) or not fits):
            value = replace(value, axis=None)
    if value.axis is None:
        if value.rows:
            return spoiled(site.cause(Effect.UNKNOWN, "gives a shape in which the rows cannot be found"))
        value, same = replace(value, axis=growing_axis(known)), _is_uniform(site.output_values(index))
        if value.axis is not None and not value.by_row and site.node.op in _PARTS and not same:
            place = site.cause(Effect.PLACES, "gives every row what stands at its place")
            value = replace(value, count=None, place=place)
        elif any(e is not None and e.grows for e in known or ()) and not value.by_row:
            value = _located(site, index, value, laid)
    if (value.count or value.place) and not value.rows and steady:
        values = site.output_values(index)
        if values is not None and values[0].shape == values[1].shape and (values[0] == values[1]).all():
            return replace(value, count=None, place=None)
    return value


def _located(site: Site, index: int, value: Value, laid: bool) -> Value:
    """What is no row's but grows with the batch, and not by a rule that tells where its rows lie."""
    if value.axis is None:
        count = site.cause(Effect.UNKNOWN, "gives a size that is no multiple of the number of rows")
        return replace(value, count=value.count or count)
    if laid and value.count is None and not _is_uniform(site.output_values(index)):
        return replace(value, place=site.cause(Effect.UNKNOWN, "makes of constants what may differ from row to row"))
    return value
