"""What calls a TPU function: loops, branches, other TPU functions, and the TPU's own computation."""

import re

import pytest

from converter.errors import ConversionError
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import assert_pass, assert_pass_raises
from tests.passes.place_on_tpu.models import F, functions, placed

FG = PlaceOnTpu(functions("F", "G"))

# --- what calls the function ------------------------------------------------------------------------------------


def test_a_function_that_is_called_from_within_another_one_is_placed_and_its_callers_become_stateful() -> None:
    main = "main {{ x = Placeholder() {{dtype: float32}}; y = {}(x) {{f: @serve, Tin: [float32], Tout: [float32]}} }}"
    serve = """
        @serve(x: float32) -> (y: float32) {} {{
          half = PartitionedCall(x) {{f: @helper, Tin: [float32], Tout: [float32]}}
          y = {}(half:output:0) {{f: @F, Tin: [float32], Tout: [float32]}}
          return y:output:0
        }}
        @helper(x: float32) -> (y: float32) {{ return x }}
        """
    assert_pass(
        F,
        main.format("PartitionedCall")
        + serve.format("", "PartitionedCall")
        + "@F(x: float32) -> (y: float32) { y = Neg(x) {T: float32}; return y:y:0 }",
        main.format("StatefulPartitionedCall")
        + serve.format("[stateful]", "StatefulPartitionedCall")
        + placed("F", "y = Neg(x) {T: float32}; return y:y:0"),
    )


