"""What shape inference knows of resources that come from several places, and what it says of damaged graphs."""

import pytest

from converter.analysis.shape_inference import ShapeInferenceError, infer
from converter.graph.model import MAIN_GRAPH
from converter.graph.shapes import Shape
from tests.harness import parse_model

BRANCHES = """
main {
  p = Const() {dtype: bool, value: bool(true)}
  v = VarHandleOp() {dtype: float32, shape: <4,8>}
  w = VarHandleOp() {dtype: float32, shape: <3,8>}
  c = If(p, v, w) {Tcond: bool, Tin: [resource, resource], Tout: [resource], then_branch: @first, else_branch: @second}
  y = StatefulPartitionedCall(c) {f: @read, Tin: [resource], Tout: [float32]}
}
@first(v: resource, w: resource) -> (r: resource) { return v }
@second(v: resource, w: resource) -> (r: resource) { return w }
@read(v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<3,8>", "<4,8>", (4, 8)),
        ("<3,8>", "<3,8>", (None, 8)),
        ("<3,8>", "<8>", None),
        # A variable of either type: its values cannot be told.
        ("w = VarHandleOp() {dtype: float32, shape: <3,8>", "w = VarHandleOp() {dtype: int32, shape: <4,8>", None),
    ],
)
def test_a_variable_that_either_branch_gives_is_known_as_far_as_both_agree(old: str, new: str, expected: Shape) -> None:
    assert BRANCHES.count(old) == 1
    assert infer(parse_model(BRANCHES.replace(old, new)), MAIN_GRAPH).of("y") == expected


def test_an_input_that_does_not_exist_is_named() -> None:
    model = parse_model("@f(x: float32) -> (y: float32) { n = Neg(gone:y:0) {T: float32}; return n:y:0 }")
    with pytest.raises(ShapeInferenceError, match=r'the tensor "gone:y:0" does not exist'):
        infer(model, "f")
