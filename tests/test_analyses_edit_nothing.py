"""Looking at a model leaves its bytes alone: to read a missing attribute of a proto map would create it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.analysis import compatibility, cost, tpu, workload
from converter.analysis.resolve import resolve, same_signatures
from converter.analysis.shape_inference import infer
from converter.analysis.variables.index import find_variables
from converter.errors import ConversionError
from converter.graph import calls, outside
from converter.graph.invariants import problems
from converter.graph.model import Model
from converter.options.slices import FunctionKind, FunctionRef
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.harness import parse_model

# Nodes and functions without the attributes that most have.
BARE = """
signature "serving_default" x=x:0 -> y=y:0
signature "other" x=x:0 -> y=y:0
object v = variable float32<4,4>
object signatures.serving_default = bare @f
object signatures.other = function @f
object f = function @f(v)
object compiled = function @compiled
main {
  x = Placeholder() {dtype: float32}
  v = VarHandleOp() {dtype: float32, shape: <4,4>}
  y = StatefulPartitionedCall(x, v) {f: @f, Tin: [float32, resource], Tout: [float32]}
  odd = MysteryOp(x)
  no = NoOp()
}
@f(x: float32, v: resource(float32<4,4>)) -> (y: float32) {
  r = ReadVariableOp(v) {dtype: float32}
  m = MatMul(x, r:value:0) {T: float32}
  c = PartitionedCall(m:product:0) {f: @compiled, Tin: [float32], Tout: [float32]}
  return c:output:0
}
@compiled(x: float32) -> (y: float32) [_XlaMustCompile: true] { n = Neg(x) {T: float32}; return n:y:0 }
@plain(x: float32) -> (y: float32) { return x }
"""


def look(model: Model) -> None:
    calls.call_graph(model)
    calls.call_sites(model)
    calls.served_nodes(model)
    tpu.display_names(model)
    problems(model)
    find_variables(model)
    cost.model_cost(model)
    workload.model_workload(model)
    for name, function in model.functions.items():
        compatibility.boundary_problems(model, function)
        compatibility.ops_without_tpu_kernel(model, name)
        outside.captures_of(model, name)
    for key in model.signatures:
        for found in resolve(model, FunctionRef(FunctionKind.SIGNATURE_NAME, key)):
            same_signatures(model, found)
            infer(model, found.function)
    outside.exposed_functions(model)


def look_for_compiled(model: Model) -> None:
    try:
        resolve(model, FunctionRef(FunctionKind.JIT_COMPILE_FUNCTIONS, ""))
    except ConversionError as error:
        assert "no function that was traced" in str(error)


def assert_untouched(model: Model) -> None:
    before = model.saved_model.SerializeToString(deterministic=True)
    for each in (look, look_for_compiled):
        each(model)
        assert model.saved_model.SerializeToString(deterministic=True) == before, each.__name__


def test_a_model_of_bare_nodes_stays_as_it_is() -> None:
    assert_untouched(parse_model(BARE))


@pytest.mark.parametrize("name", ["two_functions", "keras_dense"])
def test_real_models_stay_as_they_are(name: str, testdata: Callable[[str], Path]) -> None:
    assert name in MODELS
    assert_untouched(read_model(testdata(name)))
