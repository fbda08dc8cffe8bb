"""In which shape a tensor should cross between CPU and TPU.

Pure arithmetic on shapes, free of TensorFlow. docs/io_shapes.md has the measurements behind it.

How the TPU stores a tensor. Memory is cut into tiles of rows by 128 lanes. The compiler makes one dimension of
the tensor the lanes and one the rows of the tile, pads both to it, and picks, of all pairs of dimensions, one
that pads least. So the shape and the element size alone fix the padding, and also whether the *last* dimension
is the one along the lanes. If it is, the host copies whole runs of memory; if not, it transposes element by element.
A tensor of rank 1 is only padded to a multiple of one tile, so it is nearly free of padding.

What a reshape can do. Merging trailing dimensions on the host moves no byte; on the TPU the way back costs a
re-tiling, and the more dimensions were merged the dearer that is. Hence the rule of `choose`: merge as few as will do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RankedShape = tuple[int | None, ...]
"""Dimensions in elements; None is a dimension that is only known when a request arrives."""

LANES = 128
ROWS = 8

DEFAULT_BATCHES = tuple(range(1, 65))
"""Sizes of an unknown 0th dimension that are planned for when nobody says which will come.

Odd ones are among them because rows are padded to 8: a shape that is ideal for a batch of 8 may waste a third for one
of 5. Far above 64 the TPU lays the batch itself along the lanes, which for a few shapes pads less than any reshape:
to have the promise of `choose` hold there, give it the sizes.
"""

_BITS = {
    "bool": 8, "int8": 8, "uint8": 8, "float8_e4m3fn": 8, "float8_e5m2": 8,
    "int16": 16, "uint16": 16, "bfloat16": 16, "float16": 16, "half": 16,
    "int32": 32, "uint32": 32, "float32": 32, "float": 32,
    "int64": 64, "uint64": 64, "float64": 64, "double": 64, "complex64": 64,
}  # fmt: skip
"""Bits of one element, by TensorFlow's name of the type. Others do not cross, or were never measured."""


@dataclass(frozen=True)
class Keep:
    """The tensor crosses in its own shape."""

    reason: str


@dataclass(frozen=True)
class Reshape:
    """The tensor crosses as `transfer`: the same elements in the same order, of lower rank."""

    transfer: RankedShape
    reason: str


def choose(shape: RankedShape | None, dtype: str, batches: Sequence[int] = DEFAULT_BATCHES) -> Keep | Reshape:
    """The shape in which a tensor crosses.

    Candidates, in order: the shape itself, its last two dimensions merged, its last three, and so on until only
    the 0th is left alone, then all in one. Taken is the first one

    1. whose padding is smaller than the data, and
    2. whose last dimension lies along the lanes, so that the host copies instead of transposing,

    and, if there is none, the one of the fewest bytes. None of them ever takes more bytes, padding included,
    than the shape itself would. The 0th dimension is never merged with part of the others: it is the batch,
    and XLA finds the way back cheapest when it stays.

    Args:
      shape: the tensor's shape; None if its rank is unknown. At most the 0th dimension may be unknown.
      dtype: TensorFlow's name of the element type, such as "bfloat16".
      batches: the sizes that an unknown 0th dimension takes, such as the allowed batch sizes. Rules 1 and 2 are
        judged at the largest; the bytes grow at none of them.

    Returns:
      `Reshape` with at most one unknown dimension, the 0th, or `Keep` with the reason in words for the report.
    """
    obstacle = _obstacle(shape, dtype)
    if obstacle is not None or shape is None:
        return Keep(obstacle or "its rank is unknown")
    if not batches or min(batches) < 1:
        raise ValueError(f"batches must hold at least one size, all of them positive; got {list(batches)}")
    others = math.prod(d for d in shape[:-1] if d is not None)
    if shape[-1] is not None and shape[-1] % LANES == 0 and others % ROWS == 0:
        # The compiler may still permute the other dimensions, but the host then moves whole rows of tiles.
        return Keep(
            f"already on the fast path: its last dimension, {shape[-1]}, is a multiple of {LANES} "
            f"and the others make a multiple of {ROWS}"
        )
    sizes = sorted(set(batches)) if shape[0] is None else [1]
    original = len(shape) - 1
    allowed = [
        kept
        for kept in range(original, -1, -1)
        if all(_merged_bytes(shape, kept, dtype, b) <= padded_bytes(shape, dtype, b) for b in sizes)
    ]
    largest = sizes[-1]
    before, data = padded_bytes(shape, dtype, largest), data_bytes(shape, dtype, largest)
    for kept in allowed:
        after = _merged_bytes(shape, kept, dtype, largest)
        if after >= 2 * data or not _copied_in_runs(_merge(_known(shape, largest), kept), dtype):
            continue
        if kept == original:
            return Keep(f"already cheap: copied without a transposition, {_percent(before, data)} padding")
        return Reshape(_merge(shape, kept), _gain(before, after, data))
    best = min(allowed, key=lambda kept: _merged_bytes(shape, kept, dtype, largest))  # the first of equals
    if best == original:
        return Keep(f"no other shape is smaller: {before} bytes for {data} bytes of data")
    return Reshape(_merge(shape, best), _gain(before, _merged_bytes(shape, best, dtype, largest), data))


