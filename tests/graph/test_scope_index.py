"""Look-ups in one scope: nodes, arguments, who takes what, and the order of nodes."""

from converter.graph.model import MAIN_GRAPH
from converter.graph.scope_index import ScopeIndex, Taken, scope_index
from tests.harness import parse_model

MODEL = parse_model("""
main {
  x = Placeholder() {dtype: float32}
  a = AddV2(x, x:0) {T: float32}
  b = AddV2(a, x, ^x) {T: float32}
  c = NoOp(^a)
  top = TopKV2(b, k) {T: float32}
  d = Neg(top:1) {T: int32}
}
@F(x: float32, y: float32) -> (p: float32, q: float32, r: float32) {
  n = Neg(y) {T: float32}
  m = Neg(n:y:0) {T: float32}
  return n:y:0, x, n:y:0
}
""")


def test_nodes_and_arguments_are_found_by_name() -> None:
    index = scope_index(MODEL, "F")
    assert list(index.nodes) == ["n", "m"]
    assert index.arguments == {"x": 0, "y": 1}
    assert index.nodes["n"] == index.scope.nodes[0]
    assert scope_index(MODEL, MAIN_GRAPH).arguments == {}


def test_a_tensor_comes_from_a_node_or_an_argument() -> None:
    index = scope_index(MODEL, "F")
    assert index.producer("n:y:0") is index.nodes["n"]
    assert index.producer("x") is None
    assert scope_index(MODEL, MAIN_GRAPH).producer("top:1") is scope_index(MODEL, MAIN_GRAPH).producer("top")


def test_inputs_are_found_by_either_spelling_and_counted_as_data() -> None:
    index = ScopeIndex(MODEL.main_scope())
    expected = [Taken(index.nodes["a"], 0), Taken(index.nodes["a"], 1), Taken(index.nodes["b"], 1)]
    assert index.inputs_of("x") == index.inputs_of("x:0") == expected
    assert index.inputs_of("top:1") == [Taken(index.nodes["d"], 0)]
    assert list(index.inputs_of("top:0")) == []


def test_results_that_are_a_tensor() -> None:
    index = scope_index(MODEL, "F")
    assert sorted(index.results_of("n:y:0")) == ["p", "r"]
    assert list(index.results_of("x")) == ["q"]
    assert list(index.results_of("m:y:0")) == []
    assert list(scope_index(MODEL, MAIN_GRAPH).results_of("x")) == []


def test_users_take_data_and_count_once() -> None:
    index = scope_index(MODEL, MAIN_GRAPH)
    assert [n.name for n in index.users_of("x")] == ["a", "b"]
    assert [n.name for n in index.users_of("a")] == ["b"]
    assert [n.name for n in index.users_of("top")] == ["d"]
    assert [n.name for n in scope_index(MODEL, "F").users_of("y")] == ["n"]
    assert list(index.users_of("c")) == []


def test_nodes_in_order_come_behind_what_they_take_and_rings_apart() -> None:
    model = parse_model("""
    main {
      c = AddV2(b, a) {T: float32}
      b = Neg(a) {T: float32}
      a = Placeholder(^d) {dtype: float32}
      d = NoOp()
      m = Merge(a, n) {T: float32, N: 2}
      n = NextIteration(m) {T: float32}
      e = Exit(m) {T: float32}
    }
    """)
    ordered, ring = ScopeIndex(model.main_scope()).in_order()
    names = [node.name for node in ordered]
    assert sorted(names) == ["a", "b", "c", "d"]
    assert names.index("a") < names.index("b") < names.index("c")
    assert [node.name for node in ring] == ["m", "n", "e"]
