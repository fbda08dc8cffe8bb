"""The attributes of the batching op: its defaults, what options make of them, and what is written."""

from converter.graph.protos import NodeDef
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes, changes_text, read_attributes, write_attributes
from tests.harness import parse_model
from tests.passes.batching.models import attributes_text

REQUIRED = "num_batch_threads: 1, max_batch_size: 8, batch_timeout_micros: 5"
PRESENT = Attributes(num_batch_threads=1, batch_timeout_micros=5, max_batch_size=8)


def node_of(attrs: str) -> NodeDef:
    return parse_model(f"main {{ b = BatchFunction() {{{attrs}}} }}").graph_def.node[0]


def test_what_is_not_written_is_the_ops_default() -> None:
    node = node_of("max_batch_size: 8")
    assert read_attributes(node) == Attributes(max_batch_size=8)
    assert sorted(node.attr) == ["max_batch_size"], "looking creates nothing"
    assert list(Attributes(max_batch_size=8).values().items()) == [
        ("num_batch_threads", 0),
        ("batch_timeout_micros", 0),
        ("max_enqueued_batches", 10),
        ("allowed_batch_sizes", ()),
        ("enable_large_batch_splitting", False),
        ("max_batch_size", 8),
    ]


def test_what_is_written_is_read() -> None:
    written = "max_enqueued_batches: 3, allowed_batch_sizes: [2, 8], enable_large_batch_splitting: true"
    assert read_attributes(node_of(f"{REQUIRED}, {written}")) == Attributes(1, 5, 3, (2, 8), True, 8)
    assert read_attributes(node_of(REQUIRED)) == PRESENT
    assert not read_attributes(node_of(f"{REQUIRED}, enable_large_batch_splitting: false")).enable_large_batch_splitting


def test_options_replace_what_they_set_and_nothing_else() -> None:
    kept = Attributes(1, 5, 3, (2, 8), True, 8)
    unset = BatchOptions(max_batch_size=16, enable_large_batch_splitting=True)
    assert kept.with_options(unset) == Attributes(1, 5, 3, (2, 8), True, 16)
    every = BatchOptions(
        num_batch_threads=0,
        max_batch_size=4,
        batch_timeout_micros=0,
        allowed_batch_sizes=(4,),
        max_enqueued_batches=9,
        enable_large_batch_splitting=False,
    )
    assert kept.with_options(every) == Attributes(0, 0, 9, (4,), False, 4)


def test_the_largest_batch_is_the_largest_allowed_size() -> None:
    """Larger requests are split, so none of `max_batch_size` rows runs."""
    assert Attributes(allowed_batch_sizes=(2, 4), max_batch_size=8).largest_batch == 4
    assert Attributes(max_batch_size=8).largest_batch == 8


def test_changes_are_told_in_the_order_of_the_attributes() -> None:
    after = Attributes(1, 5, 10, (4, 8), True, 4)
    assert PRESENT.changed(after) == {
        "allowed_batch_sizes": (4, 8),
        "enable_large_batch_splitting": True,
        "max_batch_size": 4,
    }
    assert changes_text(PRESENT, after) == [
        "allowed_batch_sizes [] -> [4, 8]",
        "enable_large_batch_splitting False -> True",
        "max_batch_size 8 -> 4",
    ]
    assert changes_text(after, after) == []


def test_what_becomes_a_default_is_removed_unless_the_op_requires_it() -> None:
    node = node_of(f"{REQUIRED}, max_enqueued_batches: 3, allowed_batch_sizes: [8], enable_large_batch_splitting: true")
    write_attributes(node, Attributes().values())
    assert attributes_text(node) == (
        "b = BatchFunction() {batch_timeout_micros: 0, max_batch_size: 0, num_batch_threads: 0}"
    )


def test_only_what_is_given_is_written() -> None:
    node = node_of(f"{REQUIRED}, max_enqueued_batches: 10")
    write_attributes(node, {"allowed_batch_sizes": (4, 8), "enable_large_batch_splitting": True})
    assert attributes_text(node) == (
        "b = BatchFunction() {allowed_batch_sizes: [4, 8], batch_timeout_micros: 5, enable_large_batch_splitting: "
        "true, max_batch_size: 8, max_enqueued_batches: 10, num_batch_threads: 1}"
    )
    write_attributes(node, {"allowed_batch_sizes": ()})
    assert "allowed_batch_sizes" not in node.attr
