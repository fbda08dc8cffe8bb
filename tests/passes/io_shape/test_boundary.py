"""Boundaries that others built, and tensors used several times."""

import re

import pytest

from converter.passes.io_shape.reshape import IoShape
from tests.harness import assert_pass, assert_second_run_changes_nothing, parse_model
from tests.passes.io_shape.models import crossing_as, ensure, reshape, stub, taking, tpu_function

ENTERS = "does not enter the TPU through a marker of one replica that is its own"
LEAVES = "does not leave the TPU through a marker of one replica that is its own"


def two_replicas_enter(text: str) -> str:
    return text.replace("TPUReplicatedInput(x) {N: 1", "TPUReplicatedInput(x, x) {N: 2")


def two_replicas_leave(text: str) -> str:
    return text.replace("num_replicas: 1}\n      shard", "num_replicas: 2}\n      shard")


def no_marker_enters(text: str) -> str:
    return text.replace("in:output:0", "x")


def argument_of_two_markers(text: str) -> str:
    twice = "input1 = TPUReplicatedInput(x) {N: 1, T: float32}\n      in = Identity(input0:output:0"
    return text.replace("in = Identity(input0:output:0", twice)


def marker_also_read_untagged(text: str) -> str:
    return text.replace("shard = ", "other = Identity(input0:output:0) {T: float32}\n      shard = ")


def result_also_read(text: str) -> str:
    return text.replace("shard = ", "other = Neg(output0:outputs:0) {T: float32}\n      shard = ")


def marker_of_two_outputs(text: str) -> str:
    return text.replace("shard = ", "other = Neg(out:output:0) {T: float32}\n      shard = ")


def untagged_output(text: str) -> str:
    return text.replace('_tpu_output_identity: true, _tpu_replicate: "c"', "_tpu_output_identity: true")


def argument_sharded(text: str) -> str:
    return text.replace("@T(x: float32)", '@T(x: float32 {_XlaSharding: "s"})')


def input_marker_sharded(text: str) -> str:
    return text.replace("_tpu_input_identity: true", '_XlaSharding: "s"')


def output_marker_sharded(text: str) -> str:
    return text.replace("_tpu_output_identity: true", '_XlaSharding: "s"')


SHARDED = "has a sharding of its own"


@pytest.mark.parametrize(
    ("variant", "input_reason", "output_reason"),
    [
        (two_replicas_enter, ENTERS, ""),
        (no_marker_enters, ENTERS, ""),
        (argument_of_two_markers, ENTERS, ""),
        (marker_also_read_untagged, ENTERS, ""),
        (argument_sharded, SHARDED, ""),
        (input_marker_sharded, SHARDED, ""),
        (two_replicas_leave, "", LEAVES),
        (result_also_read, "", LEAVES),
        (marker_of_two_outputs, "", LEAVES),
        (untagged_output, "", LEAVES),
        (output_marker_sharded, "", SHARDED),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_tensor_whose_boundary_cannot_be_rewritten_is_left_alone_and_the_other_one_is_not(
    variant: object, input_reason: str, output_reason: str
) -> None:
    assert callable(variant)
    before = variant(taking("<8,10>"))
    assert before != taking("<8,10>")
    result = IoShape().apply(model := parse_model(before))
    expected = [("f, input x", input_reason), ("f, output y", output_reason)]
    assert [(s.where, s.reason) for s in result.skips] == [e for e in expected if e[1]]
    assert [c.where for c in result.changes] == [where for where, reason in expected if not reason]
    added = {n.name for f in model.functions.values() for n in f.node_def if n.op == "Reshape"}
    assert added == ({"call/restore_y", "out/transfer"} if input_reason else {"call/transfer_x", "in/restore"})
    assert_second_run_changes_nothing(IoShape(), model)


def test_an_argument_that_is_the_result_crosses_both_ways_in_its_new_shape() -> None:
    def passing(text: str, name: str) -> str:
        return re.sub(r"relu = .*\n", "", text).replace("relu:activations:0", name)

    assert_pass(
        IoShape(),
        passing(taking("<8,10>"), "in:output:0"),
        passing(crossing_as("<8,10>", "[80]", "[8, 10]"), "in/restore:output:0"),
    )


def test_of_an_identity_that_is_marker_of_argument_and_result_at_once_only_the_argument_is_reshaped() -> None:
    passing = re.sub(r"relu = .*\n|out = .*\n", "", tpu_function()).replace("out:output:0", "in:output:0")
    restored = re.sub(r"TPUReplicatedOutput\(in:", "TPUReplicatedOutput(in/restore:", passing).replace(
        "return shard", reshape("in/restore", "in:output:0", "[8, 10]", "tag") + "return shard"
    )
    argument = "float32 {_output_shapes: [<8,10>]}"
    host = ensure("<8,10>") + reshape("call/transfer_x", "call/shape_of_x:output:0", "[80]")
    assert_pass(
        IoShape(),
        stub(argument) + passing,
        stub(argument, "call/transfer_x:output:0", extra=host) + restored,
        skips=[f"f, output y: {LEAVES}"],
    )


def test_tensors_used_several_times_are_restored_once_for_all_uses() -> None:
    def several(text: str, at: str, entering: str, arriving: str) -> str:
        text = text.replace("relu = ", f'neg = Neg({entering}) {{T: float32, _tpu_replicate: "c"}}\n      relu = ')
        sums = f"sum = AddV2({arriving}, {arriving}) {{T: float32}}\n"
        return text.replace(at, sums + at).replace("return call/restore_y:output:0", "return sum:z:0")

    before = several(taking("<8,10>"), "return call", "in:output:0", "call:output:0")
    before = before.replace("return call:output:0", "return sum:z:0")
    after = crossing_as("<8,10>", "[80]", "[8, 10]")
    at = "call/shape_of_x ="
    assert_pass(IoShape(), before, several(after, at, "in/restore:output:0", "call/restore_y:output:0"))
