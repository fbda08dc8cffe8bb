"""Tensors cross between CPU and TPU in the shape that is cheapest; where that cannot be had, the report says why."""

import re

import pytest

from converter.passes.io_shape.reshape import IoShape
from tests.harness import assert_pass, assert_second_run_changes_nothing, parse_model

ENTERS = "does not enter the TPU through a marker of one replica that is its own"
LEAVES = "does not leave the TPU through a marker of one replica that is its own"


def stub(argument: str, feed: str = "x", result: str = "call:output:0", extra: str = "") -> str:
    """F, which calls the TPU function T with one tensor; `extra` are the nodes that the pass adds."""
    return f"""
    @F(x: {argument}) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      call = TPUPartitionedCall({feed}, core:device_ordinals:0)
        {{Tin: [float32], Tout: [float32], _tpu_convert_name: "f", f: @T}}
      {extra}
      return {result}, ^call
    }}
    """


def tpu_function(
    argument: str = "float32", fed: str = "in:output:0", left: str = "relu:activations:0", extra: str = ""
) -> str:
    """T: a cluster of one op, between markers."""
    return f"""
    @T(x: {argument}) -> (y: float32) {{
      metadata = TPUReplicateMetadata() {{_tpu_replicate: "c", num_replicas: 1}}
      input0 = TPUReplicatedInput(x) {{N: 1, T: float32}}
      in = Identity(input0:output:0, ^metadata) {{T: float32, _tpu_input_identity: true, _tpu_replicate: "c"}}
      relu = Relu({fed}) {{T: float32, _tpu_replicate: "c"}}
      out = Identity({left}) {{T: float32, _tpu_output_identity: true, _tpu_replicate: "c"}}
      output0 = TPUReplicatedOutput(out:output:0) {{T: float32, num_replicas: 1}}
      shard = Identity(output0:outputs:0) {{T: float32}}
      {extra}
      return shard:output:0
    }}
    """


def reshape(name: str, ref: str, target: str, tag: str = "") -> str:
    attrs = ', _tpu_replicate: "c"' if tag else ""
    return f"""
      {name}/shape = Const() {{dtype: int32, value: int32({target})}}
      {name} = Reshape({ref}, {name}/shape:output:0) {{T: float32}}
    """.replace("}", f"{attrs}}}")


def ensure(shape: str, ref: str = "x", name: str = "x") -> str:
    return f"""
      call/shape_of_{name} = EnsureShape({ref}) {{T: float32, shape: {shape}}}
    """


def crossing_as(shape: str, transfer: str, target: str) -> str:
    """What becomes of a model whose TPU function takes and returns float32 of one shape."""
    host = ensure(shape) + reshape("call/transfer_x", "call/shape_of_x:output:0", transfer)
    host += reshape("call/restore_y", "call:output:0", target)
    inside = reshape("in/restore", "in:output:0", target, "tag")
    inside += reshape("out/transfer", "relu:activations:0", transfer, "tag")
    return stub(
        f"float32 {{_output_shapes: [{shape}]}}", "call/transfer_x:output:0", "call/restore_y:output:0", host
    ) + tpu_function("float32", "in/restore:output:0", "out/transfer:output:0", inside)


def taking(shape: str) -> str:
    """A model whose TPU function takes and returns float32 of this shape."""
    return stub(f"float32 {{_output_shapes: [{shape}]}}") + tpu_function()


def assert_left_alone(text: str, *reasons: str | re.Pattern[str]) -> None:
    assert_pass(IoShape(), text, text, changes=[], skips=reasons, show=["_output_shapes"])


# --- the rewrite ------------------------------------------------------------------------------------------------


