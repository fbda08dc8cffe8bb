"""Between numpy's arrays and TensorFlow's constants, and what TensorFlow knows of an element's type."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from converter.graph.protos import DataType, TensorProto

Array: TypeAlias = npt.NDArray[Any]
"""An array of the model's; Any, as the type of its elements is known when the model is read."""


def values(tensor: TensorProto) -> Array:
    """What a constant holds. An array of its own: writing into it changes nothing."""
    found: Array = tf.make_ndarray(tensor)
    return found


def to_proto(value: npt.ArrayLike) -> TensorProto:
    """A constant of a numpy scalar or array, or of anything `tf.make_tensor_proto` takes."""
    made: TensorProto = tf.make_tensor_proto(value)
    return made


def dtype_name(dtype: DataType) -> str:
    """DT_FLOAT -> 'float32' as TensorFlow's Python API spells it."""
    return tf.as_dtype(dtype).name


def numpy_dtype(dtype: DataType) -> type[np.generic]:
    """The type of numpy's (or of ml_dtypes) that has such values."""
    return tf.as_dtype(dtype).as_numpy_dtype


def bytes_per_element(dtype: DataType) -> int:
    """As TensorFlow counts: none for strings, resources and variants."""
    return int(tf.as_dtype(dtype).size)


def is_integer(dtype: DataType) -> bool:
    """Whether it is an integer, quantized ones not among them."""
    return tf.as_dtype(dtype).is_integer


def is_complex(dtype: DataType) -> bool:
    return bool(tf.as_dtype(dtype).is_complex)
