"""FLOPs and bytes of whole models: what is counted, how often, and for which shapes."""

from pathlib import Path

from converter import ConvertSettings, convert
from converter.analysis.op_work import Work
from converter.analysis.workload import Workload, function_workloads, model_workload
from converter.graph import calls
from tests.harness import parse_model, write_model_text

MATMUL = """
@matmul(x: float32 {_output_shapes: [<?,4>]}, v: resource(float32<4,5>)) -> (y: float32) {
  r = ReadVariableOp(v) {dtype: float32}
  m = MatMul(x, r:value:0) {T: float32}
  return m:product:0
}
"""
# For one row: 2 * 4 * 5 operations; x, the kernel and the result cross once.
ROW = Work(40, 4 * (4 + 20 + 5))


def served(nodes: str, functions: str = MATMUL) -> str:
    return f"""
signature "s" x=x:0 -> y=y:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,4>}}
  v = VarHandleOp() {{dtype: float32, shape: <4,5>}}
  {nodes}
}}
{functions}
"""


def test_a_signature_counts_for_one_row_at_every_call_site() -> None:
    once = "y = StatefulPartitionedCall(x, v) {f: @matmul, Tin: [float32, resource], Tout: [float32]}"
    assert model_workload(parse_model(served(once))) == Workload(cpu=ROW)
    twice = once.replace("y =", "a =") + "; " + once.replace("y =", "b =") + "; y = AddV2(a, b) {T: float32}"
    assert model_workload(parse_model(served(twice))) == Workload(cpu=ROW + ROW + Work(5, 60))


def test_what_no_signature_reaches_does_not_count() -> None:
    model = parse_model(served("y = Identity(x) {T: float32}; z = Neg(x) {T: float32}"))
    assert model_workload(model) == Workload()


def test_shapes_are_those_of_the_call_and_not_what_was_recorded() -> None:
    nodes = """
      three = Const() {dtype: float32, value: float32<3,4>}
      y = StatefulPartitionedCall(three, v) {f: @matmul, Tin: [float32, resource], Tout: [float32]}
    """
    assert model_workload(parse_model(served(nodes))).cpu == Work(3 * 40, 4 * (12 + 20 + 15))


def test_all_branches_and_one_turn_of_a_loop() -> None:
    functions = """
    @double(x: float32) -> (y: float32) { a = AddV2(x, x) {T: float32}; return a:z:0 }
    @square(x: float32) -> (y: float32) { a = Mul(x, x) {T: float32}; b = Neg(a:z:0) {T: float32}; return b:y:0 }
    @go_on(x: float32) -> (y: bool) {
      axes = Const() {dtype: int32, value: int32([0, 1])}
      s = Sum(x, axes:output:0) {T: float32, Tidx: int32}
      g = Greater(s:output:0, s:output:0) {T: float32}
      return g:z:0
    }
    """
    choose = (
        "c = Const() {dtype: bool, value: bool(true)}; "
        "y = StatelessIf(c, x) {Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @double, "
        "else_branch: @square}"
    )
    assert model_workload(parse_model(served(choose, functions))).cpu.flops == 4 + 4 + 4
    loop = "y = StatelessWhile(x) {T: [float32], cond: @go_on, body: @square}"
    assert model_workload(parse_model(served(loop, functions))).cpu.flops == 4 + 4 + (4 + 1)


def test_functions_count_for_the_shapes_that_they_declare() -> None:
    assert function_workloads(parse_model(MATMUL), ["matmul"]) == {"matmul": ROW}


def test_a_function_that_cannot_compute_one_row_counts_for_the_shapes_that_were_recorded() -> None:
    functions = """
    @pairs(x: float32 {_output_shapes: [<?,4>]}) -> (y: float32) {
      two = Const() {dtype: float32, value: float32<2,4>}
      s = Const() {dtype: int32, value: int32([2, 4])}
      r = Reshape(x, s:output:0) {T: float32, Tshape: int32}
      a = AddV2(r:output:0, two:output:0) {T: float32}
      return a:z:0
    }
    """
    assert function_workloads(parse_model(functions), ["pairs"])["pairs"].flops == 8


def test_the_tpu_has_its_own_share_and_its_stub_costs_nothing(tmp_path: Path) -> None:
    nodes = "y = StatefulPartitionedCall(x, v) {f: @matmul, Tin: [float32, resource], Tout: [float32]}"
    text = 'alias "tpu" = @matmul' + served(nodes)
    report = convert(
        write_model_text(text, tmp_path / "in"),
        tmp_path / "out",
        'tpu_functions { function_alias: "tpu" } disable_default_optimizations: true',
        ConvertSettings(count_flops=True),
    )
    ordinal = Work(0, 4)
    assert report.workload == Workload(cpu=ordinal, tpu={"tpu": ROW})
    on_cpu, on_tpu = report.to_json()["breakdown"]
    assert (on_cpu["name"], on_cpu["flops"], on_cpu["bytes"]) == ("[CPU cost]", 0, 4)
    assert (on_tpu["name"], on_tpu["flops"], on_tpu["bytes"]) == ("tpu", ROW.flops, ROW.bytes)


def test_deeply_nested_functions_are_counted_once_for_each_shape() -> None:
    # Two calls of the next function in each of 12: 4096 call sites.
    functions = "".join(
        f"@f{i}(x: float32 {{_output_shapes: [<?,4>]}}) -> (y: float32) {{"
        f" a = PartitionedCall(x) {{f: @f{i + 1}, Tin: [float32], Tout: [float32]}};"
        f" b = PartitionedCall(a:output:0) {{f: @f{i + 1}, Tin: [float32], Tout: [float32]}}; return b:output:0 }}\n"
        for i in range(12)
    )
    functions += "@f12(x: float32 {_output_shapes: [<?,4>]}) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }"
    model = parse_model(functions)
    assert calls.call_graph(model).callees["f0"] == ["f1"]
    assert function_workloads(model, ["f0"])["f0"].flops == 4 * 2**12


def test_a_function_that_calls_itself_is_counted_once() -> None:
    functions = """
    @again(x: float32 {_output_shapes: [<?,4>]}) -> (y: float32) {
      n = Neg(x) {T: float32}
      a = PartitionedCall(n:y:0) {f: @again, Tin: [float32], Tout: [float32]}
      return a:output:0
    }
    """
    # One row of Neg; the call within the call adds nothing.
    assert function_workloads(parse_model(functions), ["again"]) == {"again": Work(4, 32)}


def test_a_function_that_an_op_calls_in_a_way_of_its_own_counts_for_the_shapes_that_it_declares() -> None:
    functions = """
    @over(d: variant) -> (y: variant) {
      m = MapDataset(d) {f: @each, Targuments: [], output_types: [float32], output_shapes: [<2,4>]}
      return m:handle:0
    }
    @each(x: float32 {_output_shapes: [<2,4>]}) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
    """
    assert function_workloads(parse_model(functions), ["over"])["over"] == Work(8, 64)


def test_a_function_whose_shapes_contradict_each_other_counts_one_element_a_tensor() -> None:
    functions = """
    @broken(x: float32 {_output_shapes: [<2,4>]}) -> (y: float32) {
      s = Const() {dtype: int32, value: int32([9])}
      r = Reshape(x, s:output:0) {T: float32, Tshape: int32}
      n = Neg(r:output:0) {T: float32}
      return n:y:0
    }
    """
    assert function_workloads(parse_model(functions), ["broken"]) == {"broken": Work(1, 8)}