def crossing_bytes(shape: RankedShape, choice: Keep | Reshape, dtype: str, batch: int = 1) -> int:
    """Bytes that cross for a tensor of this shape when `choice` is followed. Arguments as of `padded_bytes`.

    Needed because a flat shape [None] by itself does not tell how many elements a row of the batch had.
    """
    if isinstance(choice, Keep):
        return padded_bytes(shape, dtype, batch)
    return _merged_bytes(shape, len(choice.transfer) - 1, dtype, batch)


def padded_bytes(shape: RankedShape, dtype: str, batch: int = 1) -> int:
    """Bytes of the tensor in TPU memory, padded to tiles; this many cross between CPU and TPU.

    Args:
      shape: its shape; of unknown dimensions there may be only the 0th.
      dtype: TensorFlow's name of the element type.
      batch: the size that an unknown 0th dimension takes. For a tensor that was made flat see `crossing_bytes`.

    Raises:
      ValueError: the shape or the type has no size.
    """
    bits = _bits(dtype)
    dims = _known(shape, batch)
    if 0 in dims:
        return 0
    if len(dims) < 2:
        elements = _padded_vector(math.prod(dims), _packing(bits))
    else:
        elements = min(count for count, _ in _layouts(dims, _packing(bits)))
    return elements * bits // 8


def data_bytes(shape: RankedShape, dtype: str, batch: int = 1) -> int:
    """Bytes of the tensor without any padding. Arguments and errors as of `padded_bytes`."""
    return math.prod(_known(shape, batch)) * _bits(dtype) // 8


def reshape_argument(shape: RankedShape) -> tuple[int, ...]:
    """The constant that makes a Reshape yield `shape`: -1 stands for its unknown dimension.

    XLA resolves the -1 from the operand when it compiles for a batch of fixed size, so the result is static, whether
    the operand has the unknown dimension by itself or folded into a flat one: the others are known and positive.
    """
    return tuple(-1 if d is None else d for d in shape)


def _obstacle(shape: RankedShape | None, dtype: str) -> str | None:
    """Why a tensor cannot be reshaped at all, whatever would be gained; None if it can."""
    if dtype not in _BITS:
        return f"no reshape is known to help tensors of type {dtype}"
    if shape is None:
        return "its rank is unknown"
    if len(shape) < 2:
        return f"it has rank {len(shape)}, so there is nothing to merge"
    for i, d in enumerate(shape):
        if d is None and i > 0:
            return f"its dimension {i} is unknown; only the 0th, the batch, may be"
        if d == 0:
            return f"its dimension {i} is 0, so there is nothing to transfer"
    return None


def _merge(shape: RankedShape, kept: int) -> RankedShape:
    """`shape` with all dimensions but the first `kept` merged into one; a merged unknown one leaves an unknown one."""
    merged = shape[kept:]
    return (*shape[:kept], None if None in merged else math.prod(d for d in merged if d is not None))


def _merged_bytes(shape: RankedShape, kept: int, dtype: str, batch: int) -> int:
    return padded_bytes(_merge(_known(shape, batch), kept), dtype)


def _copied_in_runs(shape: RankedShape, dtype: str) -> bool:
    """Whether the compiler lays the last dimension (the last but ones of size 1) along the lanes.

    It prefers to, among the layouts that pad least.
    """
    dims = _known(shape, 1)
    wide = [i for i, d in enumerate(dims) if d > 1]
    if len(dims) < 2 or len(wide) < 2:
        return True
    layouts = list(_layouts(dims, _packing(_bits(dtype))))
    least = min(count for count, _ in layouts)
    return (least, wide[-1]) in layouts


def _layouts(dims: tuple[int, ...], packing: int) -> Iterator[tuple[int, int]]:
    """Of every layout of a tensor of rank 2 or more: its elements with padding, and the dimension along the lanes."""
    total = math.prod(dims)
    for lane, row in itertools.permutations(range(len(dims)), 2):
        rows = _round_up(dims[row], _tile_rows(dims[row], packing))
        yield total // (dims[lane] * dims[row]) * rows * _round_up(dims[lane], LANES), lane


def _tile_rows(rows: int, packing: int) -> int:
    """Rows of the tile that holds `rows` rows: at least those that share a 32-bit word, at most 8.

    For elements of 8 bits the compiler prefers tiles of 32 rows, but only where that adds no padding.
    """
    return max(packing, min(ROWS, _power_of_two(rows)))


def _padded_vector(elements: int, packing: int) -> int:
    """Elements of a tensor of rank 0 or 1 with padding: its tile grows with it up to 1024 elements."""
    return _round_up(elements, max(LANES * packing, min(LANES * ROWS, _power_of_two(elements))))


def _packing(bits: int) -> int:
    """How many elements share a 32-bit word. Those of 64 bits are stored as two tensors of 32 bits each."""
    return max(1, 32 // bits)


def _bits(dtype: str) -> int:
    if dtype not in _BITS:
        raise ValueError(f'type "{dtype}" has no known size on the TPU; known are {", ".join(sorted(_BITS))}')
    return _BITS[dtype]


def _known(shape: RankedShape, batch: int) -> tuple[int, ...]:
    """`shape` for one size of the batch."""
    if None in shape[1:]:
        raise ValueError(f"shape {list(shape)} has no size: an unknown dimension after the 0th")
    return tuple(batch if d is None else d for d in shape)


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _percent(padded: int, data: int) -> str:
    return f"{100 * (padded - data) / data:.0f} %"


def _gain(before: int, after: int, data: int) -> str:
    if before == after:
        return f"copied instead of transposed, {before} bytes as before"
    return f"{before} -> {after} bytes for {data} bytes of data"
