import ml_dtypes
import numpy as np
import pytest

from converter.graph import tensors
from converter.graph.protos import DT_BFLOAT16, DT_COMPLEX64, DT_FLOAT, DT_INT64, DT_RESOURCE, DT_STRING, DT_VARIANT


def test_the_name_of_a_dtype_is_python_s() -> None:
    names = [tensors.dtype_name(d) for d in (DT_FLOAT, DT_STRING, DT_BFLOAT16, DT_RESOURCE)]
    assert names == ["float32", "string", "bfloat16", "resource"]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, np.complex64, ml_dtypes.bfloat16])
def test_a_constant_holds_what_it_was_made_of(dtype: type[np.generic]) -> None:
    given = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    found = tensors.values(tensors.to_proto(given))
    assert found.dtype == given.dtype
    np.testing.assert_array_equal(found, given)


def test_writing_into_the_values_leaves_the_constant_as_it_is() -> None:
    constant = tensors.to_proto(np.arange(3.0))
    before = constant.SerializeToString()
    tensors.values(constant)[:] = 7
    assert constant.SerializeToString() == before


def test_what_is_known_of_an_element() -> None:
    dtypes = (DT_FLOAT, DT_BFLOAT16, DT_INT64, DT_COMPLEX64, DT_STRING, DT_RESOURCE, DT_VARIANT)
    assert [tensors.bytes_per_element(d) for d in dtypes] == [4, 2, 8, 8, 0, 0, 0]
    assert [d for d in dtypes if tensors.is_integer(d)] == [DT_INT64]
    assert [d for d in dtypes if tensors.is_complex(d)] == [DT_COMPLEX64]
    assert tensors.numpy_dtype(DT_BFLOAT16) is ml_dtypes.bfloat16
