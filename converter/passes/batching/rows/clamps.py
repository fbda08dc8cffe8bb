"""Sizes that limits decide, whatever rows or requests say: the lesser of 12 and what is at least 12."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converter.passes.batching.rows.site import Site
from converter.passes.batching.rows.values import CONSTANT, Value


def clamped(site: Site, values: Sequence[Value], found: list[Value]) -> list[Value]:
    """The outputs' values `found`, with what Maximum and Minimum of integers add to them."""
    if site.node.op not in ("Maximum", "Minimum"):
        return found
    for i, other in ((0, values[1]), (1, values[0])):
        limit = None if values[i].varies else site.constant(i)
        if limit is None or limit.size != 1 or limit.dtype.kind != "i":
            continue
        bound = int(limit.item())
        if site.node.op == "Maximum":
            return [replace(v, least=bound if other.least is None else max(bound, other.least)) for v in found]
        if other.least is not None and other.least >= bound and site.rank(1 - i) == 0:
            return [CONSTANT]
    return found
