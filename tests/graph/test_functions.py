"""Functions: their names, clones and outlines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.graph import calls
from converter.graph.functions import clone_function, copy_function, function_name, outline, replace_body, result_shapes
from converter.graph.model import MAIN_GRAPH
from converter.graph.nodes import make_node
from tests.harness import parse_model, render


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
    assert function_name(parse_model(""), original, "body") == name


def test_a_name_that_is_taken_is_numbered() -> None:
    model = parse_model(
        "@f_body() -> () { return } @f_body1() -> () { return } @__inference_f_body_3() -> () { return }"
    )
    assert function_name(model, "f", "body") == "f_body2"
    assert function_name(model, "f", "body", taken=["f_body2", "f_body4"]) == "f_body3"
    assert function_name(model, "__inference_f_3", "body") == "__inference_f_body1_3"


@given(
    st.from_regex(r"(__inference_)?(tpu_func_|_with_batch|_optim|tpu_fn_icv2_|0|f){1,5}(_[0-9]{1,2})?", fullmatch=True)
)
def test_no_name_of_ours_is_taken_for_another_converter_s(original: str) -> None:
    name = function_name(parse_model(""), original, "body")
    assert not any(part in name for part in ("tpu_func_0", "_with_batch", "_optim", "tpu_fn_icv2_"))


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
    shapes = result_shapes(model.functions["F"])
    sizes = [None if s.unknown_rank else [d.size for d in s.dim] for s in shapes]
    # Which of the two shapes of TopKV2 is that of its arg "indices", only its OpDef could tell.
    assert sizes == [[2, -1], [3], [5], None, None]


def test_a_clone_is_independent_and_without_the_interface_of_its_original() -> None:
    model = parse_model('@F(x: float32) -> (y: float32) [api_implements: "lstm", _noinline: true] { return x }')
    clone = clone_function(model, "F", "copy")
    clone.node_def.append(make_node("n", "NoOp"))
    assert not model.functions["F"].node_def
    assert model.functions["F_copy"] is clone
    assert set(clone.attr) == {"_noinline"}
    assert "api_implements" in model.functions["F"].attr


def test_a_copy_has_the_name_that_it_is_given() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { return x }")
    assert copy_function(model, "F", "G") is model.functions["G"]
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
    function, call = outline(model, "F", "inner")
    expected = text.format(owner="F_inner", head=head, body=outlined) + f"@F_inner{head} {{ {body} }}"
    assert render(model, ["_output_shapes"]) == render(parse_model(expected), ["_output_shapes"])
    assert function is model.functions["F_inner"]
    call.attr["marker"].i = 1
    assert model.functions["F"].node_def[0].attr["marker"].i == 1


def test_outlining_avoids_the_names_of_arguments() -> None:
    model = parse_model("@F(call: float32) -> (y: float32) { return call }")
    _, call = outline(model, "F", "inner")
    assert (call.name, list(call.input)) == ("call_1", ["call"])


def test_outlining_twice_nests() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }")
    outline(model, "F", "body")
    outline(model, "F", "outer")
    assert calls.call_graph(model).callees == {MAIN_GRAPH: [], "F": ["F_outer"], "F_body": [], "F_outer": ["F_body"]}


def test_a_new_body_replaces_results_and_what_must_run() -> None:
    model = parse_model("@F(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0, ^old=n }")
    nodes = [make_node("a", "NoOp"), make_node("b", "NoOp")]
    replace_body(model.functions["F"], nodes, {"y": "x"})
    assert render(model) == "@F(x: float32) -> (y: float32) {\n  a = NoOp()\n  b = NoOp()\n  return x, ^b\n}\n"
    replace_body(model.functions["F"], nodes, {"y": "x"}, control=[])
    assert render(model).endswith("return x\n}\n")
