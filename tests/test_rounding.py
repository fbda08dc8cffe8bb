"""Rounding to bfloat16: to nearest even, and never from finite to infinite."""

import ml_dtypes
import numpy as np

from converter.rounding import LARGEST, clipped, rounded


def test_numbers_are_rounded_as_numpy_rounds_them() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert rounded(values).dtype == ml_dtypes.bfloat16
    assert np.array_equal(rounded(values), values.astype(ml_dtypes.bfloat16))


def test_finite_numbers_stay_finite_and_others_as_they_are() -> None:
    lowest = np.finfo(np.float32).min
    found = rounded(np.float32([lowest, -lowest, np.inf, -np.inf, np.nan, 1])).astype(np.float32)
    assert np.array_equal(found, np.float32([-LARGEST, LARGEST, np.inf, -np.inf, np.nan, 1]), equal_nan=True)
    assert clipped(np.float32([lowest, np.inf, 2])).tolist() == [-LARGEST, np.inf, 2]
