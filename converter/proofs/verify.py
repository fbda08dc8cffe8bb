"""Does the converted model compute what the original did? Runs both on the CPU with the same inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import tensorflow as tf

from converter.errors import ConversionError, nearest
from converter.graph import edit
from converter.graph.model import Model
from converter.graph.protos import DT_BFLOAT16
from converter.graph.tensors import Array
from converter.proofs import sample_inputs
from converter.proofs.cpu_twin import make_cpu_twin
from converter.saved_model.reader import FINGERPRINT_FILE, SAVED_MODEL_FILE, read_model

_T = TypeVar("_T")
_EXACT_TOLERANCE = 1e-5  # float32: the runtime fuses differently across function boundaries
_BFLOAT16_TOLERANCE = 2e-2  # bfloat16 has 8 bits of precision, and errors add up along a deep model


@dataclass(frozen=True)
class OutputComparison:
    """One output tensor of one request.

    `error`: of floating-point numbers, the L2 norm of the difference over that of the original; of anything else, the
    share of elements that differ.
    """

    signature: str
    batch_size: int
    output: str
    error: float
    detail: str


@dataclass(frozen=True)
class Verification:
    """All comparisons of one run; `passed` if every error is within `tolerance` and nothing else differs."""

    comparisons: tuple[OutputComparison, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.comparisons) and all(c.error <= self.tolerance for c in self.comparisons)

    def text(self) -> str:
        lines = [f"{'':<6}{'Error':<12}{'Batch':<8}Output"]
        for c in self.comparisons:
            verdict = "ok" if c.error <= self.tolerance else "FAIL"
            detail = f"  ({c.detail})" if c.detail else ""
            lines.append(f"{verdict:<6}{c.error:<12.2e}{c.batch_size:<8}{c.signature}/{c.output}{detail}")
        outcome = "PASSED" if self.passed else "FAILED"
        lines.append(f"{outcome}: relative error of {len(self.comparisons)} outputs, tolerance {self.tolerance:g}")
        return "\n".join(lines)


def verify_conversion(
    original: Path | str,
    converted: Path | str,
    *,
    batch_sizes: Sequence[int] = (1, 3),
    inputs_file: Path | None = None,
    signature: str | None = None,
    tolerance: float | None = None,
) -> Verification:
    """Runs every signature of both models and compares the outputs.

    Args:
      original: directory of the SavedModel before the conversion.
      converted: directory of the converted one; its CPU twin is run.
      batch_sizes: sizes of the unknown 0th dimension of the inputs; 1 stands in for other unknown dimensions.
      inputs_file: .npz with an array for every signature input, instead of random ones.
      signature: the only signature to run; all if None.
      tolerance: largest relative error; None chooses by whether the converted model computes in bfloat16.

    Raises:
      ConversionError: a model cannot be read or run, or the inputs do not fit its signatures.
    """
    model, twin = read_model(Path(original)), read_model(Path(converted))
    if tolerance is None:
        tolerance = _BFLOAT16_TOLERANCE if _computes_in_bfloat16(twin) else _EXACT_TOLERANCE
    arrays = None if inputs_file is None else sample_inputs.read_inputs(inputs_file)
    make_cpu_twin(twin)
    with _loaded(model, "original") as before, _loaded(twin, "converted") as after:
        keys = sorted(before.signatures)
        if signature is not None:
            if signature not in keys:
                raise ConversionError(f'The model has no signature "{signature}". It has: {nearest(signature, keys)}.')
            keys = [signature]
        comparisons: list[OutputComparison] = []
        for key in keys:
            if key not in after.signatures:
                raise ConversionError(f'The converted model lacks the signature "{key}" of the original.')
            for size in batch_sizes if arrays is None else (0,):
                specs = before.signatures[key].structured_input_signature[1]
                if arrays is None:
                    inputs, expected = _answer_to_random(before.signatures[key], key, specs, size)
                else:
                    inputs = sample_inputs.given_inputs(arrays, specs, key)
                    expected = _answer(before.signatures[key], inputs, f'the original, at signature "{key}"')
                found = _answer(after.signatures[key], inputs, f'the converted model, at signature "{key}"')
                rows = size or next((v.shape[0] or 0 for v in inputs.values() if v.shape.rank), 1)
                comparisons += [_compare(key, rows, name, expected[name], found.get(name)) for name in sorted(expected)]
    return Verification(tuple(comparisons), tolerance)


class _Signature(Protocol):
    """A signature of a loaded model, as it is used here."""

    @property
    def structured_input_signature(self) -> tuple[tuple[()], dict[str, tf.TensorSpec]]: ...

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]: ...


class _Loaded(Protocol):
    """What tf.saved_model.load returns, as it is used here."""

    @property
    def signatures(self) -> Mapping[str, _Signature]: ...


@contextmanager
def _loaded(model: Model, what: str) -> Iterator[_Loaded]:
    """The model as TensorFlow loads it, without the slot variables of an optimizer: Keras 3 cannot revive these."""
    with tempfile.TemporaryDirectory(prefix="tpu-convert-verify-") as name:
        for node in model.object_graph.nodes:
            del node.slot_variables[:]
        (Path(name) / SAVED_MODEL_FILE).write_bytes(model.saved_model.SerializeToString())
        for path in model.path.iterdir():
            if path.name not in (SAVED_MODEL_FILE, FINGERPRINT_FILE):
                (Path(name) / path.name).symlink_to(path.resolve())
        yield _run(lambda: tf.saved_model.load(name), f"the {what} model, when it is loaded")


def _answer_to_random(
    function: _Signature, key: str, specs: Mapping[str, tf.TensorSpec], size: int
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Random inputs that the original can answer, and its answer."""
    where = f'the original, at signature "{key}" with random inputs of {size} rows'
    inputs = sample_inputs.random_inputs(specs, size, small=False)
    try:
        return inputs, _answer(function, inputs, where)
    except ConversionError:
        # Floats may be ids.
        inputs = sample_inputs.random_inputs(specs, size, small=True)
        return inputs, _answer(function, inputs, where)


