"""Ops that stay float32: those without bfloat16, and those that the user names in the filterlist."""

from converter.errors import OptionsError
from converter.passes.bfloat16.convert import BFloat16
from tests.harness import assert_pass, assert_pass_raises
from tests.passes.bfloat16.models import check, converted, tpu_model

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
