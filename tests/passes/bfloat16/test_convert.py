"""Computes in bfloat16: each test is one rule, as a small TPU function before and after."""

import re
from collections.abc import Sequence

import pytest
from tensorflow.core.framework import types_pb2

from converter.errors import ConversionError, OptionsError
from converter.options.parse import Scope
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.pass_result import PassResult
from tests.harness import assert_pass, assert_pass_raises, parse_model

ALL = BFloat16(scope=Scope.ALL)
CALL = "Tin: [float32], Tout: [float32]"


def tpu_model(body: str, functions: str = "") -> str:
    """A model that runs `@T(x: float32) -> (y: float32) { body }` on the TPU."""
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {CALL}}}
    }}
    @F(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @T, {CALL}}}
      return on_tpu:output:0, ^on_tpu
    }}
    @T(x: float32) -> (y: float32) {{ {body} }}
    {functions}
    """


def converted(body: str, functions: str = "", x: str = "bfloat16", y: str = "bfloat16") -> str:
    """What becomes of `tpu_model`: the types of its argument and result, and its casts on the host."""
    cast_x = "x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}" if x == "bfloat16" else ""
    cast_y = "on_tpu/float32 = Cast(on_tpu:output:0) {SrcT: bfloat16, DstT: float32}" if y == "bfloat16" else ""
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {CALL}}}
    }}
    @F(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall({"x/bfloat16:y:0" if cast_x else "x"}, core:device_ordinals:0)
        {{f: @T, Tin: [{x}], Tout: [{y}], _tpu_convert_bfloat16: true}}
      {cast_x}
      {cast_y}
      return {"on_tpu/float32:y:0" if cast_y else "on_tpu:output:0"}, ^on_tpu
    }}
    @T(x: {x}) -> (y: {y}) {{ {body} }}
    {functions}
    """


def check(
    before: str,
    after: str,
    functions: str = "",
    functions_after: str = "",
    *,
    each: BFloat16 | None = None,
    x: str = "bfloat16",
    y: str = "bfloat16",
    skips: Sequence[str] = (),
) -> PassResult:
    """Fails unless the body of the TPU function becomes `after`, and these are the skips."""
    after = converted(after, functions_after, x, y)
    return assert_pass(each or BFloat16(), tpu_model(before, functions), after, skips=skips)


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


# --- integers ---------------------------------------------------------------------------------------------------


def test_floats_made_from_integers_stay_float32_until_they_meet_data() -> None:
    check(
        """
        n = Shape(x) {T: float32}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        half = Const() {dtype: float32, value: float32(0.5)}
        angle = Mul(i:y:0, half:output:0) {T: float32}
        wave = Cos(angle:z:0) {T: float32}
        a = Mul(x, wave:y:0) {T: float32}
        return a:z:0
        """,
        """
        n = Shape(x) {T: bfloat16}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        half = Const() {dtype: float32, value: float32(0.5)}
        angle = Mul(i:y:0, half:output:0) {T: float32}
        wave = Cos(angle:z:0) {T: float32}
        a = Mul(x, wave/bfloat16:y:0) {T: bfloat16}
        wave/bfloat16 = Cast(wave:y:0) {SrcT: float32, DstT: bfloat16}
        return a:z:0
        """,
        skips=[
            "Cast: stays float32: is needed as float32",
            "Const: stays float32: is needed as float32",
            "Cos: stays float32: computes with integers (positions, lengths, masks) or random numbers",
            "Mul: stays float32: computes with integers (positions, lengths, masks) or random numbers",
        ],
    )


def test_a_product_that_sums_nothing_up_is_part_of_a_chain_from_integers() -> None:
    check(
        """
        n = Shape(x) {T: float32}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        c = Const() {dtype: float32, value: float32<4>}
        e = Einsum(i:y:0, c:output:0) {N: 2, T: float32, equation: "i,j->ij"}
        a = Mul(x, e:output:0) {T: float32}
        return a:z:0
        """,
        """
        n = Shape(x) {T: bfloat16}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        c = Const() {dtype: float32, value: float32<4>}
        e = Einsum(i:y:0, c:output:0) {N: 2, T: float32, equation: "i,j->ij"}
        a = Mul(x, e/bfloat16:y:0) {T: bfloat16}
        e/bfloat16 = Cast(e:output:0) {SrcT: float32, DstT: bfloat16}
        return a:z:0
        """,
        skips=[
            "Cast: stays float32: is needed as float32",
            "Const: stays float32: is needed as float32",
            "Einsum: stays float32: computes with integers (positions, lengths, masks) or random numbers",
        ],
    )


def test_a_sum_of_products_ends_a_chain_from_integers() -> None:
    check(
        """
        n = Shape(x) {T: float32}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        c = Const() {dtype: float32, value: float32<4,4>}
        e = Einsum(i:y:0, c:output:0) {N: 2, T: float32, equation: "i,ij->j"}
        a = Mul(x, e:output:0) {T: float32}
        return a:z:0
        """,
        """
        n = Shape(x) {T: bfloat16}
        i = Cast(n:output:0) {SrcT: int32, DstT: bfloat16}
        c = Const() {dtype: bfloat16, value: bfloat16<4,4>}
        e = Einsum(i:y:0, c:output:0) {N: 2, T: bfloat16, equation: "i,ij->j"}
        a = Mul(x, e:output:0) {T: bfloat16}
        return a:z:0
        """,
    )


# --- functions --------------------------------------------------------------------------------------------------


