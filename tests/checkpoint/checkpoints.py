"""Checkpoints made and read with TensorFlow, and indices changed by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from converter.checkpoint.checksum import masked_crc32c
from converter.checkpoint.index import Index, index_chunks, index_path, read_index
from converter.checkpoint.table import _BlockBuilder, _handle

MIXED: dict[str, Any] = {
    "a/kernel": np.linspace(-3, 3, 60, dtype=np.float32).reshape(5, 12),
    "b/scalar": np.float32(1.2345678),
    "c/empty": np.zeros((0, 4), np.float32),
    "d/int": np.arange(7, dtype=np.int64),
    "e/bool": np.array([True, False]),
    "f/double": np.float64(1 / 3),
    "g/text": np.array([b"one", b"", "zwölf".encode()], object),
    "h/half": np.array([1.5, 2.5], np.float16),
    "i/kept": np.full((3, 3), 0.1, np.float32),
    "j/complex": np.complex64(1 + 2j),
    "k/bias": np.full(9, 1 / 3, np.float32),
}
CHOSEN = ["a/kernel", "b/scalar", "c/empty", "k/bias"]


def save(prefix: Path, tensors: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> Path:
    """Writes a checkpoint of one data file. `slices` are specifications such as "4 10 0,2:-"."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[(slices or {}).get(key, "") for key in tensors],
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return prefix


def merge(parts: list[Path], prefix: Path) -> Path:
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=list(map(str, parts)), destination_prefix=str(prefix))
    return prefix


def sliced(directory: Path) -> Path:
    """A checkpoint whose tensors "v" (float32), "w" (int32) are in slices over three files, "x" is whole."""
    whole = np.arange(40, dtype=np.float32).reshape(4, 10) / 7
    specs = ["4 10 0,1:-", "4 10 1,2:-", "4 10 3,1:-"]
    parts = []
    for i, (spec, rows) in enumerate(zip(specs, (whole[:1], whole[1:3], whole[3:]), strict=True)):
        tensors = {"v": rows, "w": rows.astype(np.int32)} | ({"x": whole} if i == 0 else {})
        parts.append(save(directory / f"part{i}" / "x", tensors, {"v": spec, "w": spec}))
    return merge(parts, directory / "source" / "variables")


def restore(prefix: Path, key: str, dtype: tf.DType, spec: str = "") -> Any:
    (value,) = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=[key], shape_and_slices=[spec], dtypes=[tf.as_dtype(dtype)]
    )
    return value.numpy()


def bits(array: Any) -> Any:
    return np.asarray(array).view(np.uint16)


def assert_recast(source: Path, target: Path, keys: Collection[str]) -> None:
    """TensorFlow reads from `target` what it casts of `source`, for `keys`, and the same for all others."""
    before, after = tf.train.load_checkpoint(str(source)), tf.train.load_checkpoint(str(target))
    assert before.get_variable_to_shape_map() == after.get_variable_to_shape_map()
    for key, dtype in before.get_variable_to_dtype_map().items():
        value = before.get_tensor(key)
        if key in keys:
            assert after.get_variable_to_dtype_map()[key] == tf.bfloat16
            expected = bits(tf.cast(value, tf.bfloat16).numpy())
            np.testing.assert_array_equal(bits(after.get_tensor(key)), expected)
            np.testing.assert_array_equal(bits(restore(target, key, tf.bfloat16)), expected)
        else:
            assert after.get_variable_to_dtype_map()[key] == dtype
            np.testing.assert_array_equal(after.get_tensor(key), value)


def files(prefix: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prefix.parent.iterdir())}


def change_index(prefix: Path, change: Callable[[Index], object]) -> None:
    """Writes the index of a checkpoint anew, with its entries changed."""
    index = read_index(prefix)
    change(index)
    index_path(prefix).write_bytes(b"".join(index_chunks(index)))


def change_blocks(prefix: Path, change: Callable[[bytes], bytes], compression: int = 0) -> None:
    """Writes the index of a checkpoint anew, its only data block and its metaindex changed, checksums right."""
    data, metaindex, _, footer = index_chunks(read_index(prefix))
    content, handles = b"", []
    for chunk in (data, metaindex):
        block = change(chunk[:-5]) + bytes([compression])
        block += masked_crc32c(block).to_bytes(4, "little")
        handles.append(_handle(len(content), block))
        content += block
    builder = _BlockBuilder(1)
    builder.add(b"\xff", handles[0])
    last = builder.finish()
    handle = handles[1] + _handle(len(content), last)
    index_path(prefix).write_bytes(content + last + handle.ljust(40, b"\x00") + footer[-8:])


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another process, in the root of the repository."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=root)
