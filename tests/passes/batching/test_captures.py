"""Captures are what is one and the same variable or constant at every call; all else belongs to the request."""

from typing import Any

from converter.graph.model import Model
from converter.passes.batching.captures import Captures
from converter.saved_model.reader import read_model
from tests.harness import parse_model

BODY = "{ i = Identity(x) {T: float32}; return i:output:0 }"


def captured(model: Model, function: str) -> list[bool]:
    captures = Captures(model)
    return [captures.argument(function, i) for i in range(len(model.functions[function].signature.input_arg))]


def read_without(model: Model, node: str) -> Model:
    """The model without a node of its main graph."""
    nodes = model.graph_def.node
    del nodes[next(i for i, each in enumerate(nodes) if each.name == node)]
    return model


def one_caller(nodes: str, inputs: str = "x, c") -> str:
    return f"""
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      {nodes}
      call = PartitionedCall({inputs}) {{Tin: [float32, float32], Tout: [float32], f: @f}}
    }}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    """


def test_bound_inputs_of_the_object_graph_are_captures() -> None:
    model = parse_model(f"""
    object v = variable float32<3>
    object c = constant "Const"
    object f = function @f(v, c)
    @f(x: float32, v: resource, c: float32) -> (y: float32) {BODY}
    """)
    assert captured(model, "f") == [False, True, True]


def test_a_function_that_nobody_calls_has_requests_only() -> None:
    assert captured(parse_model(f"@f(x: float32, c: float32) -> (y: float32) {BODY}"), "f") == [False, False]


def test_constants_variables_and_what_is_made_of_them_are_captures() -> None:
    const = "c0 = Const() {dtype: float32, value: float32(2)}"
    variable = 'v = VarHandleOp() {dtype: float32, shape: <3>, shared_name: "v"}'
    for nodes in (
        const.replace("c0", "c"),
        f"{const}; c = Identity(c0) {{T: float32}}",
        f"{const}; c = Mul(c0, c0) {{T: float32}}",
        f"{variable}; c = ReadVariableOp(v) {{dtype: float32}}",
        f"{variable}; r = ReadVariableOp(v) {{dtype: float32}}; {const}; c = Mul(r, c0) {{T: float32}}",
    ):
        assert captured(parse_model(one_caller(nodes)), "f") == [False, True], nodes


def test_what_depends_on_the_request_or_on_chance_is_not_a_capture() -> None:
    for nodes in (
        "c = Placeholder() {dtype: float32, shape: <>}",
        "k = Const() {dtype: float32, value: float32(2)}; c = Mul(x, k) {T: float32}",
        "s = Const() {dtype: int32, value: int32([2])}; c = RandomUniform(s) {T: int32, dtype: float32}",
    ):
        assert captured(parse_model(one_caller(nodes)), "f") == [False, False], nodes


TWO_CALLERS = f"""
@first(x: float32) -> (y: float32) {{
  c = Const() {{dtype: float32, value: float32(FIRST)}}
  call = PartitionedCall(x, c:output:0) {{Tin: [float32, float32], Tout: [float32], f: @f}}; return call:output:0
}}
@second(x: float32) -> (y: float32) {{
  d = Const() {{dtype: float32, value: float32(SECOND)}}
  call = PartitionedCall(x, d:output:0) {{Tin: [float32, float32], Tout: [float32], f: @f}}; return call:output:0
}}
@f(x: float32, c: float32) -> (y: float32) {BODY}
"""


def test_callers_must_agree_on_a_constant() -> None:
    """Requests in a batch share the captures of one of them, so different constants are part of the request."""
    same = parse_model(TWO_CALLERS.replace("FIRST", "2").replace("SECOND", "2"))
    assert captured(same, "f") == [False, True]
    different = parse_model(TWO_CALLERS.replace("FIRST", "2").replace("SECOND", "3"))
    assert captured(different, "f") == [False, False]


