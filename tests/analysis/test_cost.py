"""The cost heuristic: weights, calls at every call site, what is served and what is not."""

import pytest

from converter.analysis.cost import Cost, function_costs, model_cost, op_cost
from converter.graph.model import Model
from tests.harness import parse_model

FLOAT = "{Tin: [float32], Tout: [float32]"


@pytest.mark.parametrize(
    ("op", "cost"),
    [
        ("Conv2D", 5000),
        ("Conv3DBackpropInputV2", 5000),
        ("FusedConv2DBiasActivation", 5000),
        ("_FusedConv2D", 5000),
        ("XlaConvV2", 5000),
        ("MatMul", 1000),
        ("BatchMatMulV2", 1000),
        ("XlaDotV2", 1000),
        ("Einsum", 1001),
        ("XlaEinsum", 1001),
        ("AddV2", 1),
        ("Const", 1),
        ("DepthwiseConv2dNative", 1),
        ("SparseMatMul", 1),
        ("NoOp", 1),
    ],
)
def test_ops_are_weighed_by_how_their_types_begin(op: str, cost: int) -> None:
    assert op_cost(op) == cost


def served(body: str, functions: str = "") -> Model:
    """A model whose only signature is `y`."""
    return parse_model(
        f'signature "s" x=x:0 -> y=y:0 main {{ x = Placeholder() {{dtype: float32}} {body} }} {functions}'
    )


def test_an_op_counts_once_however_many_outputs_use_it() -> None:
    model = served("a = Neg(x) {T: float32}; b = AddV2(a, a) {T: float32}; y = Mul(a, b) {T: float32}")
    assert model_cost(model) == Cost(cpu=4)


def test_a_call_costs_what_it_calls_at_every_call_site() -> None:
    model = served(
        f"a = PartitionedCall(x) {FLOAT}, f: @F}}; b = StatefulPartitionedCall(a) {FLOAT}, f: @F}}; y = F(b)",
        "@F(x: float32) -> (y: float32) { m = MatMul(x, x) {T: float32}; n = Neg(m) {T: float32}; return n:y:0 }",
    )
    assert model_cost(model) == Cost(cpu=1 + 3 * 1001)
    assert function_costs(model, ["F"]) == {"F": 1001}


@pytest.mark.parametrize(
    ("node", "cost"),
    [
        ("y = While(x) {T: [float32], cond: @one, body: @matmul}", 1001),
        ("y = If(x, x) {Tcond: float32, " + FLOAT[1:] + ", then_branch: @one, else_branch: @matmul}", 1001),
        ("y = StatelessCase(x, x) " + FLOAT + ", branches: [@one, @one, @matmul]}", 1002),
        ("y = BatchFunction(x) " + FLOAT + ", Tcaptured: [], f: @matmul}", 1000),
    ],
)
def test_loops_and_branches_cost_all_that_they_call(node: str, cost: int) -> None:
    model = served(
        node,
        "@one(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }"
        "@matmul(x: float32) -> (y: float32) { n = MatMul(x, x) {T: float32}; return n:product:0 }",
    )
    assert model_cost(model) == Cost(cpu=1 + cost)


def test_a_function_that_calls_itself_counts_itself_once() -> None:
    model = served(
        "y = F(x)", "@F(x: float32) -> (y: float32) { a = F(x); b = MatMul(a, a) {T: float32}; return b:product:0 }"
    )
    assert model_cost(model) == Cost(cpu=1 + 1000)


SAVED = """
signature "s" x=x:0 -> y=y:0
signature "__saved_model_init_op"  -> __saved_model_init_op=init:0
main {
  x = Placeholder() {dtype: float32}
  y = Neg(x, ^needed) {T: float32}
  needed = MatMul(x, x) {T: float32}
  init = NoOp(^table)
  table = Neg(x) {T: float32}
  save = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @save}
}
@save(x: float32) -> (y: float32) { m = Conv2D(x, x) {T: float32}; return m:output:0 }
"""


def test_saving_restoring_and_initializing_do_not_count_and_control_inputs_do() -> None:
    assert model_cost(parse_model(SAVED)) == Cost(cpu=1 + 1 + 1000)


def test_two_signatures_count_what_they_share_once() -> None:
    model = parse_model(
        'signature "a" x=x:0 -> y=y:0 signature "b" x=x:0 -> y=y:0, z=z:0 main {'
        " x = Placeholder() {dtype: float32}; y = Neg(x) {T: float32}; z = Neg(y) {T: float32} }"
    )
    assert model_cost(model) == Cost(cpu=3)


def test_a_loop_in_the_main_graph_counts_once() -> None:
    model = served("y = Merge(x, next) {T: float32, N: 2}; next = NextIteration(y) {T: float32}")
    assert model_cost(model) == Cost(cpu=3)


TPU = """
signature "s" x=x:0 -> y=y:0
alias "aliased" = @stub_2
main {
  x = Placeholder() {dtype: float32}
  a = stub_1(x)
  b = stub_1(a)
  y = stub_2(b)
}
@stub_1(x: float32) -> (y: float32) {
  o = TPUOrdinalSelector()
  t = TPUPartitionedCall(x, o:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @tpu, _tpu_convert_name: "mine"}
  return t:output:0
}
@stub_2(x: float32) -> (y: float32) {
  o = TPUOrdinalSelector()
  t = TPUPartitionedCall(x, o:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @tpu_2}
  return t:output:0
}
@unused(x: float32) -> (y: float32) {
  o = TPUOrdinalSelector()
  t = TPUPartitionedCall(x, o:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @tpu_3, _tpu_convert_name: "idle"}
  return t:output:0
}
@tpu(x: float32) -> (y: float32) { m = helper(x); n = Neg(m:y:0) {T: float32}; return n:y:0 }
@tpu_2(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
@tpu_3(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
@helper(x: float32) -> (y: float32) { m = MatMul(x, x) {T: float32}; return m:product:0 }
"""


def test_what_runs_on_the_tpu_counts_there_by_the_name_that_its_user_knows() -> None:
    cost = model_cost(parse_model(TPU))
    assert (cost.cpu, dict(cost.tpu)) == (4, {"mine": 2 * 1001, "aliased": 1, "idle": 0})
    assert (cost.tpu_total, cost.total) == (2003, 2007)


def test_the_cost_of_single_functions_is_cpu_and_tpu_together() -> None:
    assert function_costs(parse_model(TPU), ["stub_1", "helper"]) == {"stub_1": 1002, "helper": 1000}
