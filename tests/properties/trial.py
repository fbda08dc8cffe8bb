"""One trial: a random model is built, converted with random options, and its CPU twin is compared with the original."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from converter import ConversionReport, ConvertSettings, convert, parse_options, write_cpu_twin
from converter.pipeline import build_passes, run_passes
from converter.saved_model.reader import read_model
from tests.kept import look_ups_checked
from tests.oracle import LOADERS, LoadedModel, Loader, Values, assert_same, open_model
from tests.properties import random_models
from tests.properties.random_models import ModelSpec, RandomModel, make_inputs, models, signature_names
from tests.properties.random_options import REQUEST_ROWS, Options
from tests.properties.row_op import Op
from tests.properties.row_ops import OPS

ALONE = tuple([i] for i in range(REQUEST_ROWS))
IN_ANOTHER_ORDER = ([2, 0, 3], [3, 2, 1, 0])
TOGETHER = ([0], [3, 1], [2])
"""Rows of requests that come at the same time."""


@dataclass(frozen=True)
class Trial:
    """A random model on disk."""

    model: RandomModel
    directory: Path

    @property
    def original(self) -> Path:
        return self.directory / "original"

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    def convert(self, options: Options) -> tuple[Path, ConversionReport]:
        """Converts; returns the directory of the CPU twin. Converting the result again has to change nothing."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        note(
            f"tpu-convert --input_model_dir=/tmp/model --output_model_dir=/tmp/out \\\n"
            f"  --converter_options_string='{options.text()}'"
        )
        with look_ups_checked():
            report = convert(self.original, directory / "converted", options.text())
        again = read_model(directory / "converted")
        before = again.saved_model.SerializeToString(deterministic=True)
        with look_ups_checked():
            changes = [c for r in run_passes(again, second_passes(options)) for c in r.result.changes]
        assert not changes, f"a second conversion changes {changes}"
        assert again.saved_model.SerializeToString(deterministic=True) == before, "a second conversion changes bytes"
        write_cpu_twin(directory / "converted", directory / "twin")
        return directory / "twin", report

    def answers(self, directory: Path, loader: Loader, requests: Sequence[Sequence[int]]) -> dict[str, list[Values]]:
        """What each signature answers to requests of these rows, one after the other."""
        with open_model(directory, loader) as opened:
            return {
                name: [opened.run(name, self.rows(name, each)) for each in requests]
                for name in signature_names(self.spec)
            }

    def answers_at_once(self, directory: Path, loader: Loader) -> dict[str, list[Values]]:
        """What each signature answers to the requests of TOGETHER, when they arrive at the same time."""
        with open_model(directory, loader) as opened:
            return {
                name: at_once(opened, name, [self.rows(name, each) for each in TOGETHER])
                for name in signature_names(self.spec)
            }

    def rows(self, signature: str, rows: Sequence[int]) -> Values:
        inputs = make_inputs(self.spec, signature, REQUEST_ROWS)
        return {key: value[list(rows)] for key, value in inputs.items()}


def second_passes(options: Options) -> list[Any]:
    return build_passes(parse_options(options.text()), ConvertSettings())


def at_once(opened: LoadedModel, signature: str, requests: Sequence[Values]) -> list[Values]:
    barrier = threading.Barrier(len(requests))

    def one(request: Values) -> Values:
        barrier.wait()
        return opened.run(signature, request)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


@contextmanager
def trial(spec: ModelSpec, ops: dict[str, Op] = OPS) -> Iterator[Trial]:
    """Builds the model. A failure inside shows how to build it again, and the program that it is."""
    note(random_models.command(spec))
    with tempfile.TemporaryDirectory(prefix="trial") as name:
        model = random_models.build(spec, Path(name) / "original", ops)
        note("\n".join(model.listing))
        yield Trial(model, Path(name))


def assert_rows(
    spec: ModelSpec,
    found: dict[str, list[Values]],
    expected: dict[str, list[Values]],
    requests: Sequence[Sequence[int]],
    where: str,
    rtol: float = 1e-5,
) -> None:
    """Each answer of `found` is made of these rows of `expected`, which is about one request of all rows."""
    for signature, answers in found.items():
        whole = expected[signature][0]
        for rows, answer in zip(requests, answers, strict=True):
            for key in whole:
                label = f"{where}, {signature}, rows {rows}: {key}"
                assert_close(answer[key], whole[key][list(rows)], 0.0 if spec.exact else rtol, label)


def assert_close(found: np.ndarray, expected: np.ndarray, rtol: float, where: str) -> None:
    """Equal; floats within `rtol` of what is usual in these models, values around 1."""
    if rtol == 0.0 or found.dtype.kind != "f" or found.shape != expected.shape:
        # 0 and -0 are one integer.
        assert_same(*(x + np.zeros_like(x) if x.dtype.kind == "f" else x for x in (found, expected)), where=where)
        return
    assert found.dtype == expected.dtype, where
    difference = np.linalg.norm(found.astype(np.float64) - expected)
    allowed = rtol * max(float(np.linalg.norm(expected)), expected.size**0.5)
    assert difference <= allowed, f"{where}: {difference:.3g} apart, allowed {allowed:.3g}\n{found}\n{expected}"


def shards(fast: int, slow: int) -> list[Any]:
    """Seeds: those of `make test`, and those that only `make test-all` tries."""
    return [f"seed{i}" for i in range(fast)] + [
        pytest.param(f"seed{i}", marks=pytest.mark.slow) for i in range(fast, fast + slow)
    ]


def for_random_models(
    name: str,
    examples: int,
    check: Callable[[Trial, st.DataObject], None],
    specs: st.SearchStrategy[ModelSpec] | None = None,
    ops: dict[str, Op] = OPS,
) -> None:
    """Runs `check` on random models, always the same ones for a name of `shards`."""

    @seed(int(name.removeprefix("seed")))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(models() if specs is None else specs, st.data())
    def property_of(spec: ModelSpec, data: st.DataObject) -> None:
        with trial(spec, ops) as each:
            check(each, data)

    property_of()


__all__ = ["ALONE", "IN_ANOTHER_ORDER", "LOADERS", "TOGETHER", "Trial", "assert_rows", "for_random_models", "shards"]