def test_loops_branches_and_calls_change_with_what_they_call() -> None:
    functions = """
    @cond(i: int32, h: float32) -> (b: bool) {
      n = Const() {dtype: int32, value: int32(3)}
      l = Less(i, n:output:0) {T: int32}
      return l:z:0
    }
    @body(i: int32, h: float32) -> (i2: int32, h2: float32) {
      n = Const() {dtype: int32, value: int32(1)}
      j = AddV2(i, n:output:0) {T: int32}
      t = Tanh(h) {T: float32}
      return j:z:0, t:y:0
    }
    @yes(h: float32) -> (r: float32) { a = Relu(h) {T: float32}; return a:activations:0 }
    @no(h: float32) -> (r: float32) { return h }
    @byname(h: float32) -> (r: float32) { a = Exp(h) {T: float32}; return a:y:0 }
    """
    body = """
        zero = Const() {dtype: int32, value: int32(0)}
        w = While(zero:output:0, x) {T: [int32, float32], body: @body, cond: @cond}
        flag = Const() {dtype: bool, value: bool(1)}
        i = If(flag:output:0, w:output:1)
          {Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @yes, else_branch: @no}
        p = PartitionedCall(i:output:0) {Tin: [float32], Tout: [float32], f: @yes}
        c = byname(p:output:0)
        return c:r:0
    """
    check(body, body.replace("float32", "bfloat16"), functions, functions.replace("float32", "bfloat16"), skips=[])


def test_a_function_that_the_cpu_calls_too_is_copied() -> None:
    helper = "@helper(h: float32) -> (r: float32) { a = Exp(h) {T: float32}; return a:y:0 }"
    cpu = f"@cpu(h: float32) -> (r: float32) {{ p = PartitionedCall(h) {{{CALL}, f: @helper}}; return p:output:0 }}"
    copy = "@helper_bfloat16(h: bfloat16) -> (r: bfloat16) { a = Exp(h) {T: bfloat16}; return a:y:0 }"
    result = check(
        f"p = PartitionedCall(x) {{{CALL}, f: @helper}}; return p:output:0",
        "p = PartitionedCall(x) {Tin: [bfloat16], Tout: [bfloat16], f: @helper_bfloat16}; return p:output:0",
        f"object cpu = function @cpu\n{helper}\n{cpu}",
        f"object cpu = function @cpu\n{helper}\n{cpu}\n{copy}",
    )
    assert [c.what for c in result.changes if c.where == "helper"] == [
        "copied to helper_bfloat16, because other code uses it as well"
    ]


def test_functions_of_ops_that_fix_their_types_stay_float32() -> None:
    reducer = "@reducer(a: float32, b: float32) -> (c: float32) { s = AddV2(a, b) {T: float32}; return s:z:0 }"
    check(
        """
        a = Tanh(x) {T: float32}
        init = Const() {dtype: float32, value: float32(0)}
        r = XlaReduce(a:y:0, init:output:0) {T: float32, dimensions_to_reduce: [0], reducer: @reducer}
        return r:output:0
        """,
        """
        a = Tanh(x) {T: bfloat16}
        init = Const() {dtype: float32, value: float32(0)}
        r = XlaReduce(a/float32:y:0, init:output:0) {T: float32, dimensions_to_reduce: [0], reducer: @reducer}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        return r:output:0
        """,
        reducer,
        reducer,
        y="float32",
        skips=[
            "Const: stays float32: is needed as float32",
            "XlaReduce: stays float32: is on the list of ops that need float32",
        ],
    )


def test_everything_that_handles_one_list_has_its_type() -> None:
    loop = """
    @cond(i: int32, l: variant, q: variant) -> (b: bool) {
      n = Const() {dtype: int32, value: int32(3)}
      c = Less(i, n:output:0) {T: int32}
      return c:z:0
    }
    @body(i: int32, l: variant, q: variant) -> (i2: int32, l2: variant, q2: variant) {
      n = Const() {dtype: int32, value: int32(1)}
      j = AddV2(i, n:output:0) {T: int32}
      s = Const() {dtype: int32, value: int32([4])}
      g = TensorListGetItem(q, i, s:output:0) {element_dtype: float32}
      t = Tanh(g:item:0) {T: float32}
      l1 = TensorListSetItem(l, i, t:y:0) {element_dtype: float32}
      same = Identity(l1:output_handle:0) {T: variant}
      return j:z:0, same:output:0, q
    }
    """
    body = """
        s = Const() {dtype: int32, value: int32([4])}
        n = Const() {dtype: int32, value: int32(3)}
        zero = Const() {dtype: int32, value: int32(0)}
        q = TensorListFromTensor(x, s:output:0) {element_dtype: float32, shape_type: int32}
        l = TensorListReserve(s:output:0, n:output:0) {element_dtype: float32, shape_type: int32}
        w = While(zero:output:0, l:handle:0, q:output_handle:0) {T: [int32, variant, variant], body: @body, cond: @cond}
        y = TensorListStack(w:output:1, s:output:0) {element_dtype: float32}
        return y:tensor:0
    """
    check(body, body.replace("float32", "bfloat16"), loop, loop.replace("float32", "bfloat16"), skips=[])


# --- what stays float32 -----------------------------------------------------------------------------------------


def test_a_type_that_is_an_attributes_default_is_written_out() -> None:
    check(
        "a = LeakyRelu(x); return a:activations:0",
        "a = LeakyRelu(x) {T: bfloat16}; return a:activations:0",
        skips=[],
    )


