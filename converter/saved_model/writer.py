"""Model -> disk, all or nothing: a directory without saved_model.pb is not a model, and that file comes last."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from converter.checkpoint.recast import Progress, recast
from converter.errors import OutputError, listed
from converter.graph.model import VARIABLES_PREFIX, Model
from converter.saved_model.reader import FINGERPRINT_FILE, SAVED_MODEL_FILE

_STAGING_PREFIX = ".tpu-convert-staging-"
_PROTO_LIMIT = 2**31 - 1  # bytes; protobuf's own limit


def check_output_dir(input_dir: Path, output_dir: Path, overwrite: bool) -> None:
    """Refuses an output directory that holds something, or that is in, around or the same as the input.

    Raises:
      OutputError: with what was found there.
    """
    source, target = input_dir.resolve(), output_dir.resolve()
    if source == target:
        raise OutputError(f'The output directory "{output_dir}" is the input directory; name another one.')
    if source in target.parents or target in source.parents:
        raise OutputError(
            f'The input directory "{input_dir}" and the output directory "{output_dir}" lie one inside the other; '
            "name an output directory elsewhere."
        )
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputError(f'The output "{output_dir}" is a file; expected a directory, or a path that does not exist.')
    found = sorted(p.name for p in _children(output_dir))
    if found and not overwrite:
        raise OutputError(
            f'The output directory "{output_dir}" is not empty, it holds {listed(found)}. Name an empty or new '
            "directory, or replace what is there with --overwrite."
        )


def write_model(model: Model, output_dir: Path, *, unchanged: bool = False, progress: Progress | None = None) -> None:
    """Writes `model` and copies the files around it from where it was read.

    Everything is staged inside `output_dir` (often a mount point, which cannot be replaced itself) and moved up
    when complete, saved_model.pb last. What `output_dir` held before is removed just before that. With
    `unchanged` the input's saved_model.pb and fingerprint are copied as they are.

    Raises:
      OutputError: the graph is too large for one proto, or the disk refuses.
    """
    created = [p for p in (output_dir, *output_dir.parents) if not p.exists()]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for stale in output_dir.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(stale)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=output_dir))
    except OSError as error:
        raise OutputError(f'The output directory "{output_dir}" cannot be written: {error.strerror}.') from error
    complete = False
    try:
        _stage(model, staging, unchanged, progress)
        _publish(staging, output_dir)
        complete = True
    except OSError as error:
        raise OutputError(f'Writing to "{output_dir}" failed: {error.strerror} ({error.filename}).') from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not complete:
            for directory in created:
                if directory.is_dir() and not any(directory.iterdir()):
                    directory.rmdir()


def _stage(model: Model, staging: Path, unchanged: bool, progress: Progress | None) -> None:
    if unchanged:
        shutil.copyfile(model.path / SAVED_MODEL_FILE, staging / SAVED_MODEL_FILE)
    else:
        size = model.saved_model.ByteSize()
        if size > _PROTO_LIMIT:
            raise OutputError(
                f"The converted graph takes {size} bytes, more than the {_PROTO_LIMIT} that one saved_model.pb can "
                "hold. Keep large constants in variables and export the model again."
            )
        (staging / SAVED_MODEL_FILE).write_bytes(model.saved_model.SerializeToString(deterministic=True))
    recasting = bool(model.recasts)
    for source in sorted(model.path.iterdir()):
        # A fingerprint is of the files it was made for; the loaders do without one.
        if source.name == SAVED_MODEL_FILE or (source.name == FINGERPRINT_FILE and not unchanged):
            continue
        _copy(source, staging / source.name, skip_checkpoint=recasting and source.name == VARIABLES_PREFIX.parent.name)
    if recasting:
        recast(model.path / VARIABLES_PREFIX, staging / VARIABLES_PREFIX, model.recasts, progress=progress)


def _copy(source: Path, target: Path, skip_checkpoint: bool) -> None:
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for child in sorted(source.iterdir()):
        of_checkpoint = child.name == f"{VARIABLES_PREFIX.name}.index" or child.name.startswith(
            f"{VARIABLES_PREFIX.name}.data-"
        )
        if not (skip_checkpoint and of_checkpoint):
            _copy(child, target / child.name, skip_checkpoint=False)


def _publish(staging: Path, output_dir: Path) -> None:
    (output_dir / SAVED_MODEL_FILE).unlink(missing_ok=True)
    for old in list(_children(output_dir)):
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    staged = sorted(staging.iterdir(), key=lambda p: (p.name == SAVED_MODEL_FILE, p.name))
    for path in staged:
        path.rename(output_dir / path.name)


def _children(directory: Path) -> Iterator[Path]:
    """What a directory holds, apart from the staging directory of a run that was killed."""
    if directory.is_dir():
        yield from (p for p in directory.iterdir() if not p.name.startswith(_STAGING_PREFIX))
