"""Batching ops that are there already: what options make of them, and what the op would refuse."""

from dataclasses import replace

import pytest

from converter.errors import ConversionError
from converter.graph.model import MAIN_GRAPH
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.existing import check_kept_sizes, update_of
from converter.passes.batching.targets import Place, Update
from tests.harness import parse_model
from tests.passes.batching.scopes import (
    DEFAULT,
    LEAF,
    MAIN,
    TYPES,
    batching,
    calling,
    found,
    named,
    on_tpu,
    selected,
)

BATCHING = (
    "b = BatchFunction() {Tin: [float32, int32], Tcaptured: [resource], f: @g, num_batch_threads: 1, max_batch_size: "
    "8, batch_timeout_micros: 5, allowed_batch_sizes: [2, 8]}"
)


def update(options: BatchOptions) -> Update:
    scope = parse_model(f"main {{ {BATCHING} }}").main_scope()
    return update_of("f", scope, scope.nodes[0], options)


def test_an_update_knows_the_op_by_name_what_it_has_and_what_it_gets() -> None:
    assert update(BatchOptions(max_batch_size=16, num_batch_threads=3)) == Update(
        name="f",
        place=Place(MAIN_GRAPH, "b"),
        function="g",
        inputs=(0, 1),
        before=Attributes(1, 5, 10, (2, 8), False, 8),
        after=Attributes(3, 5, 10, (2, 8), True, 16),
    )


@pytest.mark.parametrize(
    ("kept", "options", "relation"),
    [
        ((2, 8), BatchOptions(max_batch_size=4), "be at most max_batch_size: 4"),
        ((2, 8), BatchOptions(max_batch_size=4, enable_large_batch_splitting=False), "equal max_batch_size: 4"),
        ((2, 8), BatchOptions(max_batch_size=16, enable_large_batch_splitting=False), "equal max_batch_size: 16"),
        ((2, 8), BatchOptions(max_batch_size=16), None),
        ((2, 8), BatchOptions(max_batch_size=8), None),
        ((2, 8), BatchOptions(max_batch_size=8, enable_large_batch_splitting=False), None),
        ((), BatchOptions(max_batch_size=4, enable_large_batch_splitting=False), None),
        ((2, 8), BatchOptions(max_batch_size=4, allowed_batch_sizes=(4,), enable_large_batch_splitting=False), None),
    ],
)
def test_sizes_that_are_kept_must_fit(kept: tuple[int, ...], options: BatchOptions, relation: str | None) -> None:
    plain = update(BatchOptions(max_batch_size=8))
    each = replace(plain, after=replace(plain.before, allowed_batch_sizes=kept).with_options(options))
    if relation is None:
        check_kept_sizes(each)
        return
    with pytest.raises(ConversionError) as caught:
        check_kept_sizes(each)
    assert str(caught.value) == (
        f'The batching op "b" of "f" keeps its allowed_batch_sizes [2, 8], whose last must {relation}. Give '
        "allowed_batch_sizes that fit, or `max_batch_size: 8`."
    )


def test_batching_ops_that_are_not_named_keep_their_options() -> None:
    text = MAIN + batching("outer") + batching("second", "other") + LEAF + LEAF.replace("leaf", "other")
    assert found(text, named("outer")) == ([], [("outer", "outer", "b")], ["second"])
    (skip,) = selected(text, named("outer")).skips
    assert skip.reason == 'keeps the options of its batching op "b": batch_options name other components'
    both = (*DEFAULT, *named("outer"))
    made = selected(text, both)
    assert [(u.name, u.after) for u in made.updates] == [
        ("outer", made.updates[0].before.with_options(both[1])),
        ("second", made.updates[1].before.with_options(both[0])),
    ]


def test_an_update_is_named_as_its_user_named_it() -> None:
    batched = MAIN + batching("outer", "stub")
    assert found(batched + on_tpu("stub") + LEAF)[1] == [("leaf", "outer", "b")]
    assert found('alias "mine" = @outer' + batched + on_tpu("stub") + LEAF)[1] == [("mine", "outer", "b")]
    assert found('alias "mine" = @stub' + batched + on_tpu("stub") + LEAF)[1] == [("mine", "outer", "b")]
    two = calling("stub", "one", f"d = StatefulPartitionedCall(x) {{{TYPES}, f: @two}}; ")
    rest = on_tpu("one") + on_tpu("two", "other") + LEAF + LEAF.replace("leaf", "other")
    assert found(batched + two + rest)[1] == [("outer", "outer", "b")], "two TPU functions are in it"
    alone = on_tpu("elsewhere", "other") + LEAF.replace("leaf", "other")
    assert found(batched + LEAF.replace("leaf", "stub") + alone)[1] == [("outer", "outer", "b")]
