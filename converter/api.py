"""One function a use case: what the commands of the command line call, and nothing deeper."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from converter.analysis import cost, workload
from converter.checkpoint.recast import Progress
from converter.graph import invariants
from converter.graph.model import Model
from converter.graph.op_libraries import import_op_libraries
from converter.graph.protos import TENSORFLOW_VERSION
from converter.options.parse import parse_options
from converter.options.settings import ConvertSettings
from converter.options.slices import ConverterOptions
from converter.pipeline import Observer, StructureCheck, build_passes, run_passes
from converter.proofs.cpu_twin import write_cpu_twin
from converter.proofs.verify import Verification, verify_conversion
from converter.reports.conversion import ConversionReport
from converter.reports.dumps import Dumps, check_dump_dir
from converter.reports.inspection import Inspection, inspect_model
from converter.saved_model import reader, writer
from converter.version import __version__

__all__ = [
    "ConversionReport",
    "Inspection",
    "Verification",
    "convert",
    "inspect_model",
    "verify_conversion",
    "write_cpu_twin",
]

_T = TypeVar("_T")
_DEFAULTS = ConvertSettings()


def convert(
    input_model_dir: Path | str,
    output_model_dir: Path | str,
    options: ConverterOptions | str,
    settings: ConvertSettings = _DEFAULTS,
    *,
    progress: Progress | None = None,
) -> ConversionReport:
    """Converts a TensorFlow 2 SavedModel into one that a Cloud TPU can serve.

    Args:
      input_model_dir: directory of the SavedModel; it is not modified.
      output_model_dir: where to write; may be an existing empty directory.
      options: `ConverterOptions`, or their text proto.
      settings: how to go about it: what may be overwritten, what is allowed, what is counted.
      progress: called with (bytes done, bytes in all) while variables are rewritten.

    Returns:
      What was done, with the cost of the converted model.

    Raises:
      OptionsError: the options are wrong whatever the model, or a module cannot be imported.
      ConversionError: the model or a directory stands in the way; nothing was written.
      InternalError: a defect of tpu-convert; nothing was written.
    """
    source, target = Path(input_model_dir), Path(output_model_dir)
    if isinstance(options, str):
        options = parse_options(options)
    passes = build_passes(options, settings)
    writer.check_output_dir(source, target, settings.overwrite)
    if settings.dump_dir is not None:
        check_dump_dir(settings.dump_dir, source, target)
    import_op_libraries(settings.import_modules)
    seconds: dict[str, float] = {}
    model = _timed(seconds, "read", lambda: reader.read_model(source))
    with reader.blaming_input(source):
        reports = run_passes(model, passes, _observers(settings))
        work = _timed(seconds, "count_flops", lambda: workload.model_workload(model)) if settings.count_flops else None
    odd = _timed(seconds, "verify", lambda: _problems_of_input(model, source))
    changed = any(r.result.changes for r in reports)
    if not settings.dry_run:
        _timed(seconds, "write", lambda: writer.write_model(model, target, unchanged=not changed, progress=progress))
    return ConversionReport(
        cost=cost.model_cost(model),
        passes=tuple(reports),
        input_bytes=_size(source),
        output_bytes=None if settings.dry_run else _size(target),
        seconds=seconds,
        versions=_versions(model.meta_graph.meta_info_def.tensorflow_version),
        notes=(f"The input graph is inconsistent, so the result was not checked: {invariants.summary(odd)}.",)
        if odd
        else (),
        workload=work,
    )


def _observers(settings: ConvertSettings) -> list[Observer]:
    """What hangs between the passes; the dump first, so that it shows what the check refuses."""
    dumps: list[Observer] = [] if settings.dump_dir is None else [Dumps(settings.dump_dir)]
    return [*dumps, StructureCheck()] if dumps or settings.check_each_pass else []


def _problems_of_input(model: Model, source: Path) -> list[str]:
    """Checks the converted model. Returns what is odd about it if the input was odd already: that is not ours to judge.

    Raises:
      InternalError: the model is inconsistent and the input was not.
    """
    if not invariants.problems(model):
        return []
    odd = invariants.problems(reader.read_model(source))
    if not odd:
        invariants.check_structure(model)
    return odd


def _timed(seconds: dict[str, float], stage: str, work: Callable[[], _T]) -> _T:
    start = time.monotonic()
    result = work()
    seconds[stage] = time.monotonic() - start
    return result


def _size(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())


def _versions(exported_with: str) -> dict[str, str]:
    return {"tpu_convert": __version__, "tensorflow": TENSORFLOW_VERSION, "model_tensorflow": exported_with}
