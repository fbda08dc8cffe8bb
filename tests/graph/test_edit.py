"""The primitives that every pass shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import attr_value_pb2

from converter.graph import calls, edit
from converter.graph.edit import UniqueNames, const_node, make_node
from converter.graph.model import MAIN_GRAPH
from converter.graph.protos import DT_BFLOAT16, DT_FLOAT
from tests.harness import parse_model, render

# --- nodes and names --------------------------------------------------------------------------------------------


def test_attributes_are_made_of_python_values() -> None:
    list_attr = edit.int_list_attr([1, 2])
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


@pytest.mark.parametrize(("ref", "taken"), [("x", "x"), ("x:0", "x"), ("x:1", "x:1")])
def test_a_cast_in_the_main_graph_comes_last_in_its_spelling(ref: str, taken: str) -> None:
    model = parse_model("main { x = Op() }")
    assert edit.add_cast(model.main_scope(), "c", ref, DT_FLOAT, DT_BFLOAT16, device="/cpu:0", _tag="t") == "c"
    attrs = '{DstT: bfloat16, SrcT: float32, _tag: "t"}'
    assert render(model) == f'main {{\n  x = Op()\n  c = Cast({taken}) {attrs} on "/cpu:0"\n}}\n'


def test_a_cast_in_a_function_names_its_output() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = N(x); return n:y:0 }")
    assert edit.add_cast(model.scope("F"), "c", "n:y:0", DT_FLOAT, DT_BFLOAT16) == "c:y:0"
    (_, cast) = model.functions["F"].node_def
    assert (cast.op, list(cast.input), cast.device, set(cast.attr)) == ("Cast", ["n:y:0"], "", {"SrcT", "DstT"})


def test_unique_names_count_up_and_see_arguments() -> None:
    scope = parse_model("@F(x: float32, y_1: float32) -> () { y = NoOp(); return }").scope("F")
    names = UniqueNames(scope)
    assert [names("x"), names("x"), names("y"), names("y"), names("new"), names("new")] == [
        "x_1", "x_2", "y_2", "y_3", "new", "new_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("__inference_serve_24", "__inference_serve_body_24"),
        ("__inference_<lambda>_7", "__inference_<lambda>_body_7"),
        ("serve", "serve_body"),
        ("__forward_serve_24", "__forward_serve_24_body"),
        ("__inference_a_1_2", "__inference_a_1_body_2"),
        # TensorFlow's serving metrics would take these for another converter's.
        ("__inference_tpu_func_0_24", "__inference_tpu_fn_0_body_24"),
        ("serve_with_batch", "serve_batched_body"),
        ("my_optim", "my_opt_im_body"),
        ("tpu_fn_icv2_f", "tpu_fn_f_body"),
    ],
)
def test_a_function_s_name_is_made_of_the_one_it_comes_from(original: str, name: str) -> None:
    assert edit.function_name(parse_model(""), original, "body") == name


def test_a_name_that_is_taken_is_numbered() -> None:
    model = parse_model(
        "@f_body() -> () { return } @f_body1() -> () { return } @__inference_f_body_3() -> () { return }"
    )
    assert edit.function_name(model, "f", "body") == "f_body2"
    assert edit.function_name(model, "__inference_f_3", "body") == "__inference_f_body1_3"
    assert edit.function_name(model, "f", "body", taken=["f_body2", "f_body4"]) == "f_body3"


@given(
    st.from_regex(r"(__inference_)?(tpu_func_|_with_batch|_optim|tpu_fn_icv2_|0|f){1,5}(_[0-9]{1,2})?", fullmatch=True)
)
def test_no_name_of_ours_is_taken_for_another_converter_s(original: str) -> None:
    name = edit.function_name(parse_model(""), original, "body")
    assert not any(part in name for part in ("tpu_func_0", "_with_batch", "_optim", "tpu_fn_icv2_"))


# --- references -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["a", "a:1", "a:y:0", "^a"])
def test_the_producer_of_a_reference(ref: str) -> None:
    assert edit.producer_of(ref) == "a"


def test_data_inputs_are_without_control_inputs() -> None:
    assert edit.data_inputs(make_node("n", "Op", ["a", "b:1", "^c"])) == ["a", "b:1"]


def test_rewiring_the_main_graph_takes_both_spellings_of_a_first_output() -> None:
    model = parse_model("main { a = A(x, x:0, x:1, ^x); b = B(x) }")
    assert edit.rewire(model.main_scope(), {"x:0": "new:2"}, except_nodes=["b"]) == 2
    assert render(model) == "main {\n  a = A(new:2, new:2, x:1, ^x)\n  b = B(x)\n}\n"


def test_rewiring_a_function_includes_its_results() -> None:
    model = parse_model("@F(x: float32) -> (a: float32, b: float32) { n = N(x, m:y:0); return x, m:y:0 }")
    assert edit.rewire(model.scope("F"), {"x": "p:q:0", "m:y:0": "x"}) == 4
    assert render(model) == "@F(x: float32) -> (a: float32, b: float32) {\n  n = N(p:q:0, x)\n  return p:q:0, x\n}\n"


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
    ordered, ring = edit.in_order(model.main_scope())
    names = [node.name for node in ordered]
    assert sorted(names) == ["a", "b", "c", "d"]
    assert names.index("a") < names.index("b") < names.index("c")
    assert [node.name for node in ring] == ["m", "n", "e"]


# --- functions --------------------------------------------------------------------------------------------------


def test_the_shapes_of_results_are_those_that_the_exporter_recorded() -> None:
    model = parse_model(
        """
        @F(x: float32 {_output_shapes: [<2,?>]}, y: float32)
          -> (a: float32, b: float32, c: float32, d: float32, e: float32) {
          n = Neg(x) {T: float32, _output_shapes: [<3>]}
          call = PartitionedCall(x) {Tout: [float32, float32], _output_shapes: [<4>, <5>]}
          top = TopKV2(x) {T: float32, _output_shapes: [<6>, <7>]}
          return x, n:y:0, call:output:1, top:indices:0, y
        }
        """
    )
    shapes = edit.result_shapes(model.functions["F"])
    sizes = [None if s.unknown_rank else [d.size for d in s.dim] for s in shapes]
    # Which of the two shapes of TopKV2 is that of its arg "indices", only its OpDef could tell.
    assert sizes == [[2, -1], [3], [5], None, None]


def test_a_clone_is_independent_and_without_the_interface_of_its_original() -> None:
    model = parse_model('@F(x: float32) -> (y: float32) [api_implements: "lstm", _noinline: true] { return x }')
    clone = edit.clone_function(model, "F", "copy")
    clone.node_def.append(make_node("n", "NoOp"))
    assert not model.functions["F"].node_def
    assert model.functions["F_copy"] is clone
    assert set(clone.attr) == {"_noinline"}
    assert "api_implements" in model.functions["F"].attr


def test_a_copy_has_the_name_that_it_is_given() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { return x }")
    assert edit.copy_function(model, "F", "G") is model.functions["G"]
    assert list(model.functions) == ["F", "G"]


def test_outlining_moves_the_body_and_leaves_a_call() -> None:
    text = """
    object inside = captured n:0 in @{owner}
    object argument = captured x:0 in @F
    @F{head} {{ {body} }}
    """
    head = '(x: float32 {_user_specified_name: "x"}, v: resource(float32<2>)) -> (y: float32, z: int32) [stateful]'
    body = """
      n = Neg(x) {T: float32, _output_shapes: [<2>]}
      i = Cast(n:y:0) {SrcT: float32, DstT: int32}
      return n:y:0, i:y:0, ^i
    """
    outlined = """
      call = StatefulPartitionedCall(x, v)
        {f: @F_inner, Tin: [float32, resource], Tout: [float32, int32], _output_shapes: [<2>, <*>]}
      return call:output:0, call:output:1, ^call
    """
    model = parse_model(text.format(owner="F", head=head, body=body))
    function, call = edit.outline(model, "F", "inner")
    expected = text.format(owner="F_inner", head=head, body=outlined) + f"@F_inner{head} {{ {body} }}"
    assert render(model, ["_output_shapes"]) == render(parse_model(expected), ["_output_shapes"])
    assert function is model.functions["F_inner"]
    call.attr["marker"].i = 1
    assert model.functions["F"].node_def[0].attr["marker"].i == 1


def test_outlining_avoids_the_names_of_arguments() -> None:
    model = parse_model("@F(call: float32) -> (y: float32) { return call }")
    _, call = edit.outline(model, "F", "inner")
    assert (call.name, list(call.input)) == ("call_1", ["call"])


def test_outlining_twice_nests() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }")
    edit.outline(model, "F", "body")
    edit.outline(model, "F", "outer")
    assert calls.call_graph(model) == {MAIN_GRAPH: [], "F": ["F_outer"], "F_body": [], "F_outer": ["F_body"]}


def test_a_new_body_replaces_results_and_what_must_run() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0, ^old=n }")
    nodes = [make_node("a", "NoOp"), make_node("b", "NoOp")]
    edit.replace_body(model.functions["F"], nodes, {"y": "x"})
    assert render(model) == "@F(x: float32) -> (y: float32) {\n  a = NoOp()\n  b = NoOp()\n  return x, ^b\n}\n"
    edit.replace_body(model.functions["F"], nodes, {"y": "x"}, control=[])
    assert render(model).endswith("return x\n}\n")


def test_nodes_are_found_everywhere() -> None:
    model = parse_model("main { a = PartitionedCall() {f: @H} } @H() -> () { x = PartitionedCall() {f: @H}; return }")
    found = edit.nodes_where(model, lambda n: n.op == "PartitionedCall")
    assert [(scope.name, node.name) for scope, node in found] == [(MAIN_GRAPH, "a"), ("H", "x")]


def test_an_attribute_value_stays_as_it_is() -> None:
    value = attr_value_pb2.AttrValue(i=3)
    assert edit.plain_attr(value) is value
