"""What is said of a component's rows: of recursion, of sizes, once for each cause, and in the report."""

from dataclasses import replace
from typing import Any

import pytest

from converter.analysis.cost import Cost
from converter.analysis.shape_inference import Inference, infer
from converter.errors import ConversionError
from converter.options.slices import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.batch import Batch
from converter.passes.batching.checks import Findings, check_components
from converter.passes.batching.rows.report import RowReport, _two_sizes, check_rows
from converter.passes.pass_result import PassReport, PassResult
from converter.reports.conversion import ConversionReport
from tests.harness import parse_model
from tests.passes.batching.models import argument, component

MEAN = """a = Const() {dtype: int32, value: int32(0)}
  m = Mean(x, a:output:0) {T: float32, Tidx: int32, keep_dims: true}
  s = Sub(x, m:output:0) {T: float32}"""
MIXING = f"@f({argument('x', '?,3')}) -> (y: float32, z: float32) {{ {MEAN}; return s:z:0, s:z:0 }}"
UNKNOWN = """@f(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) {
  c = NobodyKnows(x) {T: float32}; n = Neg(c:out:0) {T: float32}; return n:y:0 }"""


def rows(text: str, **changes: Any) -> RowReport:
    model = parse_model(text)
    return check_rows(model, replace(component(model, 8, (1, 2, 4, 8)), **changes), Inference(model))


def checked(text: str, *functions: str) -> Findings:
    model = parse_model(text)
    return check_components(model, [(f"named {f}", component(model, 8, (2, 8), f)) for f in functions])


# --- one component ----------------------------------------------------------------------------------------------


def test_a_result_is_proved_by_name_and_one_message_names_all_results_of_a_cause() -> None:
    text = f"@f({argument('x', '?,3')}) -> (y: float32, z: float32, w: float32) {{ {MEAN}; return s:z:0, s:z:0, x }}"
    report = rows(text)
    assert report.proved == {"w"}
    assert report.unclear == ""
    (message,) = report.mixed
    assert message.startswith('Output "y" and "z" mixes the rows of a batch: "m" (Mean) in f works across the rows of')
    assert message.endswith("or batch a function or signature in which each row is computed by itself.")


def test_batches_of_one_row_or_of_whole_requests_mix_nothing() -> None:
    assert rows(MIXING, largest_batch=1) == RowReport()
    assert rows(MIXING.replace("?,3", "8,3")) == RowReport()
    assert rows(MIXING.replace("?,3", "4,3")).mixed


@pytest.mark.parametrize(
    ("sizes", "tried"), [((1, 2, 4, 8), (4, 8)), ((1, 8), (8, 16)), ((1,), (2, 4)), ((), (2, 4)), ((3, 5), (3, 5))]
)
def test_two_sizes_greater_than_one_are_tried(sizes: tuple[int, ...], tried: tuple[int, int]) -> None:
    model = parse_model(MIXING)
    assert _two_sizes(replace(component(model), sizes=sizes)) == tried


def test_sizes_that_requests_decide_are_set_to_some_that_the_function_can_compute() -> None:
    # 8 and 64 are no multiple of 32 that leaves one window; 32 is.
    text = f"""@f({argument("x", "?,?")}) -> (y: float32) {{
      k = Const() {{dtype: float32, value: float32<32,2>}}
      m = MatMul(x, k:output:0) {{T: float32}}; return m:product:0 }}"""
    assert rows(text).proved == {"y"}
    none_fits = rows(text.replace("<32,2>", "<31,2>"))
    # With sizes left open, inference takes what the constant needs.
    assert none_fits.proved == {"y"}


def test_a_function_that_cannot_compute_its_arguments_is_unclear_and_says_why() -> None:
    text = f"""@f({argument("x", "?,3")}) -> (y: float32) {{
      k = Const() {{dtype: float32, value: float32<4,2>}}
      m = MatMul(x, k:output:0) {{T: float32}}; return m:product:0 }}"""
    report = rows(text)
    assert report.mixed == ()
    assert 'inside "f" cannot be inferred' in report.unclear


