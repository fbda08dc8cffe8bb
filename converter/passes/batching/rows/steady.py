"""Whether numbers that are the same for two numbers of rows are so for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converter.graph import tensors
from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import Value

# What must be the same for one row as for two numbers of rows, of operands that grow evenly.
_NEAR: dict[str, Callable[..., tensors.Array]] = {
    "Cast": np.trunc,
    "Equal": lambda a, b: np.sign(a - b),
    "FloorDiv": lambda a, b: np.floor(a / b),
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "NotEqual": lambda a, b: np.sign(a - b),
    "TruncateDiv": lambda a, b: np.trunc(a / b),
}
_CHOOSING = {"Gather", "GatherNd", "GatherV2", "Slice", "StridedSlice"}
# Of what these make of the number of rows, two numbers tell enough.
_EXACT = {
    *("Add", "AddN", "AddV2", "BroadcastTo", "ConcatV2", "Div", "ExpandDims", "Fill", "Gather"),
    *("GatherNd", "GatherV2", "Identity", "Mul", "Neg", "Pack", "Prod", "Range", "RealDiv", "Reshape", "Slice"),
    *("Split", "SplitV", "Squeeze", "StridedSlice", "Sub", "Sum", "Tile", "Transpose", "Unpack"),
}


def is_steady(site: Site, values: Sequence[Value]) -> bool:
    """Whether what a node gives for two numbers of rows it gives for all that are not greater."""
    if not any(v.count or v.place for v in values):
        return True
    if any(v.count and site.constant(i) is not None for i, v in enumerate(values)):
        return False  # it was not steady before
    by = values[1:] if site.node.op in _CHOOSING else values[2:] if site.node.op == "Range" else ()
    if any(v.count or v.place for v in by):
        return False
    if site.node.op not in _NEAR:
        return site.node.op in _EXACT
    known = [site.values(i) for i in range(len(values))]
    if any(pair is None or pair[0].shape != pair[1].shape for pair in known):
        return False
    pairs = [[each.astype(np.float64) for each in pair] for pair in known if pair is not None]
    steps = (site.sizes[0] - 1) / (site.sizes[1] - site.sizes[0])
    alone, first, second = zip(*((a - (b - a) * steps, a, b) for a, b in pairs), strict=True)
    tell = _NEAR[site.node.op]
    with np.errstate(all="ignore"):
        return bool(np.all(tell(*alone) == tell(*first)) and np.all(tell(*first) == tell(*second)))
