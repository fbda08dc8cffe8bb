"""Whatever the model and whatever is put on the TPU: the converted model computes what the original did.

Bit for bit where no pass may change numbers, with TensorFlow's graph optimizer off. In bfloat16 as well if all numbers
are small integers: then only a wrong type, or a value cast where it must not be, makes a difference.
"""

import pytest
from hypothesis import strategies as st

from tests.oracle import assert_same
from tests.properties.random_options import REQUEST_ROWS, options
from tests.properties.trial import LOADERS, Trial, assert_rows, for_random_models, shards

ALL_ROWS = (list(range(REQUEST_ROWS)),)


def check_equal(trial: Trial, data: st.DataObject) -> None:
    requests = (*ALL_ROWS, [0])
    expected = {loader: trial.answers(trial.original, loader, requests) for loader in LOADERS}
    for _ in range(2):
        drawn = data.draw(options(trial.model, batched=False, bfloat16=False))
        twin, _ = trial.convert(drawn)
        for loader in LOADERS:
            assert_same(trial.answers(twin, loader, requests), expected[loader], where=loader)


@pytest.mark.parametrize("number", shards(4, 40))
def test_the_twin_of_a_random_model_is_equal_to_the_last_bit(number: str) -> None:
    for_random_models(number, 20, check_equal)


def check_bfloat16(trial: Trial, data: st.DataObject) -> None:
    drawn = data.draw(options(trial.model, batched=False, bfloat16=True))
    twin, _ = trial.convert(drawn)
    for loader in LOADERS:
        expected = trial.answers(trial.original, loader, ALL_ROWS)
        found = trial.answers(twin, loader, ALL_ROWS)
        assert_rows(trial.spec, found, expected, ALL_ROWS, loader, rtol=0.1)


@pytest.mark.parametrize("number", shards(4, 40))
def test_bfloat16_changes_no_small_integer_and_little_else(number: str) -> None:
    for_random_models(number, 15, check_bfloat16)