def test_ops_without_bfloat16_or_without_kernel_say_so() -> None:
    result = check(
        """
        a = MatMul(x, x) {T: float32}
        c = Complex(a:product:0, a:product:0) {T: float32, Tout: complex64}
        d = ComplexAbs(c:out:0) {T: complex64, Tout: float32}
        e = AdjustContrastv2(d:y:0, s:output:0) {T: float32}
        s = Const() {dtype: float32, value: float32(2)}
        f = Betainc(e:output:0, e:output:0, e:output:0) {T: float32}
        return f:z:0
        """,
        """
        a = MatMul(x, x) {T: bfloat16}
        c = Complex(a/float32:y:0, a/float32:y:0) {T: float32, Tout: complex64}
        d = ComplexAbs(c:out:0) {T: complex64, Tout: float32}
        e = AdjustContrastv2(d:y:0, s:output:0) {T: float32}
        s = Const() {dtype: float32, value: float32(2)}
        f = Betainc(e:output:0, e:output:0, e:output:0) {T: float32}
        a/float32 = Cast(a:product:0) {SrcT: bfloat16, DstT: float32}
        return f:z:0
        """,
        y="float32",
        skips=[
            "AdjustContrastv2: stays float32: is not defined for bfloat16 (attribute T)",
            "Betainc: stays float32: is not defined for bfloat16 (attribute T)",
            "Complex: stays float32: is not defined for bfloat16 (attribute T)",
            "ComplexAbs: stays float32: is not defined for bfloat16 (attribute Tout)",
            "Const: stays float32: is needed as float32",
        ],
    )
    kept = result.details.to_json()["kept_ops"]
    assert set(kept["Complex"]) == {"is not defined for bfloat16 (attribute T)"}
    assert set(kept["AdjustContrastv2"]) == {"is not defined for bfloat16 (attribute T)"}


def test_normalizations_stay_float32_as_a_whole() -> None:
    check(
        """
        a = Exp(x) {T: float32}
        axis = Const() {dtype: int32, value: int32([-1])}
        mean = Mean(a:y:0, axis:output:0) {T: float32, keep_dims: true}
        stop = StopGradient(mean:output:0) {T: float32}
        square = SquaredDifference(a:y:0, stop:output:0) {T: float32}
        variance = Mean(square:z:0, axis:output:0) {T: float32, keep_dims: true}
        epsilon = Const() {dtype: float32, value: float32(0.001)}
        sum = AddV2(variance:output:0, epsilon:output:0) {T: float32}
        root = Rsqrt(sum:z:0) {T: float32}
        minus = Sub(a:y:0, mean:output:0) {T: float32}
        scaled = Mul(minus:z:0, root:y:0) {T: float32}
        shift = Const() {dtype: float32, value: float32(2)}
        shifted = AddV2(scaled:z:0, shift:output:0) {T: float32}
        residual = AddV2(shifted:z:0, a:y:0) {T: float32}
        return residual:z:0
        """,
        """
        a = Exp(x) {T: bfloat16}
        axis = Const() {dtype: int32, value: int32([-1])}
        mean = Mean(a/float32:y:0, axis:output:0) {T: float32, keep_dims: true}
        stop = StopGradient(mean:output:0) {T: float32}
        square = SquaredDifference(a/float32:y:0, stop:output:0) {T: float32}
        variance = Mean(square:z:0, axis:output:0) {T: float32, keep_dims: true}
        epsilon = Const() {dtype: float32, value: float32(0.001)}
        sum = AddV2(variance:output:0, epsilon:output:0) {T: float32}
        root = Rsqrt(sum:z:0) {T: float32}
        minus = Sub(a/float32:y:0, mean:output:0) {T: float32}
        scaled = Mul(minus:z:0, root:y:0) {T: float32}
        shift = Const() {dtype: float32, value: float32(2)}
        shifted = AddV2(scaled:z:0, shift:output:0) {T: float32}
        residual = AddV2(shifted/bfloat16:y:0, a:y:0) {T: bfloat16}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        shifted/bfloat16 = Cast(shifted:z:0) {SrcT: float32, DstT: bfloat16}
        return residual:z:0
        """,
        skips=[
            "AddV2: 2 of them stay float32: is part of a normalization",
            "Const: 2 of them stay float32: is needed as float32",
            "Mean: 2 of them stay float32: is part of a normalization",
            "Mul: stays float32: is part of a normalization",
            "Rsqrt: stays float32: is part of a normalization",
            "SquaredDifference: stays float32: is part of a normalization",
            "StopGradient: stays float32: moves values that stay float32",
            "Sub: stays float32: is part of a normalization",
        ],
    )


AXIS = """
        a = Exp(x) {T: float32}
        axis = Const() {dtype: int32, value: int32([-1])}
        mean = Mean(a:y:0, axis:output:0) {T: float32, keep_dims: true}
"""
OF_DIFFERENCES = """
        square = SquaredDifference(a:y:0, mean:output:0) {T: float32}
        variance = Mean(square:z:0, axis:output:0) {T: float32, keep_dims: true}
        v = Identity(variance:output:0) {T: float32}
"""
OF_MOMENTS = """
        square = Mul(a:y:0, a:y:0) {T: float32}
        moment = Mean(square:z:0, axis:output:0) {T: float32, keep_dims: true}
        squared = Mul(mean:output:0, mean:output:0) {T: float32}
        difference = Sub(moment:output:0, squared:z:0) {T: float32}
        v = Identity(difference:z:0) {T: float32}
"""


