"""Captures where calls go round in circles, and how much work large models are."""

from itertools import permutations

import pytest

from converter.graph import ops
from converter.graph.model import Model
from converter.graph.nodes import func_attr, make_node, type_attr, type_list_attr
from converter.passes.batching import captures as module
from converter.passes.batching.captures import Captures
from tests.harness import parse_model

BODY = "{ i = Identity(x) {T: float32}; return i:output:0 }"
COND = "{ l = Less(a, a) {T: float32}; return l:z:0 }"


def captured(model: Model, function: str) -> list[bool]:
    captures = Captures(model)
    return [captures.argument(function, i) for i in range(len(model.functions[function].signature.input_arg))]


def loop(results: str, given: str = "c, d, x", body: str = "", library: str = "") -> Model:
    """A loop over three tensors, of which the main graph gives two constants (c and e are the same) and a request."""
    return parse_model(f"""
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      c = Const() {{dtype: float32, value: float32(2)}}
      d = Const() {{dtype: float32, value: float32(3)}}
      e = Const() {{dtype: float32, value: float32(2)}}
      w = While({given}) {{T: [float32, float32, float32], cond: @cond, body: @body}}
    }}
    @cond(a: float32, b: float32, c: float32) -> (p: bool) {COND}
    @body(a: float32, b: float32, c: float32) -> (p: float32, q: float32, r: float32) {{
      one = Const() {{dtype: float32, value: float32(1)}}
      {body}
      return {results}
    }}
    {library}
    """)


def test_a_loop_counter_is_not_a_capture() -> None:
    """It starts as a constant, and is another number in each round."""
    counted = "next = AddV2(a, one:output:0) {T: float32}"
    model = loop("next:z:0, b, c", body=counted)
    for function in ("cond", "body"):
        assert captured(model, function) == [False, True, False]
    # What is made of it, and functions that it is given to, are not either.
    made = f"""{counted}; twice = Mul(a, b) {{T: float32}}
      call = PartitionedCall(a, twice:z:0, b) {{Tin: [float32, float32, float32], Tout: [float32], f: @f}}"""
    library = f"@f(x: float32, y: float32, z: float32) -> (r: float32) {BODY}"
    assert captured(loop("next:z:0, b, c", body=made, library=library), "f") == [False, False, True]


def test_what_a_loop_hands_on_unchanged_stays_a_capture() -> None:
    assert captured(loop("a, b, c"), "body") == [True, True, False]
    assert captured(loop("i:output:0, b, c", body="i = Identity(a) {T: float32}"), "body") == [True, True, False]
    # Reset in each round to what it starts with: one literal is the other, but not one of the main graph.
    assert captured(loop("one:output:0, b, c"), "body") == [False, True, False]


def test_tensors_that_change_places_are_captures_only_if_they_are_one() -> None:
    assert captured(loop("b, a, c"), "body") == [False, False, False]
    assert captured(loop("b, a, c", "c, e, x"), "body") == [True, True, False]
    # The request comes to b and a one and two rounds late.
    assert captured(loop("b, c, c", "c, e, x"), "body") == [False, False, False]
    assert captured(loop("b, c, a", "c, e, x"), "cond") == [False, False, False]


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
def test_answers_in_a_circle_are_complete_whichever_is_asked_first(order: tuple[int, ...]) -> None:
    captures = Captures(loop("b, c, a", "c, e, d"))
    for i in order:
        assert not captures.argument("body", i)
        assert not captures.argument("cond", i)


def test_loops_in_loops_hand_on_in_both_directions() -> None:
    inner = "w = While(a, b, c) {T: [float32, float32, float32], cond: @cond, body: @inner}"
    arguments = "(a: float32, b: float32, c: float32) -> (p: float32, q: float32, r: float32)"
    model = loop("a, b, c", "c, e, d", inner, f"@inner{arguments} {{ return a, b, c }}")
    assert captured(model, "inner") == captured(model, "cond") == [True, True, True]
    model = loop("b, c, c", "c, e, d", inner, f"@inner{arguments} {{ return b, b, c }}")
    assert captured(model, "inner") == captured(model, "cond") == [False, False, True]
    assert captured(model, "body") == [False, False, True]


def test_a_function_that_calls_itself_comes_to_an_end() -> None:
    model = parse_model("""
    main {
      x = Placeholder() {dtype: float32, shape: <?>}
      c = Const() {dtype: float32, value: float32(2)}
      call = PartitionedCall(x, c, c) {Tin: [float32, float32, float32], Tout: [float32], f: @f}
    }
    @f(x: float32, c: float32, d: float32) -> (y: float32) {
      n = Neg(d) {T: float32}
      again = PartitionedCall(x, c, n:y:0) {Tin: [float32, float32, float32], Tout: [float32], f: @f}
      return again:output:0
    }
    """)
    assert captured(model, "f") == [False, True, False]


def test_a_request_in_a_circle_comes_through_what_is_made_of_it() -> None:
    counted = "n = Neg(b) {T: float32}"
    assert captured(loop("a, c, c", "c, e, x", counted), "body") == [True, False, False]
    assert captured(loop("n:y:0, c, c", "x, e, x", counted), "body") == [False, False, False]


