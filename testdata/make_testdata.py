"""Builds the SavedModels that the tests convert, with real TensorFlow and Keras code.

    python testdata/make_testdata.py OUT_DIR [NAME ...]     writes OUT_DIR/NAME; all the models without names
    python testdata/make_testdata.py --list                 one line a model

As a library: `MODELS[name]` describes a model, `build(name, out_dir)` writes it. Each model is one function with the
`@model(...)` decorator, which holds everything a test has to know: the options that put the model's natural functions
on the TPU, the signatures with example inputs, and the functions that can be called directly after loading.

Weights and example inputs are seeded by the model's name. Names of concrete functions carry a number that TensorFlow
counts per process, so tests find them with `Model.options_for(model_dir)` and never spell them.
"""

import argparse
import contextlib
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

Builder = Callable[[Path], None]

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away")


# ---------------------------------------------------------------------------------------------- descriptions


@dataclass(frozen=True)
class Feed:
    """How to draw an example of one input. None in the shape is the batch."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    low: float = -2.0
    high: float = 2.0
    whole: bool = False
    """Only whole numbers, so that sums of products are exact in float32 whatever their order."""
    words: tuple[str, ...] = ()
    """For strings: sentences are drawn from these words."""

    def draw(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """An example for this batch size."""
        shape = tuple(batch if size is None else size for size in self.shape)
        if self.dtype == "string":
            sentences = [" ".join(rng.choice(self.words, size=rng.integers(1, 9))) for _ in range(int(np.prod(shape)))]
            return np.array([s.encode() for s in sentences], dtype=object).reshape(shape)
        if self.dtype == "bool":
            return rng.integers(0, 2, size=shape).astype(bool)
        if self.whole or np.issubdtype(np.dtype(self.dtype), np.integer):
            return np.asarray(rng.integers(int(self.low), int(self.high), size=shape)).astype(self.dtype)
        return np.asarray(rng.uniform(self.low, self.high, size=shape)).astype(self.dtype)


@dataclass(frozen=True)
class Model:
    """One test model: how to build it, and what a test has to know about it."""

    name: str
    builder: Builder
    tpu_options: str
    """Converter options that put the natural functions on the TPU; `{concrete:NAME}` stands for the concrete function
    traced from the Python function NAME (see `options_for`)."""
    signatures: Mapping[str, Mapping[str, Feed]]
    direct: Mapping[str, tuple[Feed, ...]] = field(default_factory=dict)
    """Attributes of the loaded object ("tpu_func", "encoder.tpu_func") to the positional arguments of a direct call."""
    aliases: tuple[str, ...] = ()
    error: str = ""
    """Regular expression of the error that converting with `tpu_options` must give; empty if it must work."""
    row_independent: bool = True
    """Each row of every TPU function's results depends on the same row of its inputs only, so it can be batched."""
    loaders: tuple[str, ...] = ("v2", "v1")
    """The loaders that can open it, before any conversion."""
    slow: bool = False
    """A model of real size: seconds to build and to run."""

    @property
    def description(self) -> str:
        """The first line of the builder's docstring."""
        return (self.builder.__doc__ or "").strip().splitlines()[0]

    def build(self, out_dir: str | os.PathLike[str]) -> Path:
        """Writes the SavedModel into `out_dir` and returns that directory."""
        out = Path(out_dir).resolve()
        self.builder(out)
        # Builders seed TensorFlow; whoever builds a model of its own later has random numbers that are random.
        tf.random.set_seed(None)
        return out

    def make_inputs(self, signature: str, batch: int) -> dict[str, np.ndarray]:
        """Example inputs of a signature, always the same for the same arguments."""
        rng = _rng(f"{self.name}/{signature}/{batch}")
        return {key: feed.draw(rng, batch) for key, feed in self.signatures[signature].items()}

    def make_arguments(self, attribute: str, batch: int) -> tuple[np.ndarray, ...]:
        """Example positional arguments for calling the attribute `attribute` of the loaded model directly."""
        rng = _rng(f"{self.name}/{attribute}/{batch}")
        return tuple(feed.draw(rng, batch) for feed in self.direct[attribute])

    def options_for(self, model_dir: str | os.PathLike[str]) -> str:
        """`tpu_options` with the concrete function names of the model built in `model_dir` filled in."""
        return re.sub(r"\{concrete:(\w+)\}", lambda m: concrete_function_name(model_dir, m.group(1)), self.tpu_options)


MODELS: dict[str, Model] = {}


def model(tpu_options: str, signatures: Mapping[str, Mapping[str, Feed]], **details: Any) -> Callable[[Builder], Model]:
    """Registers the decorated builder in MODELS under its own name."""

    def register(builder: Builder) -> Model:
        name = builder.__name__
        assert name not in MODELS, f"two models called {name}"
        MODELS[name] = Model(name, builder, tpu_options, signatures, **details)
        return MODELS[name]

    return register


def build(name: str, out_dir: str | os.PathLike[str]) -> Path:
    """Writes the model `name` into `out_dir`, which must be empty or absent."""
    return MODELS[name].build(out_dir)


def concrete_function_name(model_dir: str | os.PathLike[str], python_name: str) -> str:
    """The one function of the SavedModel that was traced from the Python function `python_name`."""
    saved_model = saved_model_pb2.SavedModel.FromString((Path(model_dir) / "saved_model.pb").read_bytes())
    names = [f.signature.name for f in saved_model.meta_graphs[0].graph_def.library.function]
    found = [n for n in names if re.fullmatch(rf"__(inference|forward)_{re.escape(python_name)}_\d+", n)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} functions of {model_dir} come from {python_name}: {found} among {names}")
    return found[0]


def on_tpu(*aliases: str) -> str:
    """Options that put these function aliases on the TPU."""
    return "\n".join(f'tpu_functions {{ function_alias: "{alias}" }}' for alias in aliases)


