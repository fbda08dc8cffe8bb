"""What the batching pass tells people, and what its JSON has."""

import json

from converter.passes.batching.attributes import Attributes
from converter.passes.batching.details import BatchDetails, BatchedRow, Padding, padding_table
from converter.passes.pass_result import Skip

OPTIONS = Attributes(2, 0, 10, (2, 4), True, 8)
ROW = BatchedRow("f", "signature", "f_batched", "batch_f", 2, 1, ("g", "h"), OPTIONS, padding_table((2, 4), 8))
PLAIN = BatchedRow("g", "TPU function", "g_batched", "q", 1, 0, (), Attributes(max_batch_size=8), ())
LEFT = (Skip("h", "it returns nothing"), Skip("k", "keeps its options"))


def test_people_are_told_what_is_batched_what_is_not_and_what_is_unclear() -> None:
    details = BatchDetails((ROW, PLAIN), LEFT, (Skip("f", 'output "y": it loops'),))
    assert details.lines() == [
        "Batched: f (rows padded 1-2 -> 2, 3-4 -> 4, 5-8 -> None)",
        "Batched: g",
        "Not batched: h: it returns nothing",
        "Not batched: k: keeps its options",
        'Cannot tell whether rows of a batch influence each other in f: output "y": it loops',
    ]
    assert BatchDetails().lines() == []


def test_batches_that_are_not_padded_say_so() -> None:
    row = BatchedRow("g", "function", "g_batched", "q", 1, 0, (), Attributes(max_batch_size=8), padding_table((), 8))
    assert row.line() == "Batched: g (rows padded 1-8 -> the same)"


def test_the_json_has_all_of_every_batching_op() -> None:
    found = BatchDetails((ROW,), LEFT, (Skip("f", "why"),)).to_json()
    assert found == {
        "rows_unclear": {"f": "why"},
        "batched": [
            {
                "name": "f",
                "what": "signature",
                "function": "f_batched",
                "queue": "batch_f",
                "inputs": 2,
                "captures": 1,
                "tpu_functions": ["g", "h"],
                "options": {
                    "num_batch_threads": 2,
                    "batch_timeout_micros": 0,
                    "max_enqueued_batches": 10,
                    "allowed_batch_sizes": [2, 4],
                    "enable_large_batch_splitting": True,
                    "max_batch_size": 8,
                },
                "padding": [
                    {"rows": "1-2", "padded_to": 2, "waste": 0.5},
                    {"rows": "3-4", "padded_to": 4, "waste": 0.25},
                    {"rows": "5-8", "padded_to": None, "waste": None},
                ],
            }
        ],
        "not_batched": {"h": "it returns nothing", "k": "keeps its options"},
    }
    assert list(found) == ["rows_unclear", "batched", "not_batched"]
    assert json.loads(json.dumps(found)) == found


def test_the_json_of_nothing_has_its_keys() -> None:
    assert BatchDetails().to_json() == {"rows_unclear": {}, "batched": [], "not_batched": {}}


def test_of_one_name_the_last_reason_is_told_once() -> None:
    twice = BatchDetails(not_batched=(Skip("h", "first"), Skip("k", "other"), Skip("h", "last")))
    assert twice.lines() == ["Not batched: h: last", "Not batched: k: other"]
    assert twice.to_json()["not_batched"] == {"h": "last", "k": "other"}


# -------------------------------------------------------------------------------------------------------------- padding


def test_padding_goes_up_to_the_next_allowed_size() -> None:
    assert padding_table((1, 4, 8), 20) == (
        Padding("1", 1, 0.0),
        Padding("2-4", 4, 0.5),
        Padding("5-8", 8, 0.375),
        Padding("9-20", None, None),
    )
    assert padding_table((2, 3), 3) == (Padding("1-2", 2, 0.5), Padding("3", 3, 0.0))
    assert padding_table((3,), 3) == (Padding("1-3", 3, 0.667),)
    assert padding_table((2, 3), 4)[-1] == Padding("4", None, None)


def test_without_allowed_sizes_nothing_is_padded() -> None:
    assert padding_table((), 16) == (Padding("1-16", "the same", 0.0),)
    assert padding_table((), 1) == (Padding("1", "the same", 0.0),)
