"""Batch: what each rewrite rule makes of a graph, what is left alone and why, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ConversionError
from converter.graph.model import Model
from converter.options.parse import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.batch import Batch
from converter.passes.batching.op import padding_table
from converter.passes.pass_result import PassResult
from tests.harness import assert_pass, assert_pass_raises, parse_model, render

ALIAS, CONCRETE, SIGNATURE = (
    FunctionKind.FUNCTION_ALIAS,
    FunctionKind.CONCRETE_FUNCTION_NAME,
    FunctionKind.SIGNATURE_NAME,
)


def batch(*names: str, kind: FunctionKind = CONCRETE, allow_violations: bool = False, **options: Any) -> Batch:
    """The pass with the same options for each named component; for the default without names."""
    options = {"num_batch_threads": 2, "max_batch_size": 8, "allowed_batch_sizes": (4, 8), **options}
    components: list[FunctionRef | None] = [FunctionRef(kind, name) for name in names] or [None]
    return Batch(tuple(BatchOptions(component=c, **options) for c in components), allow_violations)


NEW = (
    "allowed_batch_sizes: [4, 8], batch_timeout_micros: 0, enable_large_batch_splitting: true, {}max_batch_size: 8, "
    "num_batch_threads: 2"
)

CPU_FUNCTION = """
object v = variable float32<3>
object f = function @f(v)
signature "serving_default" x=x:0 float32<?,3>, y=y:0 float32<?,3> -> z=call:0
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  y = Placeholder() {dtype: float32, shape: <?,3>}
  v = VarHandleOp() {dtype: float32, shape: <3>, shared_name: "v"}
  call = CALL(x, v, y) {Tin: [float32, resource, float32], Tout: [float32], f: @f}
}
"""


def test_a_function_is_batched_with_its_captures_last_and_keeps_its_own_argument_order() -> None:
    main = CPU_FUNCTION.replace("object f = function @f(v)\n", "")
    body = """
      r = ReadVariableOp(v) {dtype: float32}
      a = AddV2(x, y) {T: float32}
      m = Mul(a:z:0, r:value:0) {T: float32}
      return m:z:0
    }
    """
    shape = "{_output_shapes: [<?,3>]}"
    batched = NEW.format("f: @f_batched, ")
    assert_pass(
        batch("f"),
        main.replace("CALL", "PartitionedCall")
        + f"@f(x: float32 {shape}, v: resource(float32<3>), y: float32 {shape}) -> (z: float32) {{{body}",
        main.replace("CALL", "StatefulPartitionedCall")
        + f"""
        @f(x: float32 {shape}, v: resource(float32<3>), y: float32 {shape}) -> (z: float32) [
          stateful, _noinline: true] {{
          BatchFunction = BatchFunction(x, y, v) {{Tcaptured: [resource], Tin: [float32, float32], Tout: [float32],
            {batched}, shared_name: "batch_f"}}
          return BatchFunction:out_tensors:0, ^BatchFunction
        }}
        @f_batched(x: float32 {shape}, y: float32 {shape}, v: resource(float32<3>)) -> (z: float32) {{{body}
        """,
        changes=["f: function batched as f_batched"],
    )


TPU_STUB = """
alias "tpu_func" = @F
object F = function @F
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  call = CALL(x) {Tin: [float32], Tout: [float32], f: @F}
}
@F_on_tpu(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) { m = Relu(x) {T: float32}; return m:activations:0 }
"""
TPU_STUB_BODY = """
  core = TPUOrdinalSelector()
  call = TPUPartitionedCall(x, core:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @F_on_tpu}
  return call:output:0, ^call
}
"""


def tpu_stub(call: str = "StatefulPartitionedCall") -> str:
    shape = "{_output_shapes: [<?,3>]}"
    return f"{TPU_STUB.replace('CALL', call)}@F(x: float32 {shape}) -> (y: float32) [stateful] {{{TPU_STUB_BODY}"


def test_by_default_the_stub_of_every_tpu_function_is_batched() -> None:
    shape = "{_output_shapes: [<?,3>]}"
    assert_pass(
        batch(),
        tpu_stub("PartitionedCall"),
        f"""{TPU_STUB.replace("CALL", "StatefulPartitionedCall")}
        @F(x: float32 {shape}) -> (y: float32) [stateful, _noinline: true] {{
          BatchFunction = BatchFunction(x) {{Tcaptured: [], Tin: [float32], Tout: [float32],
            {NEW.format("f: @F_batched, ")}, shared_name: "batch_F"}}
          return BatchFunction:out_tensors:0, ^BatchFunction
        }}
        @F_batched(x: float32 {shape}) -> (y: float32) [stateful] {{{TPU_STUB_BODY}
        """,
        changes=["F: TPU function batched as F_batched"],
    )


def test_a_tpu_call_among_other_work_becomes_a_batching_op_where_it_stands() -> None:
    head = """
    signature "serving_default" x=x:0 float32<?,3> -> y=call:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,3>}
      call = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @serve}
    }
    @F(v: float32, x: float32) -> (y: float32) { m = Mul(v, x) {T: float32}; return m:z:0 }
    @serve(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) [stateful] {
      one = Const() {dtype: float32, value: float32([1, 1, 1])}
      before = Neg(x) {T: float32}
    """
    rest = "after = Neg(tpu:{}:0) {{T: float32}}; return after:y:0, ^tpu }}"
    types = "Tin: [float32, float32], Tout: [float32]"
    assert_pass(
        batch(),
        f"""{head}
        core = TPUOrdinalSelector()
        tpu = TPUPartitionedCall(one:output:0, before:y:0, core:device_ordinals:0) {{{types}, f: @F}}
        {rest.format("output")}""",
        f"""{head}
        tpu = BatchFunction(before:y:0, one:output:0) {{Tcaptured: [float32], Tin: [float32], Tout: [float32],
          {NEW.format("f: @F_batched, ")}, shared_name: "batch_F_batched"}}
        {rest.format("out_tensors")}
        @F_batched(argument_1: float32, argument_0: float32) -> (result_0: float32) [stateful] {{
          device_ordinal = TPUOrdinalSelector()
          TPUPartitionedCall = TPUPartitionedCall(argument_0, argument_1, device_ordinal:device_ordinals:0) {{
            {types}, f: @F}}
          return TPUPartitionedCall:output:0, ^TPUPartitionedCall
        }}""",
        changes=["serve: TPU call batched as F_batched"],
    )


def main_graph_calls(first: str, second: str) -> str:
    """A main graph that calls the TPU function F twice, with these constants."""
    return f"""
    signature "a" x=x:0 float32<?,3> -> y=one:0
    signature "b" x=x:0 float32<?,3> -> y=two:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,3>}}
      c = Const() {{dtype: float32, value: {first}}}
      d = Const() {{dtype: float32, value: {second}}}
      core = TPUOrdinalSelector()
      one = TPUPartitionedCall(x, c, core) {{Tin: [float32, float32], Tout: [float32], f: @F}}
      two = TPUPartitionedCall(x, d, core) {{Tin: [float32, float32], Tout: [float32], f: @F}}
    }}
    @F(x: float32, c: float32) -> (y: float32) {{ m = Mul(x, c) {{T: float32}}; return m:z:0 }}
    """


def run(each: Batch, text: str) -> tuple[Model, PassResult]:
    model = parse_model(text)
    return model, each.apply(model)


def queues(model: Model) -> list[str]:
    nodes = [n for s in model.scopes() for n in s.nodes if n.op == "BatchFunction"]
    return [n.attr["shared_name"].s.decode() for n in nodes]


def test_calls_of_one_tpu_function_share_a_queue_if_they_capture_the_same() -> None:
    model, _ = run(batch(), main_graph_calls("float32(2)", "float32(2)"))
    assert queues(model) == ["batch_F_batched", "batch_F_batched"]
    assert [n.name for n in model.graph_def.node] == ["x", "c", "d", "one", "two"]


def test_calls_that_capture_different_constants_never_share_a_queue() -> None:
    """A batch runs with the captures of one of its requests."""
    model, _ = run(batch(), main_graph_calls("float32(2)", "float32(3)"))
    assert queues(model) == ["batch_F_batched", "batch_F_batched1"]


BATCHED = """
alias "f" = @f
object f = function @f
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  call = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @f}
}
@f(x: float32) -> (y: float32) [stateful] {
  b = BatchFunction(x) {Tcaptured: [], Tin: [float32], Tout: [float32], f: @g, shared_name: "old", ATTRS}
  return b:out_tensors:0, ^b
}
@g(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }
"""


@pytest.mark.parametrize("names", [(), ("f",)])
def test_an_existing_batching_op_is_updated_in_place(names: tuple[str, ...]) -> None:
    before = "num_batch_threads: 4, max_batch_size: 4, batch_timeout_micros: 9, max_enqueued_batches: 7"
    after = (
        "num_batch_threads: 2, max_batch_size: 8, batch_timeout_micros: 9, allowed_batch_sizes: [4, 8], "
        "enable_large_batch_splitting: true"
    )
    assert_pass(
        batch(*names, max_enqueued_batches=10),
        BATCHED.replace("ATTRS", before),
        BATCHED.replace("ATTRS", after),
        changes=[
            'f: batching op "b": num_batch_threads 4 -> 2, max_enqueued_batches 7 -> 10, allowed_batch_sizes [] -> '
            "[4, 8], enable_large_batch_splitting False -> True, max_batch_size 4 -> 8"
        ],
    )


def test_an_update_keeps_what_is_left_unset() -> None:
    old = "num_batch_threads: 4, max_batch_size: 8, batch_timeout_micros: 9, allowed_batch_sizes: [2, 8]"
    assert_pass(
        Batch((BatchOptions(max_batch_size=8, enable_large_batch_splitting=False),)),
        BATCHED.replace("ATTRS", old),
        BATCHED.replace("ATTRS", old),
        changes=[],
        skips=['f: its batching op "b" has these options already'],
    )


def test_an_update_whose_kept_sizes_do_not_fit_is_refused() -> None:
    assert_pass_raises(
        Batch((BatchOptions(max_batch_size=4),)),
        BATCHED.replace("ATTRS", "num_batch_threads: 4, max_batch_size: 8, batch_timeout_micros: 9, "
                        "allowed_batch_sizes: [2, 8]"),
        ConversionError,
        r'"b" of "f" keeps its allowed_batch_sizes \[2, 8\], whose last must be at most max_batch_size: 4',
    )  # fmt: skip


NESTED = """
alias "outer" = @outer; alias "inner" = @inner
object outer = function @outer; object inner = function @inner
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  call = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @outer}
}
@outer(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) [stateful] {
  n = Neg(x) {T: float32}
  c = StatefulPartitionedCall(n:y:0) {Tin: [float32], Tout: [float32], f: @inner}
  return c:output:0, ^c
}
"""
INNER = "@inner(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) [stateful] {"


def nested(body: str) -> str:
    return f"{NESTED}{INNER}{body}"


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


def test_functions_that_lead_to_a_batching_op_are_no_longer_compiled_for_the_cpu() -> None:
    text = nested("m = Neg(x) {T: float32}; return m:y:0 }")
    text = text.replace("[stateful] {\n  n =", "[stateful, _XlaMustCompile: true] {\n  n =")
    text = text.replace("function @outer;", "function @outer {jit_compile};")
    model, _ = run(batch("inner"), text)
    assert "_XlaMustCompile" not in render(model)
    assert [
        n.function.function_spec.jit_compile for n in model.object_graph.nodes if n.function.concrete_functions
    ] == [0, 0]


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


def test_padding_table() -> None:
    assert padding_table((1, 4, 8), 20) == [
        {"rows": "1", "padded_to": 1, "waste": 0.0},
        {"rows": "2-4", "padded_to": 4, "waste": 0.5},
        {"rows": "5-8", "padded_to": 8, "waste": 0.375},
        {"rows": "9-20", "padded_to": None, "waste": None},
    ]
    assert padding_table((), 16) == [{"rows": "1-16", "padded_to": "the same", "waste": 0.0}]


OLD_ATTRIBUTES = {
    "f", "num_batch_threads", "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "allowed_batch_sizes",
    "container", "shared_name", "batching_queue", "Tin", "Tcaptured", "Tout", "enable_large_batch_splitting",
}  # fmt: skip


def test_no_attribute_is_written_that_tensorflow_2_9_does_not_know() -> None:
    model, _ = run(batch(max_enqueued_batches=10, allowed_batch_sizes=()), tpu_stub())
    node = next(n for s in model.scopes() for n in s.nodes if n.op == "BatchFunction")
    assert {a for a in node.attr if not a.startswith("_")} <= OLD_ATTRIBUTES - {
        "max_enqueued_batches", "allowed_batch_sizes", "container", "batching_queue",
    }  # fmt: skip


def test_every_test_model_converts_the_same_twice(testdata: Any, tmp_path: Path) -> None:
    from converter import convert
    from converter.saved_model.reader import read_model
    from testdata.make_testdata import MODELS

    for name in ("two_functions", "captured_constants", "multi_signature", "keras_dense_alias"):
        options = f"{MODELS[name].options_for(testdata(name))} disable_default_optimizations: true"
        entry = "batch_options { max_batch_size: 4 num_batch_threads: 2 }"
        convert(testdata(name), tmp_path / name, f"{options} {entry}")
        model = read_model(tmp_path / name)
        before = model.saved_model.SerializeToString(deterministic=True)
        result = Batch((BatchOptions(max_batch_size=4, num_batch_threads=2),)).apply(model)
        assert not result.changes
        assert queues(model), f"{name} has batching ops"
        assert ["has these options already" in s.reason for s in result.skips] == [True] * len(queues(model))
        assert len(queues(model)) == len(set(queues(model)))
        assert model.saved_model.SerializeToString(deterministic=True) == before


def test_all_results_of_a_call_in_place_follow_it() -> None:
    """Every order in which a map of a proto may be iterated: the order is another one for other keys."""
    for number in range(20):
        names = [f"r{number}_{i}" for i in range(5)]
        results = ", ".join(f"{n}: float32" for n in names)
        outputs = ", ".join(f"t:output:{i}" for i in range(5))
        inner = ", ".join(["x"] * 5)
        types = f"Tin: [float32], Tout: [{', '.join(['float32'] * 5)}], f: @F"
        model, _ = run(
            batch(),
            f"""
            main {{ x = Placeholder() {{dtype: float32, shape: <?,3>}} }}
            @serve(x: float32 {{_output_shapes: [<?,3>]}}) -> ({results}) [stateful] {{
              before = Neg(x) {{T: float32}}
              core = TPUOrdinalSelector()
              t = TPUPartitionedCall(before:y:0, core:device_ordinals:0) {{{types}}}
              return {outputs}, ^t
            }}
            @F(x: float32 {{_output_shapes: [<?,3>]}}) -> ({results}) {{ return {inner} }}
            """,
        )
        assert sorted(model.functions["serve"].ret.values()) == [f"t:out_tensors:{i}" for i in range(5)]
