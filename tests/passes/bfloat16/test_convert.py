"""Computes in bfloat16: each test is one rule, as a small TPU function before and after."""

import re

from converter.passes.bfloat16.convert import BFloat16
from tests.harness import assert_pass
from tests.passes.bfloat16.models import check, tpu_model

# --- the boundary -----------------------------------------------------------------------------------------------


def test_bfloat16_crosses_between_host_and_tpu_and_signatures_stay_float32() -> None:
    check(
        "a = Tanh(x) {T: float32}; return a:y:0",
        "a = Tanh(x) {T: bfloat16}; return a:y:0",
        skips=[],
    )


def test_a_signature_made_of_a_tpu_call_in_the_main_graph_stays_float32() -> None:
    assert_pass(
        BFloat16(),
        """
        signature "serving_default" x=x:0 -> y=call:0
        main {
          x = Placeholder() {dtype: float32, shape: <?,4>}
          core = TPUOrdinalSelector()
          call = TPUPartitionedCall(x, core) {f: @T, Tin: [float32], Tout: [float32]}
        }
        @T(x: float32) -> (y: float32) { a = Tanh(x) {T: float32}; return a:y:0 }
        """,
        """
        signature "serving_default" x=x:0 -> y=call/float32:0
        main {
          x = Placeholder() {dtype: float32, shape: <?,4>}
          core = TPUOrdinalSelector()
          call = TPUPartitionedCall(x/bfloat16, core)
            {f: @T, Tin: [bfloat16], Tout: [bfloat16], _tpu_convert_bfloat16: true}
          x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
          call/float32 = Cast(call) {SrcT: bfloat16, DstT: float32}
        }
        @T(x: bfloat16) -> (y: bfloat16) { a = Tanh(x) {T: bfloat16}; return a:y:0 }
        """,
    )


def cluster(dtype: str) -> str:
    return f"""
      C/pivot = NoOp() {{_pivot_for_cluster: "C"}}
      metadata = TPUReplicateMetadata(^C/pivot) {{num_replicas: 1, _tpu_replicate: "C"}}
      input0 = TPUReplicatedInput(x) {{N: 1, T: {dtype}}}
      replicated_input_0 = Identity(input0:output:0, ^metadata)
        {{T: {dtype}, _tpu_input_identity: true, _tpu_replicate: "C"}}
    """


def test_markers_of_a_cluster_are_retyped_and_casts_belong_to_it() -> None:
    check(
        f"""{cluster("float32")}
        a = Tanh(replicated_input_0:output:0) {{T: float32, _tpu_replicate: "C"}}
        b = Qr(a:y:0) {{T: float32, _tpu_replicate: "C"}}
        out_id_0 = Identity(b:q:0) {{T: float32, _tpu_output_identity: true, _tpu_replicate: "C"}}
        output0 = TPUReplicatedOutput(out_id_0:output:0) {{num_replicas: 1, T: float32}}
        shard = Identity(output0:outputs:0) {{T: float32}}
        return shard:output:0
        """,
        f"""{cluster("bfloat16")}
        a = Tanh(replicated_input_0:output:0) {{T: bfloat16, _tpu_replicate: "C"}}
        b = Qr(a/float32:y:0) {{T: float32, _tpu_replicate: "C"}}
        out_id_0 = Identity(b:q:0) {{T: float32, _tpu_output_identity: true, _tpu_replicate: "C"}}
        output0 = TPUReplicatedOutput(out_id_0:output:0) {{num_replicas: 1, T: float32}}
        shard = Identity(output0:outputs:0) {{T: float32}}
        a/float32 = Cast(a:y:0) {{SrcT: bfloat16, DstT: float32, _tpu_replicate: "C"}}
        return shard:output:0
        """,
        y="float32",
        skips=[
            "Identity: 2 of them stay float32: moves values that stay float32",
            "Qr: stays float32: is on the list of ops that need float32",
            "TPUReplicatedOutput: stays float32: moves values that stay float32",
        ],
    )


