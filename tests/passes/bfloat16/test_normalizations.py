"""Normalizations stay float32 as a whole, however they are written, and what enters them is not rounded."""

import pytest
from tensorflow.core.framework import types_pb2

from converter.passes.bfloat16.convert import BFloat16
from tests.harness import parse_model
from tests.passes.bfloat16.models import check, tpu_model


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