@pytest.mark.parametrize("variance", [OF_DIFFERENCES, OF_MOMENTS])
@pytest.mark.parametrize(
    "applied",
    [
        """
        sum = AddV2(v:output:0, epsilon:output:0) {T: float32}
        root = Rsqrt(sum:z:0) {T: float32}
        scaled = Mul(minus:z:0, root:y:0) {T: float32}
        """,
        """
        sum = AddV2(v:output:0, epsilon:output:0) {T: float32}
        half = Const() {dtype: float32, value: float32(-0.5)}
        root = Pow(sum:z:0, half:output:0) {T: float32}
        scaled = Mul(minus:z:0, root:z:0) {T: float32}
        """,
        """
        root = Sqrt(v:output:0) {T: float32}
        larger = Maximum(root:y:0, epsilon:output:0) {T: float32}
        scaled = RealDiv(minus:z:0, larger:z:0) {T: float32}
        """,
        """
        root = Sqrt(v:output:0) {T: float32}
        larger = AddV2(root:y:0, epsilon:output:0) {T: float32}
        scaled = RealDiv(minus:z:0, larger:z:0) {T: float32}
        """,
    ],
)
def test_a_normalization_is_known_however_it_is_written(variance: str, applied: str) -> None:
    epsilon = "epsilon = Const() {dtype: float32, value: float32(0.001)}"
    minus = "minus = Sub(a:y:0, mean:output:0) {T: float32}"
    tail = "w = Tanh(scaled:z:0) {T: float32}; return w:y:0"
    model = parse_model(tpu_model(f"{AXIS} {variance} {epsilon}\n{minus}\n{applied}\n{tail}"))
    result = BFloat16().apply(model)
    types = {n.name: n.attr["T"].type for n in model.functions["T"].node_def if "T" in n.attr}
    assert {name for name, dtype in types.items() if dtype == types_pb2.DT_BFLOAT16} == {"a", "w"}
    # a is cast once for all that normalizes it, and the normalized values are cast back.
    assert result.details.to_json()["casts"] == 2 + 2


def test_a_difference_of_two_sums_stays_float32_wherever_it_is() -> None:
    check(
        """
        axis = Const() {dtype: int32, value: int32([-1])}
        a = Tanh(x) {T: float32}
        s = Sum(a:y:0, axis:output:0) {T: float32}
        ss = Square(s:output:0) {T: float32}
        q = Square(a:y:0) {T: float32}
        t = Sum(q:y:0, axis:output:0) {T: float32}
        d = Sub(ss:y:0, t:output:0) {T: float32}
        e = Exp(d:z:0) {T: float32}
        return e:y:0
        """,
        """
        axis = Const() {dtype: int32, value: int32([-1])}
        a = Tanh(x) {T: bfloat16}
        s = Sum(a/float32:y:0, axis:output:0) {T: float32}
        ss = Square(s:output:0) {T: float32}
        q = Square(a/float32:y:0) {T: float32}
        t = Sum(q:y:0, axis:output:0) {T: float32}
        d = Sub(ss:y:0, t:output:0) {T: float32}
        e = Exp(d/bfloat16:y:0) {T: bfloat16}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        d/bfloat16 = Cast(d:z:0) {SrcT: float32, DstT: bfloat16}
        return e:y:0
        """,
        skips=[
            "Square: 2 of them stay float32: is part of a normalization",
            "Sub: stays float32: is part of a normalization",
            "Sum: 2 of them stay float32: is part of a normalization",
        ],
    )


def test_what_is_normalized_by_constants_crosses_as_float32() -> None:
    # 50,000 +- 1,000 is 50,176 +- 1,024 in bfloat16: rounded before the mean is taken away, nothing is left of it.
    constants = """
        mean = Const() {dtype: float32, value: float32([50000.0, 3.0])}
        variance = Const() {dtype: float32, value: float32([1e6, 1.0])}
        floor = Const() {dtype: float32, value: float32(1e-7)}
    """
    check(
        f"""
        {constants}
        minus = Sub(x, mean:output:0) {{T: float32}}
        root = Sqrt(variance:output:0) {{T: float32}}
        larger = Maximum(root:y:0, floor:output:0) {{T: float32}}
        scaled = RealDiv(minus:z:0, larger:z:0) {{T: float32}}
        w = Tanh(scaled:z:0) {{T: float32}}
        return w:y:0
        """,
        f"""
        {constants}
        minus = Sub(x, mean:output:0) {{T: float32}}
        root = Sqrt(variance:output:0) {{T: float32}}
        larger = Maximum(root:y:0, floor:output:0) {{T: float32}}
        scaled = RealDiv(minus:z:0, larger:z:0) {{T: float32}}
        w = Tanh(scaled/bfloat16:y:0) {{T: bfloat16}}
        scaled/bfloat16 = Cast(scaled:z:0) {{SrcT: float32, DstT: bfloat16}}
        return w:y:0
        """,
        x="float32",
        skips=[
            "Const: 3 of them stay float32: is needed as float32",
            "Maximum: stays float32: is part of a normalization",
            "RealDiv: stays float32: is part of a normalization",
            "Sqrt: stays float32: is part of a normalization",
            "Sub: stays float32: is part of a normalization",
        ],
    )


