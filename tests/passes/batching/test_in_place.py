"""Batch, rule 2: a TPU call among other work becomes a batching op where it stands, and nothing around it is lost."""

import re

import pytest

from converter.errors import ConversionError
from converter.graph import shapes
from converter.graph.model import Model
from converter.options.slices import BatchOptions
from converter.passes.batching.batch import Batch
from converter.passes.pass_result import PassResult
from tests.harness import assert_pass, parse_model, render_function

OPTIONS = BatchOptions(max_batch_size=8, num_batch_threads=2, allowed_batch_sizes=(4, 8))
PASS = Batch((OPTIONS,))
NEW = (
    "allowed_batch_sizes: [4, 8], batch_timeout_micros: 0, enable_large_batch_splitting: true, f: @F_batched, "
    'max_batch_size: 8, num_batch_threads: 2, shared_name: "batch_F_batched"'
)
ONE = "Tin: [float32], Tout: [float32]"
SHAPE = "{_output_shapes: [<?,3>]}"
F = f"@F(x: float32 {SHAPE}) -> (y: float32) {{ return x }}"
MAIN = f"""
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,3>}}
  call = StatefulPartitionedCall(x) {{{ONE}, f: @serve}}
}}
{F}
"""


def alone(ordinal: str = "TPUOrdinalSelector()", output: str = "device_ordinals") -> str:
    """The function that the batching op calls."""
    return f"""
    @F_batched(argument_0: float32) -> (result_0: float32) [stateful] {{
      device_ordinal = {ordinal}
      TPUPartitionedCall = TPUPartitionedCall(argument_0, device_ordinal:{output}:0) {{{ONE}, f: @F}}
      return TPUPartitionedCall:output:0, ^TPUPartitionedCall
    }}
    """


def serve(body: str, results: str = "t:{}:0, ^t") -> str:
    head = f"@serve(x: float32 {SHAPE}) -> (y: float32) [stateful] {{ n = Neg(x) {{T: float32}}"
    return f"{head}\n {body}\n return {results} }}"


TPU = f"t = TPUPartitionedCall(n:y:0{{}}, core:device_ordinals:0{{}}) {{{{{ONE}, f: @F}}}}"
BATCHED = f"t = BatchFunction(n:y:0{{}}) {{{{Tcaptured: [], {ONE}, {NEW}}}}}"


def test_what_must_run_before_the_call_still_does_and_what_runs_after_it_too() -> None:
    before = "w = Relu(x) {T: float32}; v = Relu(n:y:0) {T: float32}"
    after = "a = NoOp(^t); b = Neg(t:{}:0, ^t) {{T: float32}}"
    core = "core = TPUOrdinalSelector()"
    assert_pass(
        PASS,
        MAIN + serve(f"{before}; {core}; {TPU.format('', ', ^w, ^v')}; {after.format('output')}", "b:y:0, ^t, ^a"),
        MAIN
        + serve(f"{before}; {BATCHED.format(', ^w, ^v')}; {after.format('out_tensors')}", "b:y:0, ^t, ^a")
        + alone(),
        changes=["serve: TPU call batched as F_batched"],
    )


@pytest.mark.parametrize(
    ("user", "results"),
    [
        ("u = Identity(core:device_ordinals:0) {T: int32}", "t:{}:0, ^t"),
        ("u = NoOp(^core)", "t:{}:0, ^t, ^u"),
        ("", "t:{}:0, ^t, ^core"),
    ],
)
def test_an_ordinal_that_others_use_stays(user: str, results: str) -> None:
    core = "core = TPUOrdinalSelector()"
    assert_pass(
        PASS,
        MAIN + serve(f"{core}; {user}; {TPU.format('', '')}", results.format("output")),
        MAIN + serve(f"{core}; {user}; {BATCHED.format('')}", results.format("out_tensors")) + alone(),
    )


def test_an_ordinal_that_nobody_else_uses_goes() -> None:
    others = "u = NoOp(^n); core2 = TPUOrdinalSelector()"
    assert_pass(
        PASS,
        MAIN + serve(f"{others}; core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t, ^u"),
        MAIN + serve(f"{others}; {BATCHED.format('')}", "t:out_tensors:0, ^t, ^u") + alone(),
    )


def test_a_call_on_a_core_of_its_own_keeps_it() -> None:
    core = "core = Const() {dtype: int32, value: int32(3)}"
    call = TPU.format("", "").replace("device_ordinals", "output")
    assert_pass(
        PASS,
        MAIN + serve(f"{core}; {call}", "t:output:0, ^t"),
        MAIN + serve(BATCHED.format(""), "t:out_tensors:0, ^t") + alone(core[7:], "output"),
    )


