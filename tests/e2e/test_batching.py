"""Batched models under concurrent requests, through both loaders: every caller gets its own rows, in real batches."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converter import ConversionReport, ConvertSettings, convert, write_cpu_twin
from converter.graph import calls, refs
from converter.graph.nodes import make_node
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.oracle import LOADERS, LoadedModel, Loader, assert_same, open_model

ALLOWED = (3, 6, 12)
# No batch leaves before it is full, however late a busy machine starts the threads that ask: the requests fill all.
TIMEOUT = 60_000_000
REQUESTS = 60
OPTIONS = (
    f"num_batch_threads: 2 max_batch_size: 12 batch_timeout_micros: {TIMEOUT} max_enqueued_batches: 200 "
    "allowed_batch_sizes: 3 allowed_batch_sizes: 6 allowed_batch_sizes: 12"
)
ON_TPU = 'tpu_functions { function_alias: "tpu_func" } disable_default_optimizations: true'
COMPONENTS = {
    "default": "",
    "function": 'experimental { function_alias: "batch_func" }',
    "signature": 'experimental { signature_name: "serving_default" }',
}


class Counted(tf.Module):
    """A TPU function inside of a CPU function inside of two signatures; it tells each row the size of its batch.

    No model that is served may do that, so it is batched against the converter's advice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(5).standard_normal((8, 6)).astype(np.float32) / 3)

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32)])
    def tpu_func(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(x)[0]
        return {"y": tf.tanh(tf.matmul(x, self.kernel)), "batch_size": tf.fill([rows], rows)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32)])
    def batch_func(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        out = self.tpu_func(x * 2.0)
        rows = tf.shape(x)[0]
        return {"y": out["y"] + 1.0, "batch_size": out["batch_size"], "cpu_batch_size": tf.fill([rows], rows)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        out = self.batch_func(x)
        return {**out, "y": out["y"] * 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
    def other(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.tpu_func(x - 1.0)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("counted") / "model"
    root = Counted()
    aliases = {"tpu_func": root.tpu_func, "batch_func": root.batch_func}
    tf.saved_model.save(
        root,
        str(out),
        {"serving_default": root.serve, "other": root.other},
        tf.saved_model.SaveOptions(function_aliases=aliases),
    )
    return out


def twin(model: Path, out: Path, options: str) -> tuple[Path, ConversionReport]:
    """Converts a model, whatever the converter thinks of its rows, and makes the CPU twin of the result."""
    report = convert(model, out / "converted", options, ConvertSettings(allow_batching_violations=True))
    write_cpu_twin(out / "converted", out / "twin")
    return out / "twin", report


def row_counts() -> list[int]:
    counts = [1 + i % 3 for i in range(REQUESTS)]
    assert sum(counts) % ALLOWED[-1] == 0
    return counts


def requests() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(11)
    return [{"x": rng.uniform(-1, 1, (rows, 8)).astype(np.float32)} for rows in row_counts()]


def at_once(model: LoadedModel, calls: list[tuple[str, Mapping[str, np.ndarray]]]) -> list[dict[str, np.ndarray]]:
    """Answers all requests from a thread each, started together."""
    barrier = threading.Barrier(len(calls))

    def one(call: tuple[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        barrier.wait()
        return model.run(*call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def check_concurrent(original: Path, batched: Path, loader: Loader, counter: str = "batch_size") -> None:
    given = requests()
    with open_model(original, loader) as model:
        expected = [model.run("serving_default", each) for each in given]
    with open_model(batched, loader) as model:
        answers = at_once(model, [("serving_default", each) for each in given])
    for answer, want in zip(answers, expected, strict=True):
        assert_same(answer["y"], want["y"], rtol=1e-6)
    assert {int(size) for answer in answers for size in answer[counter]} == {ALLOWED[-1]}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", COMPONENTS)
def test_concurrent_requests_get_their_own_rows(kind: str, loader: Loader, counted: Path, tmp_path: Path) -> None:
    batched, report = twin(counted, tmp_path, f"{ON_TPU} batch_options {{ {OPTIONS} {COMPONENTS[kind]} }}")
    assert all("depends on how many rows the batch has" in warning for warning in report.warnings)
    check_concurrent(counted, batched, loader)
    if kind != "default":
        check_concurrent(counted, batched, loader, "cpu_batch_size")


@pytest.mark.parametrize("loader", LOADERS)
def test_updated_batching_options_hold(loader: Loader, counted: Path, tmp_path: Path) -> None:
    first = f"{ON_TPU} batch_options {{ num_batch_threads: 1 max_batch_size: 4 allowed_batch_sizes: 4 }}"
    convert(counted, tmp_path / "first", first, ConvertSettings(allow_batching_violations=True))
    update = f"batch_options {{ {OPTIONS} }} disable_default_optimizations: true"
    batched, report = twin(tmp_path / "first", tmp_path / "second", update)
    assert [c.what for c in report.passes[0].result.changes] == [
        f'batching op "BatchFunction": num_batch_threads 1 -> 2, batch_timeout_micros 0 -> {TIMEOUT}, '
        "max_enqueued_batches 10 -> 200, allowed_batch_sizes [4] -> [3, 6, 12], max_batch_size 4 -> 12"
    ]
    check_concurrent(counted, batched, loader)


def call_the_tpu_in_place(converted: Path) -> None:
    """Makes a converted model into one that somebody else built: the TPU calls stand among the callers' other work."""
    model = read_model(converted)
    (stub,) = model.aliases["tpu_func"]
    tpu_call = next(n for n in model.functions[stub].node_def if n.op == "TPUPartitionedCall")
    for scope in model.scopes():
        for node in list(scope.nodes):
            if scope.name != stub and calls.called_functions(node, model) == [stub]:
                scope.nodes.append(make_node("core", "TPUOrdinalSelector"))
                inputs = [*refs.data_inputs(node), "core:device_ordinals:0"]
                node.CopyFrom(make_node(node.name, tpu_call.op, inputs, **dict(tpu_call.attr)))
    (converted / "saved_model.pb").write_bytes(model.saved_model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("loader", LOADERS)
def test_tpu_calls_that_were_in_the_model_are_batched_in_place_and_share_a_queue(
    loader: Loader, counted: Path, tmp_path: Path
) -> None:
    convert(counted, tmp_path / "first", ON_TPU)
    call_the_tpu_in_place(tmp_path / "first")
    options = f"batch_options {{ {OPTIONS} }} disable_default_optimizations: true"
    batched, report = twin(tmp_path / "first", tmp_path, options)
    assert {b["what"] for b in report.passes[0].result.details.to_json()["batched"]} == {"TPU call"}
    queues = {b["queue"] for b in report.passes[0].result.details.to_json()["batched"]}
    assert len(queues) == 1
    check_concurrent(counted, batched, loader)
    two = "batch_options { num_batch_threads: 2 max_batch_size: 2 batch_timeout_micros: 60000000 }"
    batched, _ = twin(tmp_path / "first", tmp_path / "two", f"{two} disable_default_optimizations: true")
    x = np.ones((1, 8), np.float32)
    with open_model(batched, loader) as model:
        answers = at_once(model, [("serving_default", {"x": x}), ("other", {"x": x})])
    assert [int(a["batch_size"][0]) for a in answers] == [2, 2]


@pytest.mark.parametrize("loader", LOADERS)
def test_an_update_adds_batching_to_the_tpu_functions_that_lack_it(
    loader: Loader, testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    source, model = testdata("two_functions"), MODELS["two_functions"]
    one = 'batch_options { max_batch_size: 4 experimental { function_alias: "tpu_func_1" } }'
    convert(source, tmp_path / "one", f"{model.options_for(source)} {one} disable_default_optimizations: true")
    update = f"batch_options {{ {OPTIONS} }} disable_default_optimizations: true"
    batched, report = twin(tmp_path / "one", tmp_path, update)
    details = report.passes[0].result.details.to_json()["batched"]
    assert {(b["name"], b["what"]) for b in details} == {("tpu_func_1", "batching op"), ("tpu_func_2", "TPU function")}
    assert all(b["options"]["allowed_batch_sizes"] == list(ALLOWED) for b in details)
    given = [model.make_inputs("serving_default", rows) for rows in row_counts()]
    with open_model(source, loader) as original, open_model(batched, loader) as served:
        expected = [original.run("serving_default", each) for each in given]
        answers = at_once(served, [("serving_default", each) for each in given])
    for answer, want in zip(answers, expected, strict=True):
        assert_same(answer, want, rtol=1e-6)


@pytest.mark.parametrize("loader", LOADERS)
def test_two_signatures_share_the_queue_of_their_tpu_function(loader: Loader, counted: Path, tmp_path: Path) -> None:
    """One row from each signature fills a batch of 2 only in one queue: the timeout would never let them go alone."""
    options = "num_batch_threads: 2 max_batch_size: 2 batch_timeout_micros: 60000000"
    batched, _ = twin(counted, tmp_path, f"{ON_TPU} batch_options {{ {options} }}")
    x = np.ones((1, 8), np.float32)
    with open_model(batched, loader) as model:
        answers = at_once(model, [("serving_default", {"x": x}), ("other", {"x": x})])
    assert [int(a["batch_size"][0]) for a in answers] == [2, 2]


@pytest.mark.parametrize("loader", LOADERS)
def test_a_large_request_is_split(loader: Loader, counted: Path, tmp_path: Path) -> None:
    options = "num_batch_threads: 2 max_batch_size: 40 allowed_batch_sizes: 2 allowed_batch_sizes: 4"
    batched, _ = twin(counted, tmp_path, f"{ON_TPU} batch_options {{ {options} }}")
    request = {"x": np.random.default_rng(3).uniform(-1, 1, (39, 8)).astype(np.float32)}
    with open_model(counted, loader) as model:
        expected = model.run("serving_default", request)
    with open_model(batched, loader) as model:
        answer = model.run("serving_default", request)
        with pytest.raises(Exception, match="Task size 41 is larger than maximum input batch size 40"):
            model.run("serving_default", {"x": np.zeros((41, 8), np.float32)})
    assert_same(answer["y"], expected["y"], rtol=1e-6)
    assert set(answer["batch_size"]) <= {2, 4}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_large_request_is_refused_without_splitting(loader: Loader, counted: Path, tmp_path: Path) -> None:
    options = "num_batch_threads: 2 max_batch_size: 4 allowed_batch_sizes: 4 disable_large_batch_splitting: true"
    batched, _ = twin(counted, tmp_path, f"{ON_TPU} batch_options {{ {options} }}")
    with (
        open_model(batched, loader) as model,
        pytest.raises(Exception, match="Task size 5 is larger than maximum input batch size 4"),
    ):
        model.run("serving_default", {"x": np.zeros((5, 8), np.float32)})


# ----------------------------------------------------------------------------------- the four shape requirements


def scalar_input(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return x * scale


def any_width(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=1)


def product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.matmul(a, b)


def column_sums(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=0)


def total(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x)


def _rows(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# function, the shapes of its arguments, the requirement, whether it certainly fails, requests that fail together, and
# what the op says then
VIOLATIONS: dict[str, tuple[Callable[..., tf.Tensor], list[list[int | None]], int, bool, list[list[Any]], str]] = {
    "scalar": (
        scalar_input,
        [[None, 4], []],
        1,
        True,
        [[_rows(2, 4), np.float32(2)]],
        "Batching input tensors must have at least one dimension",
    ),
    "width": (
        any_width,
        [[None, None]],
        2,
        False,
        [[_rows(1, 3)], [_rows(1, 4)]],
        "Dimensions of inputs should match",
    ),
    "rows": (
        product,
        [[None, 3], [3, 4]],
        3,
        True,
        [[_rows(2, 3), _rows(3, 4)]],
        "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
    ),
    "reduced": (
        column_sums,
        [[None, 5]],
        4,
        True,
        [[_rows(2, 5)]],
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    ),
    "scalar_output": (total, [[None, 5]], 4, True, [[_rows(2, 5)]], "Batched output tensor has 0 dimensions"),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_breaks_a_requirement_is_told_at_conversion_and_fails_as_told(
    name: str, loader: Loader, tmp_path: Path
) -> None:
    body, arguments, number, certain, failing, message = VIOLATIONS[name]
    root = tf.Module()
    root.tpu_func = tf.function(body, input_signature=[tf.TensorSpec(s, tf.float32) for s in arguments])
    keys = ["a", "b"][: len(arguments)]

    def serve(*given: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": root.tpu_func(*given)}

    signature = [tf.TensorSpec(s, tf.float32, key) for key, s in zip(keys, arguments, strict=True)]
    root.serve = tf.function(serve, input_signature=signature)
    aliases = {"tpu_func": root.tpu_func}
    tf.saved_model.save(root, str(tmp_path / "model"), root.serve, tf.saved_model.SaveOptions(function_aliases=aliases))
    options = f"{ON_TPU} batch_options {{ num_batch_threads: 1 max_batch_size: 2 batch_timeout_micros: 60000000 }}"
    expected = f"breaks requirement {number} of the batching op"
    if certain:
        with pytest.raises(Exception, match=expected):
            convert(tmp_path / "model", tmp_path / "refused", options)
    batched, report = twin(tmp_path / "model", tmp_path, options)
    told = [w for w in report.warnings if expected in w]
    assert told, report.warnings
    if name != "scalar_output":
        assert message in told[0]
    with open_model(batched, loader) as model, pytest.raises(Exception, match=message):
        at_once(model, [("serving_default", dict(zip(keys, each, strict=True))) for each in failing])