def test_recursion_is_unclear() -> None:
    text = f"""@f({argument("x", "?,3")}) -> (y: float32) {{ n = Neg(x) {{T: float32}}
      c = StatefulPartitionedCall(n:y:0) {{Tin: [float32], Tout: [float32], f: @g}}; return c:output:0 }}
    @g(x: float32) -> (y: float32) {{
      c = StatefulPartitionedCall(x) {{Tin: [float32], Tout: [float32], f: @g}}; return c:output:0 }}"""
    report = rows(text)
    assert report.mixed == ()
    assert report.proved == frozenset()
    assert "calls itself" in report.unclear


def test_an_op_that_tensorflow_does_not_know_is_unclear() -> None:
    report = rows(UNKNOWN)
    assert report.mixed == ()
    assert '"c" (NobodyKnows) in f is an op that TensorFlow does not know' in report.unclear


def test_what_is_captured_has_no_rows() -> None:
    text = f"""@f({argument("x", "?,3")}, {argument("c", "3")}) -> (y: float32) {{
      a = Add(x, c) {{T: float32}}; return a:z:0 }}"""
    assert rows(text, inputs=(0,)).proved == {"y"}


# --- several components -----------------------------------------------------------------------------------------


def test_one_message_for_each_cause_whichever_components_have_it() -> None:
    shared = f"""@a({argument("x", "?,3")}) -> (y: float32) {{
      c = PartitionedCall(x) {{Tin: [float32], Tout: [float32], f: @m}}; return c:output:0 }}
    @b({argument("x", "?,3")}) -> (y: float32) {{
      c = PartitionedCall(x) {{Tin: [float32], Tout: [float32], f: @m}}; return c:output:0 }}
    @m(x: float32) -> (y: float32) {{ {MEAN}; return s:z:0 }}"""
    found = checked(shared, "a", "b", "a")
    (message,) = found.certain
    assert message.startswith(
        'Batching "named a" (a) and "named b" (b): Output "y" mixes the rows of a batch: "m" (Mean)'
    )
    assert found.possible == []
    assert found.unclear == {}


def test_inputs_that_break_one_rule_alike_are_told_once() -> None:
    text = f"""@f({argument("k", "")}, {argument("l", "")}, {argument("x", "?,3")}) -> (y: float32) {{
      n = Neg(x) {{T: float32}}; return n:y:0 }}"""
    (message,) = checked(text, "f").certain
    assert message.startswith('Batching "named f" (f): Input "k" of shape []; Input "l" of shape [] is a scalar')


def test_what_depends_on_requests_is_possible_only() -> None:
    text = f"@f({argument('x', '?,?')}) -> (y: float32) {{ n = Neg(x) {{T: float32}}; return n:y:0 }}"
    found = checked(text, "f")
    assert found.certain == []
    assert ["may fail" in message for message in found.possible] == [True]


def test_unclear_rows_are_no_warning() -> None:
    found = checked(UNKNOWN, "f")
    assert (found.certain, found.possible) == ([], [])
    assert "(NobodyKnows)" in found.unclear["named f"]


def test_a_result_of_unknown_size_is_unclear_unless_its_rows_are_proved() -> None:
    text = f"""@f({argument("x", "?")}) -> (y: float32) {{
      u = Unique(x) {{T: float32, out_idx: int32}}; return u:y:0 }}"""
    found = checked(text, "f")
    assert (found.certain, found.possible) == ([], [])
    assert "(Unique)" in found.unclear["named f"]


# --- the pass and the report ------------------------------------------------------------------------------------


def batched(text: str, *, allow: bool = False) -> PassResult:
    component = FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, "f")
    options = BatchOptions(max_batch_size=8, allowed_batch_sizes=(2, 8), component=component)
    model = parse_model(f"object f = function @f\n{text}")
    return Batch((options,), allow).apply(model)