LOOP = "{T: [float32], cond: @cond, body: @caller, parallel_iterations: 10, output_shapes: [<>]}"
BRANCHES = "{Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @caller, else_branch: @helper}"
CASES = "{Tin: [float32], Tout: [float32], branches: [@helper, @caller]}"
MAP = "{f: @caller, Targuments: [float32], Tcaptured: [], output_shapes: [<>], output_types: [float32]}"
BATCH = """{f: @caller, Tin: [float32], Tcaptured: [], Tout: [float32], num_batch_threads: 1, max_batch_size: 8,
            batch_timeout_micros: 0}"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"StatelessWhile(x) {LOOP}", f"While(x) {LOOP}"),
        (f"StatelessIf(p, x) {BRANCHES}", f"If(p, x) {BRANCHES}"),
        (f"StatelessCase(i, x) {CASES}", f"Case(i, x) {CASES}"),
        (f"MapDefun(x) {MAP}", f"MapDefun(x) {MAP}"),
        (f"BatchFunction(x) {BATCH}", f"BatchFunction(x) {BATCH}"),
        ("caller(x)", "caller(x)"),
    ],
    ids=["While", "If", "Case", "functional op", "BatchFunction", "function as an op"],
)
def test_callers_of_every_kind_lead_to_the_stub(before: str, after: str) -> None:
    def model(call: str, statefulness: str, inner_call: str, rest: str) -> str:
        return f"""
        main {{
          x = Placeholder() {{dtype: float32}}
          p = Placeholder() {{dtype: bool}}
          i = Placeholder() {{dtype: int32}}
          y = {call}
        }}
        @caller(x: float32) -> (y: float32) {statefulness} {{
          y = {inner_call}(x) {{f: @F, Tin: [float32], Tout: [float32]}}
          return y:output:0
        }}
        @cond(x: float32) -> (more: bool) {{
          c = Const() {{dtype: bool, value: bool(false)}}
          return c:output:0
        }}
        @helper(x: float32) -> (y: float32) {{ return x }}
        {rest}
        """

    assert_pass(
        F,
        model(before, "", "PartitionedCall", "@F(x: float32) -> (y: float32) { return x }"),
        model(after, "[stateful]", "StatefulPartitionedCall", placed("F", "return x")),
    )


def test_a_function_may_itself_be_the_body_of_a_loop_or_a_function_called_as_an_op() -> None:
    main = """
    main {{
      x = Placeholder() {{dtype: float32}}
      y = {}(x) {{T: [float32], cond: @cond, body: @F, output_shapes: [<>]}}
      z = F(y)
    }}
    @cond(x: float32) -> (more: bool) {{ c = Const() {{dtype: bool, value: bool(false)}}; return c:output:0 }}
    """
    assert_pass(
        F,
        main.format("StatelessWhile") + "@F(x: float32) -> (y: float32) { return x }",
        main.format("While") + placed("F", "return x"),
    )


# --- TPU functions that call each other -------------------------------------------------------------------------


def test_a_direct_call_of_another_tpu_function_calls_its_body() -> None:
    call = "y = PartitionedCall(x) {{f: @{}, Tin: [float32], Tout: [float32]}}; return y:output:0"
    # CPU code also calls G: it goes through G's stub.
    main = "main {{ x = Placeholder() {{dtype: float32}}; y = {}(x) {{f: @G, Tin: [float32], Tout: [float32]}} }}"
    assert_pass(
        FG,
        main.format("PartitionedCall")
        + f"@F(x: float32) -> (y: float32) {{ {call.format('G')} }} @G(x: float32) -> (y: float32) {{ return x }}",
        main.format("StatefulPartitionedCall") + placed("F", call.format("G_body")) + placed("G", "return x"),
        changes=["F: runs on the TPU as F_on_tpu", "G: runs on the TPU as G_on_tpu"],
    )


def test_a_direct_call_in_a_loop_or_as_an_op_calls_the_body_too() -> None:
    body = """
    y = StatelessWhile(x) {{T: [float32], cond: @cond, body: @{0}, output_shapes: [<>]}}
    z = {0}(y:output:0)
    return z:y:0
    """
    cond = "@cond(x: float32) -> (more: bool) { c = Const() {dtype: bool, value: bool(false)}; return c:output:0 }"
    assert_pass(
        FG,
        cond + f"@F(x: float32) -> (y: float32) {{ {body.format('G')} }} @G(x: float32) -> (y: float32) {{ return x }}",
        cond + placed("F", body.format("G_body")) + placed("G", "return x"),
    )


def test_a_recursive_function_calls_its_own_body_on_the_tpu() -> None:
    body = "y = StatefulPartitionedCall(x) {{f: @{}, Tin: [float32], Tout: [float32]}}; return y:output:0"
    assert_pass(
        F,
        f"@F(x: float32) -> (y: float32) {{ {body.format('F')} }}",
        placed("F", body.format("F_body")),
    )


HELPERS = {
    "call": "y = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}; return y:output:0",
    "loop": "y = While(x) {T: [float32], cond: @cond, body: @G, output_shapes: [<>]}; return y:output:0",
    "op": "y = G(x); return y:y:0",
}


@pytest.mark.parametrize("body", HELPERS.values(), ids=HELPERS)
def test_an_indirect_call_is_refused_in_the_words_of_the_reference(body: str) -> None:
    text = f"""
    @F(x: float32) -> (y: float32) {{
      y = PartitionedCall(x) {{f: @helper, Tin: [float32], Tout: [float32]}}
      return y:output:0
    }}
    @helper(x: float32) -> (y: float32) {{ {body} }}
    @cond(x: float32) -> (more: bool) {{ c = Const() {{dtype: bool, value: bool(false)}}; return c:output:0 }}
    @G(x: float32) -> (y: float32) {{ return x }}
    """
    message = (
        'Unable to place both "F" and "G" on the TPU because "F" indirectly calls "G". This behavior is unsupported '
        "because it can cause invalid graphs to be generated."
    )
    assert_pass_raises(FG, text, ConversionError, f"^{re.escape(message)}$")
    assert_pass_raises(PlaceOnTpu(functions("G", "F")), text, ConversionError, f"^{re.escape(message)}$")


def test_an_indirect_call_is_refused_although_there_is_a_direct_one_as_well() -> None:
    assert_pass_raises(
        FG,
        """
        @F(x: float32) -> (y: float32) {
          a = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}
          y = PartitionedCall(a:output:0) {f: @helper, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        @helper(x: float32) -> (y: float32) {
          y = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        @G(x: float32) -> (y: float32) { return x }
        """,
        ConversionError,
        'Unable to place both "F" and "G" on the TPU',
    )


# --- models that have TPU computation already -------------------------------------------------------------------


def test_a_function_that_is_on_the_tpu_already_is_skipped() -> None:
    text = placed("F", "return x")
    assert_pass(F, text, text, changes=[], skips=["F: is on the TPU already"])


def test_another_tpu_call_of_the_model_is_left_as_it_is() -> None:
    theirs = """
    @other(x: float32) -> (y: float32) [stateful] {
      ordinal = Const() {dtype: int32, value: int32(1)}
      TPUPartitionedCall = TPUPartitionedCall(x, ordinal:output:0)
        {f: @theirs, Tin: [float32], Tout: [float32], autotuner_thresh: 5}
      return TPUPartitionedCall:output:0
    }
    @theirs(x: float32) -> (y: float32) { return x }
    """
    assert_pass(
        F,
        theirs + "@F(x: float32) -> (y: float32) { return x }",
        theirs + placed("F", "return x"),
        changes=["F: runs on the TPU as F_on_tpu"],
    )


def test_a_function_that_reaches_the_tpu_after_work_of_its_own_is_refused() -> None:
    assert_pass_raises(
        F,
        """
        @F(x: float32) -> (y: float32) [stateful] {
          n = Neg(x) {T: float32}
          y = StatefulPartitionedCall(n:y:0) {f: @G, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        """
        + placed("G", "return x"),
        ConversionError,
        r'^"F" cannot be put on the TPU: it reaches "G", which calls the TPU already, and a TPU function cannot '
        r"call the TPU\. Name functions that do not contain TPU computation\.$",
    )