def _rng(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _spec(*shape: int | None, dtype: tf.DType = tf.float32, name: str | None = None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name)


def _save(
    root: Any,
    out: Path,
    aliases: Mapping[str, Any] | None = None,
    signatures: Any = None,
    **options: Any,
) -> None:
    save_options = tf.saved_model.SaveOptions(function_aliases=dict(aliases or {}), **options)
    tf.saved_model.save(root, str(out), signatures=signatures, options=save_options)


class Weights(tf.Module):
    """Base of the models below: variables with seeded values, named after their attribute."""

    def __init__(self, seed: str) -> None:
        super().__init__()
        self._draws = _rng(seed)

    def draw(self, *shape: int, scale: float | None = None) -> np.ndarray:
        """Normal values, scaled by default so that a matmul keeps the size of its input."""
        scale = scale if scale is not None else 1.0 / np.sqrt(shape[0] if shape else 1)
        return (self._draws.standard_normal(shape) * scale).astype(np.float32)

    def weight(self, name: str, *shape: int, scale: float | None = None) -> tf.Variable:
        """A float32 variable."""
        return tf.Variable(self.draw(*shape, scale=scale), name=name)


ROW10 = {"x": Feed((None, 10))}
ROW4 = {"x": Feed((None, 4))}
F10 = (Feed((None, 10)),)
F8 = (Feed((None, 8)),)
F4 = (Feed((None, 4)),)


# ------------------------------------------------------------------------------------- models of the reference


@model(
    on_tpu("func_on_tpu"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("func_on_tpu",),
)
def toy(out: Path) -> None:
    """The reference's ToyModel: a Keras model with one function and no variable, alias func_on_tpu."""

    class ToyModel(keras.Model):
        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return x * 1.0

    root = ToyModel()
    _save(root, out, {"func_on_tpu": root.tpu_func}, root.tpu_func)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10, "serve": F10},
    aliases=("tpu_func",),
)
def toy_variable(out: Path) -> None:
    """A dense layer with variables on the TPU, alias tpu_func, called by a CPU serving function."""

    class Toy(Weights):
        def __init__(self) -> None:
            super().__init__("toy_variable")
            self.kernel = self.weight("kernel", 10, 4)
            self.bias = self.weight("bias", 4, scale=0.1)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.nn.relu(tf.matmul(x, self.kernel) + self.bias)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x / 2.0)}

    root = Toy()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10, "batch_func": F10},
    aliases=("batch_func", "tpu_func"),
)
def function_batching(out: Path) -> None:
    """The reference's function batching: alias batch_func is CPU code around the TPU function tpu_func."""

    class Toy(Weights):
        def __init__(self) -> None:
            super().__init__("function_batching")
            self.kernel = self.weight("kernel", 10, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x, self.kernel)

        @tf.function(input_signature=[_spec(None, 10)])
        def batch_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.sqrt(tf.abs(self.tpu_func(x * 1.0)))

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.batch_func(x) + 1.0}

    root = Toy()
    _save(root, out, {"tpu_func": root.tpu_func, "batch_func": root.batch_func}, root.serve)


@model(
    on_tpu("tpu_func_1", "tpu_func_2"),
    {"serving_default": ROW10},
    direct={"tpu_func_1": F10, "tpu_func_2": F8},
    aliases=("tpu_func_1", "tpu_func_2"),
)
def two_functions(out: Path) -> None:
    """Two TPU functions, a matmul with variables each, called by one CPU function with CPU work between them."""

    class TwoFunctions(Weights):
        def __init__(self) -> None:
            super().__init__("two_functions")
            self.kernel_1 = self.weight("kernel_1", 10, 8)
            self.bias_1 = self.weight("bias_1", 8, scale=0.1)
            self.kernel_2 = self.weight("kernel_2", 8, 4)
            self.bias_2 = self.weight("bias_2", 4, scale=0.1)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func_1(self, x: tf.Tensor) -> tf.Tensor:
            return tf.tanh(tf.matmul(x, self.kernel_1) + self.bias_1)

        @tf.function(input_signature=[_spec(None, 8)])
        def tpu_func_2(self, h: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(tf.matmul(h, self.kernel_2) + self.bias_2)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            hidden = self.tpu_func_1(x)
            ranked = tf.sort(hidden, axis=-1)
            return {"probabilities": self.tpu_func_2(hidden), "ranked": ranked}

    root = TwoFunctions()
    _save(root, out, {"tpu_func_1": root.tpu_func_1, "tpu_func_2": root.tpu_func_2}, root.serve)


@model(
    on_tpu("outer", "inner"),
    {"serving_default": ROW10},
    direct={"outer": F10, "inner": F8},
    aliases=("inner", "outer"),
)
def nested_direct(out: Path) -> None:
    """TPU function outer calls TPU function inner directly (supported); CPU code calls both."""

    class Nested(Weights):
        def __init__(self) -> None:
            super().__init__("nested_direct")
            self.kernel_outer = self.weight("kernel_outer", 10, 8)
            self.kernel_inner = self.weight("kernel_inner", 8, 8)

        @tf.function(input_signature=[_spec(None, 8)])
        def inner(self, h: tf.Tensor) -> tf.Tensor:
            return tf.tanh(tf.matmul(h, self.kernel_inner))

        @tf.function(input_signature=[_spec(None, 10)])
        def outer(self, x: tf.Tensor) -> tf.Tensor:
            return self.inner(tf.matmul(x, self.kernel_outer)) * 2.0

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"both": self.outer(x), "inner_only": self.inner(x[:, :8])}

    root = Nested()
    _save(root, out, {"outer": root.outer, "inner": root.inner}, root.serve)


@model(
    on_tpu("tpu_func_2", "tpu_func_4"),
    {"serving_default": ROW10},
    direct={"tpu_func_2": F10, "tpu_func_4": F8},
    aliases=("tpu_func_2", "tpu_func_4"),
    error=r'Unable to place both "__inference_tpu_func_2_\d+" and "__inference_tpu_func_4_\d+"\s+on the TPU because '
    r'"__inference_tpu_func_2_\d+" indirectly calls\s+"__inference_tpu_func_4_\d+"',
)
def nested_indirect(out: Path) -> None:
    """TPU function tpu_func_2 calls a plain helper that calls TPU function tpu_func_4: the reference's error."""

    class Nested(Weights):
        def __init__(self) -> None:
            super().__init__("nested_indirect")
            self.kernel_2 = self.weight("kernel_2", 10, 8)
            self.kernel_4 = self.weight("kernel_4", 8, 4)

        @tf.function(input_signature=[_spec(None, 8)])
        def tpu_func_4(self, h: tf.Tensor) -> tf.Tensor:
            return tf.matmul(h, self.kernel_4)

        @tf.function(input_signature=[_spec(None, 8)])
        def helper(self, h: tf.Tensor) -> tf.Tensor:
            return self.tpu_func_4(tf.nn.relu(h)) + 1.0

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func_2(self, x: tf.Tensor) -> tf.Tensor:
            return self.helper(tf.matmul(x, self.kernel_2))

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func_2(x)}

    root = Nested()
    _save(root, out, {"tpu_func_2": root.tpu_func_2, "tpu_func_4": root.tpu_func_4}, root.serve)


