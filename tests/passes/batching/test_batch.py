"""Batch: what each rewrite rule makes of a graph."""

from pathlib import Path
from typing import Any

import pytest

from converter.errors import ConversionError
from converter.options.slices import BatchOptions
from converter.passes.batching.batch import Batch
from tests.harness import assert_pass, assert_pass_raises, render
from tests.passes.batching.models import batch, nested, queues, run

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


def test_functions_that_lead_to_a_batching_op_are_no_longer_compiled_for_the_cpu() -> None:
    text = nested("m = Neg(x) {T: float32}; return m:y:0 }")
    text = text.replace("[stateful] {\n  n =", "[stateful, _XlaMustCompile: true] {\n  n =")
    text = text.replace("function @outer;", "function @outer {jit_compile};")
    model, _ = run(batch("inner"), text)
    assert "_XlaMustCompile" not in render(model)
    assert [
        n.function.function_spec.jit_compile for n in model.object_graph.nodes if n.function.concrete_functions
    ] == [0, 0]


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