def test_calls_of_the_main_graph_keep_their_names_and_their_users() -> None:
    text = f"""
    signature "serving_default" x=x:0 float32<?,3> -> y=t:0, z=last:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,3>}}
      CORE t = CALL
      last = Neg(t, ^t) {{T: float32}}
    }}
    {F}
    """
    call = f"TPUPartitionedCall(x, core) {{{ONE}, f: @F}}"
    batched = f"BatchFunction(x) {{Tcaptured: [], {ONE}, {NEW}}}"
    assert_pass(
        PASS,
        text.replace("CORE", "core = TPUOrdinalSelector();").replace("CALL", call),
        text.replace("CORE", "").replace("CALL", batched) + alone(),
        changes=["main graph: TPU call batched as F_batched"],
    )


def test_the_new_function_knows_what_variables_its_captures_are() -> None:
    model = parse_model(f"""
    object v = variable float32<4>
    object serve = function @serve(v)
    @serve(x: float32 {SHAPE}, v: resource(float32<4>)) -> (y: float32, z: int32) [stateful] {{
      n = Neg(x) {{T: float32}}; core = TPUOrdinalSelector()
      t = TPUPartitionedCall(v, n:y:0, core:device_ordinals:0) {{
        Tin: [resource, float32], Tout: [float32, int32], f: @F}}
      return t:output:0, t:output:1, ^t
    }}
    @F(v: resource(float32<4>), x: float32) -> (y: float32, z: int32) {{
      c = Cast(x) {{SrcT: float32, DstT: int32}}; return x, c:y:0
    }}
    """)
    PASS.apply(model)
    expected = parse_model("""
    @F(v: resource, x: float32) -> (y: float32) { return x }
    @F_batched(argument_1: float32, argument_0: resource(float32<4>)) -> (result_0: float32, result_1: int32) [
      stateful] {
      device_ordinal = TPUOrdinalSelector()
      TPUPartitionedCall = TPUPartitionedCall(argument_0, argument_1, device_ordinal:device_ordinals:0) {
        Tin: [resource, float32], Tout: [float32, int32], f: @F}
      return TPUPartitionedCall:output:0, TPUPartitionedCall:output:1, ^TPUPartitionedCall
    }
    """)
    assert render_function(model.functions["F_batched"]) == render_function(expected.functions["F_batched"])


def test_callers_of_a_call_in_place_become_stateful_and_are_not_compiled() -> None:
    text = MAIN.replace("StatefulPartitionedCall(x) {", "PartitionedCall(x) {_XlaMustCompile: true, ")
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    model = parse_model(text + body.replace("[stateful]", "[_XlaMustCompile: true]"))
    PASS.apply(model)
    (call,) = [n for n in model.graph_def.node if n.name == "call"]
    assert (call.op, "_XlaMustCompile" in call.attr) == ("StatefulPartitionedCall", False)
    assert model.functions["serve"].signature.is_stateful
    assert "_XlaMustCompile" not in model.functions["serve"].attr


# --------------------------------------------------------------------------------------------- shapes, details, options


def run(text: str, *options: BatchOptions, allow: bool = False) -> tuple[Model, PassResult]:
    model = parse_model(text)
    return model, Batch(options or (OPTIONS,), allow).apply(model)


def test_shapes_that_the_called_function_does_not_record_come_from_what_feeds_it() -> None:
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    text = MAIN.replace(F, F.replace(SHAPE, "")) + body
    assert run(text)[1].warnings == []
    _, result = run(text.replace(f"@serve(x: float32 {SHAPE})", "@serve(x: float32)").replace("<?,3>}", "<*>}"))
    assert result.warnings
    assert all(w.startswith('Batching "F" (F): ') for w in result.warnings)
    # What it records is what counts.
    scalar = text.replace("@F(x: float32 )", "@F(x: float32 {_output_shapes: [<>]})")
    with pytest.raises(ConversionError, match=r'Batching "F" \(F\): Input "x" of shape \[\] is a scalar'):
        run(scalar)


def test_a_function_that_is_called_twice_is_checked_once() -> None:
    calls = f"u = TPUPartitionedCall(n:y:0, core:device_ordinals:0) {{{ONE}, f: @F}}"
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}; {calls}", "t:output:0, ^t, ^u")
    text = (MAIN + body).replace("<?,3>", "<?,?>")
    _, result = run(text)
    assert len(result.changes) == 2
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith('Batching "F" (F): Input "x" of shape [None, None] may have other sizes')


