"""Where resources go: handles inside functions, captured ones, and what is not known where it ends."""

from converter.analysis.variables.flow import ResourceFlow, object_slot
from converter.analysis.variables.index import find_variables
from tests.harness import parse_model

INNER = """
signature "serving_default" x=x:0 -> y=y:0
object inside = captured same:0 in @f
object second = captured two:1 in @f
object handle = captured own:0 in @f
object argument = captured v:0 in @f
main {
  x = Placeholder() {dtype: float32, shape: <4>}
  v = VarHandleOp() {dtype: float32, shape: <4>, shared_name: "v"}
  y = StatefulPartitionedCall(v) {f: @f, Tin: [resource], Tout: [float32]}
}
@f(v: resource(float32<4>)) -> (y: float32) {
  own = VarHandleOp() {dtype: float32, shape: <4>, shared_name: "own"}
  same = Identity(own:resource:0) {T: resource}
  two = IdentityN(v, own:resource:0) {T: [resource, resource]}
  r = ReadVariableOp(v) {dtype: float32}
  table = MutableHashTableV2() {shared_name: "v", key_dtype: string, value_dtype: float32}
  return r:value:0
}
"""


def test_handles_in_functions_are_noted_and_other_resources_are_not() -> None:
    flow = ResourceFlow(parse_model(INNER))
    assert [(scope.name, node.name) for scope, node in flow.inner_handles] == [("f", "own")]


def test_a_table_of_a_variables_name_is_no_use_of_the_variable() -> None:
    (variable,) = [v for v in find_variables(parse_model(INNER)) if v.name == "v"]
    assert [use.node for use in variable.uses] == ["r"]


def test_what_is_captured_in_a_function_is_followed_to_its_handle() -> None:
    flow = ResourceFlow(parse_model(INNER))
    own, v = ("f", "own:resource:0"), ("main graph", "v:0")
    assert [sorted(flow.origins(object_slot(i))) for i in (1, 2, 3, 4)] == [[own], [own], [own], [v]]
