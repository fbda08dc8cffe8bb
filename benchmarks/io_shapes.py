"""What a tensor costs on its way to and from the TPU, by the shape in which it crosses.

For each case this builds small SavedModels, one a transfer shape: the signature takes the tensor in that shape,
reshapes it to the model's and feeds a typical consumer (or the other way round for results). Each is compiled for
the TPU by a tool that runs as a subprocess, `PYTHON TOOL SAVED_MODEL_DIR SIGNATURE BATCH`, and prints one JSON line
with `estimated_seconds`, `argument_bytes`, `output_bytes` and `layout` (the compiled program's entry layout). Weights
are constants, so the tensor in question is the program's only argument, or its only result. No TPU is needed.
The transfer shape that `converter.passes.io_shape.transfer_shape` chooses is marked with a star.

    python -m benchmarks.io_shapes --tpu_compile PATH_OF_TOOL [--python PYTHON] [--only SUBSTRING]

The table is Markdown: docs/io_shapes.md shows it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from converter.passes.io_shape.transfer_shape import Reshape, choose, data_bytes, padded_bytes

Dims = tuple[int, ...]
COLUMNS = (
    "tensor", "dtype", "way", "consumer or producer", "crosses as", "device us", "host us", "data bytes",
    "padded_bytes", "argument bytes", "output bytes", "layout",
)  # fmt: skip


class Conv:
    """A convolution over the last three dimensions; those before them are images."""

    def __init__(self, kernel: int, channels: tuple[int, int], stride: int = 1) -> None:
        self.name = f"conv {kernel}x{kernel}"
        self.kernel, self.channels, self.stride = kernel, channels, stride

    def weights(self) -> Dims:
        return (self.kernel, self.kernel, *self.channels)

    def __call__(self, x: tf.Tensor, w: np.ndarray) -> tf.Tensor:
        x = tf.reshape(x, [-1, *x.shape[-3:]])
        return tf.nn.conv2d(x, tf.cast(w, x.dtype), self.stride, "SAME")


class MatMul:
    """A dense layer over the last dimension."""

    name = "matmul"

    def __init__(self, inputs: int, outputs: int) -> None:
        self.shape = (inputs, outputs)

    def weights(self) -> Dims:
        return self.shape

    def __call__(self, x: tf.Tensor, w: np.ndarray) -> tf.Tensor:
        return tf.linalg.matmul(x, tf.cast(w, x.dtype))


class Gather:
    """An embedding look-up."""

    name = "embedding"

    def weights(self) -> Dims:
        return (1000, 128)

    def __call__(self, x: tf.Tensor, w: np.ndarray) -> tf.Tensor:
        return tf.gather(w, x)


class MaskedAdd:
    """Attention scores with a mask of [batch, keys] or [batch, queries, keys]."""

    name = "masked add"

    def __init__(self, keys: int) -> None:
        self.keys = keys

    def weights(self) -> Dims:
        return (1, 4, self.keys, self.keys)

    def __call__(self, x: tf.Tensor, w: np.ndarray) -> tf.Tensor:
        mask = x[:, tf.newaxis] if len(x.shape) == 3 else x[:, tf.newaxis, tf.newaxis]
        return w + tf.where(tf.cast(mask, tf.bool), 0.0, -1e9)


@dataclass(frozen=True)
class Case:
    """One tensor that crosses. For a result, `source` is the shape of the producer's argument."""

    shape: Dims
    dtype: str
    op: Any
    source: Dims | None = None

    @property
    def is_result(self) -> bool:
        return self.source is not None

    def transfer_shapes(self) -> Iterator[Dims]:
        """The shape itself, then with more and more trailing dimensions merged, at last flat."""
        for kept in range(len(self.shape) - 1, -1, -1):
            yield (*self.shape[:kept], math.prod(self.shape[kept:]))


CASES = [
    Case((8, 224, 224, 3), "bfloat16", Conv(7, (3, 64), 2)),
    Case((8, 224, 224, 3), "float32", Conv(7, (3, 64), 2)),
    Case((1, 224, 224, 3), "bfloat16", Conv(7, (3, 64), 2)),
    Case((8, 64, 64, 3), "float32", Conv(3, (3, 32), 2)),
    Case((8, 96, 96, 1), "float32", Conv(3, (1, 32), 2)),
    Case((1, 96, 96, 1), "bfloat16", Conv(3, (1, 32), 2)),
    Case((4, 8, 56, 56, 3), "bfloat16", Conv(3, (3, 32), 2)),
    Case((8, 12, 12, 64), "bfloat16", Conv(3, (64, 64))),
    Case((8, 128, 768), "bfloat16", MatMul(768, 256)),
    Case((8, 48, 128), "float32", MatMul(128, 256)),
    Case((8, 20, 30), "float32", MatMul(30, 64)),
    Case((1, 20, 30), "float32", MatMul(30, 64)),
    Case((8, 10), "float32", MatMul(10, 4)),
    Case((1, 10), "float32", MatMul(10, 4)),
    Case((8, 128), "int32", Gather()),
    Case((1, 128), "int32", Gather()),
    Case((8, 128), "bool", MaskedAdd(128)),
    Case((8, 64, 64), "bool", MaskedAdd(64)),
    Case((8, 64, 64), "int32", MaskedAdd(64)),
    Case((8, 4), "float32", MatMul(128, 4), source=(8, 128)),
    Case((8, 1001), "float32", MatMul(128, 1001), source=(8, 128)),
    Case((1, 1001), "float32", MatMul(128, 1001), source=(1, 128)),
    Case((1, 1001), "bfloat16", MatMul(128, 1001), source=(1, 128)),
    Case((8, 20, 30), "float32", MatMul(128, 30), source=(8, 20, 128)),
    Case((8, 128, 768), "bfloat16", MatMul(256, 768), source=(8, 128, 256)),
    Case((8, 96, 96, 3), "bfloat16", Conv(1, (128, 3)), source=(8, 96, 96, 128)),
    Case((8, 64, 64), "int32", MatMul(128, 64), source=(8, 64, 128)),
]


