"""Small functions with what the converter says of their rows, held against what their rows really do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.dtypes import as_dtype
from tensorflow.python.ops import handle_data_util

from converter.analysis.shape_inference import Inference
from converter.graph.model import Model
from converter.graph.shapes import declared_shapes
from converter.passes.batching.component import Component
from converter.passes.batching.rows.report import RowReport, check_rows

Array = np.ndarray[Any, Any]
# Groups of the rows 0 to 3 that must be answered as all four together are: alone, less, in another order, padded.
_REQUESTS = ([0], [1], [2], [3], [3, 1], [2, 0, 3, 1], [0, 1, 2, 3, 0, 0, 0, 0])
_ROWS = 4
_FREE_SIZE = 4
_PHRASES = {"mixes the rows": "mixes", "depends on a row's place": "place", "depends on how many": "counts"}


@dataclass(frozen=True)
class Case:
    """A function, its inputs, and the verdict that is expected of the converter.

    Attributes:
      inputs: "dtype shape" of each, separated by semicolons; float32 may be left out.
      verdict: ok (each row of every result is made of its own row), same (results without rows), mixes, place, counts,
        unclear.
      told: what the message must say.
      because: why the rows do not show what the verdict says.
    """

    name: str
    verdict: str
    inputs: str
    function: Callable[..., Any]
    told: str = ""
    because: str = ""

    def __str__(self) -> str:
        return self.name


def _case(verdict: str) -> Callable[..., Case]:
    def make(name: str, inputs: str, function: Callable[..., Any], told: str = "", because: str = "") -> Case:
        return Case(name, verdict, inputs, function, told, because)

    return make


ok, same, mixes, place, counts, unclear = map(_case, ("ok", "same", "mixes", "place", "counts", "unclear"))


# --- the verdict ------------------------------------------------------------------------------------------------


def traced(case: Case) -> Any:
    specs = list(_specs(case.inputs))
    return tf.function(case.function, specs, autograph=False).get_concrete_function()


def _specs(inputs: str) -> Iterator[tf.TensorSpec]:
    for number, text in enumerate(inputs.split(";")):
        dtype, _, shape = text.strip().rpartition(" ")
        sizes = None if shape == "*" else [None if size == "?" else int(size) for size in shape.split(",")]
        yield tf.TensorSpec(sizes, as_dtype(dtype or "float32"), name=f"x{number}")


def model_of(concrete: Any) -> Model:
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.graph_def.CopyFrom(tf.Graph().as_graph_def())
    meta.graph_def.library.CopyFrom(concrete.graph.as_graph_def(add_shapes=True).library)
    function = meta.graph_def.library.function.add()
    function.CopyFrom(concrete.function_def)
    for argument, tensor in zip(function.signature.input_arg, concrete.inputs, strict=True):
        for known in handle_data_util.get_resource_handle_data(tensor).shape_and_type:
            argument.handle_data.add(dtype=known.dtype, shape=known.shape)
    meta.object_graph_def.nodes.add().user_object.identifier = "_generic_user_object"
    return Model(saved, Path("model"))


def report_of(concrete: Any, inputs: int, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> RowReport:
    model = model_of(concrete)
    function = model.functions[concrete.function_def.signature.name]
    component = Component(
        function=function.signature.name,
        declared=tuple(declared_shapes(function)),
        inputs=tuple(range(inputs)),
        input_names=tuple(a.name for a in function.signature.input_arg),
        result_names=tuple(r.name for r in function.signature.output_arg),
        sizes=sizes,
        max_batch_size=sizes[-1],
        largest_batch=sizes[-1],
    )
    return check_rows(model, component, Inference(model))


def verdict_of(report: RowReport, results: int) -> tuple[str, str]:
    """The worst that is said, and the whole message."""
    message = " ".join([*report.mixed, report.unclear])
    if report.mixed:
        return next(verdict for phrase, verdict in _PHRASES.items() if phrase in message), message
    if report.unclear:
        return "unclear", message
    return ("ok" if len(report.proved) == results else "same"), message


# --- the truth --------------------------------------------------------------------------------------------------


def rows_are_independent(concrete: Any, inputs: str) -> bool:
    """Whether each row is answered alike in every company, place and number of rows."""
    return all(_independent(concrete, inputs, seed) for seed in (0, 1))


def _independent(concrete: Any, inputs: str, seed: int) -> bool:
    random = np.random.default_rng(seed)
    rows = [_drawn(random, spec) for spec in _specs(inputs)]
    together = _answers(concrete, rows)
    if any(not answer.ndim or len(answer) != _ROWS for answer in together):
        return False
    for request in _REQUESTS:
        try:
            answers = _answers(concrete, [each[request] for each in rows])
        except tf.errors.OpError:
            return False
        if not all(map(_same, answers, [each[request] for each in together])):
            return False
    return True


def _answers(concrete: Any, rows: list[Array]) -> list[Array]:
    return [np.asarray(each) for each in tf.nest.flatten(concrete(*map(tf.constant, rows)))]


def _drawn(random: np.random.Generator, spec: tf.TensorSpec) -> Array:
    inner = (3,) if spec.shape.rank is None else tuple(size or _FREE_SIZE for size in spec.shape[1:])
    shape = (_ROWS, *inner)
    if spec.dtype.is_floating:
        return random.uniform(0.1, 1, shape).astype(spec.dtype.as_numpy_dtype)
    if spec.dtype == tf.string:
        return random.choice(np.array([b"a", b"bc", b"a b", b"12"], object), shape)
    return random.integers(0, 2 if spec.dtype == tf.bool else 3, shape).astype(spec.dtype.as_numpy_dtype)


def _same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind in "fc":
        return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(found, expected))


# --- what cases are made of -------------------------------------------------------------------------------------


def count(x: Any) -> Any:
    """The number of rows."""
    return tf.shape(x)[0]


@functools.cache
def kernel(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@functools.cache
def variable(*shape: int) -> tf.Variable:
    """Made outside of what is traced, as a model's are."""
    with tf.init_scope():
        return tf.Variable(kernel(*shape))