@contextlib.contextmanager
def _working_directory(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"input_string": Feed((None,), "string", words=(*WORDS, "unknownword"))}},
    direct={"tpu_func": (Feed((None, 8), "int64", 0, len(WORDS) + 1),)},
    aliases=("tpu_func",),
)
def string_preprocess(out: Path) -> None:
    """The FAQ's language model: strings and a vocabulary asset on the CPU, then an encoder on the TPU."""

    class LanguageModel(Weights):
        def __init__(self) -> None:
            super().__init__("string_preprocess")
            initializer = tf.lookup.TextFileInitializer(
                "vocabulary.txt",
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.vocabulary = tf.lookup.StaticHashTable(initializer, default_value=len(WORDS))
            self.table = self.weight("embedding", len(WORDS) + 1, 16, scale=1.0)
            self.kernel = self.weight("kernel", 16, 16)
            self.head = self.weight("head", 16, 3)

        def preprocess(self, input_string: tf.Tensor) -> tf.Tensor:
            words = tf.strings.split(tf.strings.lower(input_string))
            return self.vocabulary.lookup(words).to_tensor(default_value=len(WORDS), shape=[None, 8])

        @tf.function(input_signature=[_spec(None, 8, dtype=tf.int64)])
        def tpu_func(self, word_ids: tf.Tensor) -> tf.Tensor:
            hidden = tf.nn.relu(tf.einsum("bse,ef->bsf", tf.gather(self.table, word_ids), self.kernel))
            return tf.nn.softmax(tf.matmul(tf.reduce_mean(hidden, axis=1), self.head))

        @tf.function(input_signature=[_spec(None, dtype=tf.string)])
        def model_func(self, input_string: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": self.tpu_func(self.preprocess(input_string))}

    # The path of the vocabulary becomes part of the table's shared name: keep it relative, so the same everywhere.
    with tempfile.TemporaryDirectory() as directory, _working_directory(Path(directory)):
        Path("vocabulary.txt").write_text("\n".join(WORDS) + "\n")
        root = LanguageModel()
        _save(root, out, {"tpu_func": root.tpu_func}, root.model_func)


# -------------------------------------------------------------------------- functions: how they nest and are named


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def deep_nesting(out: Path) -> None:
    """A TPU function with tf.functions nested five deep, each in a name scope, so node names hold slashes."""

    class Deep(Weights):
        def __init__(self) -> None:
            super().__init__("deep_nesting")
            self.kernels = [self.weight(f"kernel_{depth}", 10, 10) for depth in range(5)]

        @tf.function
        def level(self, x: tf.Tensor, depth: int) -> tf.Tensor:
            with tf.name_scope(f"block_{depth}/dense"):
                x = tf.tanh(tf.matmul(x, self.kernels[depth]))
                return self.level(x, depth + 1) if depth < 4 else x

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            with tf.name_scope("encoder"):
                return self.level(x, 0)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.name_scope("serving"):
                return {"y": self.tpu_func(x)}

    root = Deep()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def shared_variable(out: Path) -> None:
    """One variable that the TPU function and CPU code both read, and one that only the TPU function reads."""

    class Shared(Weights):
        def __init__(self) -> None:
            super().__init__("shared_variable")
            self.shared = self.weight("shared", 10, 4)
            self.private = self.weight("private", 4, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(tf.matmul(x, self.shared), self.private)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"tpu": self.tpu_func(x), "cpu": tf.matmul(x, self.shared)}

    root = Shared()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10, "serve": F10},
    aliases=("tpu_func",),
)
def shared_helper(out: Path) -> None:
    """A helper tf.function (own variable) that the TPU function and CPU code both call."""

    class SharedHelper(Weights):
        def __init__(self) -> None:
            super().__init__("shared_helper")
            self.kernel = self.weight("kernel", 10, 10)
            self.head = self.weight("head", 10, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def helper(self, x: tf.Tensor) -> tf.Tensor:
            return tf.tanh(tf.matmul(x, self.kernel))

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(self.helper(x), self.head)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"tpu": self.tpu_func(x), "cpu": self.helper(x)}

    root = SharedHelper()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    "tpu_functions { jit_compile_functions: true }",
    {"serving_default": {"x": Feed((None, 10), low=-4, high=5, whole=True)}},
    direct={"scale": (Feed((None, 10), low=-4, high=5, whole=True),), "project": (Feed((None, 10), whole=True),)},
    aliases=("scale",),
)
def jit_compile(out: Path) -> None:
    """Two functions with jit_compile=True, one without alias; whole numbers, so XLA's order of sums is no matter."""

    class Jit(Weights):
        def __init__(self) -> None:
            super().__init__("jit_compile")
            self.factor = tf.Variable(np.float32(2.0), name="factor")
            self.kernel = tf.Variable(_rng("jit_compile").integers(-3, 4, (10, 4)).astype(np.float32), name="kernel")

        @tf.function(input_signature=[_spec(None, 10)], jit_compile=True)
        def scale(self, x: tf.Tensor) -> tf.Tensor:
            return x * self.factor

        @tf.function(input_signature=[_spec(None, 10)], jit_compile=True)
        def project(self, x: tf.Tensor) -> tf.Tensor:
            return tf.nn.relu(tf.matmul(x, self.kernel))

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.project(self.scale(x) + 1.0)}

    root = Jit()
    _save(root, out, {"scale": root.scale}, root.serve)


@model(
    'tpu_functions { concrete_function_name: "{concrete:serve}" }',
    {"serving_default": ROW10},
    direct={"serve": F10},
)
def no_alias(out: Path) -> None:
    """Exported without any alias: its function must be named by its concrete name, as in the reference's FAQ."""

    class NoAlias(Weights):
        def __init__(self) -> None:
            super().__init__("no_alias")
            self.kernel = self.weight("kernel", 10, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x, self.kernel)

    root = NoAlias()
    tf.saved_model.save(root, str(out), signatures=root.serve)


