"""Who calls whom, and what changes on the way to some functions."""

from converter.graph import calls
from converter.graph.model import MAIN_GRAPH
from tests.harness import parse_model, render

CALLS = """
main {
  a = PartitionedCall() {f: @F}
  b = G()
  c = If() {then_branch: @F, else_branch: @H}
  d = Case() {branches: [@G, @H, @G]}
  e = Map() {f: @F {inner: @G}}
  n = NoOp() {f: @missing}
}
@F() -> () { x = G(); return }
@G() -> () { return }
@H() -> () { x = PartitionedCall() {f: @H}; return }
"""


def test_calls_are_found_through_any_attribute_and_as_ops() -> None:
    model = parse_model(CALLS)
    called = {n.name: calls.called_functions(n, model) for n in model.graph_def.node}
    assert called == {
        "a": ["F"], "b": ["G"], "c": ["H", "F"], "d": ["G", "H", "G"], "e": ["F", "G"], "n": [],
    }  # fmt: skip
    graph = calls.call_graph(model)
    assert graph.callees == {MAIN_GRAPH: ["F", "G", "H"], "F": ["G"], "G": [], "H": ["H"]}
    assert graph.callers == {"F": [MAIN_GRAPH], "G": [MAIN_GRAPH, "F"], "H": [MAIN_GRAPH, "H"]}


def test_calls_are_renamed_through_any_attribute_and_as_ops() -> None:
    model = parse_model(CALLS)
    renamed = [calls.rename_callees(n, {"F": "F2", "G": "G2"}) for n in model.graph_def.node]
    assert renamed == [True, True, True, True, True, False]
    text = render(model).split("@F()")[0]
    assert text == (
        "main {\n  a = PartitionedCall() {f: @F2}\n  b = G2()\n  c = If() {else_branch: @H, then_branch: @F2}\n"
        "  d = Case() {branches: [@G2, @H, @G2]}\n  e = Map() {f: @F2 {inner: @G2}}\n  n = NoOp() {f: @missing}\n}\n"
    )


def test_each_reference_is_a_site() -> None:
    sites = calls.call_sites(parse_model(CALLS))
    assert {name: [node.name for node in nodes] for name, nodes in sites.items()} == {
        "F": ["a", "c", "e"], "G": ["b", "d", "d", "e", "x"], "H": ["c", "d", "x"],
    }  # fmt: skip


GRAPH = calls.CallGraph(
    {"main": ["a", "b"], "a": ["c"], "b": ["c", "d"], "c": ["e"], "d": [], "e": ["c"], "alone": ["d"]}
)


def test_reachable_functions_come_callers_first_and_once() -> None:
    assert GRAPH.reachable(["main"]) == ["main", "a", "c", "e", "b", "d"]
    assert GRAPH.reachable(["e", "d"]) == ["e", "c", "d"]
    assert GRAPH.reachable([]) == []


def test_callers_reach_their_targets_through_others() -> None:
    assert set(GRAPH.callers_of(["d"])) == {"d", "b", "main", "alone"}
    assert set(GRAPH.callers_of(["e"])) == {"e", "c", "a", "b", "main"}


def test_a_chain_of_many_calls_is_no_problem() -> None:
    graph = calls.CallGraph({str(i): [str(i + 1)] for i in range(20_000)})
    assert len(graph.reachable(["0"])) == 20_001


def test_callers_become_stateful_and_nothing_else_does() -> None:
    text = """
    main {{
      a = {}() {{f: @caller}}
      b = PartitionedCall() {{f: @other}}
      c = {}() {{then_branch: @other, else_branch: @F}}
    }}
    @caller() -> () {} {{ d = {}() {{cond: @other, body: @F}}; return }}
    @other() -> () {{ return }}
    @F() -> () {} {{ return }}
    """
    model = parse_model(text.format("PartitionedCall", "StatelessIf", "", "StatelessWhile", ""))
    calls.make_callers_stateful(model, ["F"])
    stateful = text.format("StatefulPartitionedCall", "If", "[stateful]", "While", "[stateful]")
    assert render(model) == render(parse_model(stateful))


def test_jit_compile_is_dropped_on_the_way_to_a_function_and_nowhere_else() -> None:
    text = """
    object serve = function @serve {jit_compile}
    object other = function @other {jit_compile}
    main {
      a = PartitionedCall() {Tin: [], Tout: [], _XlaMustCompile: true, f: @serve}
      b = PartitionedCall() {Tin: [], Tout: [], _XlaMustCompile: true, f: @other}
    }
    @serve() -> () [_XlaMustCompile: true] {
      c = PartitionedCall() {Tin: [], Tout: [], _XlaMustCompile: true, f: @F}
      d = PartitionedCall() {Tin: [], Tout: [], _XlaMustCompile: true, f: @other}
      return
    }
    @F() -> () [_XlaMustCompile: true] {
      e = PartitionedCall() {Tin: [], Tout: [], _XlaMustCompile: true, f: @other}
      return
    }
    @other() -> () [_XlaMustCompile: true] { return }
    """
    model = parse_model(text)
    calls.drop_jit_compile(model, ["F"])
    expected = text.replace("@serve {jit_compile}", "@serve").replace("_XlaMustCompile: true, f: @serve", "f: @serve")
    expected = expected.replace("_XlaMustCompile: true, f: @F", "f: @F")
    for name in ("serve", "F"):
        expected = expected.replace(f"@{name}() -> () [_XlaMustCompile: true]", f"@{name}() -> ()")
    assert render(model) == render(parse_model(expected))


def test_served_nodes_are_those_that_signatures_reach_in_the_models_order() -> None:
    model = parse_model("""
    signature "s" x=x:0 -> y=y:0
    main {
      y = Neg(z) {T: float32}
      other = Neg(x) {T: float32}
      z = Neg(x, ^must) {T: float32}
      must = NoOp()
      x = Placeholder() {dtype: float32}
    }
    """)
    assert [node.name for node in calls.served_nodes(model)] == ["y", "z", "must", "x"]


def test_what_a_node_passes_its_arguments_to() -> None:
    model = parse_model("""
    main {
      a = PartitionedCall(x) {f: @F}
      b = BatchFunction(x) {f: @F}
      c = F(x)
      d = StatelessIf(p, x) {then_branch: @F, else_branch: @G}
      e = Case(i, x) {branches: [@G, @F]}
      f = While(x) {cond: @G, body: @F}
      g = MapDataset(x) {f: @F}
      h = Neg(x)
    }
    @F(x: float32) -> () { return }
    @G(x: float32) -> () { return }
    """)
    assert {n.name: calls.passes_to(n, model) for n in model.graph_def.node} == {
        "a": (0, ["F"]), "b": (0, ["F"]), "c": (0, ["F"]), "d": (1, ["F", "G"]), "e": (1, ["G", "F"]),
        "f": (0, ["F", "G"]), "g": None, "h": None,
    }  # fmt: skip
