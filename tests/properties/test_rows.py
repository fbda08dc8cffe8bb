"""Each row of a batched model is what it was alone, whatever rows are beside it, in whatever order, however padded.

The rows of random models do not depend on each other by construction; that, too, is asserted here.
"""

import pytest
from hypothesis import strategies as st

from tests.properties.random_options import REQUEST_ROWS, options
from tests.properties.trial import (
    ALONE,
    IN_ANOTHER_ORDER,
    LOADERS,
    TOGETHER,
    Trial,
    assert_rows,
    for_random_models,
    shards,
)

PROBES = (*ALONE, *IN_ANOTHER_ORDER)


def check_rows(trial: Trial, data: st.DataObject) -> None:
    whole = (list(range(REQUEST_ROWS)),)
    expected = {loader: trial.answers(trial.original, loader, whole) for loader in LOADERS}
    assert_rows(trial.spec, trial.answers(trial.original, "v1", PROBES), expected["v1"], PROBES, "original")
    for bfloat16 in (False, True) if trial.spec.exact else (False,):
        drawn = data.draw(options(trial.model, batched=True, bfloat16=bfloat16))
        twin, report = trial.convert(drawn)
        assert (
            any(r.result.details.to_json().get("batched") for r in report.passes) or drawn.batching[0].component is None
        )
        for loader in LOADERS:
            found = trial.answers(twin, loader, PROBES)
            assert_rows(trial.spec, found, expected[loader], PROBES, f"{loader}, one after the other")
            found = trial.answers_at_once(twin, loader)
            assert_rows(trial.spec, found, expected[loader], TOGETHER, f"{loader}, at the same time")


@pytest.mark.parametrize("number", shards(6, 60))
def test_rows_of_a_batched_random_model_do_not_know_of_each_other(number: str) -> None:
    for_random_models(number, 10, check_rows)