def test_a_world_that_comes_a_round_later_is_waited_for() -> None:
    """b gets the variable of the main graph in the second round; c is made of both in the first."""
    types = "Tin: [float32, float32], Tout: [float32]"
    model = parse_model(f"""
    object v = variable float32<>
    object f = function @f(v)
    @f(x: float32, v: resource) -> (y: float32) {{
      w = While(v, v) {{T: [resource, resource], cond: @cond, body: @body}}; return x
    }}
    @cond(a: resource, b: resource) -> (p: bool) {{ return a }}
    @body(a: resource, b: resource) -> (c: resource, d: resource) {{
      v = VarHandleOp() {{dtype: float32, shape: <>, shared_name: "v"}}
      r = ReadVariableOp(a) {{dtype: float32}}; s = ReadVariableOp(b) {{dtype: float32}}
      m = Mul(r:value:0, s:value:0) {{T: float32}}
      call = PartitionedCall(m:z:0, m:z:0) {{{types}, f: @h}}
      return v:resource:0, a
    }}
    @h(x: float32, c: float32) -> (y: float32) {BODY}
    """)
    assert captured(model, "body") == [True, True]
    assert captured(model, "h") == [True, True]


# -------------------------------------------------------------------------------------------- who may call from outside

CALL = "call = PartitionedCall(x, {}) {{Tin: [float32, float32], Tout: [float32], f: @f}}"
OUTER = "@{}(x: float32, k: float32) -> (y: float32) {{ {}; return x }}"


def outside(objects: str, made: str = "", given: str = "k") -> Model:
    """The main graph gives f a constant, and a function `outer` that no node calls gives it its own argument."""
    return parse_model(f"""
    {objects}
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      c = Const() {{dtype: float32, value: float32(2)}}
      {CALL.format("c")}
    }}
    {OUTER.format("outer", f"{made}; {CALL.format(given)}")}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    """)


def test_a_function_that_only_python_can_call_hands_on_a_request() -> None:
    assert captured(outside("object outer = function @outer"), "f") == [False, False]
    assert captured(outside("object f = function @f"), "f") == [False, True], "that nodes call it is what counts"
    assert captured(outside('object v = constant "c"\nobject outer = function @outer(v)'), "f") == [False, True]


def test_a_function_that_nobody_can_call_hands_on_nothing() -> None:
    assert captured(outside(""), "f") == [False, True]
    assert captured(outside("", "n = Neg(k) {T: float32}", "n:y:0"), "f") == [False, True]
    scaled = "two = Const() {dtype: float32, value: float32(2)}; m = Mul(k, two:output:0) {T: float32}"
    assert captured(outside("", scaled, "m:z:0"), "f") == [False, True]
    assert captured(outside(""), "outer") == [False, False]


# ---------------------------------------------------------------------------------------------------------------- work


def chain(op: str, length: int) -> Model:
    """`length` ops on the CPU between a variable and what a function is given; AddV2 adds each to itself."""
    model = parse_model(f"""
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      v = VarHandleOp() {{dtype: float32, shape: <3>, shared_name: "v"}}
      n0 = ReadVariableOp(v) {{dtype: float32}}
    }}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    """)
    for i in range(length):
        inputs = [f"n{i}"] * (2 if op == "AddV2" else 1)
        model.graph_def.node.append(make_node(f"n{i + 1}", op, inputs, T=type_attr(1)))
    attrs = {"Tin": type_list_attr([1, 1]), "Tout": type_list_attr([1]), "f": func_attr("f")}
    model.graph_def.node.append(make_node("call", "PartitionedCall", ["x", f"n{length}"], **attrs))
    return model


@pytest.mark.parametrize(("op", "length"), [("AddV2", 30), ("AddV2", 1000), ("Neg", 5000), ("Identity", 5000)])
def test_long_chains_are_followed_to_their_start(op: str, length: int) -> None:
    assert captured(chain(op, length), "f") == [False, True]


def work(model: Model, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How often an op is looked up, and how often origins are combined, to find all captures of a model."""
    count = {"looked up": 0, "combined": 0}
    looked_up, combined = ops.op_def, Captures._combined

    def look_up(*arguments: object) -> object:
        count["looked up"] += 1
        return looked_up(*arguments)

    def combine(*arguments: object) -> object:
        count["combined"] += 1
        return combined(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.ops, "op_def", look_up)
        patch.setattr(Captures, "_combined", combine)
        Captures(model)
    return count["looked up"], count["combined"]


def test_work_grows_with_the_length_of_a_chain_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in ("AddV2", "Neg"):
        short, long = (work(chain(op, length), monkeypatch) for length in (100, 200))
        assert all(0 < one <= other <= 2.2 * one for one, other in zip(short, long, strict=True))


def test_functions_behind_each_other_are_swept_when_their_callers_have_been(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library lists the callees first: in its order, each would be swept once for each of its callers."""

    def nested(depth: int) -> Model:
        model = chain("Neg", 1)
        for i in range(depth):
            body = f"n = Neg(c) {{T: float32}}; {CALL.format('n:y:0').replace('@f', f'@f{i - 1}' if i else '@f')}"
            callees = f"@f(x: float32) -> () {{ return }}\n@f{i - 1}(x: float32) -> () {{ return }}"
            inner = parse_model(f"{OUTER.format(f'f{i}', body).replace('k:', 'c:')}\n{callees}")
            model.add_function(inner.functions[f"f{i}"])
        model.graph_def.node[-1].attr["f"].func.name = f"f{depth - 1}"
        return model

    assert captured(nested(20), "f") == [False, True]
    (_, short), (_, long) = (work(nested(depth), monkeypatch) for depth in (20, 40))
    assert short <= 2 * 21
    assert long <= 2 * 41
