"""Does the converted model compute what the original did? Runs both on the CPU with the same inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from converter import printing
from converter.errors import ConversionError, nearest
from converter.graph.model import Model
from converter.graph.nodes import nodes_where
from converter.graph.op_libraries import expect_registered_ops, import_op_libraries
from converter.graph.protos import DT_BFLOAT16
from converter.graph.tensors import Array
from converter.printing import Folded
from converter.proofs import row_probe, running, sample_inputs
from converter.proofs.comparison import OutputComparison, compare, relative_error
from converter.proofs.cpu_twin import make_cpu_twin
from converter.proofs.row_probe import RowComparison
from converter.proofs.running import Answer, Values
from converter.saved_model.reader import read_model

_EXACT_TOLERANCE = 1e-5  # float32: the runtime fuses differently across function boundaries
_BFLOAT16_TOLERANCE = 2e-2  # bfloat16 has 8 bits of precision, and errors add up along a deep model
_RANDOM = "random: the original's own answers differ from run to run"
# What the original's answers differ by from run to run may be smaller than this share of an error that it explains.
_LEAST_SHARE = 0.1
# Two runs may happen to differ by little.
_RUNS = 6
_DRAWS = 10
_STYLES = {"ok": "green", "FAIL": "bold red", "skip": "yellow"}
_Comparison = TypeVar("_Comparison", OutputComparison, RowComparison)


@dataclass(frozen=True)
class Verification:
    """All comparisons of one run; `passed` if every error is within `tolerance` and nothing else differs.

    Attributes:
      comparisons: outputs of the converted model against the original's.
      tolerance: the largest error that passes.
      rows: rows of a batched model's outputs against the same rows with others beside them.
      notes: what was not probed, and why.
    """

    comparisons: tuple[OutputComparison, ...]
    tolerance: float
    rows: tuple[RowComparison, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.comparisons) and not any(self._fails(c) for c in self._all())

    def text(self, width: int = printing.WIDTH) -> str:
        """The same as a terminal of that width shows, without colours."""
        return printing.plain(self, width)

    def __rich__(self) -> Group:
        found = printing.table(("", 4), ("Error", 10), ("Batch", 6), ("Output", 0))
        for c in self._all():
            found.add_row(*self._row(c))
        outcome, style = ("PASSED", "bold green") if self.passed else ("FAILED", "bold red")
        outputs = f"relative error of {len(self.comparisons)} outputs, tolerance {self.tolerance:g}"
        return Group(
            found,
            *(Padding(Folded(note), (0, 0, 0, 6)) for note in self.notes),
            Folded(f"{outcome}: {outputs}", indent=2, style=style),
        )

    def _all(self) -> list[OutputComparison | RowComparison]:
        return [*self.comparisons, *self.rows]

    def _fails(self, found: OutputComparison | RowComparison) -> bool:
        return self._verdict(found) == "FAIL"

    def _verdict(self, found: OutputComparison | RowComparison) -> str:
        if found.random:
            return "skip"
        return "ok" if found.error <= self.tolerance else "FAIL"

    def _row(self, found: OutputComparison | RowComparison) -> tuple[Text, str, str, Folded]:
        detail = f"  ({found.detail})" if found.detail else ""
        batch = str(found.batch_size) if isinstance(found, OutputComparison) else "rows"
        verdict = self._verdict(found)
        shown = Text(verdict, _STYLES[verdict])
        return shown, f"{found.error:.2e}", batch, Folded(f"{found.signature}/{found.output}{detail}", indent=2)


def verify_conversion(
    original: Path | str,
    converted: Path | str,
    *,
    batch_sizes: Sequence[int] = (1, 3),
    inputs_file: Path | None = None,
    signature: str | None = None,
    tolerance: float | None = None,
    import_modules: Sequence[str] = (),
) -> Verification:
    """Runs every signature of both models and compares the outputs; of batched ones, also rows with other rows.

    Args:
      original: directory of the SavedModel before the conversion.
      converted: directory of the converted one; its CPU twin is run.
      batch_sizes: sizes of the unknown 0th dimension of the inputs; 1 stands in for other unknown dimensions.
      inputs_file: .npz with an array for every signature input, instead of random ones.
      signature: the only signature to run; all if None.
      tolerance: largest relative error; None chooses by whether the converted model computes in bfloat16.
      import_modules: modules to import first, for the ops that they register.

    Raises:
      OptionsError: a module cannot be imported.
      ConversionError: a model cannot be read or run, or the inputs do not fit its signatures.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise ConversionError(f"The batch sizes are {list(batch_sizes)}; expected one or more, each at least 1.")
    import_op_libraries(import_modules)
    model, twin = read_model(Path(original), "ORIGINAL"), read_model(Path(converted), "CONVERTED")
    for each in (model, twin):
        expect_registered_ops(each)
    if tolerance is None:
        tolerance = _BFLOAT16_TOLERANCE if _computes_in_bfloat16(twin) else _EXACT_TOLERANCE
    arrays = None if inputs_file is None else sample_inputs.read_inputs(inputs_file)
    make_cpu_twin(twin)
    for each in (model, twin):
        row_probe.let_requests_meet(each)
    with ExitStack() as stack:
        directory = stack.enter_context(running.on_disk(twin))
        before = running.load(stack.enter_context(running.on_disk(model)), "original")
        after = running.load(directory, "converted")
        comparisons: list[OutputComparison] = []
        rows: list[RowComparison] = []
        notes: list[str] = []
        serving = None
        for key in _chosen(signature, before.signatures, after.signatures):
            pair = _pair(key, before.signatures[key], after.signatures[key], tolerance)
            for size in batch_sizes if arrays is None else (None,):
                comparisons += pair.compared(*pair.request(size, arrays))
            ops = row_probe.batching_ops(twin, key)
            if not ops:
                continue
            largest = min(row_probe.MOST_ROWS, *(op.attr["max_batch_size"].i for op in ops))
            request, reason = pair.different_rows(largest, arrays)
            if request is None:
                notes.append(f'rows of "{key}" not probed: {reason}')
                continue
            serving = serving or stack.enter_context(running.served(twin, directory, "converted"))
            rows += pair.probed(request, serving(key), row_probe.is_batched_whole(twin, key))
    return Verification(tuple(comparisons), tolerance, tuple(rows), tuple(notes))