def test_details_tell_what_was_batched_and_how() -> None:
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    _, result = run(MAIN + body)
    (each,) = result.details.to_json()["batched"]
    assert each == {
        "name": "F",
        "what": "TPU call",
        "function": "F_batched",
        "queue": "batch_F_batched",
        "inputs": 1,
        "captures": 0,
        "tpu_functions": ["F"],
        "options": {
            "num_batch_threads": 2,
            "max_batch_size": 8,
            "batch_timeout_micros": 0,
            "max_enqueued_batches": 10,
            "allowed_batch_sizes": [4, 8],
            "enable_large_batch_splitting": True,
        },
        "padding": [
            {"rows": "1-4", "padded_to": 4, "waste": 0.75},
            {"rows": "5-8", "padded_to": 8, "waste": 0.375},
        ],
    }
    assert result.details.to_json()["not_batched"] == {}
    assert result.details.lines() == ["Batched: F (rows padded 1-4 -> 4, 5-8 -> 8)"]


UPDATE = f"""
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,3>}}
  c = Const() {{dtype: float32, value: float32([1, 2, 3])}}
  call = BatchFunction(x, c) {{Tin: [float32], Tcaptured: [float32], Tout: [float32], f: @g, max_batch_size: 8,
    num_batch_threads: 1, batch_timeout_micros: 0, allowed_batch_sizes: [3, 8]}}
}}
@g(x: float32 {SHAPE}, c: float32 {{_output_shapes: [<>]}}) -> (y: float32) {{ BODY }}
"""
FOLD = "s = Const() {dtype: int32, value: int32([-1, 12])}; r = Reshape(x, s:output:0) {T: float32, Tshape: int32}"


def test_an_update_is_checked_for_the_sizes_that_it_keeps() -> None:
    model, result = run(UPDATE.replace("BODY", "return x"), BatchOptions(max_batch_size=8, num_batch_threads=2))
    assert result.warnings == [], "a capture may be a scalar"
    assert [c.where for c in result.changes] == ["main graph"]
    (batched,) = result.details.to_json()["batched"]
    assert (batched["queue"], batched["captures"]) == ("call", 1)
    assert model.graph_def.node[2].attr["num_batch_threads"].i == 2
    folded = UPDATE.replace("BODY", f"{FOLD}; return r:output:0")
    with pytest.raises(ConversionError, match=r'Batching "main graph" \(g\): .* in a batch of 3'):
        run(folded, BatchOptions(max_batch_size=8, num_batch_threads=2))
    with pytest.raises(ConversionError, match=r'Output "y" of shape \[1, 12\] has 1 rows in a batch of 4'):
        run(folded, BatchOptions(max_batch_size=8, allowed_batch_sizes=(4, 8)))
    _, result = run(folded, BatchOptions(max_batch_size=8, allowed_batch_sizes=(4, 8)), allow=True)
    assert ["has 1 rows in a batch of 4" in w for w in result.warnings] == [True]


def test_an_update_that_the_op_would_refuse_changes_nothing() -> None:
    model = parse_model(UPDATE.replace("BODY", "return x"))
    before = model.saved_model.SerializeToString(deterministic=True)
    with pytest.raises(ConversionError, match=r"keeps its allowed_batch_sizes \[3, 8\], whose last must be at most"):
        Batch((BatchOptions(max_batch_size=4),)).apply(model)
    assert model.saved_model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("threads", "splits", "warned"), [(0, False, True), (1, False, False), (0, True, False)])
def test_an_update_without_threads_always_splits_and_that_is_said(threads: int, splits: bool, warned: bool) -> None:
    text = UPDATE.replace("BODY", "return x").replace("num_batch_threads: 1", f"num_batch_threads: {threads}")
    options = BatchOptions(max_batch_size=8, enable_large_batch_splitting=splits)
    _, result = run(text, options)
    assert [bool(re.search("adaptive scheduler always splits", w)) for w in result.warnings] == [True] * warned


