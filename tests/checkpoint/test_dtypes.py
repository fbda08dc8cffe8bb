"""The types of tensors are TensorFlow's."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from converter.checkpoint import dtypes


def test_names_are_tensorflows() -> None:
    numbers = [n for name, n in types_pb2.DataType.items() if n and not name.endswith("_REF")]
    assert {n: dtypes.dtype_name(n) for n in numbers} == {n: tf.as_dtype(n).name for n in numbers}


def test_numbers_are_tensorflows() -> None:
    assert dtypes.FLOAT == types_pb2.DT_FLOAT
    assert dtypes.BFLOAT16 == types_pb2.DT_BFLOAT16
    assert dtypes.STRING == types_pb2.DT_STRING


def test_a_type_that_does_not_exist_yet() -> None:
    assert dtypes.dtype_name(99) == "of the unknown type 99"
