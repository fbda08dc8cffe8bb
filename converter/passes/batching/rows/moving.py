"""Labels of ops that move rows about or look things up for them, and compute nothing."""

from __future__ import annotations

import numpy as np

from converter.passes.batching.rows.labels import PART, UNSURE, Label, Labels, input_ranks, one_input
from converter.passes.batching.rows.site import Site

# --- shapes ---------------------------------------------------------------------------------------------------


def transpose(site: Site) -> Labels | None:
    perm = site.constant(1)
    if perm is None:
        return None
    order = tuple(int(p) for p in perm)
    return Labels((tuple(range(len(order))), (None,)), (order,))


def expand_dims(site: Site) -> Labels | None:
    rank, at = site.rank(0), site.constant(1)
    if rank is None or at is None:
        return None
    position = int(np.ravel(at)[0]) % (rank + 1)
    whole = tuple(range(rank))
    return one_input(site, whole, (*whole[:position], None, *whole[position:]))


def squeeze(site: Site) -> Labels | None:
    known = site.extents(0)
    if known is None:
        return None
    rank = len(known)
    listed = site.node.attr["squeeze_dims"].list.i if "squeeze_dims" in site.node.attr else ()
    gone = {int(d) % rank for d in listed}
    if not gone:
        if any(e is None for e in known):
            return None
        gone = {d for d, e in enumerate(known) if e is not None and not e.grows and e.fixed == 1}
    return Labels((tuple(range(rank)),), (tuple(d for d in range(rank) if d not in gone),))


def join(site: Site) -> Labels | None:
    """Concat, along other dimensions than the rows'."""
    at = 0 if site.node.op == "Concat" else len(site.inputs) - 1
    ranks = [site.rank(i) for i in range(len(site.inputs)) if i != at]
    axis = site.constant(at)
    if axis is None or None in ranks or not ranks[0]:
        return None
    dim = int(axis) % ranks[0]
    whole: tuple[Label, ...] = tuple(UNSURE if d == dim else d for d in range(ranks[0]))
    inputs = tuple(() if i == at else whole for i in range(len(site.inputs)))
    return Labels(inputs, (tuple(None if label == UNSURE else label for label in whole),))


def split(site: Site) -> Labels | None:
    """Split and SplitV, along other dimensions than the rows'."""
    of, by = (1, 0) if site.node.op == "Split" else (0, 2)
    rank, axis = site.rank(of), site.constant(by)
    if not rank or axis is None:
        return None
    whole: tuple[Label, ...] = tuple(UNSURE if d == int(axis) % rank else d for d in range(rank))
    inputs = tuple(whole if i == of else (None,) * (site.rank(i) or 0) for i in range(len(site.inputs)))
    return Labels(inputs, (tuple(None if label == UNSURE else label for label in whole),) * len(site.outputs))


def pack(site: Site) -> Labels | None:
    ranks = input_ranks(site)
    if not ranks:
        return None
    at = site.int_attr("axis") % (ranks[0] + 1)
    whole = tuple(range(ranks[0]))
    return Labels((whole,) * len(ranks), ((*whole[:at], None, *whole[at:]),))


def unpack(site: Site) -> Labels | None:
    rank = site.rank(0)
    if not rank:
        return None
    at = site.int_attr("axis") % rank
    kept = tuple(d for d in range(rank) if d != at)
    return Labels((tuple(UNSURE if d == at else d for d in range(rank)),), (kept,) * len(site.outputs))


def pad(site: Site) -> Labels | None:
    paddings = site.values(1)
    if paddings is None:
        return None
    # What was put around the rows may be cut off again.
    kept = tuple(UNSURE if np.any(pairs) else d for d, pairs in enumerate(zip(*paddings, strict=True)))
    return one_input(site, kept, tuple(None if label == UNSURE else label for label in kept))


def slices(site: Site) -> Labels | None:
    """Dimensions are whole where they begin at 0 and are as large as before."""
    rank, begin = site.rank(0), site.values(1)
    before, after = site.extents(0), site.output_extents(0)
    if rank is None or before is None or after is None:
        return None
    if begin is None:
        return None
    sizes = site.constant(2)
    to_end = [before[d] == after[d] or (sizes is not None and int(sizes[d]) == -1) for d in range(rank)]
    kept = tuple(d if begin[0][d] == begin[1][d] == 0 and to_end[d] else PART for d in range(rank))
    return one_input(site, kept, tuple(None if label == PART else label for label in kept))