def _answer(function: _Signature, inputs: dict[str, tf.Tensor], where: str) -> dict[str, tf.Tensor]:
    return _run(lambda: function(**inputs), where)


def _run(work: Callable[[], _T], where: str) -> _T:
    try:
        return work()
    except (tf.errors.OpError, ValueError, TypeError, AttributeError, KeyError, FileNotFoundError) as error:
        raise ConversionError(
            f"TensorFlow fails on {where}: {type(error).__name__}: {_reason(error)}. If the model cannot answer such "
            "inputs, give --inputs with some that it can."
        ) from error


def _reason(error: Exception) -> str:
    """The line of TensorFlow's message that tells what was wrong; around it stand nodes and stack traces."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [x for x in lines if x and not x.startswith(("Graph execution error", "Detected at", "<stack", "[["))]
    return next(iter(telling), repr(error)).rstrip(".")


def _computes_in_bfloat16(model: Model) -> bool:
    return bool(
        edit.nodes_where(model, lambda n: any(v.type == DT_BFLOAT16 for v in n.attr.values() if v.HasField("type")))
    )


def _compare(key: str, batch_size: int, name: str, expected: tf.Tensor, found: tf.Tensor | None) -> OutputComparison:
    if found is None:
        return OutputComparison(key, batch_size, name, float("inf"), "the converted model lacks this output")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        detail = f"{found.dtype.name}{found.shape.as_list()} instead of {expected.dtype.name}{expected.shape.as_list()}"
        return OutputComparison(key, batch_size, name, float("inf"), detail)
    a, b = expected.numpy(), found.numpy()
    error = relative_error(a, b)
    differ = int(np.sum(a != b)) if error and not _is_inexact(a) else 0
    return OutputComparison(key, batch_size, name, error, f"{differ} of {a.size} differ" if differ else "")


def _is_inexact(values: Array) -> bool:
    # bfloat16 is no floating-point type to NumPy.
    return values.dtype.kind in "fc" or values.dtype.name == "bfloat16"


def relative_error(expected: Array, found: Array) -> float:
    """L2 norm of the difference over that of `expected`, inf for new NaNs; of integers the share that differs."""
    if not _is_inexact(expected):
        return float(np.mean(expected != found)) if expected.size else 0.0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = expected.astype(wide).ravel(), found.astype(wide).ravel()
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    difference, size = float(np.linalg.norm(a[finite] - b[finite])), float(np.linalg.norm(a[finite]))
    return difference / size if size else difference
