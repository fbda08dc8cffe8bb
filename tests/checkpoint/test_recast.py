"""Checkpoints of every kind, recast and read again with TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from converter.checkpoint.dtypes import FLOAT
from converter.checkpoint.read import list_tensors
from converter.checkpoint.recast import recast
from converter.errors import ConversionError
from converter.rounding import LARGEST
from tests.checkpoint.checkpoints import (
    CHOSEN,
    MIXED,
    assert_recast,
    bits,
    files,
    merge,
    restore,
    run_python,
    save,
    sliced,
)


def test_recast(mixed: Path, target: Path) -> None:
    recast(mixed, target, CHOSEN)
    assert_recast(mixed, target, CHOSEN)
    before, after = (p.with_name("variables.data-00000-of-00001").stat().st_size for p in (mixed, target))
    assert before - after == (60 + 1 + 9) * 2
    assert after == sum(tensor.size_bytes for tensor in list_tensors(target).values())
    assert sorted(files(target)) == ["variables.data-00000-of-00001", "variables.index"]
    assert len(files(target)["variables.index"]) <= len(files(mixed)["variables.index"])


def test_nothing_to_recast_gives_the_same_bytes(mixed: Path, target: Path) -> None:
    recast(mixed, target, [])
    assert files(target) == files(mixed)


def test_same_input_gives_the_same_bytes(mixed: Path, target: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "variables"
    recast(mixed, target, CHOSEN)
    recast(mixed, again, set(CHOSEN))
    assert files(again) == files(target)


def test_a_recast_tensor_cannot_be_recast_again(mixed: Path, target: Path, tmp_path: Path) -> None:
    recast(mixed, target, CHOSEN)
    with pytest.raises(ConversionError, match=r'"a/kernel" of the checkpoint .* is bfloat16'):
        recast(target, tmp_path / "again" / "variables", ["a/kernel"])


def test_rounding_is_tensorflows_but_nothing_finite_becomes_infinite(tmp_path: Path, target: Path) -> None:
    random = np.random.default_rng(0).integers(0, 2**32, 700_000, dtype=np.uint32)  # several chunks
    ties = np.uint32(0x3F800000) + np.arange(1 << 17, dtype=np.uint32) * np.uint32(0x4000)
    extreme = [0, 1 << 31, 1, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x00800000]
    values = np.concatenate([np.array(extreme, np.uint32), ties, random]).view(np.float32)
    source = save(tmp_path / "source" / "variables", {"v": values})
    recast(source, target, ["v"])
    actual = tf.train.load_checkpoint(str(target)).get_tensor("v")
    with np.errstate(invalid="ignore"):
        expected = tf.cast(values, tf.bfloat16).numpy()
    beyond = np.isfinite(values) & np.isinf(expected.astype(np.float32))
    assert beyond.any()
    expected[beyond] = np.copysign(LARGEST, values[beyond])
    nan = np.isnan(values)
    assert nan.any() and np.isinf(values).any()
    np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
    # The bits of a NaN are free; TensorFlow drops its sign.
    np.testing.assert_array_equal(bits(actual)[~nan], bits(expected)[~nan])


def test_several_data_files(tmp_path: Path, target: Path) -> None:
    items = list(MIXED.items())
    parts = [save(tmp_path / f"part{i}" / "x", dict(items[i::3])) for i in range(3)]
    source = merge(parts, tmp_path / "source" / "variables")
    assert len(files(source)) == 4
    recast(source, target, CHOSEN)
    assert sorted(files(target)) == sorted(files(source))
    assert_recast(source, target, CHOSEN)


def test_partitioned_tensors(tmp_path: Path, target: Path) -> None:
    source = sliced(tmp_path)
    recast(source, target, ["v", "x"])
    assert_recast(source, target, ["v", "x"])
    for key in ("v", "x"):  # as they were saved, and across what was saved
        for spec, rows in (("4 10 1,2:-", slice(1, 3)), ("4 10 0,2:-", slice(0, 2))):
            expected = restore(source, key, tf.float32)[rows].astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(bits(restore(target, key, tf.bfloat16, spec)), bits(expected))


def test_progress(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "source" / "variables", {"v": tf.ones(1_000_000), "w": tf.ones(10), "z": tf.ones(0)})
    calls: list[tuple[int, int]] = []
    recast(source, target, ["v"], progress=lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [4_000_040] * len(calls)
    done = [done for done, _ in calls]
    assert done == sorted(done) and done[-1] == 4_000_040 and len(done) >= 4


class Affine(tf.Module):
    def __init__(self, dtype: tf.DType, value: float) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.cast(tf.fill((4, 3), value), dtype), name="kernel")
        self.steps = tf.Variable(7, name="steps")

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(self, x: Any) -> Any:
        return {"y": tf.matmul(x, tf.cast(self.kernel, tf.float32))}


def test_both_loaders_restore_it(tmp_path: Path) -> None:
    """A model of bfloat16 variables takes the recast checkpoint of the same model in float32."""
    root = Affine(tf.float32, 0.3)
    tf.saved_model.save(root, str(tmp_path / "float32"), signatures=root.serve)
    root = Affine(tf.bfloat16, 0.0)
    directory = tmp_path / "bfloat16"
    tf.saved_model.save(root, str(directory), signatures=root.serve)
    shutil.rmtree(directory / "variables")
    source = tmp_path / "float32" / "variables" / "variables"
    keys = [key for key, tensor in list_tensors(source).items() if tensor.dtype == FLOAT]
    recast(source, directory / "variables" / "variables", keys)

    x = np.ones((2, 4), np.float32)
    expected = np.full((2, 3), 4 * np.float32(ml_dtypes.bfloat16(0.3)))
    loaded = tf.saved_model.load(str(directory))
    np.testing.assert_allclose(loaded.signatures["serving_default"](x=tf.constant(x))["y"], expected, rtol=1e-6)
    assert loaded.steps.numpy() == 7
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
        signature = meta_graph.signature_def["serving_default"]
        result = session.run(signature.outputs["y"].name, {signature.inputs["x"].name: x})
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(("megabytes", "tensor_megabytes"), [(400, 50), (512, 512)])
def test_memory(tmp_path: Path, megabytes: int, tensor_megabytes: int) -> None:
    """Far below the bound of the largest tensor and 64 MB."""
    source, target = tmp_path / "source" / "variables", tmp_path / "target" / "variables"
    rows = tensor_megabytes << 8  # of 1024 float32 numbers
    save(source, {f"v{i}": tf.ones((rows, 1024)) for i in range(megabytes // tensor_megabytes)})
    program = (
        "import sys; from pathlib import Path\n"
        "from converter.checkpoint.read import list_tensors\n"
        "from converter.checkpoint.recast import recast\n"
        "from benchmarks.checkpoint import memory\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "keys = list(list_tensors(source))\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = memory('VmRSS')\n"
        "recast(source, target, keys)\n"
        "print(memory('VmHWM') - before)\n"
    )
    result = run_python(program, str(source), str(target))
    assert result.returncode == 0, result.stderr
    assert sum(tensor.size_bytes for tensor in list_tensors(target).values()) == megabytes << 19
    assert float(result.stdout) < 32
