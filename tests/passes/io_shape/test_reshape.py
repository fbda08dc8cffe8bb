"""Tensors cross between CPU and TPU in the shape that is cheapest; where that cannot be had, the report says why."""

import re

import pytest

from converter.passes.io_shape.reshape import IoShape
from tests.harness import assert_pass, parse_model
from tests.passes.io_shape.models import crossing_as, stub, taking, tpu_function


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
