"""When two tensors are the same thing: by content, by name, and by how they are made, in each world."""

import pytest

from converter.graph.model import Model
from converter.passes.batching.captures import Captures, is_one, join
from tests.harness import parse_model

BODY = "{ i = Identity(x) {T: float32}; return i:output:0 }"
CONST = "Const() {{dtype: float32, value: float32({})}}"
READ = 'VarHandleOp() {{dtype: float32, shape: <>, shared_name: "{0}"}}; {1} = ReadVariableOp({0}) {{dtype: float32}}'


def callers_agree(one: str, two: str, c: str = "c", d: str = "d") -> bool:
    """Whether c, made by the nodes `one`, and d by `two`, are one capture of the function that both are given to."""
    model = parse_model(f"""
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      k = {CONST.format(5)}
      m = {CONST.format(6)}
      {one}
      {two}
      first = PartitionedCall(x, {c}) {{Tin: [float32, float32], Tout: [float32], f: @f}}
      second = PartitionedCall(x, {d}) {{Tin: [float32, float32], Tout: [float32], f: @f}}
    }}
    @f(x: float32, c: float32) -> (y: float32) {BODY}
    """)
    return Captures(model).argument("f", 1)


def test_functions_of_constants_are_the_same_if_op_attributes_and_inputs_are() -> None:
    assert callers_agree("c = Sub(k, m) {T: float32}", "d = Sub(k, m) {T: float32}")
    assert not callers_agree("c = Sub(k, m) {T: float32}", "d = Sub(m, k) {T: float32}")
    assert not callers_agree("c = Sub(k, m) {T: float32}", "d = Div(k, m) {T: float32}")
    assert not callers_agree("c = Neg(k) {T: float32}", "d = Neg(m) {T: float32}")
    assert not callers_agree("c = Neg(k) {T: float32}", "d = Identity(k) {T: float32}")
    matmul = "MatMul(k, m) {{T: float32, transpose_a: {}}}"
    assert callers_agree(f"c = {matmul.format('true')}", f"d = {matmul.format('true')}")
    assert not callers_agree(f"c = {matmul.format('true')}", f"d = {matmul.format('false')}")
    # What TensorFlow notes for itself makes no difference.
    assert callers_agree("c = Neg(k) {T: float32, _note: 1}", "d = Neg(k) {T: float32, _note: 2}")


def test_outputs_of_one_op_differ() -> None:
    axis = "a = Const() {dtype: int32, value: int32(0)}"
    split = "Split(a, k) {T: float32, num_split: 2}"
    one, two = f"{axis}; c = {split}", f"d = {split}"
    assert callers_agree(one, two)
    assert callers_agree(one, two, "c:1", "d:1")
    assert not callers_agree(one, two, "c", "d:1")
    assert callers_agree(one, two, "c", "d:0"), "two spellings of one tensor"


def test_chains_are_the_same_link_by_link() -> None:
    def chain(name: str, first: str) -> str:
        return f"{name}1 = Neg({first}) {{T: float32}}; {name} = Exp({name}1) {{T: float32}}"

    assert callers_agree(chain("c", "k"), chain("d", "k"))
    assert not callers_agree(chain("c", "k"), chain("d", "m"))


