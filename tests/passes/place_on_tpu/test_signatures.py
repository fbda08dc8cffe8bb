"""Signatures that are the same function go to the TPU together."""

import pytest

from converter.graph.invariants import check_structure
from converter.options.slices import FunctionKind, FunctionRef
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import parse_model
from tests.passes.place_on_tpu.models import functions

EXPORTED = """
signature "serve" x=serve_x:0 -> output_0=serve:0
signature "serving_default" x=x:0 -> output_0=default:0
object v = variable float32<4>
object signatures.serve = bare @wrapper_1
object signatures.serving_default = bare @wrapper_2
object call = function @call(v)
main {
  serve_x = Placeholder() {dtype: float32}
  x = Placeholder() {dtype: float32}
  v = VarHandleOp() {dtype: float32, shape: <4>}
  serve = StatefulPartitionedCall(serve_x, v) {f: @wrapper_1, Tin: [float32, resource], Tout: [float32]}
  default = StatefulPartitionedCall(x, v) {f: @wrapper_2, Tin: [float32, resource], Tout: [float32]}
}
@call(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  r = ReadVariableOp(v) {dtype: float32}; m = Mul(x, r:value:0) {T: float32}; return m:z:0
}
@wrapper_1(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  c = StatefulPartitionedCall(x, v) {f: @call, Tin: [float32, resource], Tout: [float32]}; return c:output:0
}
@wrapper_2(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  c = StatefulPartitionedCall(x, v) {f: @call, Tin: [float32, resource], Tout: [float32]}; return c:output:0
}
"""
DEFAULT = FunctionRef(FunctionKind.SIGNATURE_NAME, "serving_default")


def placed_by(each: PlaceOnTpu, text: str) -> list[str]:
    return [c.where for c in each.apply(parse_model(text)).changes]


def test_signatures_that_are_the_same_function_go_to_the_tpu_together() -> None:
    model = parse_model(capturing(EXPORTED, "v", "v"))
    result = PlaceOnTpu((DEFAULT,)).apply(model)
    assert [c.where for c in result.changes] == ["wrapper_2", "wrapper_1"]
    assert result.details.to_json() == {"same_signatures": {"serve": "serving_default"}}
    check_structure(model)
    again = PlaceOnTpu((DEFAULT,)).apply(model)
    assert not again.changes
    assert not again.details.to_json()


def test_signatures_may_all_be_named_as_well() -> None:
    both = PlaceOnTpu((DEFAULT, FunctionRef(FunctionKind.SIGNATURE_NAME, "serve")))
    result = both.apply(parse_model(capturing(EXPORTED, "v", "v")))
    assert [c.where for c in result.changes] == ["wrapper_2", "wrapper_1"]
    assert not result.details.to_json()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (EXPORTED, "what a signature captures is not recorded"),
        (EXPORTED.replace("c:output:0\n}\n@wrapper_2", "x\n}\n@wrapper_2"), "another result"),
    ],
)
def test_signatures_that_differ_stay_where_they_are(text: str, why: str) -> None:
    recorded = text if why.endswith("recorded") else capturing(text, "v", "v")
    assert placed_by(PlaceOnTpu((DEFAULT,)), recorded) == ["wrapper_2"]


def test_signatures_with_variables_of_their_own_stay_where_they_are() -> None:
    two = EXPORTED.replace("object v =", "object w = variable float32<4>\nobject v =")
    assert placed_by(PlaceOnTpu((DEFAULT,)), capturing(two, "w", "v")) == ["wrapper_2"]


def test_a_function_named_otherwise_takes_no_signature_with_it() -> None:
    assert placed_by(PlaceOnTpu(functions("wrapper_2")), capturing(EXPORTED, "v", "v")) == ["wrapper_2"]


def capturing(text: str, first: str, second: str) -> str:
    """The two wrappers with their bound inputs, as concrete functions of the object graph."""
    objects = f"object w1 = function @wrapper_1({first})\nobject w2 = function @wrapper_2({second})\nmain {{"
    return text.replace("main {", objects)


def test_the_plan_is_made_of_names_and_values() -> None:
    text = capturing(EXPORTED, "v", "v")
    plan = PlaceOnTpu((DEFAULT,)).plan(parse_model(text))
    assert len({plan, PlaceOnTpu((DEFAULT,)).plan(parse_model(text))}) == 1
    assert [(f.function, f.given) for f in plan.placed] == [("wrapper_2", "serving_default"), ("wrapper_1", "serve")]
    assert not plan.is_empty and plan.skips == plan.warnings == ()
