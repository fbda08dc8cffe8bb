"""The table: what is said of each function's rows, and that their rows really do so."""

from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.passes.batching.rows import (
    cases_calls,
    cases_finished,
    cases_images,
    cases_indices,
    cases_lists,
    cases_lookups,
    cases_loops,
    cases_moved,
    cases_moves,
    cases_numbers,
    cases_simple,
)
from tests.passes.batching.rows.table import Case, report_of, rows_are_independent, traced, verdict_of

FAMILIES = (
    *(cases_simple, cases_images, cases_moves, cases_moved, cases_lookups, cases_numbers, cases_calls, cases_loops),
    *(cases_finished, cases_indices, cases_lists),
)
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family.CASES)


@pytest.fixture(autouse=True, scope="module")
def functions_run_as_they_are() -> Iterator[None]:
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows(case: Case) -> None:
    concrete = traced(case)
    verdict, message = verdict_of(report_of(concrete, case.inputs.count(";") + 1), len(concrete.outputs))
    independent = rows_are_independent(concrete, case.inputs)
    if verdict in ("ok", "same") and not case.because:
        assert independent, f"{case.name}: {verdict}, and its rows influence each other"
    assert (verdict, case.told in message) == (case.verdict, True), f"{verdict}: {message}"
    if case.verdict in ("mixes", "place", "counts"):
        assert independent == bool(case.because), f"{case.name}: {message}"


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
