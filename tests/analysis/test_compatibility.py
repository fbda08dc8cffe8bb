"""What keeps a function off the TPU; the messages around it are tested with the pass that uses them."""

from unittest.mock import patch

import pytest

from converter.analysis.compatibility import boundary_problems, ops_without_tpu_kernel
from converter.graph import refs
from tests.harness import parse_model


def problems(text: str) -> list[str]:
    model = parse_model(text)
    return boundary_problems(model, model.functions["F"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int64", "bool", "complex64", "float64"])
def test_numbers_cross(dtype: str) -> None:
    assert problems(f"@F(x: {dtype}) -> (y: {dtype}) {{ return x }}") == []


def test_variables_cross_however_they_are_used() -> None:
    text = """
    @F(v: resource(float32<2>), i: int32) -> (y: float32) {
      same = Identity(v) {T: resource}
      r = ReadVariableOp(same:output:0) {dtype: float32}
      g = ResourceGather(v, i) {Tindices: int32, dtype: float32}
      a = AssignVariableOp(v, r:value:0) {dtype: float32}
      c = StatefulPartitionedCall(i, v) {Tin: [int32, resource], Tout: [float32], f: @helper}
      l = While(i, v) {T: [int32, resource], cond: @cond, body: @loop}
      return c:output:0
    }
    @helper(i: int32, v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
    @cond(i: int32, v: resource) -> (b: bool) { c = Const() {dtype: bool, value: bool(false)}; return c:output:0 }
    @loop(i: int32, v: resource) -> (i2: int32, v2: resource) { return i, v }
    """
    assert problems(text) == []


@pytest.mark.parametrize(
    "call",
    [
        "c = LookupTableFindV2(t, x, x) {Tin: int64, Tout: int64}",
        "c = PartitionedCall(x, t) {Tin: [int64, resource], Tout: [int64], f: @helper}",
        "c = helper(x, t)",
        "c = If(p, x, t) {Tcond: bool, Tin: [int64, resource], Tout: [int64], then_branch: @h, else_branch: @helper}",
        "c = Case(b, x, t) {Tin: [int64, resource], Tout: [int64], branches: [@h, @helper]}",
        "c = While(x, t) {T: [int64, resource], cond: @cond, body: @loop}",
    ],
)
def test_a_table_is_found_through_calls_of_every_kind(call: str) -> None:
    text = f"""
    @F(t: resource, x: int64, p: bool, b: int32) -> (y: int64) {{ {call}; return x }}
    @helper(x: int64, t: resource) -> (y: int64) {{
      s = Identity(t) {{T: resource}}
      y = LookupTableFindV2(s:output:0, x, x) {{Tin: int64, Tout: int64}}
      return y:values:0
    }}
    @h(x: int64, t: resource) -> (y: int64) {{ return x }}
    @cond(x: int64, t: resource) -> (b: bool) {{ c = Const() {{dtype: bool, value: bool(false)}}; return c:output:0 }}
    @loop(x: int64, t: resource) -> (y: int64, t2: resource) {{ y = helper(x, t); return y:y:0, t }}
    """
    assert problems(text) == [
        'argument "t" is a resource that is no variable (a lookup table or the like, used by op LookupTableFindV2)'
    ]


def test_a_recursive_function_is_no_problem() -> None:
    assert problems("@F(v: resource) -> (y: float32) { y = F(v); return y:y:0 }") == []


def test_a_function_is_looked_through_once_however_many_variables_it_has() -> None:
    """One scan for each argument would take minutes where a model has thousands of variables."""
    names = [f"v{i}" for i in range(400)]
    given, types = ", ".join(names), ", ".join(["resource"] * len(names))

    def head(name: str) -> str:
        return f"@{name}({', '.join(f'{v}: resource' for v in names)}) -> ()"

    reads = "\n".join(f"r{v} = ReadVariableOp({v}) {{dtype: float32}}" for v in names)
    model = parse_model(
        f"{head('F')} {{ c = StatefulPartitionedCall({given}) {{f: @G, Tin: [{types}], Tout: []}}; return\n }}"
        f"{head('G')} {{ {reads}\nt = LookupTableSizeV2(v399); return\n }}"
    )
    with patch.object(refs, "data_inputs", wraps=refs.data_inputs) as looked_at:
        found = boundary_problems(model, model.functions["F"])
    assert [p.partition(" is ")[0] for p in found] == ['argument "v399"']
    nodes = sum(len(f.node_def) for f in model.functions.values())
    assert looked_at.call_count <= 2 * nodes


def test_of_several_foreign_uses_the_first_on_the_way_is_named() -> None:
    text = """
    @F(t: resource) -> () {
      a = StatefulPartitionedCall(t) {f: @G, Tin: [resource], Tout: []}
      b = LookupTableSizeV2(t)
      return
    }
    @G(t: resource) -> () {
      c = StatefulPartitionedCall(t) {f: @H, Tin: [resource], Tout: []}
      d = LookupTableExportV2(t)
      return
    }
    @H(t: resource) -> () { c = F(t); e = LookupTableInsertV2(t, t, t); return\n }
    """
    (problem,) = problems(text)
    assert "used by op LookupTableInsertV2" in problem


@pytest.mark.parametrize(
    ("recorded", "name"),
    [('{_user_specified_name: "words"}', "words"), ('{_user_specified_name: "17"}', "arg"), ("", "arg")],
)
def test_an_argument_has_the_name_that_its_user_gave(recorded: str, name: str) -> None:
    assert problems(f"@F(arg: string {recorded}) -> (y: int32) {{ return x }}") == [
        f'argument "{name}" is a string tensor'
    ]


def test_results_are_looked_at_too() -> None:
    assert problems("@F() -> (a: string, b: variant, c: resource, d: float32) { return x, x, x, x }") == [
        'result "a" is a string tensor', 'result "b" is a variant tensor', 'result "c" is a resource tensor',
    ]  # fmt: skip


def test_ops_without_a_kernel_are_listed_once_with_those_of_helpers() -> None:
    model = parse_model(
        """
        @F(x: float32) -> (y: float32) { a = AsString(x); b = AsString(x); c = helper(x); d = MatMul(x, x); return x }
        @helper(x: float32) -> (y: float32) { p = Print(x); return x }
        @other(x: float32) -> (y: float32) { p = StringLength(x); return x }
        """
    )
    assert ops_without_tpu_kernel(model, "F") == ["AsString", "Print"]
    assert ops_without_tpu_kernel(model, "helper") == ["Print"]
