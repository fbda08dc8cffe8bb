"""What crosses between CPU and TPU in another shape: no answer changes, whatever the shapes."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import ConversionReport, convert, write_cpu_twin
from converter.passes.io_shape.reshape import IoShape
from converter.passes.pass_result import PassResult
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.e2e.cases import BATCH_SIZES, answers, names
from tests.oracle import assert_same, open_model

Testdata = Callable[[str], Path]

NOTHING_TO_RESHAPE = ("unknown_rank",)
ONLY_IO_SHAPES = "\nbfloat16_optimization: DISABLED"


def io_shape(report: ConversionReport) -> PassResult:
    """What the pass said; it is the last one."""
    assert report.passes[-1].name == "io_shape"
    return report.passes[-1].result


@pytest.mark.parametrize("name", names())
def test_the_cpu_twin_answers_like_the_original(name: str, testdata: Testdata, tmp_path: Path) -> None:
    original, model = testdata(name), MODELS[name]
    report = convert(original, tmp_path / "converted", model.options_for(original) + ONLY_IO_SHAPES)
    assert bool(io_shape(report).changes) == (name not in NOTHING_TO_RESHAPE), io_shape(report).skips
    write_cpu_twin(tmp_path / "converted", tmp_path / "twin")
    for loader in model.loaders:
        for meta_optimizer, rtol in ((False, 0.0), (True, 1e-6)):
            expected = answers(name, original, loader, meta_optimizer)
            found = answers(name, tmp_path / "twin", loader, meta_optimizer)
            assert_same(found, expected, rtol, where=f"{loader}, meta optimizer {meta_optimizer}")


# --- random shapes ----------------------------------------------------------------------------------------------

DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool", "complex64")
SHAPES = st.lists(st.sampled_from([None, 0, 1, 2, 3, 5, 7, 16, 40, 128]), max_size=5).filter(
    lambda shape: math.prod(3 if size is None else size for size in shape) <= 20000
)


class Passing(tf.Module):
    """A TPU function that changes nothing but the order of its dimensions; a variable is read on the way."""

    def __init__(self, specs: list[tf.TensorSpec]) -> None:
        super().__init__()
        self.zero = tf.Variable(0, name="zero")

        @tf.function(input_signature=specs)
        def tpu_func(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            found = {}
            for i, tensor in enumerate(tensors):
                found[f"same_{i}"] = tf.identity(tensor)
                found[f"turned_{i}"] = tf.transpose(tf.reshape(tensor, tf.shape(tensor) + self.zero))
            return found

        self.tpu_func = tpu_func


def draw_tensor(shape: list[int | None], dtype: str, batch: int) -> np.ndarray:
    sizes = [batch if size is None else size for size in shape]
    values = np.random.default_rng(len(sizes)).integers(0, 2 if dtype == "bool" else 200, sizes)
    return np.asarray(values).astype(tf.as_dtype(dtype).as_numpy_dtype)


def eligible(shape: list[int | None]) -> bool:
    return len(shape) >= 2 and None not in shape[1:] and 0 not in shape


@settings(max_examples=25)
@given(st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), min_size=1, max_size=4))
def test_whatever_the_shapes_the_answer_is_kept_or_the_tensor_is_skipped_with_a_reason(
    tensors: list[tuple[list[int | None], str]],
) -> None:
    specs = [tf.TensorSpec(shape, dtype, f"x{i}") for i, (shape, dtype) in enumerate(tensors)]
    root: Any = Passing(specs)
    with tempfile.TemporaryDirectory(prefix="shapes") as name:
        original, converted, twin = (Path(name) / stage for stage in ("original", "converted", "twin"))
        aliases = tf.saved_model.SaveOptions(function_aliases={"f": root.tpu_func})
        tf.saved_model.save(root, str(original), root.tpu_func, aliases)
        report = convert(original, converted, 'tpu_functions { function_alias: "f" }' + ONLY_IO_SHAPES)
        result = io_shape(report)
        changed, skipped = {c.where for c in result.changes}, {s.where for s in result.skips if s.reason}
        assert len(result.changes) + len(result.skips) == 3 * len(tensors)
        assert len(changed | skipped) == 3 * len(tensors)
        assert {s.where for s in result.skips} == skipped
        for i, (shape, _) in enumerate(tensors):
            assert eligible(shape) or f"f, input x{i}" in skipped
        write_cpu_twin(converted, twin)
        for batch in BATCH_SIZES:
            inputs = {f"x{i}": draw_tensor(shape, dtype, batch) for i, (shape, dtype) in enumerate(tensors)}
            with open_model(twin, "v1") as model:
                found = model.run("serving_default", inputs)
            for i, tensor in enumerate(inputs.values()):
                assert_same(found[f"same_{i}"], tensor)
                assert_same(found[f"turned_{i}"], tensor.T)
        assert not IoShape().apply(read_model(converted)).changes