def strided_slice(site: Site) -> Labels | None:
    rank, known = site.rank(0), site.extents(0)
    bounds = [site.values(i) for i in (1, 2, 3)]
    length = next((len(b[0]) for b in bounds if b is not None), None)
    if rank is None or known is None or length is None:
        return None
    masks = {m: site.int_attr(f"{m}_mask") for m in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    specified = sum(not (masks["new_axis"] | masks["ellipsis"]) >> i & 1 for i in range(length))
    labels: list[Label] = []
    output: list[Label] = []
    for i in range(length):
        if masks["ellipsis"] >> i & 1:
            for _ in range(rank - specified):
                output.append(len(labels))
                labels.append(len(labels))
        elif masks["new_axis"] >> i & 1:
            output.append(None)
        elif masks["shrink_axis"] >> i & 1:
            labels.append(PART if bounds[0] is not None else UNSURE)
        else:
            dim = len(labels)
            extent = known[dim] if dim < rank else None
            whole = _is_whole(
                [None if b is None else (int(b[0][i]), int(b[1][i])) for b in bounds],
                bool(masks["begin"] >> i & 1),
                bool(masks["end"] >> i & 1),
                None if extent is None else tuple(int(extent.fixed + extent.per_row * s) for s in site.sizes),
            )
            labels.append(dim if whole else PART if None not in bounds else UNSURE)
            output.append(dim if whole else None)
    while len(labels) < rank:
        output.append(len(labels))
        labels.append(len(labels))
    return one_input(site, tuple(labels), tuple(output))


def _is_whole(
    bounds: list[tuple[int, int] | None], from_start: bool, to_end: bool, sizes: tuple[int, ...] | None
) -> bool:
    """Whether a slice with these begins, ends and strides (each for both batch sizes) takes all of a dimension."""
    begin, end, stride = bounds
    starts = from_start or begin == (0, 0)
    ends = to_end or (end is not None and sizes is not None and all(e >= s for e, s in zip(end, sizes, strict=True)))
    return starts and ends and stride == (1, 1)


# --- lookups --------------------------------------------------------------------------------------------------


def gather(site: Site) -> Labels | None:
    """params[:axis] + indices[batch_dims:] + params[axis + 1:]; the first batch_dims of both correspond."""
    params, indices = site.rank(0), site.rank(1)
    axes = site.constant(2) if len(site.inputs) > 2 else np.array(0)
    if params is None or indices is None or axes is None:
        return None
    shared = site.int_attr("batch_dims")
    shared += indices * (shared < 0)
    at = int(axes) % params
    looked = tuple(PART if d == at else f"p{d}" for d in range(params))
    found = tuple(f"p{d}" if d < shared else f"i{d}" for d in range(indices))
    output = looked[:at] + found[shared:] + looked[at + 1 :]
    return Labels((looked, found, ()), (output,)) if len(site.inputs) > 2 else Labels((looked, found), (output,))


def gather_nd(site: Site) -> Labels | None:
    params, indices, known = site.rank(0), site.rank(1), site.extents(1)
    if params is None or indices is None or known is None or known[-1] is None or known[-1].grows:
        return None
    depth = int(known[-1].fixed)
    looked = tuple(PART if d < depth else f"p{d}" for d in range(params))
    found = tuple(f"i{d}" for d in range(indices - 1))
    return Labels((looked, (*found, None)), ((*found, *looked[depth:]),))


def variable_gather(site: Site) -> Labels | None:
    indices, out = site.rank(1), site.output_rank()
    if indices is None or out is None:
        return None
    return Labels(((), tuple(range(indices))), ((*range(indices), *(None,) * (out - indices)),))


def table_lookup(site: Site) -> Labels | None:
    keys, out = site.rank(1), site.output_rank()
    if keys is None:
        return None
    values = (out or keys) - keys
    return Labels(((), tuple(range(keys)), (None,) * (site.rank(2) or 0)), ((*range(keys), *(None,) * values),))


def one_hot(site: Site) -> Labels | None:
    rank = site.rank(0)
    if rank is None:
        return None
    at = site.int_attr("axis", -1) % (rank + 1)
    whole = tuple(range(rank))
    return one_input(site, whole, (*whole[:at], None, *whole[at:]))


def reverse_sequence(site: Site) -> Labels | None:
    rank = site.rank(0)
    if rank is None:
        return None
    kept = tuple(None if d == site.int_attr("seq_dim") else d for d in range(rank))
    return Labels((kept, (site.int_attr("batch_dim"),)), (kept,))


def dense_bincount(site: Site) -> Labels | None:
    rank = site.rank(0)
    if rank is None:
        return None
    kept = tuple(d if rank == 2 and d == 0 else None for d in range(rank))
    others = (), (kept if site.rank(2) == rank else (None,) * (site.rank(2) or 0))
    return Labels((kept, *others), (kept,))
