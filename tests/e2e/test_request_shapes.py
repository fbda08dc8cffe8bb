"""Requests of another shape than the signature's, where tensors cross to the TPU reshaped: all rows, or an error.

A server does not compare a request with the signature, so the original answers what its ops can compute.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from converter import ConvertSettings, convert, write_cpu_twin
from converter.graph import calls, refs
from converter.graph.functions import clone_function
from converter.graph.nodes import make_node
from converter.saved_model.reader import read_model
from tests.oracle import LOADERS, Loader, _without_meta_optimizer, assert_same, open_model

ON_TPU = 'tpu_functions { function_alias: "f" }\n'
PLAIN = "bfloat16_optimization: DISABLED io_shape_optimization: ENABLED"
BATCHED = (
    f"{PLAIN} batch_options {{ num_batch_threads: 1 max_batch_size: 8 allowed_batch_sizes: 4 allowed_batch_sizes: 8 }}"
)
Shape = list[int | None]
Answer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A TPU function of one tensor, requests that it has to answer, and those of which the reshapes lose rows."""

    body: Callable[[tf.Tensor], tf.Tensor]
    declared: Shape
    fitting: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, ...], ...]


CASES = {
    "pooled images": Case(
        lambda x: tf.reduce_mean(tf.nn.relu(x), [1, 2]),
        [None, 64, 64, 3],
        ((4, 64, 64, 3), (1, 64, 64, 3), (0, 64, 64, 3)),
        ((4, 32, 32, 3), (1, 128, 128, 3), (4, 32, 128, 3), (2, 64, 64, 6)),
    ),
    "features": Case(lambda x: x * 2.0, [None, 10], ((3, 10), (0, 10)), ((4, 20), (4, 5), (10, 3), (20,), (2, 2, 5))),
    "a batch of fixed size": Case(lambda x: x * 2.0, [8, 10], ((8, 10),), ((4, 20), (16, 5), (4, 10), (80,))),
    # Only the result is reshaped here: the argument is on the fast path already.
    "positions": Case(
        lambda x: tf.stack([tf.reduce_max(x, 2), tf.reduce_min(x, 2), tf.reduce_sum(x, 2)], 2),
        [None, 8, 128],
        ((4, 8, 128), (0, 8, 128)),
        ((4, 4, 128), (2, 2, 8, 128)),
    ),
    # Nothing of the length is declared, so any will do.
    "any length": Case(
        lambda x: tf.reduce_max(x, 1), [None, None, 3], ((4, 7, 3), (4, 1, 3)), ((4, 7, 6), (2, 4, 7, 3))
    ),
    # The 0th dimension of the result is no batch.
    "turned": Case(lambda x: tf.matmul(x, x, transpose_a=True), [None, 12], ((4, 12), (1, 12)), ((4, 6), (4, 24))),
}


def export(case: Case, out: Path) -> Path:
    root = tf.Module()
    specs = [tf.TensorSpec(case.declared, tf.float32, "images")]
    root.f = tf.function(case.body, input_signature=specs)
    root.serve = tf.function(lambda images: {"y": root.f(images)}, input_signature=specs)
    tf.saved_model.save(root, str(out), root.serve, tf.saved_model.SaveOptions(function_aliases={"f": root.f}))
    return out


def twin(original: Path, out: Path, options: str) -> Path:
    convert(original, out / "converted", ON_TPU + options, ConvertSettings(allow_batching_violations=True))
    write_cpu_twin(out / "converted", out / "twin")
    return out / "twin"


@contextlib.contextmanager
def served(model_dir: Path, loader: Loader, meta_optimizer: bool) -> Iterator[Answer]:
    """Answers requests as a server does: `Session.run` of Python would compare shapes with the placeholder's."""
    if loader == "v2":
        with open_model(model_dir, loader, meta_optimizer) as model:
            yield lambda x: model.run("serving_default", {"images": x})["y"]
        return
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = not meta_optimizer
    with contextlib.ExitStack() as stack:
        directory = model_dir if meta_optimizer else stack.enter_context(_without_meta_optimizer(model_dir))
        session = stack.enter_context(contextlib.closing(tf.compat.v1.Session(graph=tf.Graph(), config=config)))
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, [tf.saved_model.SERVING], str(directory))
        signature = meta_graph.signature_def["serving_default"]
        feed, fetch = signature.inputs["images"].name, signature.outputs["y"].name
        ask = session._make_callable_from_options(config_pb2.CallableOptions(feed=[feed], fetch=[fetch]))
        yield lambda x: np.asarray(ask(x)[0])


