"""What cannot be batched is refused, or left alone, and the report says so."""

import re

from converter.errors import ConversionError
from converter.passes.batching.batch import Batch
from tests.harness import assert_pass, assert_pass_raises
from tests.passes.batching.models import ALIAS, batch, nested, queues, run


def test_a_batch_inside_of_a_batch_is_refused_by_both_names() -> None:
    plain = nested("m = Neg(x) {T: float32}; return m:y:0 }")
    assert_pass_raises(
        batch("outer", "inner", kind=ALIAS),
        plain,
        ConversionError,
        r'Batching both "outer" \(outer\) and "inner" \(inner\) would batch twice',
    )
    attrs = "num_batch_threads: 1, max_batch_size: 8, batch_timeout_micros: 0"
    existing = nested(
        f"b = BatchFunction(x) {{Tcaptured: [], Tin: [float32], Tout: [float32], f: @leaf, {attrs}}}\n"
        "return b:out_tensors:0 }\n"
        "@leaf(x: float32) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }"
    )
    assert_pass_raises(
        batch("outer"),
        existing,
        ConversionError,
        r'Batching both "outer" \(outer\) and the batching op "b" in inner would batch twice',
    )
    assert_pass_raises(
        batch("leaf"),
        existing,
        ConversionError,
        r'Batching both the batching op "b" in inner and "leaf" \(leaf\) would batch twice',
    )


ON_TPU = """
  core = TPUOrdinalSelector()
  t = TPUPartitionedCall(x, core:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @device}
  return t:output:0, ^t
}
@device(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) {
  c = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @helper}; return c:output:0
}
@helper(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }
"""


def test_a_component_that_runs_on_the_tpu_is_refused() -> None:
    for name in ("helper", "device"):
        assert_pass_raises(
            batch(name),
            nested(ON_TPU),
            ConversionError,
            rf'"{name}" \({name}\) cannot be batched: it is called on the TPU, and the batching op can only run',
        )


def test_a_tpu_function_inside_of_a_batched_function_counts_as_batched() -> None:
    model, result = run(batch("outer"), nested(ON_TPU))
    assert not result.skips
    assert [(b["name"], b["tpu_functions"]) for b in result.details.to_json()["batched"]] == [("outer", ["inner"])]
    _, again = run(batch(), nested(ON_TPU))
    assert [(b["name"], b["what"]) for b in again.details.to_json()["batched"]] == [("inner", "TPU function")]
    # The default entry leaves to a component what the component batches.
    both = Batch((*batch().options, *batch("outer").options))
    _, result = run(both, nested(ON_TPU))
    assert [b["name"] for b in result.details.to_json()["batched"]] == ["outer"]
    assert not result.skips
    assert queues(model) == ["batch_outer"]


def test_naming_components_leaves_other_tpu_functions_unbatched_and_says_so() -> None:
    text = (
        nested(ON_TPU)
        + """
    @other(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }"""
    )
    _, result = run(batch("other"), text)
    assert [s.where for s in result.skips] == ["inner"]
    assert "batch_options name other components" in result.skips[0].reason
    assert result.details.to_json()["not_batched"] == {"inner": result.skips[0].reason}
    assert result.details.lines() == [
        "Batched: other (rows padded 1-4 -> 4, 5-8 -> 8)",
        f"Not batched: inner: {result.skips[0].reason}",
    ]


def test_a_tpu_function_called_inside_and_outside_of_a_batch_is_not_batched_twice() -> None:
    text = nested(ON_TPU).replace("-> y=call:0", '-> y=call:0\nsignature "direct" x=x:0 float32<?,3> -> y=direct:0')
    call = "direct = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @inner}"
    text = text.replace("main {", f"main {{\n {call}")
    both = Batch((*batch().options, *batch("outer").options))
    _, result = run(both, text)
    assert [s.where for s in result.skips] == ["inner"]
    assert 'called both inside of the batch of "outer" and outside of it' in result.skips[0].reason


def test_a_function_named_by_two_routes_is_refused() -> None:
    one, two = batch("outer", kind=ALIAS).options[0], batch("outer").options[0]
    assert_pass_raises(
        Batch((one, two)),
        nested("m = Neg(x) {T: float32}; return m:y:0 }"),
        ConversionError,
        r'"outer" is named twice in batch_options: by function_alias: "outer" and by concrete_function_name: "outer"',
    )


def test_without_an_input_of_the_request_there_is_nothing_to_batch() -> None:
    text = """
    object F = function @F
    signature "serving_default" -> y=call:0
    main {
      c = Const() {dtype: float32, value: float32([1, 2])}
      call = StatefulPartitionedCall(c) {Tin: [float32], Tout: [float32], f: @F}
    }
    @F(c: float32) -> (y: float32) [stateful] {
      core = TPUOrdinalSelector()
      t = TPUPartitionedCall(c, core:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @F_on_tpu}
      return t:output:0, ^t
    }
    @F_on_tpu(c: float32) -> (y: float32) { m = Neg(c) {T: float32}; return m:y:0 }
    """.replace("object F = function @F\n", "")
    assert_pass(batch(), text, text, changes=[], skips=[re.compile("no input that belongs to the request")])
    assert_pass_raises(
        batch("F"), text, ConversionError, r'"F" \(F\) cannot be batched: it has no input that belongs to the request'
    )


def test_a_variable_that_differs_between_callers_is_refused() -> None:
    text = """
    signature "serving_default" x=x:0 float32<?,3> -> y=one:0, z=two:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,3>}
      v = VarHandleOp() {dtype: float32, shape: <3>, shared_name: "v"}
      w = VarHandleOp() {dtype: float32, shape: <3>, shared_name: "w"}
      one = StatefulPartitionedCall(x, v) {Tin: [float32, resource], Tout: [float32], f: @f}
      two = StatefulPartitionedCall(x, w) {Tin: [float32, resource], Tout: [float32], f: @f}
    }
    @f(x: float32, v: resource) -> (y: float32) {
      r = ReadVariableOp(v) {dtype: float32}; m = Mul(x, r:value:0) {T: float32}
      return m:z:0
    }
    """
    message = r'its argument "v" is a resource that is not the same in every call'
    assert_pass_raises(batch("f"), text, ConversionError, message)


def test_certain_violations_refuse_and_are_warnings_if_allowed() -> None:
    text = nested("s = Const() {dtype: int32, value: int32([0])}\n"
                  "m = Sum(x, s:output:0) {T: float32, Tidx: int32}; return m:output:0 }")  # fmt: skip
    message = (
        r'Batching "inner" \(inner\): Output "y" of shape \[3\] has 3 rows in a batch of 4, which breaks requirement '
        r"4 of the batching op .* \(--allow_batching_violations converts all the same\.\)"
    )
    assert_pass_raises(batch("inner"), text, ConversionError, message)
    _, result = run(batch("inner", allow_violations=True), text)
    assert len(result.warnings) == 1
    assert result.changes


def test_the_adaptive_scheduler_always_splits_and_that_is_said() -> None:
    _, result = run(
        batch("inner", num_batch_threads=0, enable_large_batch_splitting=False),
        nested("m = Neg(x) {T: float32}; return m:y:0 }"),
    )
    assert ["adaptive scheduler always splits" in w for w in result.warnings] == [True]