def save(case: Case, transfer: Dims, directory: str) -> None:
    """A SavedModel whose tensor crosses as `transfer`."""
    module = tf.Module()
    # Random, because XLA replaces a product with equal weights by something cheaper.
    weights = np.random.default_rng(0).normal(size=case.op.weights()).astype(np.float32)
    if case.is_result:
        floating = tf.as_dtype(case.dtype).is_floating
        spec = tf.TensorSpec(case.source, case.dtype if floating else tf.float32)

        def body(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.reshape(tf.cast(case.op(x, weights), case.dtype), transfer)}
    else:
        spec = tf.TensorSpec(transfer, case.dtype)

        def body(x: tf.Tensor) -> dict[str, tf.Tensor]:
            # The sum over the channels keeps the result small, so that the time is that of the way in.
            return {"y": tf.reduce_sum(tf.cast(case.op(tf.reshape(x, case.shape), weights), tf.float32), -1)}

    module.f = tf.function(body, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, directory, signatures=module.f)


def compile_for_tpu(tool: str, python: str, directory: str) -> dict[str, Any]:
    """The tool's figures. libtpu lets one process of a machine in at a time, so this waits for its turn."""
    for _ in range(20):
        # The shapes are all known: the batch argument fills unknown dimensions only.
        run = subprocess.run(
            [python, tool, directory, "serving_default", "1"], capture_output=True, text=True, check=False
        )
        if run.returncode == 0:
            figures: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
            return figures
        if "libtpu_lockfile" not in run.stderr:
            break
        time.sleep(15)
    raise SystemExit(f"{tool} failed with exit status {run.returncode}:\n{run.stderr[-2000:]}")


def crossing_layout(case: Case, transfer: Dims, entry_layout: str) -> tuple[str, Dims]:
    """Layout of the tensor in question: its text, and the dimensions from minor to major."""
    arguments, results = entry_layout.split("->")
    name = r"\w+\[" + ",".join(map(str, transfer)) + r"\](\{([\d,]*):[^}]*\})"
    found = re.search(name, results if case.is_result else arguments)
    if found is None:
        raise SystemExit(f"no tensor of shape {list(transfer)} in the layout {entry_layout}")
    return found[1], tuple(map(int, found[2].split(",")))


def host_seconds(case: Case, transfer: Dims, minor_to_major: Dims) -> float:
    """Seconds in which NumPy on this machine brings a row-major array into the layout, but for the tiling.

    For a result it is the other way round: out of the layout.
    """
    dtype = np.dtype(f"u{tf.as_dtype(case.dtype).size}")
    row_major = _buffer(transfer, dtype).transpose(minor_to_major[::-1])
    laid_out = _buffer(row_major.shape, dtype)
    source, target = (laid_out, row_major) if case.is_result else (row_major, laid_out)
    # The least of many: whatever else the machine does only ever adds to it.
    return min(_seconds(lambda: np.copyto(target, source)) for _ in range(50))


def _buffer(shape: Dims, dtype: np.dtype) -> np.ndarray:
    """An array at the start of a page, all of it written.

    Where NumPy puts small arrays by itself, source and target may begin 16 bytes apart but for whole pages, and then
    some processors copy ten times slower. Memory never written may be one page of zeros that always is in the cache.
    """
    page = 4096
    memory = np.ones(math.prod(shape) * dtype.itemsize + page, np.uint8)
    start = -memory.ctypes.data % page
    return memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(case: Case, tool: str, python: str) -> Iterator[tuple[str, ...]]:
    """One row of the table for each transfer shape of the case."""
    choice = choose(case.shape, case.dtype)
    chosen = choice.transfer if isinstance(choice, Reshape) else case.shape
    for transfer in case.transfer_shapes():
        with tempfile.TemporaryDirectory() as directory:
            save(case, transfer, directory)
            figures = compile_for_tpu(tool, python, directory)
        layout, minor_to_major = crossing_layout(case, transfer, figures["layout"])
        yield (
            str(list(case.shape)),
            case.dtype,
            "out" if case.is_result else "in",
            case.op.name,
            str(list(transfer)) + (" *" if transfer == chosen else ""),
            f"{figures['estimated_seconds'] * 1e6:.2f}",
            f"{host_seconds(case, transfer, minor_to_major) * 1e6:.0f}",
            str(data_bytes(transfer, case.dtype)),
            str(padded_bytes(transfer, case.dtype)),
            str(figures["argument_bytes"]),
            str(figures["output_bytes"]),
            f"`{layout}`",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tpu_compile", required=True, help="the tool that compiles a SavedModel for the TPU")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs the tool")
    parser.add_argument("--only", default="", help="only cases whose shape, type or operation contains this")
    flags = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for case in CASES:
        if flags.only in f"{list(case.shape)} {case.dtype} {case.op.name}":
            for row in measure(case, flags.tpu_compile, flags.python):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