@model(
    on_tpu("tpu_func"),
    {"first": ROW10, "second": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def multi_signature(out: Path) -> None:
    """Two signatures that share one TPU function."""

    class MultiSignature(Weights):
        def __init__(self) -> None:
            super().__init__("multi_signature")
            self.kernel = self.weight("kernel", 10, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x, self.kernel)

        @tf.function(input_signature=[_spec(None, 10)])
        def first(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"sigmoid": tf.sigmoid(self.tpu_func(x))}

        @tf.function(input_signature=[_spec(None, 10)])
        def second(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            logits = self.tpu_func(x - 1.0)
            return {"logits": logits, "best": tf.argmax(logits, axis=-1)}

    root = MultiSignature()
    _save(root, out, {"tpu_func": root.tpu_func}, {"first": root.first, "second": root.second})


@model(
    on_tpu("tpu_func"),
    {"narrow": ROW4, "wide": {"x": Feed((None, 8))}},
    direct={"tpu_func": F8},
    aliases=("tpu_func",),
)
def alias_polymorphic(out: Path) -> None:
    """One alias on a function traced with two input shapes, so it stands for two concrete functions."""

    class Polymorphic(Weights):
        def __init__(self) -> None:
            super().__init__("alias_polymorphic")
            self.scale = self.weight("scale", 1)

        @tf.function
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x * self.scale, tf.ones([x.shape[-1], 3]))

        @tf.function(input_signature=[_spec(None, 4)])
        def narrow(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

        @tf.function(input_signature=[_spec(None, 8)])
        def wide(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = Polymorphic()
    signatures = {"narrow": root.narrow.get_concrete_function(), "wide": root.wide.get_concrete_function()}
    _save(root, out, {"tpu_func": root.tpu_func}, signatures)


# ------------------------------------------------------------------------------------------- arguments and results


@model(
    on_tpu("first", "second"),
    {"serving_default": {"x": Feed((None, 64))}},
    direct={"first": (Feed((None, 64)),), "second": (Feed((None, 256)),)},
    aliases=("first", "second"),
)
def captured_constants(out: Path) -> None:
    """Functions that capture eager constant tensors: a large one, a scalar, and one captured by both."""

    class CapturedConstants(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = _rng("captured_constants")
            self.large = tf.constant(rng.standard_normal((64, 256)).astype(np.float32) / 8)
            self.scalar = tf.constant(np.float32(0.75))
            self.both = tf.constant(rng.standard_normal(256).astype(np.float32))

        @tf.function(input_signature=[_spec(None, 64)])
        def first(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x, self.large) + self.both

        @tf.function(input_signature=[_spec(None, 256)])
        def second(self, h: tf.Tensor) -> tf.Tensor:
            return tf.nn.relu(h * self.both) * self.scalar

        @tf.function(input_signature=[_spec(None, 64)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.second(self.first(x))}

    root = CapturedConstants()
    _save(root, out, {"first": root.first, "second": root.second}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def no_variables(out: Path) -> None:
    """No variable anywhere: pure arithmetic on the TPU, and an empty checkpoint."""

    class NoVariables(tf.Module):
        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(tf.exp(-x * x), axis=-1, keepdims=True)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = NoVariables()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


INT_INPUTS = {
    "count": Feed((None, 6), "int32", -20, 20),
    "identifier": Feed((None,), "int64", 0, 1_000_000),
    "keep": Feed((None, 6), "bool"),
    "weight": Feed((None, 6)),
}


@model(
    on_tpu("tpu_func"),
    {"serving_default": INT_INPUTS},
    direct={"tpu_func": tuple(INT_INPUTS.values())},
    aliases=("tpu_func",),
)
def int_inputs(out: Path) -> None:
    """int32, int64, bool and float inputs and outputs of one TPU function, with an int32 variable."""
    specs = [
        _spec(None, 6, dtype=tf.int32, name="count"),
        _spec(None, dtype=tf.int64, name="identifier"),
        _spec(None, 6, dtype=tf.bool, name="keep"),
        _spec(None, 6, name="weight"),
    ]

    class IntInputs(Weights):
        def __init__(self) -> None:
            super().__init__("int_inputs")
            self.offset = tf.Variable(np.arange(6, dtype=np.int32), name="offset")
            self.kernel = self.weight("kernel", 6, 3)

        @tf.function(input_signature=specs)
        def tpu_func(
            self, count: tf.Tensor, identifier: tf.Tensor, keep: tf.Tensor, weight: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            shifted = tf.where(keep, count + self.offset, tf.zeros_like(count))
            scores = tf.matmul(weight * tf.cast(shifted, tf.float32), self.kernel)
            return shifted, identifier + 1, tf.logical_not(keep), scores

        @tf.function(input_signature=specs)
        def serve(
            self, count: tf.Tensor, identifier: tf.Tensor, keep: tf.Tensor, weight: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            shifted, following, dropped, scores = self.tpu_func(count, identifier, keep, weight)
            return {"shifted": shifted, "following": following, "dropped": dropped, "scores": scores}

    root = IntInputs()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 4))}},
    direct={"tpu_func": ()},
    aliases=("tpu_func",),
    row_independent=False,
)
def zero_arg(out: Path) -> None:
    """A TPU function without arguments: only variables go in."""

    class ZeroArg(Weights):
        def __init__(self) -> None:
            super().__init__("zero_arg")
            self.left = self.weight("left", 4, 6)
            self.right = self.weight("right", 6, 4)

        @tf.function(input_signature=[])
        def tpu_func(self) -> tf.Tensor:
            return tf.matmul(self.left, self.right)

        @tf.function(input_signature=[_spec(None, 4)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.matmul(x, self.tpu_func())}

    root = ZeroArg()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


MANY_INPUTS = {
    **{f"float_{i}": Feed((None, 3)) for i in range(5)},
    **{f"int_{i}": Feed((None, 3), "int32", -9, 10) for i in range(4)},
    **{f"long_{i}": Feed((None, 2), "int64", 0, 99) for i in range(2)},
    "flag": Feed((None, 3), "bool"),
}


@model(
    on_tpu("tpu_func"),
    {"serving_default": MANY_INPUTS},
    aliases=("tpu_func",),
)
def many_io(out: Path) -> None:
    """Twelve inputs and seven outputs of four types."""
    specs = {key: _spec(*feed.shape, dtype=tf.as_dtype(feed.dtype), name=key) for key, feed in MANY_INPUTS.items()}

    class ManyIO(Weights):
        def __init__(self) -> None:
            super().__init__("many_io")
            self.kernel = self.weight("kernel", 3, 3)

        @tf.function(input_signature=[specs])
        def tpu_func(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            floats = tf.add_n([inputs[f"float_{i}"] for i in range(5)])
            ints = inputs["int_0"] * inputs["int_1"] - inputs["int_2"] + inputs["int_3"]
            longs = inputs["long_0"] + inputs["long_1"]
            return {
                "product": tf.matmul(floats, self.kernel),
                "gated": tf.where(inputs["flag"], floats, -floats),
                "ints": ints,
                "longs": longs,
                "positive": ints > 0,
                "largest": tf.argmax(floats, axis=-1, output_type=tf.int32),
                "mixed": floats * tf.cast(ints, tf.float32),
            }

        @tf.function(input_signature=[specs])
        def serve(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return self.tpu_func(inputs)

    root = ManyIO()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 2, 3))}},
    direct={"tpu_func": (Feed((None, 5)),)},
    aliases=("tpu_func",),
)
def unknown_rank(out: Path) -> None:
    """An input of unknown rank."""

    class UnknownRank(Weights):
        def __init__(self) -> None:
            super().__init__("unknown_rank")
            self.scale = self.weight("scale")

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.tanh(x * self.scale)

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = UnknownRank()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"text": Feed((None,), "string", words=WORDS)}},
    direct={"tpu_func": (Feed((None,), "string", words=WORDS),)},
    aliases=("tpu_func",),
    error=r"(?i)text.*string|string.*text",
)
def string_argument(out: Path) -> None:
    """A TPU function with a string argument `text`: cannot run on the TPU."""

    class StringArgument(tf.Module):
        @tf.function(input_signature=[_spec(None, dtype=tf.string)])
        def tpu_func(self, text: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.strings.length(text), tf.float32)[:, tf.newaxis] * tf.ones([1, 4])

        @tf.function(input_signature=[_spec(None, dtype=tf.string)])
        def serve(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(text)}

    root = StringArgument()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("count_calls"),
    {"serving_default": ROW10},
    direct={"count_calls": F10},
    aliases=("count_calls",),
    error=r"(?i)(no|zero|0|any|without) (output|result)",
    row_independent=False,
)
def zero_output(out: Path) -> None:
    """A function without results, kept alive by its side effect on a variable."""

    class ZeroOutput(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = tf.Variable(np.int64(0), name="calls")

        @tf.function(input_signature=[_spec(None, 10)])
        def count_calls(self, x: tf.Tensor) -> None:
            self.calls.assign_add(tf.shape(x, out_type=tf.int64)[0])

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            self.count_calls(x)
            return {"y": x * 2.0}

    root = ZeroOutput()
    _save(root, out, {"count_calls": root.count_calls}, root.serve)


# ------------------------------------------------------------------------------------------------- control flow


SEQUENCE = Feed((None, 6, 4))


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"sequence": SEQUENCE}},
    direct={"tpu_func": (SEQUENCE,)},
    aliases=("tpu_func",),
)
def while_loop(out: Path) -> None:
    """An LSTM: tf.while_loop over time, variables read in the body, the steps collected in a TensorArray."""
    units = 8

    class Lstm(Weights):
        def __init__(self) -> None:
            super().__init__("while_loop")
            self.kernel = self.weight("kernel", 4, 4 * units)
            self.recurrent = self.weight("recurrent_kernel", units, 4 * units)
            self.bias = self.weight("bias", 4 * units, scale=0.1)

        @tf.function(input_signature=[_spec(None, 6, 4)])
        def tpu_func(self, sequence: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            steps = tf.TensorArray(tf.float32, size=6, element_shape=[None, units])

            def body(time: tf.Tensor, cell: tf.Tensor, hidden: tf.Tensor, steps: tf.TensorArray) -> tuple[Any, ...]:
                gates = tf.matmul(sequence[:, time], self.kernel) + tf.matmul(hidden, self.recurrent) + self.bias
                write, forget, new, read = tf.split(gates, 4, axis=-1)
                cell = tf.sigmoid(forget) * cell + tf.sigmoid(write) * tf.tanh(new)
                hidden = tf.sigmoid(read) * tf.tanh(cell)
                return time + 1, cell, hidden, steps.write(time, hidden)

            zeros = tf.zeros([tf.shape(sequence)[0], units])
            _, _, last, steps = tf.while_loop(lambda time, *_: time < 6, body, [0, zeros, zeros, steps])
            return last, tf.transpose(steps.stack(), [1, 0, 2])

        @tf.function(input_signature=[_spec(None, 6, 4)])
        def serve(self, sequence: tf.Tensor) -> dict[str, tf.Tensor]:
            last, steps = self.tpu_func(sequence)
            return {"last": last, "steps": steps}

    root = Lstm()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
    row_independent=False,
)
def cond(out: Path) -> None:
    """tf.cond on the data, a variable of its own in each branch."""

    class Cond(Weights):
        def __init__(self) -> None:
            super().__init__("cond")
            self.positive = self.weight("positive", 10, 4)
            self.negative = self.weight("negative", 10, 4)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.cond(
                tf.reduce_sum(x) > 0,
                lambda: tf.matmul(x, self.positive),
                lambda: tf.tanh(tf.matmul(x, self.negative)),
            )

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x), "flipped": self.tpu_func(-x)}

    root = Cond()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
    row_independent=False,
)
def while_in_if(out: Path) -> None:
    """A while loop in one branch of a tf.cond, a call of a tf.function in the other."""

    class WhileInIf(Weights):
        def __init__(self) -> None:
            super().__init__("while_in_if")
            self.kernel = self.weight("kernel", 10, 10)

        @tf.function(input_signature=[_spec(None, 10)])
        def step(self, x: tf.Tensor) -> tf.Tensor:
            return tf.tanh(tf.matmul(x, self.kernel))

        def loop(self, x: tf.Tensor) -> tf.Tensor:
            _, result = tf.while_loop(lambda i, _: i < 4, lambda i, h: (i + 1, self.step(h) + x), [0, x])
            return result

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.cond(tf.reduce_sum(x) > 0, lambda: self.loop(x), lambda: self.step(x))

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x), "flipped": self.tpu_func(-x)}

    root = WhileInIf()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"branch": Feed((), "int32", 0, 3), "x": Feed((None, 10))}},
    direct={"tpu_func": (Feed((), "int32", 0, 3), Feed((None, 10)))},
    aliases=("tpu_func",),
    row_independent=False,
)
def case_switch(out: Path) -> None:
    """tf.switch_case over three branches; the selector is a scalar input."""
    specs = [_spec(dtype=tf.int32, name="branch"), _spec(None, 10, name="x")]

    class CaseSwitch(Weights):
        def __init__(self) -> None:
            super().__init__("case_switch")
            self.kernels = [self.weight(f"kernel_{i}", 10, 4) for i in range(3)]

        @tf.function(input_signature=specs)
        def tpu_func(self, branch: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            return tf.switch_case(
                branch,
                [
                    lambda: tf.matmul(x, self.kernels[0]),
                    lambda: tf.nn.relu(tf.matmul(x, self.kernels[1])),
                    lambda: tf.matmul(x, self.kernels[2]) * 2.0,
                ],
            )

        @tf.function(input_signature=specs)
        def serve(self, branch: tf.Tensor, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(branch, x)}

    root = CaseSwitch()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 3, 4))}},
    direct={"tpu_func": (Feed((None, 3, 4)),)},
    aliases=("tpu_func",),
)
def map_fn(out: Path) -> None:
    """tf.map_fn over the batch, reading a variable: a While with TensorLists of unknown length."""

    class MapFn(Weights):
        def __init__(self) -> None:
            super().__init__("map_fn")
            self.kernel = self.weight("kernel", 4, 4)

        @tf.function(input_signature=[_spec(None, 3, 4)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.map_fn(lambda row: tf.matmul(row, self.kernel) + tf.reduce_max(row), x)

        @tf.function(input_signature=[_spec(None, 3, 4)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = MapFn()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


# --------------------------------------------------------------------------------- variables and how they are saved


TOKENS = Feed((None, 5), "int32", 0, 50)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"ids": TOKENS}},
    direct={"tpu_func": (TOKENS,)},
    aliases=("tpu_func",),
)
def embedding(out: Path) -> None:
    """tf.gather on a variable, which becomes ResourceGather, then a pooled dense layer."""

    class Embedding(Weights):
        def __init__(self) -> None:
            super().__init__("embedding")
            self.table = self.weight("table", 50, 16, scale=1.0)
            self.kernel = self.weight("kernel", 16, 4)

        @tf.function(input_signature=[_spec(None, 5, dtype=tf.int32)])
        def tpu_func(self, ids: tf.Tensor) -> tf.Tensor:
            return tf.matmul(tf.reduce_mean(tf.gather(self.table, ids), axis=1), self.kernel)

        @tf.function(input_signature=[_spec(None, 5, dtype=tf.int32)])
        def serve(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(ids)}

    root = Embedding()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def odd_variables(out: Path) -> None:
    """Variables that are scalar, of zero size, int64, bool and float64 next to a float32 one, all read on the TPU."""

    class OddVariables(Weights):
        def __init__(self) -> None:
            super().__init__("odd_variables")
            self.kernel = self.weight("kernel", 10, 4)
            self.scale = self.weight("scale")
            self.empty = self.weight("empty", 0, 4, scale=1.0)
            self.shift = tf.Variable(np.int64(3), name="shift")
            self.mask = tf.Variable(np.array([True, False, True, True]), name="mask")
            self.precise = tf.Variable(np.float64(1.25), name="precise")

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            y = tf.matmul(x, self.kernel) * self.scale + tf.reduce_sum(self.empty, axis=0)
            y = tf.where(self.mask, y, -y) + tf.cast(self.shift, tf.float32)
            return y * tf.cast(self.precise, tf.float32)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = OddVariables()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def optimizer_slots(out: Path) -> None:
    """Saved with the state of an optimizer, as Keras 2 models were: the object graph lists slot variables."""
    # Keras 3 optimizers have no slot variables. TensorFlow still carries the old ones, to load what they saved.
    from tensorflow.python.keras.optimizer_v2.adam import Adam

    class Trained(Weights):
        def __init__(self) -> None:
            super().__init__("optimizer_slots")
            self.kernel = self.weight("kernel", 10, 4)
            self.optimizer = Adam(0.01)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self.kernel**2)
            self.optimizer.apply_gradients([(tape.gradient(loss, self.kernel), self.kernel)])

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(x, self.kernel)

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = Trained()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 32))}},
    direct={"tpu_func": (Feed((None, 32)),)},
    aliases=("tpu_func",),
)
def sharded_checkpoint(out: Path) -> None:
    """Variables saved in several shards, one of them cut into slices."""

    class Sharded(Weights):
        def __init__(self) -> None:
            super().__init__("sharded_checkpoint")
            self.kernels = [self.weight(f"kernel_{i}", 32, 32) for i in range(3)]

        @tf.function(input_signature=[_spec(None, 32)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            for kernel in self.kernels:
                x = tf.tanh(tf.matmul(x, kernel))
            return x

        @tf.function(input_signature=[_spec(None, 32)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = Sharded()
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=6000)
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve, experimental_sharding_callback=policy)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def custom_gradient(out: Path) -> None:
    """A tf.custom_gradient in the TPU function: the object graph names tensors inside it (captured_tensor nodes)."""

    class CustomGradient(Weights):
        def __init__(self) -> None:
            super().__init__("custom_gradient")
            self.kernel = self.weight("kernel", 10, 6)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            @tf.custom_gradient
            def gate(h: tf.Tensor) -> Any:
                sigmoid = tf.sigmoid(h)
                return h * sigmoid, lambda upstream: upstream * (sigmoid * (1.0 + h * (1.0 - sigmoid)))

            return gate(tf.matmul(x, self.kernel))

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = CustomGradient()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def bfloat16_inside(out: Path) -> None:
    """A TPU function that already computes in bfloat16, with a bfloat16 variable."""

    class Bfloat16Inside(Weights):
        def __init__(self) -> None:
            super().__init__("bfloat16_inside")
            self.kernel = tf.Variable(tf.cast(self.draw(10, 4), tf.bfloat16), name="kernel")
            self.bias = self.weight("bias", 4, scale=0.1)

        @tf.function(input_signature=[_spec(None, 10)])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.matmul(tf.cast(x, tf.bfloat16), self.kernel), tf.float32) + self.bias

        @tf.function(input_signature=[_spec(None, 10)])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.tpu_func(x)}

    root = Bfloat16Inside()
    _save(root, out, {"tpu_func": root.tpu_func}, root.serve)