def test_small_features_and_results_cross_flat_and_records_follow() -> None:
    result = assert_pass(
        IoShape(),
        """
        alias "f" = @F
        @F(x: float32 {_output_shapes: [<?,10>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,10>, <>]] {
          TPUOrdinalSelector = TPUOrdinalSelector()
          call = TPUPartitionedCall(x, v, TPUOrdinalSelector:device_ordinals:0)
            {f: @T, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?,4>]}
          return call:output:0, ^call
        }
        @T(x: float32 {_output_shapes: [<?,10>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,10>, <>]] {
          metadata = TPUReplicateMetadata() {_tpu_replicate: "c", num_replicas: 1}
          input0 = TPUReplicatedInput(x) {N: 1, T: float32, _output_shapes: [<?,10>]}
          in = Identity(input0:output:0, ^metadata)
            {T: float32, _tpu_input_identity: true, _tpu_replicate: "c", _output_shapes: [<?,10>]}
          tpu_call = StatefulPartitionedCall(in:output:0, v, ^metadata)
            {f: @body, Tin: [float32, resource], Tout: [float32], _tpu_replicate: "c", _output_shapes: [<?,4>]}
          out = Identity(tpu_call:output:0)
            {T: float32, _tpu_output_identity: true, _tpu_replicate: "c", _output_shapes: [<?,4>]}
          output0 = TPUReplicatedOutput(out:output:0) {T: float32, num_replicas: 1, _output_shapes: [<?,4>]}
          shard = Identity(output0:outputs:0) {T: float32, _output_shapes: [<?,4>]}
          return shard:output:0
        }
        @body(x: float32 {_output_shapes: [<?,10>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,10>, <>]] {
          r = ReadVariableOp(v) {dtype: float32}
          m = MatMul(x, r:value:0) {T: float32, transpose_a: false, transpose_b: false}
          return m:product:0
        }
        """,
        """
        alias "f" = @F
        # What the stub itself takes and returns is as before; the variable is never touched.
        @F(x: float32 {_output_shapes: [<?,10>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,10>, <>]] {
          TPUOrdinalSelector = TPUOrdinalSelector()
          call = TPUPartitionedCall(call/transfer_x:output:0, v, TPUOrdinalSelector:device_ordinals:0)
            {f: @T, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?>]}
          # A request of other sizes fails here, where the Reshape would make more or fewer rows of it.
          call/shape_of_x = EnsureShape(x) {T: float32, shape: <?,10>, _output_shapes: [<?,10>]}
          call/transfer_x/shape = Const() {dtype: int32, value: int32([-1])}
          call/transfer_x = Reshape(call/shape_of_x:output:0, call/transfer_x/shape:output:0)
            {T: float32, _output_shapes: [<?>]}
          call/restore_y/shape = Const() {dtype: int32, value: int32([-1, 4])}
          call/restore_y = Reshape(call:output:0, call/restore_y/shape:output:0) {T: float32, _output_shapes: [<?,4>]}
          return call/restore_y:output:0, ^call
        }
        # Inside the cluster the constants are tagged too, so that XLA sees them as constants.
        @T(x: float32 {_output_shapes: [<?>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?>, <>]] {
          metadata = TPUReplicateMetadata() {_tpu_replicate: "c", num_replicas: 1}
          input0 = TPUReplicatedInput(x) {N: 1, T: float32, _output_shapes: [<?>]}
          in = Identity(input0:output:0, ^metadata)
            {T: float32, _tpu_input_identity: true, _tpu_replicate: "c", _output_shapes: [<?>]}
          tpu_call = StatefulPartitionedCall(in/restore:output:0, v, ^metadata)
            {f: @body, Tin: [float32, resource], Tout: [float32], _tpu_replicate: "c", _output_shapes: [<?,4>]}
          out = Identity(out/transfer:output:0)
            {T: float32, _tpu_output_identity: true, _tpu_replicate: "c", _output_shapes: [<?>]}
          output0 = TPUReplicatedOutput(out:output:0) {T: float32, num_replicas: 1, _output_shapes: [<?>]}
          shard = Identity(output0:outputs:0) {T: float32, _output_shapes: [<?>]}
          in/restore/shape = Const() {dtype: int32, value: int32([-1, 10]), _tpu_replicate: "c"}
          in/restore = Reshape(in:output:0, in/restore/shape:output:0)
            {T: float32, _tpu_replicate: "c", _output_shapes: [<?,10>]}
          out/transfer/shape = Const() {dtype: int32, value: int32([-1]), _tpu_replicate: "c"}
          out/transfer = Reshape(tpu_call:output:0, out/transfer/shape:output:0)
            {T: float32, _tpu_replicate: "c", _output_shapes: [<?>]}
          return shard:output:0
        }
        @body(x: float32 {_output_shapes: [<?,10>]}, v: resource(float32<10,4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,10>, <>]] {
          r = ReadVariableOp(v) {dtype: float32}
          m = MatMul(x, r:value:0) {T: float32, transpose_a: false, transpose_b: false}
          return m:product:0
        }
        """,
        changes=[
            re.compile(
                r"^f, input x: crosses as \[None\] instead of \[None, 10\]: "
                r"8192 -> 4096 bytes for 2560 bytes of data, for a batch of 64$"
            ),
            re.compile(r"^f, output y: crosses as \[None\] instead of \[None, 4\]: \d+ -> \d+ bytes"),
        ],
        show=["_output_shapes"],
    )
    rows = result.details.to_json()["crossing"]
    assert [(r["tensor"], r["dtype"], r["shape"], r["crosses_as"], r["batch_size"]) for r in rows] == [
        ("input x", "float32", "[None, 10]", "[None]", 1),
        ("output y", "float32", "[None, 4]", "[None]", 1),
    ]
    assert [(r["bytes_before"], r["bytes_after"]) for r in rows] == [(512, 512), (512, 512)]


