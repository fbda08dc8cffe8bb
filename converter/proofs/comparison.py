"""How far two answers differ, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.graph.tensors import Array


@dataclass(frozen=True)
class OutputComparison:
    """One output tensor of one request.

    `error`: of floating-point numbers, the L2 norm of the difference over that of the original; of anything else, the
    share of elements that differ. `random`: the original's own answers differ from run to run: `error` means nothing.
    """

    signature: str
    batch_size: int
    output: str
    error: float
    detail: str
    random: bool = False


def compare(key: str, batch_size: int, name: str, expected: Array | None, found: Array | None) -> OutputComparison:
    """Compares one output of the original (None: it has no such output) with the converted model's."""
    if found is None or expected is None:
        detail = f"the {'converted model' if found is None else 'original'} lacks this output"
        return OutputComparison(key, batch_size, name, float("inf"), detail)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        detail = f"{described(found)} instead of {described(expected)}"
        return OutputComparison(key, batch_size, name, float("inf"), detail)
    error = relative_error(expected, found)
    differ = int(np.sum(expected != found)) if error and not is_inexact(expected) else 0
    return OutputComparison(key, batch_size, name, error, f"{differ} of {expected.size} differ" if differ else "")


def described(values: Array) -> str:
    """Type and shape of an array, such as float32[3, 10]."""
    return f"{'string' if values.dtype == object else values.dtype.name}{list(values.shape)}"


def is_inexact(values: Array) -> bool:
    # bfloat16 is no floating-point type to NumPy.
    return values.dtype.kind in "fc" or values.dtype.name == "bfloat16"


def relative_error(expected: Array, found: Array, least: float = 0.0) -> float:
    """L2 norm of the difference over that of `expected`, inf for new NaNs; of integers the share that differs.

    `least`: the difference is compared with this norm where that of `expected` is smaller.
    """
    if not is_inexact(expected):
        return float(np.mean(expected != found)) if expected.size else 0.0
    a, b = _wide(expected), _wide(found)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    difference, size = float(np.linalg.norm(a[finite] - b[finite])), max(norm(expected), least)
    return difference / size if size else difference


def norm(values: Array) -> float:
    """L2 norm of the finite ones among these floating-point numbers."""
    wide = _wide(values)
    return float(np.linalg.norm(wide[np.isfinite(wide)]))


def _wide(values: Array) -> Array:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64).ravel()