def draw(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(-8, 8, shape).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_rows_are_the_request_s_own_or_the_error_names_the_argument(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    original = export(case, tmp_path / "original")
    reshaped = twin(original, tmp_path, PLAIN)
    for loader in LOADERS:
        for meta_optimizer in (False, True):
            with (
                served(original, loader, meta_optimizer) as expected,
                served(reshaped, loader, meta_optimizer) as found,
            ):
                for shape in case.fitting:
                    assert_same(found(draw(shape)), expected(draw(shape)), where=f"{loader} {meta_optimizer} {shape}")
                for shape in case.others:
                    assert_refused(found, case, shape)


def assert_refused(answer: Answer, case: Case, shape: tuple[int, ...]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        answer(draw(shape))
    sizes = ",".join("?" if size is None else str(size) for size in case.declared)
    given = ",".join(map(str, shape))
    assert f"[{given}] is not compatible with expected shape [{sizes}]" in str(caught.value)
    assert "/shape_of_images" in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("options", [BATCHED, "", f"{BATCHED}".replace(PLAIN, "")], ids=["batched", "bfloat16", "both"])
def test_casts_and_batching_around_the_reshapes_change_nothing_of_that(
    options: str, loader: Loader, tmp_path: Path
) -> None:
    case = CASES["pooled images"]
    original = export(case, tmp_path / "original")
    reshaped = twin(original, tmp_path, options)
    for meta_optimizer in (False, True):
        with served(original, loader, meta_optimizer) as expected, served(reshaped, loader, meta_optimizer) as found:
            assert_same(found(draw((3, 64, 64, 3))), expected(draw((3, 64, 64, 3))), rtol=5e-3)
            for shape in ((4, 32, 32, 3), (4, 128, 128, 3)):
                assert_refused(found, case, shape)


def test_a_second_conversion_adds_no_second_check(tmp_path: Path) -> None:
    original = export(CASES["positions"], tmp_path / "original")
    convert(original, tmp_path / "once", ON_TPU + PLAIN)
    convert(tmp_path / "once", tmp_path / "twice", PLAIN)
    checks = [
        [n for s in read_model(tmp_path / d).scopes() for n in s.nodes if n.op == "EnsureShape"]
        for d in ("once", "twice")
    ]
    assert [len(found) for found in checks] == [1, 1]


# --- results that a gradient function captured -------------------------------------------------------------------


class Captured(tf.Module):
    """The gradient of `serve` is a function that captured what the TPU function returned."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(5).integers(-2, 3, (10, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32)])
    def f(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self.kernel)

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = self.f(x)

        @tf.custom_gradient
        def halved(z: tf.Tensor) -> Any:
            return z / 2.0, lambda upstream: upstream * y

        return {"y": halved(x[:, :4])}


def gradient(model_dir: Path, x: np.ndarray) -> np.ndarray:
    with open_model(model_dir, "v2") as model, tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        y = model.loaded.serve(given)["y"]
        return np.asarray(tape.gradient(y, given).numpy())


def call_the_tpu_in_place(converted: Path) -> None:
    """Makes a converted model into one that somebody else built: `serve` calls the TPU itself, and alone."""
    model = read_model(converted)
    (stub,) = model.aliases["f"]
    tpu_call = next(n for n in model.functions[stub].node_def if n.op == "TPUPartitionedCall")
    for scope in model.scopes():
        for node in [n for n in scope.nodes if calls.called_functions(n, model) == [stub]]:
            own = clone_function(model, tpu_call.attr["f"].func.name, "own")
            scope.nodes.append(make_node("core", "TPUOrdinalSelector"))
            inputs = [*refs.data_inputs(node), "core:device_ordinals:0"]
            node.CopyFrom(make_node(node.name, tpu_call.op, inputs, **dict(tpu_call.attr)))
            node.attr["f"].func.name = own.signature.name
    (converted / "saved_model.pb").write_bytes(model.saved_model.SerializeToString(deterministic=True))


def test_a_gradient_function_that_captured_a_result_of_the_call_gets_it_in_its_own_shape(tmp_path: Path) -> None:
    root = Captured()
    options = tf.saved_model.SaveOptions(function_aliases={"f": root.f}, experimental_custom_gradients=True)
    tf.saved_model.save(root, str(tmp_path / "original"), root.serve, options)
    convert(tmp_path / "original", tmp_path / "first", f"{ON_TPU} disable_default_optimizations: true")
    call_the_tpu_in_place(tmp_path / "first")
    report = convert(tmp_path / "first", tmp_path / "converted", PLAIN)
    assert any("output" in c.where for c in report.passes[-1].result.changes)
    objects = read_model(tmp_path / "converted").object_graph.nodes
    captured = [n.captured_tensor.name for n in objects if n.WhichOneof("kind") == "captured_tensor"]
    assert any("/restore_" in name for name in captured), captured
    write_cpu_twin(tmp_path / "converted", tmp_path / "twin")
    x = draw((3, 10))
    assert_same(gradient(tmp_path / "twin", x), gradient(tmp_path / "original", x))
    assert np.any(gradient(tmp_path / "original", x))
