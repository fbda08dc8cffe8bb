"""Options -> ordered passes; runs and times them, with what hangs between them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from absl import logging

from converter.errors import ConversionError, InternalError
from converter.graph import invariants
from converter.graph.model import Model
from converter.options.settings import ConvertSettings
from converter.options.slices import ConverterOptions
from converter.passes.batching.batch import Batch
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.io_shape.reshape import IoShape
from converter.passes.pass_result import AnyPass, PassReport
from converter.passes.place_on_tpu.place import PlaceOnTpu

INPUT = "input"  # the step before the first pass


def build_passes(options: ConverterOptions, settings: ConvertSettings) -> list[AnyPass]:
    """The passes that these options ask for, in the order in which they must run.

    Raises:
      OptionsError: what a pass finds wrong with its slice, whatever the model.
    """
    passes: list[AnyPass] = []
    if options.tpu_functions:
        passes.append(PlaceOnTpu(options.tpu_functions, options.xla_sharding, settings.allow_incompatible))
    if options.batch_options:
        passes.append(Batch(options.batch_options, settings.allow_batching_violations))
    if options.bfloat16 is not None:
        # After batching, so that the casts at TPU calls work on whole batches.
        how = options.bfloat16
        passes.append(BFloat16(how.scope, how.skip_safety_checks, how.filterlist))
    if options.io_shape:
        # Last, since what crosses is final only then: how many rows, and of which dtype.
        passes.append(IoShape())
    return passes


class Observer(Protocol):
    """Hangs between passes; changes nothing."""

    def __call__(self, model: Model, step: str) -> None:
        """Sees the model after the pass named `step`, and before the first pass, when `step` is INPUT."""


class StructureCheck:
    """Names the pass that broke the model. What was inconsistent before the first pass is no pass's fault."""

    def __init__(self) -> None:
        self._was_odd = False

    def __call__(self, model: Model, step: str) -> None:
        """Raises InternalError, with the first few problems."""
        found = invariants.problems(model)
        if step == INPUT:
            self._was_odd = bool(found)
        elif found and not self._was_odd:
            raise InternalError(f'The pass "{step}" left an inconsistent graph: {invariants.summary(found)}.')


def run_passes(model: Model, passes: Sequence[AnyPass], observers: Sequence[Observer] = ()) -> list[PassReport]:
    """Runs and times `passes` in order; the `observers` are called before the first and after each.

    Raises:
      ConversionError: what a pass found wrong with the model or the options, or an observer with its disk.
      InternalError: a pass failed in a way that is our fault; it names the pass and those that ran before.
    """
    reports: list[PassReport] = []
    for observe in observers:
        observe(model, INPUT)
    for each in passes:
        start = time.monotonic()
        try:
            result = each.apply(model)
        except (ConversionError, InternalError):
            raise
        except Exception as error:
            done = ", ".join(r.name for r in reports) or "none"
            raise InternalError(
                f'The pass "{each.name}" failed with {type(error).__name__}: {error} (passes before it: {done}).'
            ) from error
        reports.append(PassReport(each.name, time.monotonic() - start, result))
        logging.info("%s: %d changes, %d skips", each.name, len(result.changes), len(result.skips))
        for observe in observers:
            observe(model, each.name)
    return reports
