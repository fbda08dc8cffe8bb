"""Inputs for a signature: drawn at random, or from a file that the user gives."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from converter.errors import ConversionError
from converter.graph.tensors import Array

_SEED = 20240917


def read_inputs(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name.

    Raises:
      ConversionError: there is no such file, or it is no .npz.
    """
    try:
        arrays = np.load(path)
        return dict(arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConversionError(
            f'The inputs file "{path}" cannot be read: {error}. Write it with numpy.savez, with one array for each '
            "input of the signature."
        ) from error


def given_inputs(arrays: Mapping[str, Array], specs: Mapping[str, tf.TensorSpec], key: str) -> dict[str, Array]:
    """What signature `key` takes, from a user's arrays.

    Raises:
      ConversionError: names, types or shapes do not fit.
    """
    if set(arrays) != set(specs):
        raise ConversionError(
            f'The inputs file has the arrays {sorted(arrays)}; the signature "{key}" expects {sorted(specs)}. Write '
            "one array for each, or choose another signature with --signature."
        )
    inputs = {}
    for name, spec in sorted(specs.items()):
        try:
            inputs[name] = tf.constant(arrays[name], dtype=spec.dtype).numpy()
        except (TypeError, ValueError) as error:
            raise _does_not_fit(name, arrays[name], spec, key) from error
        # TensorFlow would cut off what is behind the point.
        truncated = arrays[name].dtype.kind in "fc" and not (spec.dtype.is_floating or spec.dtype.is_complex)
        if truncated or not spec.shape.is_compatible_with(arrays[name].shape):
            raise _does_not_fit(name, arrays[name], spec, key)
    return inputs


def _does_not_fit(name: str, array: Array, spec: tf.TensorSpec, key: str) -> ConversionError:
    return ConversionError(
        f'The array "{name}" of the inputs file is {array.dtype}{list(array.shape)}; the signature "{key}" expects '
        f"{_text(spec)}. Write an array of that type and shape."
    )


def described(specs: Mapping[str, tf.TensorSpec]) -> str:
    """The inputs of a signature in words, such as x: float32[None, 10]."""
    return ", ".join(f"{name}: {_text(spec)}" for name, spec in sorted(specs.items())) or "nothing"


def _text(spec: tf.TensorSpec) -> str:
    return f"{spec.dtype.name}{'[...]' if spec.shape.rank is None else spec.shape.as_list()}"


def random_inputs(specs: Mapping[str, tf.TensorSpec], batch_size: int, small: bool, draw: int = 0) -> dict[str, Array]:
    """Arrays for these specs, the same ones every time: 1 stands in for unknown dimensions but the 0th.

    Args:
      small: floats are 0 or 1, which are valid as ids, too; else they are normally distributed.
      draw: each number gives other values.
    """
    random = np.random.default_rng(_SEED + draw)
    inputs = {}
    for name, spec in sorted(specs.items()):
        dims = [batch_size] if spec.shape.rank is None else list(spec.shape)
        shape = [(batch_size if i == 0 else 1) if d is None else d for i, d in enumerate(dims)]
        inputs[name] = tf.constant(_drawn(random, shape, spec.dtype, small), dtype=spec.dtype).numpy()
    return inputs


def _drawn(random: np.random.Generator, shape: list[int], dtype: tf.DType, small: bool) -> Array:
    if dtype.name == "string":
        words = np.array(["the", "quick", "brown fox", "1"])
        return words[random.integers(0, len(words), shape)]
    if (dtype.is_floating or dtype.is_complex) and not small:
        return random.standard_normal(shape)
    # Small integers are valid as ids, lengths and flags alike.
    return random.integers(0, 2, shape)
