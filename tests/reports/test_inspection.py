"""What a SavedModel offers, as text and as JSON."""

import json
from pathlib import Path

import pytest

from converter.errors import ModelReadError
from converter.reports.inspection import FunctionInfo, Inspection, inspect_model, magnitude
from tests.harness import write_model_text

TEXT = """
alias "encoder" = @__inference_encode_7
signature "serving_default" x=x:0 -> y=y:0
signature "nodes" x=x:0 -> z=z:0
main {
  x = Placeholder() {dtype: float32}
  y = PartitionedCall(x) {f: @serve, Tin: [float32], Tout: [float32]}
  z = Neg(x) {T: float32}
}
@serve(x: float32) -> (y: float32) {
  a = PartitionedCall(x) {f: @__inference_encode_7, Tin: [float32], Tout: [float32]}
  b = PartitionedCall(a:output:0) {f: @text, Tin: [float32], Tout: [string]}
  c = PartitionedCall(a:output:0) {f: @stub, Tin: [float32], Tout: [float32]}
  return a:output:0
}
@__inference_encode_7(x: float32 {_output_shapes: [<4,4>]}, v: resource) -> (y: float32) {
  m = MatMul(x, x) {T: float32}
  return m:product:0
}
@text(x: float32) -> (s: string) { s = AsString(x) {T: float32}; return s:output:0 }
@stub(x: float32) -> (y: float32) {
  o = TPUOrdinalSelector()
  t = TPUPartitionedCall(x, o:device_ordinals:0) {f: @on_tpu, Tin: [float32], Tout: [float32]}
  return t:output:0
}
@on_tpu(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; p = Neg(x) {T: float32}; return n:y:0 }
@unreached(x: float32) -> (y: float32) { return x }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_text(TEXT, tmp_path / "model")


def test_functions_that_signatures_reach_the_costliest_first(model: Path) -> None:
    inspection = inspect_model(model)
    assert inspection.signatures == {"nodes": "", "serving_default": "serve"}
    assert [(f.name, f.cost) for f in inspection.functions] == [
        ("serve", 1004), ("__inference_encode_7", 1000), ("stub", 3), ("on_tpu", 2), ("text", 1),
    ]  # fmt: skip


def test_what_is_told_of_a_function(model: Path) -> None:
    found = {f.name: f for f in inspect_model(str(model)).functions}
    assert found["__inference_encode_7"] == FunctionInfo(
        name="__inference_encode_7",
        alias="encoder",
        signatures=(),
        arguments=("x: float32",),
        resources=1,
        cost=1000,
        flops=2 * 4 * 4 * 4,
        bytes=3 * 4 * 4 * 4,
        on_tpu=False,
        problems=(),
    )
    assert found["serve"].signatures == ("serving_default",)
    assert found["text"].problems == ('result "s" is a string tensor', "ops without a TPU kernel: AsString")
    assert [name for name, f in found.items() if f.on_tpu] == ["stub", "on_tpu"]
    assert found["stub"].problems == ()


def test_the_text_names_each_function_as_the_options_would(model: Path) -> None:
    text = inspect_model(model).text(140)
    assert text.startswith(
        "Signatures\n  nodes -> nodes of the main graph, which no option can name\n  serving_default -> serve\n\nFunc"
    )
    missing = "AsString, TPUOrdinalSelector, TPUPartitionedCall"
    lines = [
        "  Cost      FLOPs   Bytes   Function",
        '  1004      131     216     signature_name: "serving_default"',
        '                            concrete_function_name: "serve"',
        "                              (x: float32)",
        f"                              not for the TPU as it is: ops without a TPU kernel: {missing}",
        '  1000      128     192     function_alias: "encoder"',
        '                            concrete_function_name: "__inference_encode_7"',
        "                              (x: float32, 1 resource)",
        '  3         2       20      concrete_function_name: "stub"',
        "                              (x: float32)",
        "                              on the TPU already",
    ]
    assert "\n".join(lines) in text
    assert "                              not for the TPU as it is: ops without a TPU kernel: AsString" in text


def test_the_text_is_folded_between_words_and_names_behind_an_underscore() -> None:
    name = "__inference_signature_wrapper_serve_of_a_model_with_many_words_4301"
    arguments = ("first: float32", "second: float32", "third: float32")
    problems = ("ops without a TPU kernel: AsString, StringToNumber, Unbatch",)
    function = FunctionInfo(name, "tpu", (), arguments, 0, 1234567, 10**9, 5, False, problems)
    inspection = Inspection({"serving_default": name}, (function,))
    assert (
        inspection.text()
        == f"""\
Signatures
  serving_default ->
    {name}

Functions that the signatures reach, costliest first
  Cost      FLOPs   Bytes   Function
  1234567   1G      5       function_alias: "tpu"
                            concrete_function_name: "__inference_signature_
                              wrapper_serve_of_a_model_with_many_words_4301"
                              (first: float32, second: float32, third: float32)
                              not for the TPU as it is: ops without a TPU
                                kernel: AsString, StringToNumber, Unbatch"""
    )
    assert (
        inspection.text(120)
        == f"""\
Signatures
  serving_default -> {name}

Functions that the signatures reach, costliest first
  Cost      FLOPs   Bytes   Function
  1234567   1G      5       function_alias: "tpu"
                            concrete_function_name:
                              "{name}"
                              (first: float32, second: float32, third: float32)
                              not for the TPU as it is: ops without a TPU kernel: AsString, StringToNumber, Unbatch"""
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1k"), (1_234_567, "1.23M"), (999_600, "1M"), (7.7e9, "7.7G"), (2e15, "2P"),
        (3e19, "3e+04P"),
    ],
)  # fmt: skip
def test_magnitudes_have_three_digits(count: int, text: str) -> None:
    assert magnitude(count) == text


def test_a_model_without_signatures(tmp_path: Path) -> None:
    inspection = inspect_model(write_model_text("main { x = Placeholder() {dtype: float32} }", tmp_path))
    assert inspection.text().startswith("Signatures\n  none\n")
    assert inspection.functions == ()


def test_a_signature_whose_function_is_missing_is_listed_all_the_same(tmp_path: Path) -> None:
    text = 'signature "s" -> y=y:0 object signatures.s = bare @gone main { y = Placeholder() {dtype: float32} }'
    inspection = inspect_model(write_model_text(text, tmp_path))
    assert inspection.signatures == {"s": "gone"}
    assert inspection.functions == ()


def test_the_json_can_be_written(model: Path) -> None:
    listed = json.loads(json.dumps(inspect_model(model).to_json()))
    assert listed["signatures"]["serving_default"] == "serve"
    assert listed["functions"][1]["alias"] == "encoder"


def test_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="is not a SavedModel"):
        inspect_model(tmp_path)


def test_functions_that_cost_the_same_come_by_name(tmp_path: Path) -> None:
    text = """
    signature "s" x=x:0 -> y=y:0
    main { x = Placeholder() {dtype: float32}; y = PartitionedCall(x) {f: @S, Tin: [float32], Tout: [float32]} }
    @S(x: float32) -> (y: float32) {
      b = PartitionedCall(x) {f: @zebra, Tin: [float32], Tout: [float32]}
      c = PartitionedCall(x) {f: @ape, Tin: [float32], Tout: [float32]}
      return c:output:0
    }
    @zebra(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
    @ape(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
    """
    assert [f.name for f in inspect_model(write_model_text(text, tmp_path)).functions] == ["S", "ape", "zebra"]
