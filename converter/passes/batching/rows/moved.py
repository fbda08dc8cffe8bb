"""Rows that stand in the place of others, or of which some are missing: what comes behind may undo it, or settle it."""

from __future__ import annotations

from collections.abc import Sequence

from converter.passes.batching.rows.ops import is_elementwise
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import Cause, Effect, Value

_UNDONE = "may bring the rows to their places again"
_ORDERING = {"Reverse", "ReverseSequence", "ReverseV2", "Roll", "StridedSlice", "TopK", "TopKV2"}
# Ops that can make all rows of some.
_JOINING = {
    *("Concat", "ConcatV2", "DynamicStitch", "MirrorPad", "Pack", "Pad", "PadV2", "ParallelDynamicStitch", "ScatterNd"),
    *("TensorListPushBack", "TensorListSetItem", "TensorScatterAdd", "TensorScatterMax", "TensorScatterMin"),
    *("TensorScatterSub", "TensorScatterUpdate", "XlaDynamicUpdateSlice"),
}


def reorders(site: Site, dim: int) -> bool:
    """Whether the op works along this dimension of input 0 by putting all that is there in another order."""
    before, after = site.extents(0), site.output_extents(0)
    if site.node.op not in _ORDERING or before is None or after is None or len(before) != len(after):
        return False
    if any(site.int_attr(f"{m}_mask") for m in ("ellipsis", "new_axis", "shrink_axis")):
        return False
    return before[dim] is not None and before[dim] == after[dim]


def moved_again(site: Site, moved: Cause) -> Cause:
    """What an op does that moves rows which do not stand in their places."""
    return site.cause(Effect.UNKNOWN, f"{_UNDONE}: {moved}")


def behind(site: Site, data: Sequence[Value], bad: Cause) -> Cause:
    """What the outputs are spoiled by if `bad` is the worst of what spoils the inputs."""
    if bad.effect is Effect.PICKS:
        if site.node.op in _JOINING:
            return site.cause(Effect.UNKNOWN, f"may join all rows again: {bad}")
        if is_elementwise(site.node.op) and any((v.rows or v.turn) and v.spoiled is None for v in data):
            return site.cause(Effect.MIXES, f"combines different rows: {bad}")
    if bad.effect is Effect.MOVES:
        # A reshape: with each element by itself and then the former shape, nothing happened. Anything else mixes.
        if site.node.op == "Reshape":
            return moved_again(site, bad)
        if not is_elementwise(site.node.op) or not all(
            site.is_single(i) for i, v in enumerate(data) if v.spoiled != bad
        ):
            return Cause(Effect.MIXES, bad.function, bad.node, bad.op, bad.how)
    return bad