# -------------------------------------------------------------------------------------------------- transformer


class TransformerEncoder(Weights):
    """A BERT-shaped encoder: embeddings with positions, attention with a padding mask, feed-forward, a pooled head."""

    def __init__(self, seed: str, vocabulary: int, hidden: int, layers: int, heads: int, length: int, classes: int):
        super().__init__(seed)
        self.heads = heads
        self.words = self.weight("words", vocabulary, hidden, scale=0.5)
        self.positions = self.weight("positions", length, hidden, scale=0.5)
        self.norm = self.norm_weights("norm", hidden)
        self.layers = [
            {
                "query": self.dense_weights(f"layer_{i}/query", hidden, hidden),
                "key": self.dense_weights(f"layer_{i}/key", hidden, hidden),
                "value": self.dense_weights(f"layer_{i}/value", hidden, hidden),
                "mixed": self.dense_weights(f"layer_{i}/mixed", hidden, hidden),
                "attention_norm": self.norm_weights(f"layer_{i}/attention_norm", hidden),
                "up": self.dense_weights(f"layer_{i}/up", hidden, 4 * hidden),
                "down": self.dense_weights(f"layer_{i}/down", 4 * hidden, hidden),
                "output_norm": self.norm_weights(f"layer_{i}/output_norm", hidden),
            }
            for i in range(layers)
        ]
        self.pooler = self.dense_weights("pooler", hidden, hidden)
        self.classifier = self.dense_weights("classifier", hidden, classes)

    def dense_weights(self, name: str, rows: int, columns: int) -> list[tf.Variable]:
        """Kernel and bias."""
        return [self.weight(f"{name}/kernel", rows, columns), self.weight(f"{name}/bias", columns, scale=0.1)]

    def norm_weights(self, name: str, size: int) -> list[tf.Variable]:
        """Gain near one and a small offset."""
        gain = tf.Variable(1.0 + self.draw(size, scale=0.1), name=f"{name}/gain")
        return [gain, self.weight(f"{name}/offset", size, scale=0.1)]

    @staticmethod
    def dense(x: tf.Tensor, weights: list[tf.Variable]) -> tf.Tensor:
        """x @ kernel + bias over the last dimension."""
        kernel, bias = weights
        return tf.einsum("...i,io->...o", x, kernel) + bias

    @staticmethod
    def normalize(x: tf.Tensor, weights: list[tf.Variable]) -> tf.Tensor:
        """Layer normalisation over the last dimension."""
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        gain, offset = weights
        return (x - mean) * tf.math.rsqrt(variance + 1e-6) * gain + offset

    def attend(self, x: tf.Tensor, mask: tf.Tensor, layer: Mapping[str, list[tf.Variable]]) -> tf.Tensor:
        """Multi-head self-attention; mask is 1 where there is a token."""
        length, hidden = x.shape[1], x.shape[2]
        size = hidden // self.heads

        def split(name: str) -> tf.Tensor:
            return tf.transpose(tf.reshape(self.dense(x, layer[name]), [-1, length, self.heads, size]), [0, 2, 1, 3])

        scores = tf.matmul(split("query"), split("key"), transpose_b=True) / float(np.sqrt(size))
        scores += (1.0 - tf.cast(mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -1e9
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), split("value")), [0, 2, 1, 3])
        return self.dense(tf.reshape(mixed, [-1, length, hidden]), layer["mixed"])

    def encode(self, ids: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Class logits and the hidden states of the last layer."""
        x = self.normalize(tf.gather(self.words, ids) + self.positions, self.norm)
        for layer in self.layers:
            x = self.normalize(x + self.attend(x, mask, layer), layer["attention_norm"])
            up = tf.nn.gelu(self.dense(x, layer["up"]), approximate=True)
            x = self.normalize(x + self.dense(up, layer["down"]), layer["output_norm"])
        pooled = tf.tanh(self.dense(x[:, 0], self.pooler))
        return self.dense(pooled, self.classifier), x


BERT_INPUTS = {"ids": Feed((None, 16), "int32", 0, 1000), "mask": Feed((None, 16), "int32", 0, 2)}


@model(
    on_tpu("encoder"),
    {"serving_default": BERT_INPUTS},
    direct={"tpu_func": tuple(BERT_INPUTS.values())},
    aliases=("encoder",),
)
def tiny_bert(out: Path) -> None:
    """A transformer encoder of BERT-tiny's size: 2 layers, width 128, 2 heads, 16 tokens, 1000 words."""
    specs = [_spec(None, 16, dtype=tf.int32, name="ids"), _spec(None, 16, dtype=tf.int32, name="mask")]

    class TinyBert(TransformerEncoder):
        @tf.function(input_signature=specs)
        def tpu_func(self, ids: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.encode(ids, mask)

        @tf.function(input_signature=specs)
        def serve(self, ids: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            logits, states = self.tpu_func(ids, mask)
            return {"logits": logits, "states": states}

    root = TinyBert("tiny_bert", vocabulary=1000, hidden=128, layers=2, heads=2, length=16, classes=5)
    _save(root, out, {"encoder": root.tpu_func}, root.serve)


# ------------------------------------------------------------------------------------------------------- Keras


def settle(keras_model: keras.Model, seed: str) -> None:
    """Gives every batch normalisation gain, offset and statistics that are near the trivial ones, but not them.

    They are not measured from data: behind random kernels most of a channel is its mean, and to normalise that away
    would blow up every rounding error by as much, layer after layer, as in no trained model.
    """
    rng = _rng(seed)
    for layer in keras_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.9, 1.1, layer.gamma.shape))
            layer.beta.assign(rng.normal(0.0, 0.02, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0.0, 0.02, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.8, 1.2, layer.moving_variance.shape))


class AliasedKeras(tf.Module):
    """How to export a Keras 3 model with a function alias, which `model.export()` cannot give.

    A tf.Module has a tf.function that calls the model, and that function takes the alias. The module owns the
    TensorFlow variables inside the Keras variables, and not the model itself: TensorFlow would save each Keras
    variable once more, under a name that no function reads (see keras_saved_whole).
    """

    def __init__(self, keras_model: keras.Model) -> None:
        super().__init__()
        self.weights = [variable.value for variable in keras_model.variables]
        specs = [_spec(*tensor.shape, dtype=tf.as_dtype(tensor.dtype), name="x") for tensor in keras_model.inputs]

        @tf.function(input_signature=specs)
        def tpu_func(x: tf.Tensor) -> tf.Tensor:
            return keras_model(x, training=False)

        @tf.function(input_signature=specs)
        def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tpu_func(x)}

        self.tpu_func = tpu_func
        self.serve = serve

    def save(self, out: Path) -> None:
        """Writes the SavedModel with the alias tpu_func."""
        _save(self, out, {"tpu_func": self.tpu_func}, self.serve)


