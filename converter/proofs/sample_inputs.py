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


def given_inputs(arrays: Mapping[str, Array], specs: Mapping[str, tf.TensorSpec], key: str) -> dict[str, tf.Tensor]:
    """The tensors that signature `key` takes, from a user's arrays.

    Raises:
      ConversionError: names or types do not fit.
    """
    if set(arrays) != set(specs):
        raise ConversionError(
            f'The inputs file has the arrays {sorted(arrays)}; the signature "{key}" expects {sorted(specs)}.'
        )
    inputs = {}
    for name, spec in sorted(specs.items()):
        try:
            inputs[name] = tf.constant(arrays[name], dtype=spec.dtype)
        except (TypeError, ValueError) as error:
            raise ConversionError(
                f'The array "{name}" of the inputs file is {arrays[name].dtype}{list(arrays[name].shape)}; the '
                f'signature "{key}" expects {spec.dtype.name}{spec.shape}.'
            ) from error
    return inputs


def random_inputs(specs: Mapping[str, tf.TensorSpec], batch_size: int, small: bool) -> dict[str, tf.Tensor]:
    """Tensors for these specs, the same ones every time: 1 stands in for unknown dimensions but the 0th.

    Args:
      small: floats are 0 or 1, which are valid as ids, too; else they are normally distributed.
    """
    random = np.random.default_rng(_SEED)
    inputs = {}
    for name, spec in sorted(specs.items()):
        dims = [batch_size] if spec.shape.rank is None else list(spec.shape)
        shape = [(batch_size if i == 0 else 1) if d is None else d for i, d in enumerate(dims)]
        inputs[name] = tf.constant(_drawn(random, shape, spec.dtype, small), dtype=spec.dtype)
    return inputs


def _drawn(random: np.random.Generator, shape: list[int], dtype: tf.DType, small: bool) -> Array:
    if dtype.name == "string":
        words = np.array(["the", "quick", "brown fox", "1"])
        return words[random.integers(0, len(words), shape)]
    if (dtype.is_floating or dtype.is_complex) and not small:
        return random.standard_normal(shape)
    # Small integers are valid as ids, lengths and flags alike.
    return random.integers(0, 2, shape)