def summary_of(result: PassResult) -> list[str]:
    report = ConversionReport(Cost(), (PassReport("batch", 0.0, result),), 0, None, {}, {})
    return list(report.summary().lines)


def test_mixed_rows_refuse_and_are_a_warning_if_allowed() -> None:
    with pytest.raises(ConversionError, match=r'"m" \(Mean\) in f works across .* \(--allow_batching_violations'):
        batched(MIXING)
    result = batched(MIXING, allow=True)
    assert ['"m" (Mean) in f works across the rows' in warning for warning in result.warnings] == [True]
    assert result.changes
    assert result.details.to_json()["rows_unclear"] == {}


def test_unclear_rows_are_one_line_of_the_report() -> None:
    result = batched(UNKNOWN)
    why = 'output "y": "c" (NobodyKnows) in f is an op that TensorFlow does not know'
    assert result.details.to_json()["rows_unclear"] == {"f": why}
    assert [s.reason for s in result.skips if s.where == "f"] == [
        f"cannot tell whether rows of a batch influence each other: {why}"
    ]
    assert result.warnings == []
    assert [line for line in summary_of(result) if "Cannot tell" in line] == [
        f"Cannot tell whether rows of a batch influence each other in f: {why}"
    ]


# --- sizes that are passed to functions -------------------------------------------------------------------------

SIZES = f"""@f({argument("x", "?,4")}) -> (y: float32) {{
  s = Shape(x) {{T: float32, out_type: int32}}
  k = Const() {{dtype: bool, value: bool(true)}}
  CALL
  return c:output:0
}}
@g(x: float32, s: int32) -> (y: float32) {{
  r = Reshape(x, s) {{T: float32, Tshape: int32}}; n = Neg(r:output:0) {{T: float32}}; return n:y:0 }}
@body(x: float32, s: int32) -> (y: float32, t: int32) {{
  r = Reshape(x, s) {{T: float32, Tshape: int32}}; i = Identity(s) {{T: int32}}; return r:output:0, i:output:0 }}
@cond(x: float32, s: int32) -> (b: bool) {{ k = Const() {{dtype: bool, value: bool(false)}}; return k:output:0 }}"""


@pytest.mark.parametrize(
    "call",
    [
        "c = PartitionedCall(x, s:output:0) {Tin: [float32, int32], Tout: [float32], f: @g}",
        "c = StatelessIf(k:output:0, x, s:output:0) {Tcond: bool, Tin: [float32, int32], Tout: [float32], "
        "then_branch: @g, else_branch: @g}",
        "c = StatelessWhile(x, s:output:0) {T: [float32, int32], body: @body, cond: @cond}",
    ],
    ids=["call", "branch", "loop"],
)
def test_a_shape_that_is_passed_as_an_argument_is_known_within(call: str) -> None:
    text = SIZES.replace("CALL", call)
    assert infer(parse_model(text), "f", [(6, 4)]).result(0) == (6, 4)
    assert rows(text).proved == {"y"}


def test_numbers_that_branches_disagree_on_are_not_known_behind_them() -> None:
    text = f"""@f({argument("b", "", "bool")}, {argument("x", "?,4")}) -> (y: float32) {{
      c = StatelessIf(b) {{Tcond: bool, Tin: [], Tout: [int32], then_branch: @two, else_branch: @four}}
      r = Reshape(x, c:output:0) {{T: float32, Tshape: int32}}; return r:output:0 }}
    @two() -> (s: int32) {{ k = Const() {{dtype: int32, value: int32([-1, 2])}}; return k:output:0 }}
    @four() -> (s: int32) {{ k = Const() {{dtype: int32, value: int32([-1, 4])}}; return k:output:0 }}"""
    assert infer(parse_model(text), "f", [(), (6, 4)]).result(0) == (None, None)
    assert infer(parse_model(text.replace("@four}", "@two}")), "f", [(), (6, 4)]).result(0) == (12, 2)
