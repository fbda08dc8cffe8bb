"""Options -> ordered passes; runs and times them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from absl import logging

from converter.errors import ConversionError, InternalError
from converter.graph.model import Model
from converter.options.settings import ConvertSettings
from converter.options.slices import ConverterOptions
from converter.passes.batching.batch import Batch
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.io_shape.reshape import IoShape
from converter.passes.pass_result import AnyPass, PassReport
from converter.passes.place_on_tpu.place import PlaceOnTpu


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


def run_passes(
    model: Model, passes: Sequence[AnyPass], after_each: Callable[[Model], None] | None = None
) -> list[PassReport]:
    """Runs `passes` in order; `after_each` hangs between them (the tests verify the model there).

    Raises:
      ConversionError: what a pass found wrong with the model or the options.
      InternalError: a pass failed in a way that is our fault; it names the pass and those that ran before.
    """
    reports: list[PassReport] = []
    for each in passes:
        start = time.monotonic()
        try:
            result = each.apply(model)
            if after_each is not None:
                after_each(model)
        except (ConversionError, InternalError):
            raise
        except Exception as error:
            done = ", ".join(r.name for r in reports) or "none"
            raise InternalError(
                f'The pass "{each.name}" failed with {type(error).__name__}: {error} (passes before it: {done}).'
            ) from error
        reports.append(PassReport(each.name, time.monotonic() - start, result))
        logging.info("%s: %d changes, %d skips", each.name, len(result.changes), len(result.skips))
    return reports