@pytest.mark.parametrize(
    "op", ["VarHandleOp", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2", "LookupTableImport"]
)
def test_resources_are_the_same_if_op_container_and_name_are(op: str) -> None:
    def resource(name: str, attrs: str) -> str:
        return f"{name} = {op}() {{{attrs}}}"

    one = resource("c", 'shared_name: "v", container: "a"')
    assert callers_agree(one, resource("d", 'shared_name: "v", container: "a"'))
    assert not callers_agree(one, resource("d", 'shared_name: "w", container: "a"'))
    assert not callers_agree(one, resource("d", 'shared_name: "v", container: "b"'))
    assert not callers_agree(one, resource("d", 'shared_name: "v"'))
    # A resource without a name is named as its node.
    assert not callers_agree(resource("c", "_note: 1"), resource("d", "_note: 1"))
    assert callers_agree(resource("c", "_note: 1"), "", "c", "c")
    assert callers_agree(resource("c", 'shared_name: ""'), resource("d", 'shared_name: "c"'))


def test_a_resource_of_another_op_is_another() -> None:
    table = 'd = HashTableV2() {key_dtype: string, value_dtype: int64, shared_name: "v"}'
    assert not callers_agree('c = VarHandleOp() {dtype: float32, shape: <>, shared_name: "v"}', table)


def test_what_a_call_an_unknown_op_or_an_op_without_inputs_gives_is_not_known() -> None:
    for node in (
        "c = PartitionedCall(k) {Tin: [float32], Tout: [float32], f: @g}",
        "c = SomebodysOwnOp(k) {T: float32}",
        "c = SomebodysOwnOp()",
        "c = Identity()",
        "c = Stage(k) {dtypes: [float32]}",
        "c = ReadVariableOp(x) {dtype: float32}",
        # Only the first of two inputs is known.
        "c = Mul(k, x) {T: float32}",
        # A loop of TensorFlow 1, and what follows it.
        "r = Merge(k, n) {T: float32, N: 2}; n = NextIteration(r) {T: float32}; c = Neg(r) {T: float32}",
    ):
        model = parse_model(f"""
        main {{
          x = Placeholder() {{dtype: float32, shape: <?>}}
          k = {CONST.format(5)}
          {node}
          call = PartitionedCall(x, c) {{Tin: [float32, float32], Tout: [float32], f: @f}}
        }}
        @f(x: float32, c: float32) -> (y: float32) {BODY}
        @g(x: float32) -> (y: float32) {BODY}
        """)
        captures = Captures(model)
        assert not captures.argument("f", 1), node
        assert not captures.tensor(model.main_scope(), "c"), node
        assert captures.tensor(model.main_scope(), "k"), node


# ------------------------------------------------------------------- the object graph, the main graph, and literals


def served(inner: str, bound: str = "v", given: str = "r", extra: str = "") -> Model:
    """A function f that the object graph binds and the main graph calls; `inner` is its body, where it calls h."""
    return parse_model(f"""
    object v = variable float32<>
    object w = variable float32<>
    object f = function @f({bound})
    main {{
      x = Placeholder() {{dtype: float32, shape: <?>}}
      v = {READ.format("v", "r")}
      w = {READ.format("w", "s")}
      call = PartitionedCall(x, {given}) {{Tin: [float32, float32], Tout: [float32], f: @f}}
      {extra}
    }}
    @f(x: float32, c: float32) -> (y: float32) {{
      {inner}
      call = PartitionedCall(x, m:z:0) {{Tin: [float32, float32], Tout: [float32], f: @h}}; return call:output:0
    }}
    @h(x: float32, c: float32) -> (y: float32) {BODY}
    """)


LITERAL = f"k = {CONST.format(5)}"
SCALED = f"{LITERAL}; m = Mul(c, k:output:0) {{T: float32}}"


def test_what_is_one_in_each_world_is_a_capture() -> None:
    captures = Captures(served(SCALED))
    assert captures.argument("f", 1)
    assert captures.argument("h", 1)
    worlds = {world for world, _ in captures.argument_origins("h", 1) or ()}
    assert worlds == {"object graph", "main graph"}


def test_a_function_of_literals_is_a_literal() -> None:
    captures = Captures(served(f"{LITERAL}; m = Mul(k:output:0, k:output:0) {{T: float32}}"))
    assert captures.argument("h", 1)
    assert [world for world, _ in captures.argument_origins("h", 1) or ()] == ["literal"]


def test_a_function_of_what_only_one_world_knows_is_not_a_capture() -> None:
    """Whether the variable that the main graph names is the one that the object graph binds, nobody knows."""
    own = served(f"v = {READ.format('v', 'r')}; m = Mul(c, r:value:0) {{T: float32}}")
    own.functions["f"].node_def[1].input[0] = "v:resource:0"
    captures = Captures(own)
    assert captures.argument("f", 1)
    assert not captures.argument("h", 1)
    del own.graph_def.node[:]
    captures = Captures(own)
    assert captures.argument("f", 1)
    assert not captures.argument("h", 1)


def test_two_variables_of_one_world_are_not_one() -> None:
    other = "two = PartitionedCall(x, s) {Tin: [float32, float32], Tout: [float32], f: @f}"
    captures = Captures(served(SCALED, extra=other))
    assert not captures.argument("f", 1)
    assert not captures.argument("h", 1)


def test_a_literal_and_a_constant_of_the_main_graph_are_not_known_to_be_one() -> None:
    model = served(f"{LITERAL}; m = Mul(c, k:output:0) {{T: float32}}", extra=f"k = {CONST.format(5)}")
    call = model.functions["f"].node_def[2]
    call.input[1] = "k:output:0"
    assert Captures(model).argument("h", 1)
    model.graph_def.node.add().CopyFrom(call)
    model.graph_def.node[-1].input[1] = "k"
    assert not Captures(model).argument("h", 1)


def test_a_scope_that_calls_nothing_can_be_asked_too() -> None:
    model = served(SCALED)
    body = f"{SCALED}; n = Neg(x) {{T: float32}}; return m:z:0"
    leaf = parse_model(f"@h(x: float32, c: float32) -> (y: float32) {{ {body} }}")
    model.functions["h"].CopyFrom(leaf.functions["h"])
    captures = Captures(model)
    found = {ref: captures.tensor(model.scope("h"), ref) for ref in ("x", "c", "k:output:0", "m:z:0", "n:y:0", "gone")}
    assert found == {"x": False, "c": True, "k:output:0": True, "m:z:0": True, "n:y:0": False, "gone": False}


def test_asking_changes_nothing() -> None:
    """Reading an attribute that is missing would create it."""
    model = served(f"v = VarHandleOp() {{dtype: float32, shape: <>}}; {SCALED}")
    before = model.saved_model.SerializeToString(deterministic=True)
    Captures(model).tensor(model.main_scope(), "r")
    assert model.saved_model.SerializeToString(deterministic=True) == before


def test_join_keeps_what_is_one_and_nothing_else() -> None:
    nothing, one = frozenset[tuple[str, int]](), frozenset({("main graph", 0)})
    bound, literal = frozenset({("object graph", 1)}), frozenset({("literal", 0)})
    assert join(nothing, nothing) == nothing
    assert join(nothing, one) == join(one, nothing) == join(one, one) == one
    assert join(one, bound) == one | bound
    assert join(one, frozenset({("main graph", 1)})) is None
    assert join(one, literal) is None
    assert join(None, one) is join(one, None) is join(None, nothing) is None
    assert [is_one(each) for each in (one, one | bound, literal)] == [True, True, True]
    assert [is_one(each) for each in (None, nothing, one | literal)] == [False, False, False]
