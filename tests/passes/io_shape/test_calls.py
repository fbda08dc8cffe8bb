"""Where the call of a TPU function stands decides what is counted and what keeps its shape."""

import pytest

from converter.passes.io_shape.reshape import IoShape
from tests.harness import assert_pass, assert_second_run_changes_nothing, parse_model
from tests.passes.io_shape.models import BATCHING, crossing_as, ensure, reshape, stub, taking, tpu_function

OTHER_CALLER = """
@other(x: float32) -> (y: float32) [stateful] {
  call = StatefulPartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
  return call:output:0
}
"""


@pytest.mark.parametrize(
    ("around", "batch"),
    [
        ("", 1),
        (BATCHING.format(largest=32, sizes="8, 32"), 32),
        (BATCHING.format(largest=32, sizes=""), 1),
        (BATCHING.format(largest=32, sizes="8, 32") + OTHER_CALLER, 1),
    ],
    ids=["no batching", "allowed sizes", "any size", "a caller past the batching"],
)
def test_bytes_are_counted_for_the_largest_batch_that_can_come(around: str, batch: int) -> None:
    result = IoShape().apply(parse_model(taking("<?,10>") + around))
    assert {r["batch_size"] for r in result.details.to_json()["crossing"]} == {batch}


def test_the_allowed_batch_sizes_decide_about_the_shape() -> None:
    # Merged, a batch of 5 would be padded to 8 rows, which a batch of 8 fills.
    def crosses_as(sizes: str) -> str:
        text = taking("<?,5,20>") + BATCHING.format(largest=8, sizes=sizes)
        return str(IoShape().apply(parse_model(text)).details.to_json()["crossing"][0]["crosses_as"])

    assert (crosses_as("8"), crosses_as("5")) == ("[None, 100]", "[None]")


MAIN = """
signature "serving_default" x=x:0 float32<8,10> -> y={result} float32<8,10>
main {{
  x = Placeholder() {{dtype: float32, shape: <8,10>}}
  core = TPUOrdinalSelector()
  call = TPUPartitionedCall({feed}, core) {{Tin: [float32], Tout: [float32], _tpu_convert_name: "f", f: @T}}
  after = Neg({restored}) {{T: float32}}
  {extra}
}}
"""


def test_a_call_in_the_main_graph_is_rewritten_and_the_signature_keeps_its_shape() -> None:
    host = ensure("<8,10>") + reshape("call/transfer_x", "call/shape_of_x", "[80]")
    host += reshape("call/restore_y", "call:0", "[8, 10]")
    inside = reshape("in/restore", "in:output:0", "[8, 10]", "tag")
    inside += reshape("out/transfer", "relu:activations:0", "[80]", "tag")
    assert_pass(
        IoShape(),
        MAIN.format(result="call:0", feed="x", restored="call", extra="") + tpu_function(),
        MAIN.format(
            result="call/restore_y:0",
            feed="call/transfer_x",
            restored="call/restore_y",
            extra=host.replace("/shape:output:0", "/shape"),
        )
        + tpu_function(fed="in/restore:output:0", left="out/transfer:output:0", extra=inside),
    )


def test_a_captured_tensor_that_is_a_result_of_the_call_keeps_its_shape() -> None:
    head = "object captured = captured {}:0 in @F\n"
    assert_pass(
        IoShape(),
        head.format("call") + taking("<8,10>"),
        head.format("call/restore_y") + crossing_as("<8,10>", "[80]", "[8, 10]"),
    )


def test_what_one_call_returns_and_the_next_one_takes_is_reshaped_for_each() -> None:
    second = """next = TPUPartitionedCall(call:output:0, core:device_ordinals:0)
        {Tin: [float32], Tout: [float32], _tpu_convert_name: "g", f: @T2}
    """
    text = stub("float32 {_output_shapes: [<8,10>]}", result="next:output:0", extra=second)
    model = parse_model(text + tpu_function() + tpu_function().replace("@T(", "@T2("))
    result = IoShape().apply(model)
    assert [c.where for c in result.changes] == [f"{f}, {t}" for f in "fg" for t in ("input x", "output y")]
    nodes = {n.name: n for n in model.functions["F"].node_def}
    assert list(nodes["next"].input)[:1] == ["next/transfer_x:output:0"]
    assert nodes["next/transfer_x"].input[0] == "next/shape_of_x:output:0"
    assert nodes["next/shape_of_x"].input[0] == "call/restore_y:output:0"
    assert model.functions["F"].ret["y"] == "next/restore_y:output:0"
    assert_second_run_changes_nothing(IoShape(), model)
