"""What of two answers is told to differ."""

import ml_dtypes
import numpy as np
import pytest

from converter.proofs.comparison import OutputComparison, compare, described, is_inexact, relative_error


def test_equal_outputs_and_those_that_differ_a_little() -> None:
    a = np.float32([3, 4])
    assert compare("s", 2, "y", a, a) == OutputComparison("s", 2, "y", 0.0, "")
    found = compare("s", 2, "y", a, np.float32([3, 4.5]))
    assert found.error == pytest.approx(0.1) and found.detail == ""


@pytest.mark.parametrize(
    ("found", "detail"),
    [
        (np.float64([3, 4]), "float64[2] instead of float32[2]"),
        (np.array([3, 4], ml_dtypes.bfloat16), "bfloat16[2] instead of float32[2]"),
        (np.int32([3, 4]), "int32[2] instead of float32[2]"),
        (np.float32([[3, 4]]), "float32[1, 2] instead of float32[2]"),
        (np.float32([3]), "float32[1] instead of float32[2]"),
        (np.array([b"3", b"4"], object), "string[2] instead of float32[2]"),
    ],
)
def test_another_type_or_shape_is_infinitely_wrong_whatever_the_values(found: np.ndarray, detail: str) -> None:
    assert compare("s", 2, "y", np.float32([3, 4]), found) == OutputComparison("s", 2, "y", float("inf"), detail)


def test_an_output_that_one_of_the_two_lacks() -> None:
    a = np.float32([1])
    assert compare("s", 1, "y", a, None).detail == "the converted model lacks this output"
    assert compare("s", 1, "y", None, a).detail == "the original lacks this output"
    assert compare("s", 1, "y", None, a).error == compare("s", 1, "y", a, None).error == float("inf")


def test_of_what_is_no_float_the_elements_that_differ_are_counted() -> None:
    assert compare("s", 1, "y", np.int32([1, 2, 3, 4]), np.int32([1, 0, 3, 0])).detail == "2 of 4 differ"
    assert compare("s", 1, "y", np.array([b"a"], object), np.array([b"b"], object)).detail == "1 of 1 differ"
    assert compare("s", 1, "y", np.int32([1]), np.int32([1])).detail == ""


def test_the_error_may_have_a_least_measure() -> None:
    assert relative_error(np.float32([1]), np.float32([2]), 4.0) == 0.25
    assert relative_error(np.float32([8]), np.float32([9]), 4.0) == 0.125
    assert relative_error(np.float32([0]), np.float32([0]), 0.0) == 0.0


def test_types() -> None:
    assert all(is_inexact(np.zeros(1, t)) for t in (np.float16, np.complex64, ml_dtypes.bfloat16))
    assert not any(is_inexact(np.zeros(1, t)) for t in (np.int8, bool, object))
    assert described(np.zeros([2, 3], bool)) == "bool[2, 3]"
