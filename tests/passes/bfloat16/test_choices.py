"""bfloat16 or float32, where an op is between neighbours that want different things of it."""

from converter.options.slices import ConversionScope
from converter.passes.bfloat16.convert import BFloat16
from tests.harness import parse_model, render_function
from tests.passes.bfloat16.models import tpu_model


def converted(body: str) -> list[str]:
    """The lines of a TPU function with this body after the conversion."""
    model = parse_model(tpu_model(body))
    BFloat16(ConversionScope.TPU).apply(model)
    return [line.strip() for line in render_function(model.functions["T"]).splitlines()]


def test_positions_behind_a_reshape_stay_float32_though_data_takes_them_too() -> None:
    found = converted("""
        n = Shape(x) {T: float32}
        i = Cast(n:output:0) {SrcT: int32, DstT: float32}
        flat = Const() {dtype: int32, value: int32([-1])}
        r = Reshape(i:y:0, flat:output:0) {T: float32}
        wave = Cos(r:output:0) {T: float32}
        a = Mul(x, r:output:0) {T: float32}
        b = AddV2(a:z:0, wave:y:0) {T: float32}
        return b:z:0
    """)
    assert "r = Reshape(i:y:0, flat:output:0) {T: float32}" in found
    assert "wave = Cos(r:output:0) {T: float32}" in found
    assert "a = Mul(x, r/bfloat16:y:0) {T: bfloat16}" in found


CONCAT = """
    axis = Const() {{dtype: int32, value: int32(0)}}
    m = MatMul(x, x) {{T: float32}}
    c = ConcatV2(m:product:0, {}, axis:output:0) {{N: 2, T: float32}}
    ids = Cast(c:output:0) {{SrcT: float32, DstT: int32}}
    a = Tanh(c:output:0) {{T: float32}}
    return a:y:0, ^ids
"""


def test_rounded_and_unrounded_values_side_by_side_become_whole_numbers_unrounded() -> None:
    found = converted(CONCAT.format("x"))
    assert found[0] == "@T(x: float32) -> (y: bfloat16) {"
    assert "c = ConcatV2(m/float32:y:0, x, axis:output:0) {N: 2, T: float32}" in found
    assert "ids = Cast(c:output:0) {DstT: int32, SrcT: float32}" in found
    assert "a = Tanh(c/bfloat16:y:0) {T: bfloat16}" in found


def test_values_that_are_all_rounded_become_whole_numbers_without_a_detour() -> None:
    found = converted(CONCAT.format("m:product:0"))
    assert "c = ConcatV2(m:product:0, m:product:0, axis:output:0) {N: 2, T: bfloat16}" in found
    assert "ids = Cast(c:output:0) {DstT: int32, SrcT: bfloat16}" in found


def test_the_bits_of_a_value_are_those_of_float32_though_it_is_rounded() -> None:
    found = converted("""
        m = MatMul(x, x) {T: float32}
        bits = Bitcast(m:product:0) {T: float32, type: int32}
        return m:product:0, ^bits
    """)
    assert "m = MatMul(x, x) {T: bfloat16}" in found
    assert "bits = Bitcast(m/float32:y:0) {T: float32, type: int32}" in found


def test_what_runs_on_the_cpu_in_the_midst_of_tpu_code_stays_float32() -> None:
    found = converted("""
        a = Tanh(x) {T: float32}
        b = Exp(a:y:0) {T: float32, _xla_outside_compilation: "0"}
        c = Tanh(b:y:0) {T: float32}
        return c:y:0
    """)
    assert 'b = Exp(a/float32:y:0) {T: float32, _xla_outside_compilation: "0"}' in found


def test_a_table_of_constants_is_data_to_what_looks_up_in_it() -> None:
    found = converted("""
        table = Const() {dtype: float32, value: float32([1.5, 2.5, 3.5])}
        axis = Const() {dtype: int32, value: int32(0)}
        n = Shape(x) {T: float32}
        row = GatherV2(table:output:0, n:output:0, axis:output:0)
          {Tparams: float32, Tindices: int32, Taxis: int32}
        a = Exp(row:output:0) {T: float32}
        b = AddV2(x, a:y:0) {T: float32}
        return b:z:0
    """)
    assert "a = Exp(row:output:0) {T: bfloat16}" in found
