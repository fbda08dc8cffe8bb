"""What one node does to the rows of a batch: its inputs' values give its outputs'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converter.graph import ops
from converter.passes.batching.rows.clamps import clamped
from converter.passes.batching.rows.labels import PART, UNSURE, Label, Labels
from converter.passes.batching.rows.moved import behind, moved_again, reorders
from converter.passes.batching.rows.ops import fold_of, labels_of
from converter.passes.batching.rows.site import Site, growing_axis
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


_COMPARISONS = {"Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum", "NotEqual"}
# Of what these make of the number of rows, two numbers tell enough.
_EXACT = {
    *("Add", "AddN", "AddV2", "BroadcastTo", "Cast", "ConcatV2", "Div", "ExpandDims", "Fill", "FloorDiv", "Gather"),
    *("GatherNd", "GatherV2", "Identity", "Mul", "Neg", "Pack", "Prod", "Range", "RealDiv", "Reshape", "Slice"),
    *("Split", "SplitV", "Squeeze", "StridedSlice", "Sub", "Sum", "Tile", "Transpose", "TruncateDiv", "Unpack"),
}
_PARTS = {"Slice", "StridedSlice"}


def transfer(site: Site, values: Sequence[Value]) -> list[Value]:
    """The values of a node's outputs, for a node that calls nothing."""
    settings = {i % len(values) for i in _SETTINGS.get(site.node.op, ()) if values}
    data = [v for i, v in enumerate(values) if i not in settings]
    steady = _is_steady(site, values)
    found = [_checked(site, i, v, steady) for i, v in enumerate(_transferred(site, values, data, settings))]
    units = units_of(site, values) if any(v.place for v in found) else ()
    return [replace(v, units=units) for v in clamped(site, values, found)]


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
    counts += [_set_by_number(site, i, values) for i in sorted(settings)]
    made = replace(made, count=made.count or next((c for c in counts if c), None))
    return [replace(made, axis=_axis(output, along)) for output in labels.outputs]


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


def _checked(site: Site, index: int, value: Value, steady: bool) -> Value:
    """Holds what a rule says against the sizes that inference knows."""
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
        value = replace(value, axis=growing_axis(known))
        if value.axis is not None and not value.by_row and site.node.op in _PARTS:
            place = site.cause(Effect.PLACES, "gives every row what stands at its place")
            value = replace(value, count=None, place=place)
    if (value.count or value.place) and not value.rows and steady:
        values = site.output_values(index)
        if values is not None and values[0].shape == values[1].shape and (values[0] == values[1]).all():
            return replace(value, count=None, place=None)
    return value


def _is_steady(site: Site, values: Sequence[Value]) -> bool:
    """Whether what a node gives for two numbers of rows it gives for all that are not greater."""
    if not any(v.count or v.place for v in values):
        return True
    if any(v.count and site.constant(i) is not None for i, v in enumerate(values)):
        return False  # it was not steady before
    if site.node.op not in _COMPARISONS:
        return site.node.op in _EXACT
    known = [site.values(i) for i in range(2)]
    if known[0] is None or known[1] is None or any(each[0].shape != each[1].shape for each in known if each):
        return False
    first, second = (a.astype(np.float64) - b.astype(np.float64) for a, b in zip(*known, strict=True))
    alone = first - (second - first) / (site.sizes[1] - site.sizes[0]) * (site.sizes[0] - 1)
    if site.node.op in ("Maximum", "Minimum"):
        return bool(np.all(alone * second >= 0))
    return bool(np.all(np.sign(alone) == np.sign(first)) and np.all(np.sign(first) == np.sign(second)))