def _chosen(signature: str | None, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The signatures to run."""
    if signature is not None and signature not in before:
        raise ConversionError(f'The model has no signature "{signature}". It has: {nearest(signature, before)}.')
    keys = sorted(before) if signature is None else [signature]
    for key in keys:
        if key not in after:
            raise ConversionError(
                f'The converted model lacks the signature "{key}" of the original. It has: {nearest(key, after)}. '
                "Check that CONVERTED was made of ORIGINAL."
            )
    return keys


def _pair(key: str, before: Any, after: Any, tolerance: float) -> _Pair:
    """One signature as both models have it, if they do."""
    specs, found = (function.structured_input_signature[1] for function in (before, after))
    if set(specs) != set(found) or any(
        specs[n].dtype != found[n].dtype or not specs[n].shape.is_compatible_with(found[n].shape) for n in specs
    ):
        raise ConversionError(
            f'The signature "{key}" of the converted model takes {sample_inputs.described(found)}; expected what the '
            f"original's takes, {sample_inputs.described(specs)}. These models are unrelated: check that CONVERTED was "
            "made of ORIGINAL."
        )
    advice = "If the model cannot answer such inputs, give --inputs with some that it can."
    return _Pair(
        key,
        specs,
        lambda how: running.answering(before, f'the original, at signature "{key}"{how}', advice),
        running.answering(after, f'the converted model, at signature "{key}"', "The original answers these inputs."),
        tolerance,
    )


@dataclass(frozen=True)
class _Pair:
    """One signature of both models: its inputs, and how to ask each (of the original, an error tells with what)."""

    key: str
    specs: Mapping[str, tf.TensorSpec]
    original: Callable[[str], Answer]
    converted: Answer
    tolerance: float

    def request(
        self, size: int | None, arrays: Mapping[str, Array] | None, draw: int = 0
    ) -> tuple[int, Values, Values]:
        """Rows, inputs and the original's answer: to the user's arrays, or to `size` random rows that it can answer."""
        if arrays is not None or size is None:
            inputs = sample_inputs.given_inputs(arrays or {}, self.specs, self.key)
            return next((len(v) for v in inputs.values() if v.ndim), 1), inputs, self.original("")(inputs)
        ask = self.original(f" with random inputs of {size} rows")
        inputs = sample_inputs.random_inputs(self.specs, size, small=False, draw=draw)
        try:
            return size, inputs, ask(inputs)
        except ConversionError:
            # Floats may be ids.
            inputs = sample_inputs.random_inputs(self.specs, size, small=True, draw=draw)
            return size, inputs, ask(inputs)

    def compared(self, rows: int, inputs: Values, expected: Values) -> list[OutputComparison]:
        """Each output of the converted model against the original's."""
        found = self.converted(inputs)
        names = sorted({*expected, *found})
        return self._judged([compare(self.key, rows, n, expected.get(n), found.get(n)) for n in names], inputs)

    def different_rows(self, largest: int, arrays: Mapping[str, Array] | None) -> tuple[Values | None, str]:
        """A request of up to `largest` rows, no two of them the same; None and why, if there is no such."""
        names = row_probe.row_inputs(self.specs)
        if largest < 2:
            return None, "its batching op takes one row at a time"
        if not names:
            return None, "none of its inputs has a free 0th dimension"
        for draw in range(_DRAWS if arrays is None else 1):
            inputs = self.request(largest, arrays, draw)[1]
            rows = row_probe.different_rows(inputs, names, largest)
            if len(rows) > 1:
                return row_probe.take(inputs, names, rows), ""
        where = "random inputs" if arrays is None else "the arrays of --inputs"
        return None, f"{where} do not have two rows that differ; give --inputs that do"

    def probed(self, inputs: Values, served: Answer, whole: bool) -> list[RowComparison]:
        """Whether each row of the converted model's outputs is its own."""
        names = row_probe.row_inputs(self.specs)
        found = row_probe.probe_rows(
            self.key, inputs, names, self.converted, served, whole=whole, tolerance=self.tolerance
        )
        return self._judged(found, inputs)

    def _judged(self, found: list[_Comparison], inputs: Values) -> list[_Comparison]:
        """Marks what differs only because the original draws random numbers."""
        if all(c.error <= self.tolerance for c in found):
            return found
        ask = self.original("")
        first, *others = (ask(inputs) for _ in range(_RUNS))
        return [self._random(c) if any(self._explains(c, first, o) for o in others) else c for c in found]

    def _explains(self, found: _Comparison, first: Values, other: Values) -> bool:
        one, two = first.get(found.output), other.get(found.output)
        if one is None or two is None or one.shape != two.shape or found.error <= self.tolerance:
            return False
        return relative_error(one, two) >= _LEAST_SHARE * found.error

    def _random(self, found: _Comparison) -> _Comparison:
        return dataclasses.replace(found, random=True, detail=_RANDOM)


def _computes_in_bfloat16(model: Model) -> bool:
    return bool(nodes_where(model, lambda n: any(v.type == DT_BFLOAT16 for v in n.attr.values() if v.HasField("type"))))
