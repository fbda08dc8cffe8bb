"""Nodes: attributes, building and naming them, finding and rewiring them."""

import pytest
from tensorflow.core.framework import attr_value_pb2

from converter.graph.model import MAIN_GRAPH
from converter.graph.nodes import (
    UniqueNames,
    add_cast,
    const_node,
    int_list_attr,
    make_node,
    nodes_where,
    plain_attr,
    rewire,
)
from converter.graph.protos import DT_BFLOAT16, DT_FLOAT
from tests.harness import parse_model, render


def test_attributes_are_made_of_python_values() -> None:
    list_attr = int_list_attr([1, 2])
    node = make_node("n", "Op", ["a", "^b"], flag=True, count=2, rate=0.5, text="t", raw=b"\xff", sizes=list_attr)
    assert list(node.input) == ["a", "^b"]
    assert {k: v.WhichOneof("value") for k, v in node.attr.items()} == {
        "flag": "b", "count": "i", "rate": "f", "text": "s", "raw": "s", "sizes": "list",
    }  # fmt: skip
    assert (node.attr["flag"].b, node.attr["count"].i, node.attr["text"].s) == (True, 2, b"t")


def test_a_const_has_its_dtype_and_value() -> None:
    model = parse_model("main { }")
    model.graph_def.node.append(const_node("c", [[1.5, 2.0]], _tag="t"))
    assert render(model) == 'main {\n  c = Const() {_tag: "t", dtype: float32, value: float32([[1.5, 2.0]])}\n}\n'


def test_unique_names_count_up_and_see_arguments() -> None:
    scope = parse_model("@F(x: float32, y_1: float32) -> () { y = NoOp(); return }").scope("F")
    names = UniqueNames(scope)
    assert [names("x"), names("x"), names("y"), names("y"), names("new"), names("new")] == [
        "x_1", "x_2", "y_2", "y_3", "new", "new_1",
    ]  # fmt: skip


def test_an_attribute_value_stays_as_it_is() -> None:
    value = attr_value_pb2.AttrValue(i=3)
    assert plain_attr(value) is value


def test_rewiring_the_main_graph_takes_both_spellings_of_a_first_output() -> None:
    model = parse_model("main { a = A(x, x:0, x:1, ^x); b = B(x) }")
    assert rewire(model.main_scope(), {"x:0": "new:2"}, except_nodes=["b"]) == 2
    assert render(model) == "main {\n  a = A(new:2, new:2, x:1, ^x)\n  b = B(x)\n}\n"


def test_rewiring_a_function_includes_its_results() -> None:
    model = parse_model("@F(x: float32) -> (a: float32, b: float32) { n = N(x, m:y:0); return x, m:y:0 }")
    assert rewire(model.scope("F"), {"x": "p:q:0", "m:y:0": "x"}) == 4
    assert render(model) == "@F(x: float32) -> (a: float32, b: float32) {\n  n = N(p:q:0, x)\n  return p:q:0, x\n}\n"


def test_nodes_are_found_everywhere() -> None:
    model = parse_model("main { a = PartitionedCall() {f: @H} } @H() -> () { x = PartitionedCall() {f: @H}; return }")
    found = nodes_where(model, lambda n: n.op == "PartitionedCall")
    assert [(scope.name, node.name) for scope, node in found] == [(MAIN_GRAPH, "a"), ("H", "x")]


@pytest.mark.parametrize(("ref", "taken"), [("x", "x"), ("x:0", "x"), ("x:1", "x:1")])
def test_a_cast_in_the_main_graph_comes_last_in_its_spelling(ref: str, taken: str) -> None:
    model = parse_model("main { x = Op() }")
    assert add_cast(model.main_scope(), "c", ref, DT_FLOAT, DT_BFLOAT16, device="/cpu:0", _tag="t") == "c"
    attrs = '{DstT: bfloat16, SrcT: float32, _tag: "t"}'
    assert render(model) == f'main {{\n  x = Op()\n  c = Cast({taken}) {attrs} on "/cpu:0"\n}}\n'


def test_a_cast_in_a_function_names_its_output() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = N(x); return n:y:0 }")
    assert add_cast(model.scope("F"), "c", "n:y:0", DT_FLOAT, DT_BFLOAT16) == "c:y:0"
    (_, cast) = model.functions["F"].node_def
    assert (cast.op, list(cast.input), cast.device, set(cast.attr)) == ("Cast", ["n:y:0"], "", {"SrcT", "DstT"})
