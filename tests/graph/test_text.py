"""A model becomes text, and that text, as far as it can be read back, the same model."""

import re

import pytest

from converter.graph import outside
from converter.graph.protos import DT_VARIANT
from tests.harness import parse_model, render

EVERYTHING = """\
alias "tpu" = @F, @G
signature "serving_default" x=x:0 float32<?,10> -> y=call:0, z=call:1
object v = variable float32<10,4>
object tpu_func = function @F(v), @G {jit_compile}
object signatures.serving_default = bare @G
object c = constant "Const_1"
object t = captured m:0 in @F
object table = resource
main {
  x = Placeholder() {dtype: float32, shape: <?,10>}
  big = Const() {dtype: float32, value: float32<3,0>}
  n = Const() {dtype: int64, value: int64([[1, -2], [3, 4]])}
  zeros = Const() {dtype: float32, value: float32<5,5>}
  name/with-dash = NoOp(^x)
  call = PartitionedCall(x, n:1, ^name/with-dash) {Tin: [float32], Tout: [float32], f: @F} on "/device:CPU:0"
}
@F(x: float32 {_user_specified_name: "x"}, v: resource(float32<10,4>)) -> (y: float32) [stateful, _noinline: true] {
  r = ReadVariableOp(v) {dtype: float32}
  s = Const() {dtype: string, value: string(["a\\"b", "\\x00"])}
  m = Mul(x, r:value:0) {T: float32, empty: [], f: @G {a: 1}, floats: [1.0, 0.5], shapes: [<>, <*>, <2>], x: 0.1}
  return m:z:0, ^m, ^named=r
}
@__inference_<lambda>_7() -> () {
  return
}
@G() -> (y: bool) {
  c = Const() {dtype: bool, value: bool(true)}
  return c:output:0
}
"""


def test_text_becomes_a_model_and_the_same_text_again() -> None:
    model = parse_model(EVERYTHING)
    assert render(model) == EVERYTHING
    assert parse_model(render(model)).saved_model == model.saved_model


def test_what_the_text_says_is_in_the_protos() -> None:
    model = parse_model(EVERYTHING)
    function = model.functions["F"]
    assert function.signature.is_stateful and function.attr["_noinline"].b
    assert function.arg_attr[0].attr["_user_specified_name"].s == b"x"
    assert [d.size for d in function.signature.input_arg[1].handle_data[0].shape.dim] == [10, 4]
    assert dict(function.control_ret) == {"m": "m", "named": "r"}
    assert list(function.node_def[1].attr["value"].tensor.string_val) == [b'a"b', b"\0"]
    assert function.node_def[2].attr["empty"].WhichOneof("value") == "list"
    assert model.aliases == {"tpu": ("F", "G")}
    assert outside.signature_function(model, "serving_default") == "G"
    assert list(model.object_graph.concrete_functions["F"].bound_inputs) == [1]
    assert list(model.graph_def.node[-1].input) == ["x", "n:1", "^name/with-dash"]


def test_layout_and_comments_do_not_matter() -> None:
    flat = "main { x = Placeholder() {dtype: float32, shape: <>}; y = Identity(x) {T: float32} }"
    spread = """
    # a comment
    main {
        x = Placeholder() {
            shape: <>, dtype: float32}   # after a statement
        y = Identity(x) {T: float32}
    }"""
    assert parse_model(spread).saved_model == parse_model(flat).saved_model


def test_some_attributes_are_hidden_unless_asked_for() -> None:
    model = parse_model('main { y = NoOp() {_output_shapes: [<2>], config_proto: "c", k: 1} }')
    assert render(model) == "main {\n  y = NoOp() {k: 1}\n}\n"
    assert render(model, ["_output_shapes"]) == "main {\n  y = NoOp() {_output_shapes: [<2>], k: 1}\n}\n"


def test_large_tensors_are_printed_with_a_checksum() -> None:
    one, other = (
        render(parse_model(f"main {{ c = Const() {{value: float32([{last}, {'0.5, ' * 20}])}} }}")) for last in (1, 2)
    )
    assert re.search(r"float32<21>#[0-9a-f]{8}\b", one)
    assert one != other
    with pytest.raises(ValueError, match="checksum"):
        parse_model(one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("main {\n x = Op( \n}", r"line 3: expected an input, found '}'"),
        ("main { x Op() }", r"line 1: expected '=', found 'Op\(\) }'"),
        ("main {\n x = Op() {T: float33} }", r"line 2: expected a dtype \(there is no 'float33'\), found 'float33"),
        ('object a = whatever "x"', "expected a kind of object"),
        ("@F() -> (y: float32) { return }", "@F returns 0 tensors, its head says 1"),
        ("nonsense", "line 1: expected @function, found 'nonsense'"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_model(text)


def test_large_bytes_are_printed_with_a_checksum() -> None:
    def shown(last: str) -> str:
        return render(parse_model(f'main {{ m = Op() {{module: "{"x" * 256}{last}", small: "{"x" * 256}"}} }}'))

    assert re.search(rf'{{module: bytes<257>#[0-9a-f]{{8}}, small: "{"x" * 256}"}}', shown("y"))
    assert shown("y") != shown("z")
    with pytest.raises(ValueError, match="there is no 'bytes'"):
        parse_model(shown("y"))


def test_large_tensors_of_strings_differ_by_their_strings() -> None:
    blanks = ", ".join(20 * ['""'])
    one, other = (render(parse_model(f'main {{ c = Const() {{value: string(["{x}", {blanks}])}} }}')) for x in "ab")
    assert re.search(r"string<21>#[0-9a-f]{8}\b", one)
    assert one != other


def test_what_only_an_inconsistent_or_unusual_model_has_is_shown_too() -> None:
    model = parse_model("main { c = Op() {value: float32(1), T: float32, absent: 1, named: 1} } @F() -> () { return }")
    attrs = model.graph_def.node[0].attr
    attrs["value"].tensor.dtype = DT_VARIANT
    attrs["value"].tensor.tensor_shape.dim.add(size=2)
    attrs["T"].type = 0
    attrs["absent"].Clear()
    attrs["named"].placeholder = "T"
    shown = r"c = Op\(\) {T: dtype0, absent: none, named: T, value: variant<2>#[0-9a-f]{8}}\n"
    assert re.search(shown, render(model))


def test_a_bound_input_without_a_path_has_its_id() -> None:
    model = parse_model('object c = constant "C" object f = function @F(c) @F(x: float32) -> () { return }')
    assert "object f = function @F(c)\n" in render(model)
    del model.object_graph.nodes[0].children[0]
    assert "object f = function @F(node1)\n" in render(model)
