"""Batching x bfloat16 on models that TensorFlow saves: constants that functions capture stay as exact as without."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from converter import ConvertSettings, convert, write_cpu_twin
from converter.analysis import tpu
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.harness import render_function
from tests.oracle import LOADERS, relative_error, run_saved_model

BATCH = (
    "batch_options {{ max_batch_size: 64 num_batch_threads: 1 batch_timeout_micros: 0 "
    "allowed_batch_sizes: 4 allowed_batch_sizes: 64 {} }} "
)
FIRST = BATCH.format('experimental { function_alias: "first" }')
COMPONENTS = {
    "default": BATCH.format(""),
    "function": FIRST,
    "signature": BATCH.format('experimental { signature_name: "serving_default" }'),
    "both functions": FIRST + BATCH.format('experimental { function_alias: "second" }'),
    "all of the model in bfloat16": BATCH.format("") + "bfloat16_optimization_options { scope: ALL } ",
}
TOLERANCE = 1e-2
POSITIONS = np.arange(400, dtype=np.float32)
FREQUENCIES = (10000 ** -(np.arange(0, 64, 2) / 64)).astype(np.float32)
FEATURES = np.random.default_rng(0).normal(50000, 1000, (2000, 8)).astype(np.float32)


def normalized() -> Callable[[tf.Tensor], tf.Tensor]:
    layer = keras.layers.Normalization()
    layer.adapt(FEATURES)
    return layer


def rotated() -> Callable[[tf.Tensor], tf.Tensor]:
    positions, frequencies = tf.constant(POSITIONS), tf.constant(FREQUENCIES)

    def rotate(x: tf.Tensor) -> tf.Tensor:
        angles = tf.tile(tf.einsum("i,j->ij", positions, frequencies), [1, 2])
        return x * tf.cos(angles) + tf.concat([-x[..., 32:], x[..., :32]], -1) * tf.sin(angles)

    return rotate


def scaled() -> Callable[[tf.Tensor], tf.Tensor]:
    mean, variance = tf.constant(49000.0), tf.constant(4e6)
    return lambda x: (x - mean) / tf.sqrt(variance)


def with_positions() -> Callable[[tf.Tensor], tf.Tensor]:
    table = tf.constant(POSITIONS[:, None] * 10000 ** -(np.arange(64, dtype=np.float32) / 64))
    return lambda x: x + tf.sin(table)


def in_a_loop() -> Callable[[tf.Tensor], tf.Tensor]:
    positions = tf.constant(POSITIONS[:, None])
    angles = tf.function(lambda i: tf.sin((positions + tf.cast(i, tf.float32)) / 3.7))

    def repeat(x: tf.Tensor) -> tf.Tensor:
        body = lambda i, h: (i + 1, tf.tanh(h) + angles(i))  # noqa: E731
        return tf.while_loop(lambda i, h: i < 3, body, [0, x], [tf.TensorShape([]), x.shape])[1]

    return repeat


SEQUENCES = np.random.default_rng(2).normal(size=(2, 400, 64)).astype(np.float32)
ENTRIES: dict[str, tuple[Callable[[], Callable[[tf.Tensor], tf.Tensor]], np.ndarray]] = {
    "normalization": (normalized, FEATURES[:40]),
    "rotary angles": (rotated, SEQUENCES),
    "scalars": (scaled, FEATURES[:3]),
    "a table of positions": (with_positions, SEQUENCES),
    "a nested call in a loop": (in_a_loop, SEQUENCES),
}


def save(name: str, directory: Path) -> None:
    """Two TPU functions in a row, both of which enter as this entry of ENTRIES says."""
    make, inputs = ENTRIES[name]
    width = inputs.shape[-1]
    rng = np.random.default_rng(1)

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = [tf.Variable(rng.normal(0, 0.3, (width, width)).astype(np.float32)) for _ in range(2)]
            self.enter = make()

        @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]], tf.float32, "x")])
        def first(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(self.enter(x), self.kernels[0])

        @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]], tf.float32, "x")])
        def second(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(self.enter(x), self.kernels[1])

        @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"first": self.first(x), "second": self.second(x)}

    model = Model()
    aliases = {"first": model.first, "second": model.second}
    options = tf.saved_model.SaveOptions(function_aliases=aliases)
    tf.saved_model.save(model, str(directory), {"serving_default": model.serve}, options)


def on_tpu(directory: Path) -> dict[str, str]:
    """All functions that run on the TPU, as text."""
    model = read_model(directory)
    return {name: render_function(model.functions[name]) for name in tpu.tpu_scopes(model)}


@pytest.mark.parametrize("entry", ENTRIES)
def test_errors_and_choices_are_the_same_with_batching_and_without(entry: str, tmp_path: Path) -> None:
    save(entry, tmp_path / "model")
    inputs = [{"x": ENTRIES[entry][1]}]
    placed = 'tpu_functions { function_alias: "first" } tpu_functions { function_alias: "second" } '
    placed += "io_shape_optimization: DISABLED "
    want = {loader: run_saved_model(tmp_path / "model", "serving_default", inputs, loader)[0] for loader in LOADERS}
    choices, errors = {}, {}
    for component, batching in {"none": "", **COMPONENTS}.items():
        converted = tmp_path / component
        convert(tmp_path / "model", converted, placed + batching)
        write_cpu_twin(converted, tmp_path / f"{component} twin")
        choices[component] = on_tpu(converted)
        for loader in LOADERS:
            [found] = run_saved_model(tmp_path / f"{component} twin", "serving_default", inputs, loader)
            errors[component, loader] = relative_error(found, want[loader])
    for component in COMPONENTS:
        assert choices[component] == choices["none"], component
        for loader in LOADERS:
            assert errors[component, loader] == pytest.approx(errors["none", loader], rel=0.05)
    assert max(errors.values()) < TOLERANCE, errors


SMALL = [
    name
    for name, m in MODELS.items()
    if m.row_independent and not m.error and not m.slow and name not in ("bfloat16_inside", "function_batching")
]


@pytest.mark.parametrize("name", SMALL)
def test_batching_a_test_model_changes_nothing_on_its_tpu(
    name: str, testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    options = MODELS[name].options_for(testdata(name)) + " io_shape_optimization: DISABLED "
    convert(testdata(name), tmp_path / "alone", options)
    convert(
        testdata(name),
        tmp_path / "batched",
        options + BATCH.format(""),
        ConvertSettings(allow_batching_violations=True),
    )
    assert on_tpu(tmp_path / "batched") == on_tpu(tmp_path / "alone")
