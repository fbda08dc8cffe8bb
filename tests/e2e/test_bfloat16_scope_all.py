"""Scope ALL where the TPU and the CPU run the same function: both run it in bfloat16, with one bfloat16 variable."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from converter import convert, write_cpu_twin
from converter.checkpoint.read import list_tensors
from converter.saved_model.reader import VARIABLES_PREFIX
from tests.oracle import LOADERS, relative_error, run_saved_model

TOLERANCE = 2e-2


class Shared(tf.Module):
    """`helper` reads the variable; the TPU function calls it, and so does the signature on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
    def helper(self, x: tf.Tensor) -> tf.Tensor:
        return tf.tanh(tf.matmul(x, self.kernel))

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
    def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
        return self.helper(x) + 1.0

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"tpu": self.tpu_func(x), "cpu": self.helper(x) * 2.0}


def test_the_cpu_runs_what_it_shares_with_the_tpu_in_bfloat16_too(tmp_path: Path) -> None:
    model = Shared()
    options = tf.saved_model.SaveOptions(function_aliases={"tpu_func": model.tpu_func})
    tf.saved_model.save(model, str(tmp_path / "model"), {"serving_default": model.serve}, options)
    report = convert(
        tmp_path / "model",
        tmp_path / "converted",
        'tpu_functions { function_alias: "tpu_func" } bfloat16_optimization_options { scope: ALL }',
    )
    write_cpu_twin(tmp_path / "converted", tmp_path / "twin")
    assert not report.warnings
    stored = list_tensors(tmp_path / "converted" / VARIABLES_PREFIX)
    assert stored["kernel/.ATTRIBUTES/VARIABLE_VALUE"].dtype == tf.bfloat16
    inputs = [{"x": np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)}]
    for loader in LOADERS:
        [expected] = run_saved_model(tmp_path / "model", "serving_default", inputs, loader)
        [found] = run_saved_model(tmp_path / "twin", "serving_default", inputs, loader)
        for key, value in expected.items():
            assert found[key].dtype == np.float32
            assert 0 < relative_error(found[key], value) < TOLERANCE, key
