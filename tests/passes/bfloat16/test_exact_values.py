"""Values that must be exact stay float32: integers, positions, edges, spectra, random numbers."""

import pytest

from converter.passes.bfloat16.convert import BFloat16
from tests.passes.bfloat16.models import check

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