def _small_dense(seed: str) -> keras.Model:
    keras.utils.set_random_seed(zlib.crc32(seed.encode()))
    inputs = keras.Input((10,), name="x")
    hidden = keras.layers.Dense(16, activation="relu", bias_initializer="random_normal")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.Dense(4, activation="softmax", bias_initializer="random_normal")(hidden)
    result = keras.Model(inputs, outputs)
    settle(result, seed)
    return result


WHOLE_SIGNATURE = 'tpu_functions { signature_name: "serving_default" }'


@model(
    WHOLE_SIGNATURE,
    {"serving_default": ROW10},
)
def keras_dense(out: Path) -> None:
    """A small Keras 3 model written by model.export(): no alias, so its signature goes on the TPU."""
    _small_dense("keras_dense").export(str(out), verbose=False)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
)
def keras_dense_alias(out: Path) -> None:
    """The model of keras_dense, exported with a function alias."""
    AliasedKeras(_small_dense("keras_dense")).save(out)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 8, 8, 3))}},
    aliases=("tpu_func",),
)
def keras_functional_captured(out: Path) -> None:
    """A Keras functional model saved whole by tf.saved_model.save; swish leaves captured_tensor nodes."""
    keras.utils.set_random_seed(zlib.crc32(b"keras_functional_captured"))
    inputs = keras.Input((8, 8, 3), name="x")
    hidden = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Activation("swish")(hidden)
    gate = keras.layers.Dense(8, activation="swish")(keras.layers.GlobalAveragePooling2D(keepdims=True)(hidden))
    hidden = keras.layers.Multiply()([hidden, gate])
    hidden = keras.layers.DepthwiseConv2D(3, activation="swish")(hidden)
    outputs = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(hidden))
    keras_model = keras.Model(inputs, outputs)
    settle(keras_model, "keras_functional_captured")

    @tf.function(input_signature=[_spec(None, 8, 8, 3, name="x")])
    def tpu_func(x: tf.Tensor) -> tf.Tensor:
        return keras_model(x, training=False)

    @tf.function(input_signature=[_spec(None, 8, 8, 3, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tpu_func(x)}

    keras_model.tpu_func = tpu_func
    keras_model.serve_fn = serve
    keras_model.tensorflow_variables = [variable.value for variable in keras_model.variables]
    _save(keras_model, out, {"tpu_func": tpu_func}, serve)


@model(
    on_tpu("tpu_func"),
    {"serving_default": ROW10},
    direct={"tpu_func": F10},
    aliases=("tpu_func",),
    loaders=("v2",),
)
def keras_saved_whole(out: Path) -> None:
    """A Keras 3 model given to tf.saved_model.save as it is: the TF1 loader restores other variables than it reads."""
    keras_model = _small_dense("keras_saved_whole")

    @tf.function(input_signature=[_spec(None, 10, name="x")])
    def tpu_func(x: tf.Tensor) -> tf.Tensor:
        return keras_model(x, training=False)

    keras_model.tpu_func = tpu_func
    _save(keras_model, out, {"tpu_func": tpu_func}, tpu_func)


def _application(seed: str, size: int, **arguments: Any) -> keras.Model:
    """A model of keras.applications with random weights, for square images of this size, 100 classes."""
    keras.utils.set_random_seed(zlib.crc32(seed.encode()))
    application = {
        "mobilenet_v2": keras.applications.MobileNetV2,
        "resnet50": keras.applications.ResNet50,
        "efficientnet_b0": keras.applications.EfficientNetB0,
    }[seed]
    image = keras.Input((size, size, 3), name="x")
    result = keras.Model(image, application(input_tensor=image, weights=None, classes=100, **arguments).output)
    settle(result, seed)
    return result


def _mobilenet() -> keras.Model:
    return _application("mobilenet_v2", 96, alpha=0.35)


IMAGE96 = {"x": Feed((None, 96, 96, 3), low=-1.0, high=1.0)}


@model(WHOLE_SIGNATURE, {"serving_default": IMAGE96}, slow=True)
def mobilenet_v2(out: Path) -> None:
    """MobileNetV2 (alpha 0.35, 96x96x3) with random weights, by Keras 3 model.export()."""
    _mobilenet().export(str(out), verbose=False)


@model(
    on_tpu("tpu_func"),
    {"serving_default": IMAGE96},
    direct={"tpu_func": tuple(IMAGE96.values())},
    aliases=("tpu_func",),
    slow=True,
)
def mobilenet_v2_alias(out: Path) -> None:
    """The model of mobilenet_v2, exported with a function alias."""
    AliasedKeras(_mobilenet()).save(out)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 224, 224, 3), low=-1.0, high=1.0)}},
    direct={"tpu_func": (Feed((None, 224, 224, 3), low=-1.0, high=1.0),)},
    aliases=("tpu_func",),
    slow=True,
)
def resnet50(out: Path) -> None:
    """ResNet-50 (224x224x3) with random weights and the alias tpu_func."""
    AliasedKeras(_application("resnet50", 224)).save(out)


