"""Rounding float32 numbers to bfloat16."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

LARGEST = 2.0**127 * (2 - 2.0**-7)  # of bfloat16's finite values
_INFINITE = np.uint16(0x7F80 << 1)  # the bits of infinity, without the sign


def round_into(target: NDArray[np.generic], values: NDArray[np.float32]) -> None:
    """Rounds `values` (float32) into `target` (bfloat16, as long).

    Finite values beyond bfloat16's become its largest, as the lowest float32 of a mask does: infinity is no mask, it
    makes NaNs of what is masked entirely.
    """
    with np.errstate(all="ignore"):
        target[...] = values
    without_sign = np.left_shift(target.view(np.uint16), 1)
    if without_sign.max(initial=0) >= _INFINITE:  # or a NaN
        beyond = (without_sign == _INFINITE) & np.isfinite(values)
        target[beyond] = np.copysign(np.float32(LARGEST), values[beyond])


def rounded(values: NDArray[np.float32]) -> NDArray[np.generic]:
    """A new array of `values`, rounded as by `round_into`."""
    target = np.empty(values.shape, ml_dtypes.bfloat16)
    round_into(target, values)
    return target


def clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 values that are finite as bfloat16 if they are finite."""
    return np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