# --- casts ------------------------------------------------------------------------------------------------------


def test_a_tensor_is_cast_once_whoever_takes_it() -> None:
    check(
        """
        a = Tanh(x) {T: float32}
        b = Qr(a:y:0) {T: float32}
        c = Qr(a:y:0) {T: float32}
        d = AddV2(b:q:0, c:r:0) {T: float32}
        return d:z:0
        """,
        """
        a = Tanh(x) {T: bfloat16}
        b = Qr(a/float32:y:0) {T: float32}
        c = Qr(a/float32:y:0) {T: float32}
        d = AddV2(b/bfloat16:y:0, c/bfloat16:y:0) {T: bfloat16}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        b/bfloat16 = Cast(b:q:0) {SrcT: float32, DstT: bfloat16}
        c/bfloat16 = Cast(c:r:0) {SrcT: float32, DstT: bfloat16}
        return d:z:0
        """,
        skips=["Qr: 2 of them stay float32: is on the list of ops that need float32"],
    )


def test_a_cast_from_another_type_becomes_one_to_bfloat16() -> None:
    check(
        """
        a = Cast(x) {SrcT: float32, DstT: float64}
        b = Cast(a:y:0) {SrcT: float64, DstT: float32}
        c = Tanh(b:y:0) {T: float32}
        return c:y:0
        """,
        """
        a = Cast(x) {SrcT: float32, DstT: float64}
        b = Cast(a:y:0) {SrcT: float64, DstT: bfloat16}
        c = Tanh(b:y:0) {T: bfloat16}
        return c:y:0
        """,
        x="float32",
        skips=["Cast: stays float32: casts a value that stays float32"],
    )


def test_a_cast_of_a_cast_casts_the_original() -> None:
    # b is needed as float32 by c and as bfloat16 by d.
    check(
        """
        i = Const() {dtype: float64, value: float64([1.5])}
        b = Cast(i:output:0) {SrcT: float64, DstT: float32}
        c = Qr(b:y:0) {T: float32}
        d = AddV2(x, b:y:0) {T: float32}
        e = AddV2(d:z:0, c:q:0) {T: float32}
        return e:z:0
        """,
        """
        i = Const() {dtype: float64, value: float64([1.5])}
        b = Cast(i:output:0) {SrcT: float64, DstT: float32}
        c = Qr(b:y:0) {T: float32}
        d = AddV2(x, b/bfloat16:y:0) {T: bfloat16}
        e = AddV2(d:z:0, c/bfloat16:y:0) {T: bfloat16}
        b/bfloat16 = Cast(i:output:0) {SrcT: float64, DstT: bfloat16}
        c/bfloat16 = Cast(c:q:0) {SrcT: float32, DstT: bfloat16}
        return e:z:0
        """,
        skips=[
            "Cast: stays float32: is needed as float32",
            "Qr: stays float32: is on the list of ops that need float32",
        ],
    )


def test_ops_that_only_move_values_follow_what_is_around_them() -> None:
    check(
        """
        a = Tanh(x) {T: float32}
        b = Qr(a:y:0) {T: float32}
        axis = Const() {dtype: int32, value: int32(0)}
        c = ExpandDims(b:q:0, axis:output:0) {T: float32}
        d = Shape(c:output:0) {T: float32}
        e = Qr(c:output:0) {T: float32}
        f = Reshape(e:q:0, d:output:0) {T: float32}
        return f:output:0
        """,
        """
        a = Tanh(x) {T: bfloat16}
        b = Qr(a/float32:y:0) {T: float32}
        axis = Const() {dtype: int32, value: int32(0)}
        c = ExpandDims(b:q:0, axis:output:0) {T: float32}
        d = Shape(c:output:0) {T: float32}
        e = Qr(c:output:0) {T: float32}
        f = Reshape(e:q:0, d:output:0) {T: float32}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        return f:output:0
        """,
        y="float32",
        skips=[
            "ExpandDims: stays float32: moves values that stay float32",
            "Qr: 2 of them stay float32: is on the list of ops that need float32",
            "Reshape: stays float32: moves values that stay float32",
            "Shape: stays float32: moves values that stay float32",
        ],
    )


