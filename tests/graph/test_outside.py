"""Which functions and tensors signatures and the object graph name, and how they spell them."""

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


SERVED = """
signature "serving_default" x=x:0 -> y=y:0, z=z:0
signature "__saved_model_init_op" -> __saved_model_init_op=init:0
object signatures.serving_default = bare @F
object f = function @F, @G
object w = variable float32<4>
object captured = captured x:0 in @H
main {
  x = Placeholder() {dtype: float32}
  y = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
  z = Neg(x) {T: float32}
}
@F(x: float32) -> (y: float32) { return x }
@G(x: float32) -> (y: float32) { return x }
@H(x: float32) -> (y: float32) { return x }
"""


def test_the_functions_that_users_can_call_are_those_of_traced_and_of_bare_functions() -> None:
    model = parse_model(SERVED)
    assert outside.exposed_functions(model) == {"F", "G"}
    assert [found for n in model.object_graph.nodes if (found := outside.functions_of(n))] == [["F"], ["F", "G"]]


def test_jit_compile_goes_from_what_calls_one_of_the_functions() -> None:
    text = "object f = function @F, @G {jit_compile} object h = function @H {jit_compile} "
    rest = "@F() -> () { return } @G() -> () { return } @H() -> () { return }"
    model = parse_model(text + rest)
    outside.not_jit_compiled(model, ["G"])
    assert render(model) == render(parse_model(text.replace("@G {jit_compile}", "@G") + rest))


def test_names_of_tensors_follow_a_body_and_those_of_arguments_stay() -> None:
    text = "object a = captured n:0 in @F object b = captured x:0 in @F object c = captured n:0 in @H "
    body = "(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 } "
    rest = "".join(f"@{name}{body}" for name in "FGH")
    model = parse_model(text + rest)
    outside.follow_body(model, model.functions["F"], model.functions["G"])
    assert render(model) == render(parse_model(text.replace("captured n:0 in @F", "captured n:0 in @G") + rest))


def test_the_roots_of_a_signature_are_the_nodes_of_its_outputs() -> None:
    model = parse_model(SERVED)
    assert outside.serving_roots(model) == {"serving_default": ("y", "z")}


def test_the_function_of_a_signature_comes_from_the_object_graph() -> None:
    model = parse_model(SERVED)
    assert outside.signature_function(model, "serving_default") == "F"


@pytest.mark.parametrize(
    ("graph", "function"),
    [
        ("y = PartitionedCall() {f: @G, Tin: [], Tout: [float32]}", "G"),
        ("call = PartitionedCall() {f: @G, Tin: [], Tout: [float32]}; y = Identity(call:0) {T: float32}", "G"),
        ("y = Const() {dtype: float32, value: float32(1)}", None),
        ("", None),
    ],
)
def test_without_one_there_the_main_graph_tells(graph: str, function: str | None) -> None:
    model = parse_model(f'signature "s" -> y=y:0 main {{ {graph} }} @G() -> (y: float32) {{ return y }}')
    assert outside.signature_function(model, "s") == function


def test_a_signature_may_be_a_function_with_traces_in_the_object_graph() -> None:
    model = parse_model('signature "s" -> y=y:0 object signatures.s = function @F, @G @F() -> () { return }')
    assert outside.signature_function(model, "s") == "F"


def test_captures_are_the_last_arguments_of_what_the_object_graph_lists() -> None:
    model = parse_model("""
    object v = variable float32<4>
    object c = constant "c"
    object f = function @F(v, c)
    @F(x: float32, w: resource, y: float32) -> () { return }
    @G(x: float32) -> () { return }
    """)
    assert outside.captures_of(model, "F") == {1: 1, 2: 2}
    assert outside.captures_of(model, "G") == {}
    assert outside.captures_of(model, "gone") == {}
