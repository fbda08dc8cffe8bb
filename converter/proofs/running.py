"""Loads models the two ways in which servers do, asks them, and says in a sentence why one cannot answer."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf

from converter.errors import ConversionError
from converter.graph.model import Model
from converter.graph.tensors import Array
from converter.saved_model.reader import FINGERPRINT_FILE, SAVED_MODEL_FILE

_T = TypeVar("_T")
Values = dict[str, Array]
# Inputs -> outputs of one signature, arrays both. Several threads may call it at once.
Answer = Callable[[Mapping[str, Array]], Values]

# What the batching op says of a request that it cannot take -> what it expects.
BATCHING_REFUSES = {
    "Batching input tensors must have at least one dimension": "inputs to batching cannot be scalars",
    "Dimensions of inputs should match": "across requests, an input has the same size in each dimension but the 0th",
    "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size": (
        "all inputs of a request have the same 0th dimension"
    ),
    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors": (
        "the 0th dimension of each output is the sum of the 0th dimensions of the batched inputs, padding included"
    ),
}
_TASK_SIZE = re.compile(r"Task size (\d+) is larger than maximum input batch size (\d+)")


@contextmanager
def on_disk(model: Model) -> Iterator[Path]:
    """A directory that holds the model, without the slot variables of an optimizer: Keras 3 cannot revive these."""
    with tempfile.TemporaryDirectory(prefix="tpu-convert-verify-") as name:
        for node in model.object_graph.nodes:
            del node.slot_variables[:]
        (Path(name) / SAVED_MODEL_FILE).write_bytes(model.saved_model.SerializeToString())
        for path in model.path.iterdir():
            if path.name not in (SAVED_MODEL_FILE, FINGERPRINT_FILE):
                (Path(name) / path.name).symlink_to(path.resolve())
        yield Path(name)


def load(directory: Path, what: str) -> Any:
    """A model as `tf.saved_model.load` loads it. Its signatures live no longer than what is returned.

    Raises:
      ConversionError: TensorFlow cannot load the model.
    """
    return run(lambda: tf.saved_model.load(str(directory)), f"the {what} model, when it is loaded")


def answering(function: Any, where: str, advice: str = "") -> Answer:
    """Asks a signature of a loaded model. What it raises is a ConversionError that ends in `advice`."""
    types = {name: spec.dtype for name, spec in function.structured_input_signature[1].items()}

    def answer(inputs: Mapping[str, Array]) -> Values:
        given = {name: tf.constant(value, dtype=types[name]) for name, value in inputs.items()}
        outputs = run(lambda: function(**given), where, advice)
        return {name: value.numpy() for name, value in outputs.items()}

    return answer


@contextmanager
def served(model: Model, directory: Path, what: str) -> Iterator[Callable[[str], Answer]]:
    """The model as TensorFlow Serving loads it: signature -> how to ask it.

    Raises:
      ConversionError: it cannot be loaded so.
    """
    graph = tf.Graph()
    with closing(tf.compat.v1.Session(graph=graph)) as session:
        tags = sorted(model.meta_graph.meta_info_def.tags)
        where = f"the {what} model, as TensorFlow Serving loads it"
        with graph.as_default():
            meta_graph = run(lambda: tf.compat.v1.saved_model.loader.load(session, tags, str(directory)), where)

        def asked(key: str) -> Answer:
            definition = meta_graph.signature_def[key]
            fetches = {name: info.name for name, info in definition.outputs.items()}

            def answer(inputs: Mapping[str, Array]) -> Values:
                feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
                return dict(run(lambda: session.run(fetches, feeds), f'{where}, at signature "{key}"'))

            return answer

        yield asked


def run(work: Callable[[], _T], where: str, advice: str = "") -> _T:
    """What `work`, which does nothing but ask TensorFlow, returns.

    Raises:
      ConversionError: whatever TensorFlow raises, with the line of its message that tells why, and `advice`.
    """
    try:
        return work()
    except Exception as error:  # TensorFlow raises its own errors, RuntimeError and whatever Python code in it does
        raise ConversionError(_explained(error, where, advice)) from error


def _explained(error: Exception, where: str, advice: str) -> str:
    too_large = _TASK_SIZE.search(str(error))
    if too_large:
        rows, largest = too_large.groups()
        return (
            f"A request of {rows} rows is too large for {where}: its batching op takes at most {largest} "
            f"(max_batch_size). Ask with up to {largest} rows (--batch_sizes, or the rows of --inputs), or convert "
            "with a larger max_batch_size."
        )
    for message, rule in BATCHING_REFUSES.items():
        if message in str(error):
            return (
                f'The batching op refuses the request to {where}: "{message}". Expected that {rule}. '
                "If requests of this kind are to be served, convert without batching this; else give --inputs that fit."
            )
    text = f"TensorFlow fails on {where}: {type(error).__name__}: {_reason(error)}."
    return f"{text} {advice}".rstrip()


def _reason(error: Exception) -> str:
    """The line of TensorFlow's message that tells what was wrong; around it stand nodes and stack traces."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [x for x in lines if x and not x.startswith(("Graph execution error", "Detected at", "<stack", "[["))]
    return next(iter(telling), repr(error)).rstrip(".")