def test_a_function_that_computes_nothing_stays_as_it_is() -> None:
    before = tpu_model("a = Identity(x) {T: float32}; return a:output:0")
    assert_pass(BFloat16(), before, before, changes=[], skips=[re.compile("moves values that stay float32")] * 2)


# --- constants --------------------------------------------------------------------------------------------------


def test_a_constant_is_recast_if_all_that_takes_it_is_bfloat16() -> None:
    check(
        """
        c = Const() {dtype: float32, value: float32([1.0, 0.1])}
        a = AddV2(x, c:output:0) {T: float32}
        return a:z:0
        """,
        """
        c = Const() {dtype: bfloat16, value: bfloat16([1.0, 0.1])}
        a = AddV2(x, c:output:0) {T: bfloat16}
        return a:z:0
        """,
        skips=[],
    )


def test_a_constant_that_is_needed_as_float32_too_is_cast() -> None:
    check(
        """
        c = Const() {dtype: float32, value: float32([1.0])}
        a = AddV2(x, c:output:0) {T: float32}
        q = Qr(c:output:0) {T: float32}
        b = AddV2(a:z:0, q:r:0) {T: float32}
        return b:z:0
        """,
        """
        c = Const() {dtype: float32, value: float32([1.0])}
        a = AddV2(x, c/bfloat16:y:0) {T: bfloat16}
        q = Qr(c:output:0) {T: float32}
        b = AddV2(a:z:0, q/bfloat16:y:0) {T: bfloat16}
        c/bfloat16 = Cast(c:output:0) {SrcT: float32, DstT: bfloat16}
        q/bfloat16 = Cast(q:r:0) {SrcT: float32, DstT: bfloat16}
        return b:z:0
        """,
        skips=[
            "Const: stays float32: is needed as float32",
            "Qr: stays float32: is on the list of ops that need float32",
        ],
    )


def test_the_lowest_float32_of_a_mask_does_not_become_infinite() -> None:
    check(
        """
        ids = Cast(x) {SrcT: float32, DstT: int32}
        m = Cast(ids:y:0) {SrcT: int32, DstT: float32}
        low = Const() {dtype: float32, value: float32(-3.4028235e38)}
        n = Mul(m:y:0, low:output:0) {T: float32}
        a = AddV2(x, n:z:0) {T: float32}
        b = Minimum(a:z:0, low2:output:0) {T: float32}
        low2 = Const() {dtype: float32, value: float32(3.4028235e38)}
        return b:z:0
        """,
        """
        ids = Cast(x) {SrcT: float32, DstT: int32}
        m = Cast(ids:y:0) {SrcT: int32, DstT: float32}
        low = Const() {dtype: float32, value: float32(-3.3895314e38)}
        n = Mul(m:y:0, low:output:0) {T: float32}
        a = AddV2(x/bfloat16:y:0, n/bfloat16:y:0) {T: bfloat16}
        b = Minimum(a:z:0, low2:output:0) {T: bfloat16}
        low2 = Const() {dtype: bfloat16, value: bfloat16(3.3895314e38)}
        x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
        n/bfloat16 = Cast(n:z:0) {SrcT: float32, DstT: bfloat16}
        return b:z:0
        """,
        x="float32",
        skips=[
            "Cast: stays float32: casts a value that stays float32",
            "Cast: stays float32: is needed as float32",
            "Const: stays float32: is needed as float32",
            "Mul: stays float32: computes with integers (positions, lengths, masks) or random numbers",
        ],
    )
