"""How signatures and the object graph spell tensors, whatever the scope that holds them."""

import re

import pytest

from converter.errors import ConversionError
from converter.graph import outside
from converter.graph.model import MAIN_GRAPH, Scope
from tests.harness import parse_model, render

TEXT = """
signature "serving_default" x=x:0 -> y=top:1, z=top:1
object one = captured top:1 in @f
object two = captured top:0 in @f
object three = captured x:0 in @f
main {
  x = Placeholder() {dtype: float32}
  k = Const() {dtype: int32, value: int32(1)}
  top = TopKV2(x, k) {T: float32}
}
@f(x: float32, k: int32) -> (y: float32) {
  top = TopKV2(x, k) {T: float32}
  parts = Split(k, x) {T: float32, num_split: 2}
  call = f(x, k)
  return top:values:0
}
"""
MODEL = parse_model(TEXT)


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("top:values:0", "top:0"),
        ("top:indices:0", "top:1"),
        ("parts:output:1", "parts:1"),
        ("call:y:0", "call:0"),
        ("x", "x:0"),
    ],
)
def test_outputs_of_a_function_s_nodes_are_counted_through(ref: str, name: str) -> None:
    assert outside.name_of(MODEL, MODEL.scope("f"), ref) == name
    assert outside.spelled(name) == (name[:-2], int(name[-1]))
    assert outside.name_for(*outside.spelled(name)) == name


@pytest.mark.parametrize("ref", ["x", "x:0"])
def test_the_main_graph_spells_its_tensors_so_itself(ref: str) -> None:
    assert outside.name_of(MODEL, MODEL.main_scope(), ref) == "x:0"


@pytest.mark.parametrize("ref", ["gone:y:0", "top:values:1", "top:1"])
def test_a_tensor_that_is_not_there_is_an_error(ref: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"f" has no tensor "{ref}"')):
        outside.name_of(MODEL, MODEL.scope("f"), ref)


@pytest.mark.parametrize("name", ["top:values:0", "top", ":0", "top:"])
def test_a_name_that_no_loader_would_find_is_refused(name: str) -> None:
    with pytest.raises(ConversionError, match=f'captures the tensor "{name}", expected a node and the number of its'):
        outside.spelled(name)


def test_only_those_who_name_the_tensor_follow_it() -> None:
    model = parse_model(TEXT)
    outside.rename(model, model.scope("f"), "top:indices:0", "parts:output:1")
    assert render(model) == render(parse_model(TEXT.replace("captured top:1", "captured parts:1")))
    outside.rename(model, model.main_scope(), "top:1", "k")
    assert {o.name for o in model.signatures["serving_default"].outputs.values()} == {"k:0"}
    assert set(outside.names(model)) == {(MAIN_GRAPH, "k:0"), ("f", "parts:1"), ("f", "top:0"), ("f", "x:0")}


def test_a_scope_that_is_not_in_the_library_is_spelled_too() -> None:
    assert outside.name_of(MODEL, Scope.of(MODEL.functions["f"]), "k") == "k:0"