def test_the_plan_is_made_of_names_and_values() -> None:
    model = parse_model(taking("<?,10>"))
    plan = IoShape().plan(model)
    assert len({plan, IoShape().plan(parse_model(taking("<?,10>")))}) == 1
    [call] = plan.calls
    assert (call.scope, call.call, call.function) == ("F", "call", "T")
    assert [(p.index, p.shape) for p in call.presumed] == [(0, (None, 10))]
    assert [(t.crossing.where, t.crossing.chain, t.shape) for t in call.transfers] == [
        ("input x", ("input0", "in"), (None,)),
        ("output y", ("shard", "output0", "out"), (None,)),
    ]
    assert not plan.is_empty


def test_images_cross_with_their_last_two_dimensions_merged() -> None:
    assert_pass(
        IoShape(),
        taking("<?,224,224,3>"),
        crossing_as("<?,224,224,3>", "[-1, 224, 672]", "[-1, 224, 224, 3]"),
        changes=[
            re.compile(r"^f, input x: crosses as \[None, 224, 672\] instead of \[None, 224, 224, 3\]: "),
            re.compile(r"^f, output y: crosses as \[None, 224, 672\] instead of \[None, 224, 224, 3\]: "),
        ],
    )


def test_a_batch_of_known_size_is_in_the_constants() -> None:
    assert_pass(IoShape(), taking("<8,10>"), crossing_as("<8,10>", "[80]", "[8, 10]"))


def test_control_inputs_of_the_call_do_not_shift_its_tensors() -> None:
    def controlled(text: str) -> str:
        return text.replace("core:device_ordinals:0)", "core:device_ordinals:0, ^core)")

    assert_pass(IoShape(), controlled(taking("<8,10>")), controlled(crossing_as("<8,10>", "[80]", "[8, 10]")))


# --- tensors that are left alone --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("<*>", "its rank is unknown"),
        ("<?,?>", "its dimension 1 is unknown; only the 0th, the batch, may be"),
        ("<?>", "it has rank 1, so there is nothing to merge"),
        ("<?,0,3>", "its dimension 1 is 0, so there is nothing to transfer"),
        ("<8,256>", re.compile("already on the fast path: its last dimension, 256, is a multiple of 128")),
        ("<?,8,128>", re.compile("already on the fast path")),
        ("<8,1001>", re.compile("already cheap")),
    ],
)
def test_shapes_that_no_reshape_helps_are_left_alone(shape: str, reason: str | re.Pattern[str]) -> None:
    def of(tensor: str) -> str | re.Pattern[str]:
        if isinstance(reason, str):
            return f"f, {tensor}: {reason}"
        return re.compile(f"^f, {tensor}: {reason.pattern}")

    assert_left_alone(taking(shape), of("input x"), of("output y"))


