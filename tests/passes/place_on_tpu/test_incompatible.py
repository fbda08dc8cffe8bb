"""Functions that cannot go to the TPU are refused by name, or warned of."""

import re

import pytest

from converter.errors import ConversionError
from converter.graph.invariants import check_structure
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import assert_pass, assert_pass_raises, parse_model
from tests.passes.place_on_tpu.models import F, functions, placed


def test_a_function_without_results_is_refused() -> None:
    assert_pass_raises(
        F,
        "@F(x: float32) -> () { n = NoOp(^x); return ^n }",
        ConversionError,
        r'^"F" cannot be put on the TPU: it has no results\. Found 0 output tensors, expected at least 1; let '
        r"the function return what it computes\.$",
    )


ADVICE = (
    r"The TPU takes no strings, variants or tables: keep the part of the model that needs them on the CPU, in the "
    r"caller, and let the TPU function take and return plain numeric tensors"
)
INCOMPATIBLE = [
    pytest.param(
        '@F(arg: string {_user_specified_name: "text"}) -> (y: int32) { y = StringLength(arg); return y:output:0 }',
        'argument "text" is a string tensor',
        ["StringLength"],
        id="string argument",
    ),
    pytest.param(
        "@F(x: float32, list: variant) -> (y: float32) { return x }",
        'argument "list" is a variant tensor',
        [],
        id="variant argument",
    ),
    pytest.param(
        "@F(table: resource, x: int64, default: float32) -> (y: float32) {"
        "  y = LookupTableFindV2(table, x, default) {Tin: int64, Tout: float32}; return y:values:0 }",
        'argument "table" is a resource that is no variable (a lookup table or the like, used by op LookupTableFindV2)',
        ["LookupTableFindV2"],
        id="table argument",
    ),
    pytest.param(
        "@F(x: float32) -> (name: string) { c = AsString(x) {T: float32}; return c:output:0 }",
        'result "name" is a string tensor',
        ["AsString"],
        id="string result",
    ),
    pytest.param(
        "@F(x: float32, v: resource) -> (same: resource, y: float32) [stateful] { return v, x }",
        'result "same" is a resource tensor',
        [],
        id="resource result",
    ),
    pytest.param(
        "@F(x: float32, v: resource(string<>)) -> (y: float32) [stateful] {"
        "  r = ReadVariableOp(v) {dtype: string}; return x, ^r }",
        'argument "v" is a variable of strings or variants',
        [],
        id="string variable",
    ),
]


@pytest.mark.parametrize(("text", "problem", "missing"), INCOMPATIBLE)
def test_what_cannot_cross_to_the_tpu_is_refused_by_name(text: str, problem: str, missing: list[str]) -> None:
    assert_pass_raises(
        F,
        text,
        ConversionError,
        rf'^"F" cannot be put on the TPU: {re.escape(problem)}\. {ADVICE}\. '
        r"\(--allow_incompatible converts all the same\.\)$",
    )


@pytest.mark.parametrize(("text", "problem", "missing"), INCOMPATIBLE)
def test_with_allow_incompatible_it_is_a_warning(text: str, problem: str, missing: list[str]) -> None:
    model = parse_model(text)
    result = PlaceOnTpu(functions("F"), allow_incompatible=True).apply(model)
    check_structure(model)
    assert re.search(rf"{re.escape(problem)}\. {ADVICE}\.$", result.warnings[0])
    assert [c.where for c in result.changes] == ["F"]
    expected = [f"holds ops that have no TPU kernel: {', '.join(missing)}."] if missing else []
    assert len(result.warnings) == 1 + len(expected)
    assert all(text in warning for text, warning in zip(expected, result.warnings[1:], strict=True))


def test_all_problems_of_a_function_are_told_at_once() -> None:
    assert_pass_raises(
        F,
        "@F(a: string, b: variant) -> (c: string) { return a }",
        ConversionError,
        r'argument "a" is a string tensor; argument "b" is a variant tensor; result "c" is a string tensor\. ',
    )


def test_a_table_is_found_behind_calls_loops_and_branches() -> None:
    assert_pass_raises(
        F,
        """
        @F(p: bool, table: resource {_user_specified_name: "12"}, x: int64) -> (y: int64) [stateful] {
          y = If(p, table, x)
            {Tcond: bool, Tin: [resource, int64], Tout: [int64], then_branch: @then, else_branch: @e}
          return y:output:0
        }
        @e(t: resource, x: int64) -> (y: int64) { return x }
        @then(t: resource, x: int64) -> (y: int64) {
          again = Identity(t) {T: resource}
          y = While(x, again:output:0)
            {T: [int64, resource], cond: @cond, body: @loop_body, output_shapes: [<>, <>]}
          return y:output:0
        }
        @cond(x: int64, t: resource) -> (more: bool) {
          c = Const() {dtype: bool, value: bool(false)}
          return c:output:0
        }
        @loop_body(x: int64, t: resource) -> (y: int64, same: resource) {
          y = LookupTableFindV2(t, x, x) {Tin: int64, Tout: int64}
          return y:values:0, t
        }
        """,
        ConversionError,
        # A capture's recorded name is a number, which would tell nothing.
        r'argument "table" is a resource that is no variable \(a lookup table or the like, used by op '
        r"LookupTableFindV2\)",
    )


def test_ops_without_a_tpu_kernel_are_warned_of_wherever_they_are() -> None:
    body = """
        y = PartitionedCall(x) {f: @helper, Tin: [float32], Tout: [float32]}; return y:output:0"""
    helper = """
    @helper(x: float32) -> (y: float32) {
      s = AsString(x) {T: float32}
      l = StringLength(s:output:0)
      y = Cast(l:output:0) {SrcT: int32, DstT: float32}
      return y:y:0
    }
    """
    assert_pass(
        F,
        helper + f"@F(x: float32) -> (y: float32) {{ {body} }}",
        helper + placed("F", body),
        warnings=[
            '"F" holds ops that have no TPU kernel: AsString, StringLength. Unless they are optimized away, the '
            "TPU will refuse the function when it is first served; move them to the CPU."
        ],
    )
