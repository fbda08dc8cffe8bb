"""What the reshapes presume of a request is checked before them, on the host."""

import re

import pytest

from converter.analysis import tpu
from converter.options.parse import parse_options
from converter.passes.batching.plan import select
from converter.passes.io_shape.reshape import IoShape
from tests.harness import assert_pass, assert_second_run_changes_nothing, parse_model
from tests.passes.io_shape.models import BATCHING, ensure, reshape, stub, taking, tpu_function

KEPT = re.compile("^f, input x: already on the fast path")
REDUCED = """
      axis = Const() {dtype: int32, value: int32(2), _tpu_replicate: "c"}
      sum = Max(in:output:0, axis:output:0) {T: float32, Tidx: int32, keep_dims: true, _tpu_replicate: "c"}
"""


def checks(text: str) -> dict[str, str]:
    """Node that checks a shape -> what it checks, after the pass."""
    model = parse_model(text)
    IoShape().apply(model)
    assert_second_run_changes_nothing(IoShape(), model)
    return {
        n.name: ",".join("?" if d.size < 0 else str(d.size) for d in n.attr["shape"].shape.dim)
        for scope in model.scopes()
        for n in scope.nodes
        if n.op == "EnsureShape"
    }


def test_a_result_is_reshaped_only_behind_a_check_of_arguments_that_stay_as_they_are() -> None:
    """[?,8,128] crosses as it is, the maxima [?,8,1] as [?]: what they are was inferred from the argument."""
    argument = "float32 {_output_shapes: [<?,8,128>]}"
    host = ensure("<?,8,128>") + reshape("call/restore_y", "call:output:0", "[-1, 8, 1]")
    inside = REDUCED + reshape("out/transfer", "sum:output:0", "[-1]", "tag")
    assert_pass(
        IoShape(),
        stub(argument) + tpu_function(left="sum:output:0", extra=REDUCED),
        stub(argument, "call/shape_of_x:output:0", "call/restore_y:output:0", host)
        + tpu_function(left="out/transfer:output:0", extra=inside),
        skips=[KEPT],
        changes=[re.compile(r"^f, output y: crosses as \[None\] instead of \[None, 8, 1\]")],
    )


def test_without_a_reshape_nothing_is_checked() -> None:
    assert checks(taking("<?,8,128>")) == {}
    assert checks(taking("<*>")) == {}


def two_arguments(first: str, second: str) -> str:
    """F passes x and z; T returns x."""
    text = stub(f"float32 {{_output_shapes: [{first}]}}, z: int32 {{_output_shapes: [{second}]}}", feed="x, z")
    text = text.replace("Tin: [float32]", "Tin: [float32, int32]")
    return text + tpu_function("float32, z: int32", extra="in_z = Identity(z) {T: int32}")


@pytest.mark.parametrize(
    ("shape", "checked"),
    [("<*>", None), ("<?>", "?"), ("<?,?>", "?,?"), ("<?,?,7>", "?,?,7"), ("<8,256>", "8,256")],
)
def test_of_other_arguments_is_checked_what_is_known(shape: str, checked: str | None) -> None:
    found = checks(two_arguments("<?,10>", shape))
    assert found.pop("call/shape_of_x") == "?,10"
    assert found == ({} if checked is None else {"call/shape_of_z": checked})


def test_what_is_ensured_already_is_not_checked_again() -> None:
    before = ensure("<8,10>", name="given").replace("call/shape_of_given", "given")
    text = stub("float32 {_output_shapes: [<8,10>]}", "given:output:0", extra=before) + tpu_function()
    assert checks(text) == {"given": "8,10"}
    weaker = text.replace("shape: <8,10>", "shape: <?,10>")
    assert checks(weaker) == {"given": "?,10", "call/shape_of_x": "8,10"}


def test_arguments_that_are_variables_are_not_checked() -> None:
    text = (
        taking("<8,10>")
        .replace("@F(x:", "@F(v: resource(float32<2>), x:")
        .replace("TPUPartitionedCall(x", "TPUPartitionedCall(v, x")
    )
    text = text.replace("Tin: [float32]", "Tin: [resource, float32]").replace("@T(x:", "@T(v: resource(float32<2>), x:")
    assert checks(text) == {"call/shape_of_x": "8,10"}


def test_each_call_has_a_check_of_its_own_name() -> None:
    second = """next = TPUPartitionedCall(x, core:device_ordinals:0)
        {Tin: [float32], Tout: [float32], _tpu_convert_name: "g", f: @T2}
    """
    text = stub("float32 {_output_shapes: [<8,10>]}", extra=second)
    text += tpu_function() + tpu_function().replace("@T(", "@T2(")
    assert checks(text) == {"call/shape_of_x": "8,10", "next/shape_of_x": "8,10"}


def test_a_function_that_checks_is_still_one_that_only_calls_the_tpu() -> None:
    """So it is batched as a whole by a later conversion, and counts as a TPU function."""
    model = parse_model('alias "f" = @F\nobject f = function @F' + taking("<?,10>"))
    IoShape().apply(model)
    assert tpu.is_tpu_stub(model, "F")
    batched = select(model, parse_options("batch_options { num_batch_threads: 1 max_batch_size: 4 }").batch_options)
    assert [(t.what, t.function) for t in batched.targets] == [("TPU function", "F")]


def test_a_batching_op_around_the_call_does_not_loosen_the_check() -> None:
    assert checks(taking("<?,10>") + BATCHING.format(largest=8, sizes="8")) == {"call/shape_of_x": "?,10"}


@pytest.mark.parametrize("name", ["in:0", "input0:0", "out:0", "shard:0"])
def test_a_tensor_that_a_gradient_function_captured_on_its_way_stays(name: str) -> None:
    model = parse_model(f"object g = captured {name} in @T\n" + taking("<8,10>"))
    result = IoShape().apply(model)
    which = "input x" if name.startswith("in") else "output y"
    assert [(s.where, s.reason) for s in result.skips] == [
        (f"f, {which}", "a gradient function captured it inside the TPU function")
    ]
    assert len(result.changes) == 1
    assert_second_run_changes_nothing(IoShape(), model)