def test_what_is_normalized_where_it_enters_crosses_as_float32() -> None:
    before = """
        axis = Const() {dtype: int32, value: int32([-1])}
        mean = Mean(x, axis:output:0) {T: float32, keep_dims: true}
        square = SquaredDifference(x, mean:output:0) {T: float32}
        variance = Mean(square:z:0, axis:output:0) {T: float32, keep_dims: true}
        root = Rsqrt(variance:output:0) {T: float32}
        minus = Sub(x, mean:output:0) {T: float32}
        scaled = Mul(minus:z:0, root:y:0) {T: float32}
    """
    check(
        f"{before} w = Tanh(scaled:z:0) {{T: float32}}; return w:y:0",
        f"""{before}
        w = Tanh(scaled/bfloat16:y:0) {{T: bfloat16}}
        scaled/bfloat16 = Cast(scaled:z:0) {{SrcT: float32, DstT: bfloat16}}
        return w:y:0
        """,
        x="float32",
        skips=[
            "Mean: 2 of them stay float32: is part of a normalization",
            "Mul: stays float32: is part of a normalization",
            "Rsqrt: stays float32: is part of a normalization",
            "SquaredDifference: stays float32: is part of a normalization",
            "Sub: stays float32: is part of a normalization",
        ],
    )


VARIABLES = """
    main {
      x = Placeholder() {dtype: float32, shape: <?,2>}
      mean = VarHandleOp() {dtype: float32, shape: <2>, shared_name: "mean"}
      variance = VarHandleOp() {dtype: float32, shape: <2>, shared_name: "variance"}
      call = StatefulPartitionedCall(x, mean, variance) {f: @F, Tin: [float32, resource, resource], Tout: [float32]}
      prefix = Placeholder() {dtype: string, shape: <>}
      keys = Const() {dtype: string, value: string(["mean", "variance"])}
      slices = Const() {dtype: string, value: string(["", ""])}
      restore = RestoreV2(prefix, keys, slices) {dtypes: [float32, float32]}
      assign_mean = AssignVariableOp(mean, restore) {dtype: float32}
      assign_variance = AssignVariableOp(variance, restore:1) {dtype: float32}
    }
    signature "serving_default" x=x:0 -> y=call:0
    @F(x: float32, mean: resource(float32<2>), variance: resource(float32<2>)) -> (y: float32) [stateful] {
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, mean, variance, core:device_ordinals:0)
        {f: @T, Tin: [float32, resource, resource], Tout: [float32]}
      return on_tpu:output:0, ^on_tpu
    }
    @T(x: float32, mean: resource(float32<2>), variance: resource(float32<2>)) -> (y: float32) {
      BEFORE
      m = ReadVariableOp(mean) {dtype: float32}
      v = ReadVariableOp(variance) {dtype: float32}
      axis = Const() {dtype: int32, value: int32(0)}
      wide = ExpandDims(m:value:0, axis:output:0) {T: float32, Tdim: int32}
      root = Rsqrt(v:value:0) {T: float32}
      minus = Sub(INPUT, wide:output:0) {T: float32}
      scaled = Mul(minus:z:0, root:y:0) {T: float32}
      w = Tanh(scaled:z:0) {T: float32}
      return w:y:0
    }
"""


def test_statistics_of_what_is_normalized_where_it_enters_stay_float32() -> None:
    # A mean of 50,000 is 50,176 in bfloat16, a sixth of a deviation of 1,000 off.
    text = VARIABLES.replace("BEFORE", "").replace("INPUT", "x")
    result = BFloat16().apply(parse_model(text))
    assert result.details.to_json()["variables_float32"] == ["mean", "variance"]
    reasons = {s.where: s.reason for s in result.skips}
    assert reasons["variance"].endswith('is read by "root" (Rsqrt) in T, which is part of a normalization')


def test_a_statistic_may_be_applied_in_any_order() -> None:
    # tf.nn.batch_normalization without gain and offset: x * root + -mean * root
    text = VARIABLES.replace("BEFORE", "").replace("minus = Sub(INPUT, wide:output:0)", "minus = Neg(wide:output:0)")
    text = text.replace(
        "scaled = Mul(minus:z:0, root:y:0) {T: float32}",
        """
        shift = Mul(minus:y:0, root:y:0) {T: float32}
        product = Mul(x, root:y:0) {T: float32}
        scaled = AddV2(product:z:0, shift:z:0) {T: float32}
        """,
    )
    model = parse_model(text)
    assert BFloat16().apply(model).details.to_json()["variables_float32"] == ["mean", "variance"]
    types = {n.name: n.attr["T"].type for n in model.functions["T"].node_def if "T" in n.attr}
    assert {name for name, dtype in types.items() if dtype == types_pb2.DT_BFLOAT16} == {"w"}


def test_statistics_of_what_the_tpu_has_computed_are_rounded() -> None:
    text = VARIABLES.replace("BEFORE", "p = MatMul(x, x) {T: float32}").replace("INPUT", "p:product:0")
    assert BFloat16().apply(parse_model(text)).details.to_json()["variables_float32"] == []


def test_a_root_of_constants_that_scales_without_a_mean_is_no_normalization() -> None:
    check(
        """
        size = Const() {dtype: float32, value: float32(64.0)}
        root = Sqrt(size:output:0) {T: float32}
        m = MatMul(x, x) {T: float32}
        scores = RealDiv(m:product:0, root:y:0) {T: float32}
        return scores:z:0
        """,
        """
        size = Const() {dtype: float32, value: float32(64.0)}
        root = Sqrt(size:output:0) {T: float32}
        m = MatMul(x, x) {T: bfloat16}
        scores = RealDiv(m:product:0, root/bfloat16:y:0) {T: bfloat16}
        root/bfloat16 = Cast(root:y:0) {SrcT: float32, DstT: bfloat16}
        return scores:z:0
        """,
        skips=["Const: stays float32: is needed as float32", "Sqrt: stays float32: computes with constants only"],
    )


# --- values that must be exact ----------------------------------------------------------------------------------