def test_outputs_are_called_what_the_signature_calls_them() -> None:
    """A function of two results that two signatures are made of, one of them with the second result alone."""
    total = "a = Const() {dtype: int32, value: int32([0])}; s = Sum(x, a:output:0) {T: float32, Tidx: int32}"
    text = f"""
    object f = function @f
    signature "both" x=x:0 float32<?,3> -> first=call, second=call:1
    signature "none" x=x:0 float32<?,3> -> wrong=other
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,3>}}
      other = Neg(x) {{T: float32}}
      call = StatefulPartitionedCall(x) {{Tin: [float32], Tout: [float32, float32], f: @f}}
      core = TPUOrdinalSelector()
    }}
    @f(x: float32 {SHAPE}) -> (y: float32, z: float32) [stateful] {{
      core = TPUOrdinalSelector()
      t = TPUPartitionedCall(x, core:device_ordinals:0) {{Tin: [float32], Tout: [float32, float32], f: @F}}
      return t:output:0, t:output:1, ^t
    }}
    @F(x: float32 {SHAPE}) -> (y: float32, z: float32) {{ {total}; return RESULTS }}
    """
    with pytest.raises(ConversionError, match=r'Output "second" of shape \[3\] has 3 rows in a batch of 4'):
        run(text.replace("RESULTS", "x, s:output:0"))
    with pytest.raises(ConversionError, match=r'Output "first" of shape \[3\] has 3 rows in a batch of 4'):
        run(text.replace("RESULTS", "s:output:0, x"))
    unnamed = text.replace('signature "both"', '# signature "both"')
    with pytest.raises(ConversionError, match=r'Output "y" of shape \[3\] has 3 rows in a batch of 4'):
        run(unnamed.replace("RESULTS", "s:output:0, x"))


def test_a_function_that_promised_a_number_of_rows_promises_none_in_a_batch() -> None:
    text = """
    @f(x: float32 {_output_shapes: [<1,3>]}, y: float32 {_output_shapes: [<1>]}) -> (z: float32) [stateful] {
      core = TPUOrdinalSelector()
      t = TPUPartitionedCall(x, y, core:device_ordinals:0) {Tin: [float32, float32], Tout: [float32], f: @F}
      return t:output:0, ^t
    }
    @F(x: float32, y: float32) -> (z: float32) { return x }
    """
    model, _ = run(text)
    assert shapes.declared_shapes(model.functions["f_batched"]) == [(None, 3), (None,)]
    assert shapes.declared_shapes(model.functions["f"]) == [(1, 3), (1,)], "its callers are as they were"


def test_violations_are_allowed_only_if_asked() -> None:
    assert not PASS.allow_violations
    total = "a = Const() {dtype: int32, value: int32([0])}; s = Sum(x, a:output:0) {T: float32, Tidx: int32}"
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    text = MAIN.replace("{ return x }", f"{{ {total}; return s:output:0 }}") + body
    with pytest.raises(ConversionError, match=r"has 3 rows in a batch of 4"):
        PASS.apply(parse_model(text))


@pytest.mark.parametrize(("threads", "warned"), [(None, True), (0, True), (2, False)])
def test_a_new_op_without_threads_always_splits_and_that_is_said(threads: int | None, warned: bool) -> None:
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    options = BatchOptions(max_batch_size=8, num_batch_threads=threads, enable_large_batch_splitting=False)
    _, result = run(MAIN + body, options)
    assert ["adaptive scheduler always splits" in w for w in result.warnings] == [True] * warned


def test_a_shape_that_is_recorded_goes_before_what_feeds_the_call() -> None:
    types = "Tin: [float32, float32], Tout: [float32]"
    text = f"""
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,?>}}
      core = TPUOrdinalSelector()
      t = TPUPartitionedCall(x, x, core) {{{types}, f: @F}}
    }}
    @F(x: float32 {SHAPE}, unrecorded: float32) -> (y: float32) {{ return x }}
    """
    _, result = run(text)
    assert ['Input "unrecorded"' in w for w in result.warnings] == [True], result.warnings


@pytest.mark.parametrize(("allowed", "largest"), [((2, 4), 4), ((), 8)])
def test_requests_that_fill_the_largest_batch_are_checked_for_it_alone(allowed: tuple[int, ...], largest: int) -> None:
    """Twelve values make rows of three for as many rows as the request always has, and for no other number."""
    target = f"s = Const() {{dtype: int32, value: int32([{largest}, 3])}}"
    reshape = "r = Reshape(x, s:output:0) {T: float32, Tshape: int32}"
    body = serve(f"core = TPUOrdinalSelector(); {TPU.format('', '')}", "t:output:0, ^t")
    text = MAIN.replace("{ return x }", f"{{ {target}; {reshape}; return r:output:0 }}") + body
    _, result = run(
        text.replace("<?,3>", f"<{largest},3>"), BatchOptions(max_batch_size=8, allowed_batch_sizes=allowed)
    )
    assert [f"requests of exactly {largest} rows" in w for w in result.warnings] == [True]
