"""The model as text before the first pass and after each, and what each pass changed."""

from __future__ import annotations

import difflib
from pathlib import Path

from converter.errors import OutputError, listed
from converter.graph.model import Model
from converter.graph.text import render

_SHOWN = ("_output_shapes",)


class Dumps:
    """Writes two files a pass: `1-place_on_tpu.txt`, the model after it, and `1-place_on_tpu.diff`, a unified diff.

    `0-input.txt` is the model before the first. Each file is there once its pass is done, whatever happens later.
    """

    def __init__(self, directory: Path) -> None:
        """Takes a directory that passed `check_dump_dir`; it is made with the first file."""
        self._directory = directory
        self._steps: list[str] = []
        self._before: list[str] = []

    def __call__(self, model: Model, step: str) -> None:
        """Writes the model after `step`, which is the name of a pass, or of what came before all passes.

        Raises:
          OutputError: the disk refuses.
        """
        text = render(model, _SHOWN)
        lines = text.splitlines(keepends=True)
        name = f"{len(self._steps)}-{step}"
        self._write(f"{name}.txt", text)
        if self._steps:
            changed = difflib.unified_diff(self._before, lines, f"{self._steps[-1]}.txt", f"{name}.txt")
            self._write(f"{name}.diff", "".join(changed))
        self._steps.append(name)
        self._before = lines

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f'"{path}" of --dump_dir cannot be written: {error.strerror}.') from error


def check_dump_dir(directory: Path, *models: Path) -> None:
    """Refuses a directory that holds something, or that is, or lies in, the directory of one of `models`.

    Raises:
      OutputError: with what was found there.
    """
    for model in models:
        if model.resolve() in (directory.resolve(), *directory.resolve().parents):
            raise OutputError(
                f'The dump directory "{directory}" is, or lies in, the directory "{model}" of a model; name another.'
            )
    if not directory.exists():
        return
    if not directory.is_dir():
        raise OutputError(
            f'The dump directory "{directory}" is a file; expected a directory, or a path that does not exist.'
        )
    found = sorted(p.name for p in directory.iterdir())
    if found:
        raise OutputError(
            f'The dump directory "{directory}" is not empty, it holds {listed(found)}. Name an empty or new directory.'
        )