def test_what_is_cast_to_integers_crosses_as_float32_and_is_rounded_for_the_others() -> None:
    # 999 is 1000 in bfloat16.
    check(
        """
        ids = Cast(x) {SrcT: float32, DstT: int32}
        back = Cast(ids:y:0) {SrcT: int32, DstT: float32}
        a = Tanh(x) {T: float32}
        b = AddV2(a:y:0, back:y:0) {T: float32}
        return b:z:0
        """,
        """
        ids = Cast(x) {SrcT: float32, DstT: int32}
        back = Cast(ids:y:0) {SrcT: int32, DstT: bfloat16}
        a = Tanh(x/bfloat16:y:0) {T: bfloat16}
        b = AddV2(a:y:0, back:y:0) {T: bfloat16}
        x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
        return b:z:0
        """,
        x="float32",
        skips=["Cast: stays float32: casts a value that stays float32"],
    )


def test_ops_on_the_way_to_integers_stay_float32_if_nothing_has_rounded_their_values() -> None:
    result = check(
        """
        scale = Const() {dtype: float32, value: float32(10.0)}
        scaled = Mul(x, scale:output:0) {T: float32}
        ids = Cast(scaled:z:0) {SrcT: float32, DstT: int32}
        m = MatMul(x, x) {T: float32}
        r = Mul(m:product:0, scale:output:0) {T: float32}
        rounded = Cast(r:z:0) {SrcT: float32, DstT: int32}
        return m:product:0, ^ids, ^rounded
        """,
        """
        scale = Const() {dtype: float32, value: float32(10.0)}
        scaled = Mul(x, scale:output:0) {T: float32}
        ids = Cast(scaled:z:0) {SrcT: float32, DstT: int32}
        m = MatMul(x/bfloat16:y:0, x/bfloat16:y:0) {T: bfloat16}
        r = Mul(m:product:0, scale/bfloat16:y:0) {T: bfloat16}
        rounded = Cast(r:z:0) {SrcT: bfloat16, DstT: int32}
        x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
        scale/bfloat16 = Cast(scale:output:0) {SrcT: float32, DstT: bfloat16}
        return m:product:0, ^ids, ^rounded
        """,
        x="float32",
        skips=[
            "Cast: stays float32: casts a value that stays float32",
            "Const: stays float32: becomes whole numbers or a spectrum in the end",
            "Mul: stays float32: becomes whole numbers or a spectrum in the end",
        ],
    )
    assert set(result.details.to_json()["kept_ops"]["Mul"]) == {"becomes whole numbers or a spectrum in the end"}


def test_what_becomes_a_spectrum_is_not_rounded_before() -> None:
    # The noise of rounding, -48 dB, would cover what is quiet.
    body = """
        window = Const() {dtype: float32, value: float32([0.5, 1.0, 1.0, 0.5])}
        framed = Mul(x, window:output:0) {T: float32}
        size = Const() {dtype: int32, value: int32([4])}
        spectrum = RFFT(framed:z:0, size:output:0) {Treal: float32, Tcomplex: complex64}
        power = ComplexAbs(spectrum:output:0) {T: complex64, Tout: float32}
    """
    check(
        f"{body} l = Log(power:y:0) {{T: float32}}; return l:y:0",
        f"""{body}
        l = Log(power/bfloat16:y:0) {{T: bfloat16}}
        power/bfloat16 = Cast(power:y:0) {{SrcT: float32, DstT: bfloat16}}
        return l:y:0
        """,
        x="float32",
        skips=[
            "ComplexAbs: stays float32: is not defined for bfloat16 (attribute Tout)",
            "Const: stays float32: becomes whole numbers or a spectrum in the end",
            "Mul: stays float32: becomes whole numbers or a spectrum in the end",
            "RFFT: stays float32: is on the list of ops that need float32",
        ],
    )


@pytest.mark.parametrize("op", ["LowerBound", "UpperBound"])
def test_edges_that_values_are_compared_with_are_not_rounded(op: str) -> None:
    body = f"""
        edges = Const() {{dtype: float32, value: float32([[257.0, 601.0]])}}
        found = {op}(edges:output:0, x) {{T: float32, out_type: int32}}
        """
    tail = "return {}:y:0, ^found"
    check(
        body + "a = Tanh(x) {T: float32}; " + tail.format("a"),
        body
        + "a = Tanh(x/bfloat16:y:0) {T: bfloat16}; x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}; "
        + tail.format("a"),
        x="float32",
        skips=["Const: stays float32: is needed as float32", f"{op}: stays float32: compares values with edges"],
    )


def test_an_argument_of_an_op_in_the_filterlist_is_not_rounded_for_others() -> None:
    check(
        "m = MatMul(x, x) {T: float32}; a = Tanh(x) {T: float32}; "
        "b = AddV2(m:product:0, a:y:0) {T: float32}; return b:z:0",
        """
        m = MatMul(x, x) {T: float32}
        a = Tanh(x/bfloat16:y:0) {T: bfloat16}
        b = AddV2(m/bfloat16:y:0, a:y:0) {T: bfloat16}
        x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
        m/bfloat16 = Cast(m:product:0) {SrcT: float32, DstT: bfloat16}
        return b:z:0
        """,
        each=BFloat16(filterlist=("MatMul",)),
        x="float32",
        skips=["MatMul: stays float32: is in the filterlist"],
    )


