"""bfloat16 on the CPU: what its kernels lack or compute worse than the TPU goes through float32."""

import pytest

from converter.graph.invariants import check_structure
from converter.proofs.bfloat16_on_cpu import compute_in_float32
from tests.harness import parse_model, render


def rewritten(body: str, after: str) -> None:
    model = parse_model(f"@f(x: bfloat16) -> (y: bfloat16) {{ {body} }}")
    expected = render(parse_model(f"@f(x: bfloat16) -> (y: bfloat16) {{ {after} }}"))
    changed = compute_in_float32(model, ["f"])
    assert render(model) == expected
    assert bool(changed) == (body != after)
    check_structure(model)
    assert compute_in_float32(model, ["f"]) == 0


def test_a_sum_is_made_in_float32() -> None:
    rewritten(
        'e = Einsum(x, x) {N: 2, T: bfloat16, equation: "ab,cb->ac"}; n = Neg(e:output:0) {T: bfloat16}; return n:y:0',
        """
        e = Einsum(e/float32:y:0, e/float32_1:y:0) {N: 2, T: float32, equation: "ab,cb->ac"}
        n = Neg(e/bfloat16:y:0) {T: bfloat16}
        e/float32 = Cast(x) {SrcT: bfloat16, DstT: float32}
        e/float32_1 = Cast(x) {SrcT: bfloat16, DstT: float32}
        e/bfloat16 = Cast(e:output:0) {SrcT: float32, DstT: bfloat16}
        return n:y:0
        """,
    )


@pytest.mark.parametrize("op", ["Lgamma", "Digamma"])
def test_an_op_without_a_kernel_for_bfloat16_computes_in_float32(op: str) -> None:
    rewritten(
        f"a = {op}(x) {{T: bfloat16}}; return a:y:0",
        f"""
        a = {op}(a/float32:y:0) {{T: float32}}
        a/float32 = Cast(x) {{SrcT: bfloat16, DstT: float32}}
        a/bfloat16 = Cast(a:y:0) {{SrcT: float32, DstT: bfloat16}}
        return a/bfloat16:y:0
        """,
    )


def test_outputs_of_another_type_are_left_alone() -> None:
    rewritten(
        "l = Const() {dtype: bfloat16, value: bfloat16([1.0, 2.0])}; "
        "p = SelfAdjointEigV2(x) {T: bfloat16, compute_v: false}; return p:e:0",
        """
        l = Const() {dtype: bfloat16, value: bfloat16([1.0, 2.0])}
        p = SelfAdjointEigV2(p/float32:y:0) {T: float32, compute_v: false}
        p/float32 = Cast(x) {SrcT: bfloat16, DstT: float32}
        p/bfloat16 = Cast(p:e:0) {SrcT: float32, DstT: bfloat16}
        p/bfloat16_1 = Cast(p:v:0) {SrcT: float32, DstT: bfloat16}
        return p/bfloat16:y:0
        """,
    )


def test_what_the_cpu_computes_well_stays_as_it_is() -> None:
    body = """m = MatMul(x, x) {T: bfloat16}
        t = Tanh(m:product:0) {T: bfloat16}
        return t:y:0"""
    rewritten(body, body)


def test_variables_and_lists_keep_their_types() -> None:
    text = """
    @f(v: resource, i: int32) -> (y: bfloat16) {
      r = ReadVariableOp(v) {dtype: bfloat16}
      g = ResourceGather(v, i) {dtype: bfloat16, Tindices: int32}
      a = AddV2(r:value:0, g:output:0) {T: bfloat16}
      return a:z:0
    }
    """
    model = parse_model(text)
    assert compute_in_float32(model, ["f"]) == 0
