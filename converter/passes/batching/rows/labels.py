"""Along which dimensions ops keep the rows of a batch apart, as labels.

A dimension of an input and one of an output that have the same label correspond: index i of the output is made of index
i of the input alone. A dimension of an input whose label no output has is summed, sorted, convolved, ... : rows that
lie along it influence each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from converter.passes.batching.rows.site import Site

Label = str | int | None
UNSURE = "?"
"""Rows that lie along a dimension of this label: nobody can tell."""
PART = "part"
"""Of a dimension of this label the op picks a part: not all rows, or some indices of each."""


@dataclass(frozen=True)
class Labels:
    """Labels of each dimension of each input and output; None for a dimension that stands alone."""

    inputs: tuple[tuple[Label, ...], ...]
    outputs: tuple[tuple[Label, ...], ...]


Rule = Callable[[Site], Labels | None]
"""None if what the rule needs to know is not known."""


def input_ranks(site: Site) -> list[int] | None:
    ranks = [site.rank(i) for i in range(len(site.inputs))]
    return None if None in ranks else [r for r in ranks if r is not None]


def output_ranks(site: Site) -> list[int] | None:
    ranks = [site.output_rank(i) for i in range(len(site.outputs))]
    return None if None in ranks else [r for r in ranks if r is not None]


# --- the families -----------------------------------------------------------------------------------------------


def elementwise(site: Site) -> Labels | None:
    """Operands are broadcast: their last dimensions correspond."""
    ranks, out = input_ranks(site), site.output_rank()
    if ranks is None:
        return None
    rank = max(ranks) if out is None else out
    if any(r > rank for r in ranks):
        return None
    inputs = tuple(tuple(range(rank - r, rank)) for r in ranks)
    return Labels(inputs, (tuple(range(rank)),) * len(site.outputs))


def elements_of_first(site: Site) -> Labels | None:
    """One result for each element of input 0; what else it makes of an element comes behind. Others are settings."""
    rank, out = site.rank(0), site.output_rank()
    if rank is None or out is None:
        return None
    others = tuple((UNSURE,) * (site.rank(i) or 0) for i in range(1, len(site.inputs)))
    return Labels((tuple(range(rank)), *others), ((*range(rank), *(None,) * (out - rank)),) * len(site.outputs))


def reduction(site: Site) -> Labels | None:
    rank, axes = site.rank(0), site.constant(1)
    if rank is None or axes is None:
        return None
    reduced = {int(a) % rank for a in np.atleast_1d(axes)} if rank else set()
    keeps = site.flag("keep_dims")
    output = tuple(None if d in reduced else d for d in range(rank) if keeps or d not in reduced)
    return one_input(site, tuple(None if d in reduced else d for d in range(rank)), output)


def one_input(site: Site, first: tuple[Label, ...], output: tuple[Label, ...]) -> Labels:
    """Labels of an op whose other inputs are settings."""
    others = tuple((UNSURE,) * (site.rank(i) or 0) for i in range(1, len(site.inputs)))
    return Labels((first, *others), (output,) * len(site.outputs))


def along(dims: Callable[[Site, int], Collection[int] | None]) -> Rule:
    """Works along some dimensions and keeps their number."""

    def rule(site: Site) -> Labels | None:
        rank = site.rank(0)
        worked = None if rank is None else dims(site, rank)
        if rank is None or worked is None:
            return None
        kept = tuple(None if d in worked else d for d in range(rank))
        return one_input(site, kept, kept)

    return rule


def last_dims(count: int) -> Callable[[Site, int], Collection[int]]:
    return lambda site, rank: range(max(rank - count, 0), rank)


def axes_input(index: int) -> Callable[[Site, int], Collection[int] | None]:
    def dims(site: Site, rank: int) -> Collection[int] | None:
        axes = site.constant(index)
        return None if axes is None else {int(a) % rank for a in np.atleast_1d(axes)}

    return dims


def flagged_dims(site: Site, rank: int) -> Collection[int] | None:
    flags = site.constant(1)
    return None if flags is None else {d for d in range(rank) if flags[d]}


def leading(count: int) -> Rule:
    """A matrix or vector operation in the last `count` dimensions; those before are a stack of such."""

    def rule(site: Site) -> Labels | None:
        ranks, outputs = input_ranks(site), output_ranks(site)
        if ranks is None or outputs is None:
            return None
        lead = max(ranks[0] - count, 0)
        inputs = tuple(tuple(d if d < lead else None for d in range(r)) for r in ranks)
        return Labels(inputs, tuple(tuple(d if d < lead else None for d in range(r)) for r in outputs))

    return rule


def rowwise(*data: int) -> Rule:
    """Each index of dimension 0 of these inputs by itself."""

    def rule(site: Site) -> Labels | None:
        ranks, outputs = input_ranks(site), output_ranks(site)
        if ranks is None or outputs is None:
            return None
        inputs = tuple(tuple("n" if i in data and d == 0 else None for d in range(r)) for i, r in enumerate(ranks))
        return Labels(inputs, tuple(tuple("n" if d == 0 else None for d in range(r)) for r in outputs))

    return rule


def channel_dim(site: Site, rank: int) -> int:
    return 1 if site.text("data_format", "N").startswith("NC") else rank - 1


def image(data: int, channel: Label, window: Callable[[Site, int], Collection[int]] | None = None) -> Rule:
    """Images in dimension 0 of input `data` one by one; channels by themselves, or not.

    `window` gives the dimensions along which neighbours do not count, as in a convolution with a kernel of size 1.
    """

    def rule(site: Site) -> Labels | None:
        ranks = input_ranks(site)
        if ranks is None:
            return None
        rank = ranks[data]
        at = channel_dim(site, rank)
        alone = {0, *(window(site, rank) if window else ())} - {at}
        image = tuple(d if d in alone else channel if d == at else None for d in range(rank))
        inputs = tuple(image if i == data else (UNSURE,) * r for i, r in enumerate(ranks))
        output = tuple(None if label == UNSURE else label for label in image)
        return Labels(inputs, (output,) * len(site.outputs))

    return rule


def points(site: Site, rank: int) -> Collection[int]:
    """The spatial dimensions in which a convolution sees one point at a time."""
    kernel = site.extents(1)
    strides = site.node.attr["strides"].list.i if "strides" in site.node.attr else ()
    if kernel is None or len(strides) != rank:
        return ()
    spatial = [d for d in range(1, rank) if d != channel_dim(site, rank)]
    sizes = [e.fixed if e is not None and not e.grows else None for e in kernel[: len(spatial)]]
    return {d for d, size in zip(spatial, sizes, strict=True) if size == 1 and strides[d] == 1}


def batch_norm(site: Site) -> Labels | None:
    rank = site.rank(0)
    if rank is None:
        return None
    at = channel_dim(site, rank)
    training = site.flag("is_training", default=True)
    image = tuple("c" if d == at else None if training else d for d in range(rank))
    inputs = (image, *(("c",),) * (len(site.inputs) - 1))
    return Labels(inputs, (image, *(("c",),) * (len(site.outputs) - 1)))


def bias(site: Site) -> Labels | None:
    rank = site.rank(0)
    if rank is None:
        return None
    return Labels((tuple(range(rank)), (channel_dim(site, rank),)), (tuple(range(rank)),))


def select(site: Site) -> Labels | None:
    """A condition of rank 1 chooses whole indices of dimension 0."""
    if site.rank(0) != 1:
        return elementwise(site)
    rank = site.rank(1)
    whole = None if rank is None else tuple(range(rank))
    return None if whole is None else Labels(((0,), whole, whole), (whole,))


# --- products -------------------------------------------------------------------------------------------------


def matmul(site: Site) -> Labels | None:
    ranks = input_ranks(site)
    if ranks is None or min(ranks) < 2:
        return None
    first = ("k", "i") if site.flag("transpose_a") or site.flag("adj_x") else ("i", "k")
    second = ("j", "k") if site.flag("transpose_b") or site.flag("adj_y") else ("k", "j")
    lead = max(ranks) - 2
    stacks = [tuple(range(lead - (r - 2), lead)) for r in ranks]
    return Labels(((*stacks[0], *first), (*stacks[1], *second)), ((*range(lead), "i", "j"),))


def einsum(site: Site) -> Labels | None:
    ranks = input_ranks(site)
    inputs, arrow, output = site.text("equation").replace(" ", "").partition("->")
    terms = inputs.split(",")
    if ranks is None or not arrow or len(terms) != len(ranks):
        return None
    broadcast = [r - len(t.replace("...", "")) for r, t in zip(ranks, terms, strict=True)]
    width = max((b for b, t in zip(broadcast, terms, strict=True) if "..." in t), default=0)
    spelled = [_spelled(t, b, width) for t, b in zip(terms, broadcast, strict=True)]
    return Labels(tuple(spelled), (_spelled(output, width, width),))


def _spelled(term: str, broadcast: int, width: int) -> tuple[Label, ...]:
    """The labels of one term; the dimensions of its ellipsis are counted from the right."""
    before, dots, after = term.partition("...")
    return (*before, *(range(width - broadcast, width) if dots else ()), *after)


def quantized(site: Site) -> Labels | None:
    """Without a given range, the range is that of the whole tensor."""
    if site.flag("range_given"):
        return elements_of_first(site)
    rank = site.rank(0)
    return None if rank is None else one_input(site, (None,) * rank, (None,) * rank)


def nothing_kept(site: Site) -> Labels | None:
    """Everything of everything."""
    ranks, outputs = input_ranks(site), output_ranks(site)
    if ranks is None or outputs is None:
        return None
    return Labels(tuple((None,) * r for r in ranks), tuple((None,) * r for r in outputs))