@pytest.mark.parametrize("dtype", ["string", "complex128", "qint8"])
def test_types_of_unknown_size_are_left_alone(dtype: str) -> None:
    text = f"""
    @F(x: {dtype} {{_output_shapes: [<4,10>]}}) -> (y: {dtype}) [stateful] {{
      core = TPUOrdinalSelector()
      call = TPUPartitionedCall(x, core:device_ordinals:0) {{Tin: [{dtype}], Tout: [{dtype}], f: @T}}
      return call:output:0, ^call
    }}
    @T(x: {dtype}) -> (y: {dtype}) {{
      input0 = TPUReplicatedInput(x) {{N: 1, T: {dtype}}}
      in = Identity(input0:output:0) {{T: {dtype}, _tpu_replicate: "c"}}
      out = Identity(in:output:0) {{T: {dtype}, _tpu_replicate: "c"}}
      output0 = TPUReplicatedOutput(out:output:0) {{T: {dtype}, num_replicas: 1}}
      return output0:outputs:0
    }}
    """
    reason = f"no reshape is known to help tensors of type {dtype}"
    result = assert_pass(IoShape(), text, text, skips=[f"T, input x: {reason}", f"T, output y: {reason}"])
    assert [(r["bytes_before"], r["bytes_after"]) for r in result.details.to_json()["crossing"]] == [(None, None)] * 2


def test_without_tpu_computation_there_is_nothing_to_report() -> None:
    result = assert_pass(
        IoShape(), "@F(x: float32) -> (y: float32) { return x }", "@F(x: float32) -> (y: float32) { return x }"
    )
    assert result.details.to_json() == {}


# --- computations that are left alone ---------------------------------------------------------------------------


def test_a_tpu_function_that_two_nodes_call_is_left_alone() -> None:
    second = stub("float32 {_output_shapes: [<8,10>]}").replace("@F", "@G")
    reason = "f: the TPU function is used by 2 nodes, which would all have to change"
    assert_left_alone(taking("<8,10>") + second, reason, reason)


def test_a_tpu_function_that_is_also_called_otherwise_is_left_alone() -> None:
    direct = """
    @G(x: float32 {_output_shapes: [<8,10>]}) -> (y: float32) {
      call = StatefulPartitionedCall(x) {f: @T, Tin: [float32], Tout: [float32]}
      return call:output:0
    }
    """
    assert_left_alone(
        taking("<8,10>") + direct, "f: the TPU function is used by 2 nodes, which would all have to change"
    )


@pytest.mark.parametrize("kind", ["function @T", "bare @T"])
def test_a_tpu_function_that_users_can_call_is_left_alone(kind: str) -> None:
    assert_left_alone(
        f"object exposed = {kind}" + taking("<8,10>"),
        "f: the TPU function itself can be called by users of the model, so its types must stay",
    )


def test_a_body_whose_shapes_contradict_each_other_is_left_alone() -> None:
    broken = """
      a = Const() {dtype: float32, value: float32([1.0, 2.0])}
      b = Const() {dtype: float32, value: float32([1.0, 2.0, 3.0])}
      sum = AddV2(a:output:0, b:output:0) {T: float32}
    """
    text = stub("float32 {_output_shapes: [<8,10>]}", extra=broken) + tpu_function()
    assert_left_alone(text, re.compile(r'^f: The shapes inside "F" cannot be inferred'))


# --- the boundary that others built -----------------------------------------------------------------------------


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


# --- where the call stands --------------------------------------------------------------------------------------

BATCHING = """
@served(x: float32 {{_output_shapes: [<?,10>]}}) -> (y: float32) [stateful] {{
  batch = BatchFunction(x) {{f: @F, Tin: [float32], Tcaptured: [], Tout: [float32], num_batch_threads: 1,
    max_batch_size: {largest}, batch_timeout_micros: 0, allowed_batch_sizes: [{sizes}]}}
  return batch:out_tensors:0
}}
"""
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