def test_random_numbers_are_drawn_and_used_in_float32_until_they_meet_data() -> None:
    # Of 8 bits, one in 256 uniform numbers is 1, and the logarithm of its logarithm infinite.
    check(
        """
        shape = Const() {dtype: int32, value: int32([4])}
        u = RandomUniform(shape:output:0) {T: int32, dtype: float32}
        l = Log(u:output:0) {T: float32}
        n = Neg(l:y:0) {T: float32}
        a = AddV2(x, n:y:0) {T: float32}
        return a:z:0
        """,
        """
        shape = Const() {dtype: int32, value: int32([4])}
        u = RandomUniform(shape:output:0) {T: int32, dtype: float32}
        l = Log(u:output:0) {T: float32}
        n = Neg(l:y:0) {T: float32}
        a = AddV2(x, n/bfloat16:y:0) {T: bfloat16}
        n/bfloat16 = Cast(n:y:0) {SrcT: float32, DstT: bfloat16}
        return a:z:0
        """,
        skips=[
            "Log: stays float32: computes with integers (positions, lengths, masks) or random numbers",
            "Neg: stays float32: computes with integers (positions, lengths, masks) or random numbers",
            "RandomUniform: stays float32: draws random numbers, of which bfloat16 has few",
        ],
    )


def test_positions_counted_by_summing_up_ones_stay_float32() -> None:
    check(
        """
        axis = Const() {dtype: int32, value: int32(0)}
        a = Tanh(x) {T: float32}
        ones = OnesLike(a:y:0) {T: float32}
        positions = Cumsum(ones:y:0, axis:output:0) {T: float32, Tidx: int32}
        s = Sin(positions:out:0) {T: float32}
        b = AddV2(a:y:0, s:y:0) {T: float32}
        return b:z:0
        """,
        """
        axis = Const() {dtype: int32, value: int32(0)}
        a = Tanh(x) {T: bfloat16}
        ones = OnesLike(a:y:0) {T: bfloat16}
        positions = Cumsum(ones/float32:y:0, axis:output:0) {T: float32, Tidx: int32}
        s = Sin(positions:out:0) {T: float32}
        b = AddV2(a:y:0, s/bfloat16:y:0) {T: bfloat16}
        ones/float32 = Cast(ones:y:0) {SrcT: bfloat16, DstT: float32}
        s/bfloat16 = Cast(s:y:0) {SrcT: float32, DstT: bfloat16}
        return b:z:0
        """,
        skips=[
            "Cumsum: stays float32: computes with constants only",
            "Sin: stays float32: computes with constants only",
        ],
    )


def test_a_compiled_program_stays_float32_and_the_report_says_so() -> None:
    module = 'XlaCallModule(a:y:0) {Tin: [float32], Tout: [float32], Sout: [<?,4>], module: "", version: 9}'
    result = check(
        f"a = Tanh(x) {{T: float32}}; m = {module}; return m:output:0",
        f"""
        a = Tanh(x) {{T: bfloat16}}
        m = {module.replace("a:y:0", "a/float32:y:0")}
        a/float32 = Cast(a:y:0) {{SrcT: bfloat16, DstT: float32}}
        return m:output:0
        """,
        y="float32",
        skips=["XlaCallModule: stays float32: holds a program compiled with float32 types"],
    )
    assert result.details.to_json()["kept_ops"]["XlaCallModule"] == {"holds a program compiled with float32 types": 1}


# --- the user's filterlist --------------------------------------------------------------------------------------


def test_ops_in_the_filterlist_run_in_float32_and_their_neighbours_in_bfloat16() -> None:
    check(
        """
        a = Tanh(x) {T: float32}
        b = Exp(a:y:0) {T: float32}
        c = Tanh(b:y:0) {T: float32}
        return c:y:0
        """,
        """
        a = Tanh(x) {T: bfloat16}
        b = Exp(a/float32:y:0) {T: float32}
        c = Tanh(b/bfloat16:y:0) {T: bfloat16}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        b/bfloat16 = Cast(b:y:0) {SrcT: float32, DstT: bfloat16}
        return c:y:0
        """,
        each=BFloat16(filterlist=("Exp",)),
        skips=["Exp: stays float32: is in the filterlist"],
    )


def test_an_unknown_op_type_in_the_filterlist_is_an_error_that_lists_the_nearest() -> None:
    before = tpu_model("a = Tanh(x) {T: float32}; return a:y:0")
    assert_pass_raises(BFloat16(filterlist=("MatMull",)), before, OptionsError, r'"MatMull".*"MatMul"')


def test_an_op_type_in_the_filterlist_that_the_model_lacks_is_a_warning() -> None:
    assert_pass(
        BFloat16(filterlist=("Conv2D",)),
        tpu_model("a = Tanh(x) {T: float32}; return a:y:0"),
        converted("a = Tanh(x) {T: bfloat16}; return a:y:0"),
        warnings=['bfloat16_optimization_options: filterlist names "Conv2D", but the model has no such op.'],
    )


# --- what is there already --------------------------------------------------------------------------------------

MIXED = """
    a = Cast(x) {SrcT: float32, DstT: bfloat16}
    b = Tanh(a:y:0) {T: bfloat16}
    c = Cast(b:y:0) {SrcT: bfloat16, DstT: float32}
    d = Exp(c:y:0) {T: float32}
    return d:y:0
"""


def test_bfloat16_in_the_model_is_an_error_that_names_it() -> None:
    assert_pass_raises(
        BFloat16(), tpu_model(MIXED), ConversionError, r'"a" \(Cast\) in F, "b" \(Tanh\) in F.*skip_safety_checks: true'
    )