def test_callers_must_agree_on_a_variable() -> None:
    def model(second: str) -> Model:
        return parse_model(f"""
        main {{
          x = Placeholder() {{dtype: float32, shape: <?>}}
          v = VarHandleOp() {{dtype: float32, shape: <3>, shared_name: "v"}}
          w = VarHandleOp() {{dtype: float32, shape: <3>, shared_name: "{second}"}}
          one = PartitionedCall(x, v) {{Tin: [float32, resource], Tout: [float32], f: @f}}
          two = PartitionedCall(x, w) {{Tin: [float32, resource], Tout: [float32], f: @f}}
        }}
        @f(x: float32, v: resource) -> (y: float32) {BODY}
        """)

    assert captured(model("v"), "f") == [False, True]
    assert captured(model("w"), "f") == [False, False]


def test_captures_are_followed_through_calls_branches_and_loops() -> None:
    model = parse_model(f"""
    object c = constant "Const"
    object outer = function @outer(c)
    @outer(x: float32, p: bool, c: float32) -> (y: float32, z: float32) {{
      i = If(p, x, c) {{Tcond: bool, Tin: [float32, float32], Tout: [float32], then_branch: @f, else_branch: @g}}
      w = While(x, c) {{T: [float32, float32], cond: @cond, body: @body}}
      return i:output:0, w:output:1
    }}
    @cond(x: float32, c: float32) -> (p: bool) {{ l = Less(x, c) {{T: float32}}; return l:z:0 }}
    @body(x: float32, c: float32) -> (y: float32, d: float32) {{
      call = PartitionedCall(x, c) {{Tin: [float32, float32], Tout: [float32], f: @h}}
      return call:output:0, c
    }}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    @g(x: float32, c: float32) -> (y: float32) {BODY}
    @h(x: float32, c: float32) -> (y: float32) {BODY}
    """)
    for function in ("f", "g", "cond", "body", "h"):
        assert captured(model, function) == [False, True], function


def test_a_function_that_an_unknown_kind_of_op_calls_has_requests_only() -> None:
    model = parse_model(f"""
    object c = constant "Const"
    object f = function @f(c)
    main {{
      c = Const() {{dtype: float32, value: float32(2)}}
      m = MapDefun(c, c) {{f: @f}}
      call = PartitionedCall(c, c) {{Tin: [float32, float32], Tout: [float32], f: @f}}
    }}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    """)
    assert captured(model, "f") == [False, False]
    assert captured(read_without(model, "m"), "f") == [True, True]


def test_every_way_to_call_hands_captures_on() -> None:
    types = "Tin: [float32, float32], Tout: [float32]"
    for call in (
        f"TPUPartitionedCall(x, c, p) {{{types}, f: @f}}",
        "BatchFunction(x, c) {Tin: [float32], Tcaptured: [float32], Tout: [float32], f: @f}",
        f"Case(p, x, c) {{{types}, branches: [@g, @f]}}",
        "f(x, c)",
    ):
        model = parse_model(f"""
        main {{
          x = Placeholder() {{dtype: float32, shape: <?>}}
          c = Const() {{dtype: float32, value: float32(2)}}
          p = Placeholder() {{dtype: int32, shape: <>}}
          call = {call}
        }}
        @f(x: float32, c: float32) -> (y: float32) {BODY}
        @g(x: float32, c: float32) -> (y: float32) {BODY}
        """)
        assert captured(model, "f") == [False, True], call


def test_captures_of_real_models(testdata: Any) -> None:
    model = read_model(testdata("captured_constants"))
    (first,) = model.aliases["first"]
    (second,) = model.aliases["second"]
    assert captured(model, first) == [False, True, True]
    assert captured(model, second) == [False, True, True]
    model = read_model(testdata("int_inputs"))
    (function,) = model.aliases["tpu_func"]
    resources = [a.type == 20 for a in model.functions[function].signature.input_arg]
    assert captured(model, function) == resources