@model(
    on_tpu("tpu_func"),
    {"serving_default": {"x": Feed((None, 96, 96, 3), low=0.0, high=255.0)}},
    direct={"tpu_func": (Feed((None, 96, 96, 3), low=0.0, high=255.0),)},
    aliases=("tpu_func",),
    slow=True,
)
def efficientnet_b0(out: Path) -> None:
    """EfficientNetB0 (96x96x3) with random weights and the alias tpu_func: swish everywhere."""
    AliasedKeras(_application("efficientnet_b0", 96)).save(out)


# ------------------------------------------------------------------------------------------------- command line


def main(argv: list[str] | None = None) -> int:
    """Builds the models named on the command line."""
    parser = argparse.ArgumentParser(description="Build the SavedModels that the tests convert.")
    parser.add_argument("out_dir", nargs="?", type=Path, help="each model goes to OUT_DIR/NAME")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all models")
    parser.add_argument("--list", action="store_true", help="list the models and stop")
    arguments = parser.parse_args(argv)
    if arguments.list:
        for name, description in MODELS.items():
            print(f"{name:28}{description.description}")
        return 0
    if arguments.out_dir is None:
        parser.error("OUT_DIR is missing")
    unknown = [name for name in arguments.names if name not in MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    for name in arguments.names or MODELS:
        target = arguments.out_dir / name
        if target.exists() and any(target.iterdir()):
            parser.error(f"{target} is not empty")
        print(MODELS[name].build(target), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
