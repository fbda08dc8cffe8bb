"""What the bfloat16 pass tells people, and what its JSON has."""

from converter.passes.bfloat16.convert import BFloat16
from converter.passes.bfloat16.details import BFloat16Details, Converted, Kept
from tests.harness import parse_model
from tests.passes.bfloat16.models import tpu_model

DETAILS = BFloat16Details(
    converted_ops=(Converted("MatMul", 1_200), Converted("Relu", 2)),
    kept_ops=(
        Kept("Mul", "is in the filterlist", 2),
        Kept("Mul", "is needed as float32", 1),
        Kept("Range", "counts", 1),
    ),
    casts=3,
    variable_bytes_before=4_000,
    variable_bytes_after=2_000,
    variables_bfloat16=5,
    variables_float32=("v", "w"),
)
ALL_CONVERTED = BFloat16Details((Converted("Relu", 1),), (), 1, 0, 0, 0, ())


def test_people_are_told_sizes_and_what_stays_float32() -> None:
    assert DETAILS.lines() == [
        "bfloat16: variables 4,000 -> 2,000 bytes, 1202 ops converted, 3 casts",
        "Kept float32: 2 Mul (is in the filterlist), 1 Mul (is needed as float32), 1 Range (counts)",
    ]
    assert ALL_CONVERTED.lines() == ["bfloat16: variables 0 -> 0 bytes, 1 ops converted, 1 casts"]


def test_the_json_has_ops_by_type_and_reason() -> None:
    assert DETAILS.to_json() == {
        "converted_ops": {"MatMul": 1200, "Relu": 2},
        "kept_ops": {"Mul": {"is in the filterlist": 2, "is needed as float32": 1}, "Range": {"counts": 1}},
        "casts": 3,
        "variable_bytes_before": 4000,
        "variable_bytes_after": 2000,
        "variables_bfloat16": 5,
        "variables_float32": ["v", "w"],
    }
    assert ALL_CONVERTED.to_json()["kept_ops"] == {}


def test_a_run_counts_its_ops_and_sorts_them() -> None:
    body = """
      a = Tanh(x) {T: float32}
      b = Exp(a:y:0) {T: float32}
      c = Exp(b:y:0) {T: float32}
      d = Qr(c:y:0) {T: float32}
      e = Relu(d:q:0) {T: float32}
      return e:activations:0
    """
    details = BFloat16(filterlist=("Tanh",)).apply(parse_model(tpu_model(body))).details
    assert details.lines() == [
        "bfloat16: variables 0 -> 0 bytes, 4 ops converted, 4 casts",
        "Kept float32: 1 Qr (is on the list of ops that need float32), 1 Tanh (is in the filterlist)",
    ]
    assert list(details.to_json()["converted_ops"]) == ["Exp", "Relu", "TPUPartitionedCall"]  # type: ignore[call-overload]