def test_bfloat16_in_the_model_is_kept_if_the_check_is_skipped() -> None:
    check(
        MIXED,
        """
        a = Cast(x) {SrcT: float32, DstT: bfloat16}
        b = Tanh(a:y:0) {T: bfloat16}
        c = Cast(b:y:0) {SrcT: bfloat16, DstT: bfloat16}
        d = Exp(c:y:0) {T: bfloat16}
        return d:y:0
        """,
        each=BFloat16(skip_safety_checks=True),
        x="float32",
        skips=["Cast: stays float32: casts a value that stays float32"],
    )


def test_without_tpu_functions_there_is_nothing_to_do() -> None:
    before = """
    signature "serving_default" x=x:0 -> y=call:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,4>}
      call = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
    }
    @F(x: float32) -> (y: float32) { a = Tanh(x) {T: float32}; return a:y:0 }
    """
    reason = "nothing in it runs on the TPU; bfloat16_optimization_options { scope: ALL } converts CPU code as well"
    assert_pass(BFloat16(), before, before, changes=[], skips=[f"model: {reason}"])


# --- scope ALL --------------------------------------------------------------------------------------------------


def test_scope_all_converts_the_cpu_too_where_it_has_kernels_but_no_signature() -> None:
    assert_pass(
        ALL,
        """
        signature "serving_default" x=x:0 -> y=call:0
        object signatures.serving_default = bare @F
        main {
          x = Placeholder() {dtype: float32, shape: <?,4>}
          call = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
        }
        @F(x: float32) -> (y: float32) {
          p = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}
          return p:output:0
        }
        @G(x: float32) -> (y: float32) {
          a = Tanh(x) {T: float32}
          c = Cross(a:y:0, a:y:0) {T: float32}
          d = Exp(c:product:0) {T: float32}
          e = Betainc(d:y:0, d:y:0, d:y:0) {T: float32}
          return e:z:0
        }
        """,
        """
        signature "serving_default" x=x:0 -> y=call:0
        object signatures.serving_default = bare @F
        main {
          x = Placeholder() {dtype: float32, shape: <?,4>}
          call = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32], _tpu_convert_bfloat16: true}
        }
        @F(x: float32) -> (y: float32) {
          p = PartitionedCall(x/bfloat16:y:0) {f: @G, Tin: [bfloat16], Tout: [float32]}
          x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}
          return p:output:0
        }
        @G(x: bfloat16) -> (y: float32) {
          a = Tanh(x) {T: bfloat16}
          c = Cross(a:y:0, a:y:0) {T: bfloat16}
          d = Exp(c:product:0) {T: bfloat16}
          e = Betainc(d/float32:y:0, d/float32:y:0, d/float32:y:0) {T: float32}
          d/float32 = Cast(d:y:0) {SrcT: bfloat16, DstT: float32}
          return e:z:0
        }
        """,
        skips=["Betainc: stays float32: is not defined for bfloat16 (attribute T)"],
    )


def test_bfloat16_that_only_passes_through_is_no_bfloat16_op() -> None:
    # As PlaceOnTpu makes it of a function with a bfloat16 argument: the markers are the converter's own.
    types = "Tin: [bfloat16], Tout: [float32]"
    model = f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: bfloat16, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {types}}}
    }}
    @F(x: bfloat16) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @F_on_tpu, {types}}}
      return on_tpu:output:0, ^on_tpu
    }}
    @F_on_tpu(x: bfloat16) -> (y: float32) {{
      m = TPUReplicateMetadata() {{num_replicas: 1, _tpu_replicate: "c"}}
      in = TPUReplicatedInput(x) {{N: 1, T: bfloat16}}
      id = Identity(in:output:0, ^m) {{T: bfloat16, _tpu_replicate: "c", _tpu_input_identity: true}}
      body = StatefulPartitionedCall(id:output:0, ^m) {{f: @F_body, {types}, _tpu_replicate: "c"}}
      out = TPUReplicatedOutput(body:output:0) {{T: float32, num_replicas: 1}}
      return out:outputs:0
    }}
    @F_body(x: bfloat16) -> (y: float32) {{ c = Cast(x) {{SrcT: bfloat16, DstT: float32}}; return c:y:0 }}
    """
    message = r'found bfloat16 ops in the model, expected none: "c" \(Cast\) in F\. Whoever'
    assert_pass_raises(BFloat16(), model, ConversionError, message)


def test_converted_code_names_no_gradient_of_the_float32_code() -> None:
    model = parse_model(tpu_model('i = Tanh(x) {T: float32, _gradient_op_type: "CustomGradient-1"}; return i:y:0'))
    BFloat16().apply(model)
    (node,) = model.functions["T"].node_def
    assert "_gradient_op_type" not in node.attr


def test_times_from_float64_stay_exact_on_the_way_to_integers() -> None:
    body = """
        at = Const() {dtype: float64, value: float64([1.7e9])}
        t = Cast(at:output:0) {SrcT: float64, DstT: float32}
        day = Const() {dtype: float32, value: float32(86400.0)}
        d = RealDiv(t:y:0, day:output:0) {T: float32}
        days = Cast(d:z:0) {SrcT: float32, DstT: int32}
    """
    check(
        f"{body} a = Tanh(x) {{T: float32}}; return a:y:0, ^days",
        f"{body} a = Tanh(x) {{T: bfloat16}}; return a:y:0, ^days",
        skips=[
            "Cast: stays float32: becomes whole numbers or a spectrum in the end",
            "Cast: stays float32: casts a value that stays float32",
            "Const: stays float32: becomes whole numbers or a spectrum in the end",
            "RealDiv: stays float32: becomes whole numbers or a spectrum in the end",
        ],
    )
