"""Retyping keeps graphs well-typed whatever is in them, with no Cast more than it needs."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2

from converter.graph import ops, refs
from converter.graph.invariants import check_structure
from converter.graph.model import Model, Scope
from converter.passes.bfloat16.convert import BFloat16
from tests.harness import parse_model

# Op -> how many float32 inputs it takes, and the outputs that it gives; Qr and Cross are given to BFloat16 as filtered.
_OPS = {
    "Tanh": (1, ("y:0",)),
    "AddV2": (2, ("z:0",)),
    "Cross": (2, ("product:0",)),
    "Qr": (1, ("q:0", "r:0")),
    "Identity": (1, ("output:0",)),
    "StopGradient": (1, ("output:0",)),
    "IdentityN": (2, ("output:0", "output:1")),
    "Complex": (2, ()),
    "Bitcast": (1, ()),
    "PartitionedCall": (2, ("output:0", "output:1")),
    "If": (2, ("output:0", "output:1")),
    "While": (2, ("output:0", "output:1")),
    "pair": (2, ("first:0", "second:0")),
    "Const": (0, ("output:0",)),
    "Range": (0, ("output:0",)),
    "Count": (1, ("y:0",)),
    "Double": (1, ("y:0",)),
    "TensorListFromTensor": (1, ("tensor:0",)),
}
_PAIR = """
@pair(a: float32, b: float32) -> (first: float32, second: float32) {
  t = Tanh(a) {T: float32}
  s = AddV2(t:y:0, b) {T: float32}
  return b, s:z:0
}
@always(a: float32, b: float32) -> (on: bool) { c = Const() {dtype: bool, value: bool(0)}; return c:output:0 }
"""


def node_text(name: str, op: str, inputs: list[str]) -> tuple[str, list[str]]:
    """The text of a node, or of the few nodes that stand for `op`, and references to its float32 outputs."""
    taken = ", ".join(inputs)
    pair = "Tin: [float32, float32], Tout: [float32, float32]"
    attrs = {
        "IdentityN": "{T: [float32, float32]}",
        "PartitionedCall": f"{{{pair}, f: @pair}}",
        "While": "{T: [float32, float32], body: @pair, cond: @always}",
        "pair": "",
        "Bitcast": "{T: float32, type: int32}",
    }
    if op == "If":
        branches = f"{{Tcond: bool, {pair}, then_branch: @pair, else_branch: @pair}}"
        return f"{name} = If(yes:output:0, {taken}) {branches}", [f"{name}:output:{i}" for i in (0, 1)]
    if op == "Const":
        return f"{name} = Const() {{dtype: float32, value: float32(1.5)}}", [f"{name}:output:0"]
    if op == "Range":
        return f"{name} = Range(f:output:0, f:output:0, f:output:0) {{Tidx: float32}}", [f"{name}:output:0"]
    if op == "Count":
        first = f"{name}n = Shape({taken}) {{T: float32}}"
        return f"{first}; {name} = Cast({name}n:output:0) {{SrcT: int32, DstT: float32}}", [f"{name}:y:0"]
    if op == "Double":
        first = f"{name}d = Cast({taken}) {{SrcT: float32, DstT: float64}}"
        return f"{first}; {name} = Cast({name}d:y:0) {{SrcT: float64, DstT: float32}}", [f"{name}:y:0"]
    if op == "TensorListFromTensor":
        first = f"{name}l = TensorListFromTensor({taken}, size:output:0) {{element_dtype: float32, shape_type: int32}}"
        second = f"{name}h = Identity({name}l:output_handle:0) {{T: variant}}"
        third = f"{name} = TensorListStack({name}h:output:0, size:output:0) {{element_dtype: float32}}"
        return f"{first}; {second}; {third}", [f"{name}:tensor:0"]
    return f"{name} = {op}({taken}) {attrs.get(op, '{T: float32}')}", [f"{name}:{o}" for o in _OPS[op][1]]


@st.composite
def models(draw: st.DrawFn) -> str:
    tensors = ["x"]
    lines = [
        "yes = Const() {dtype: bool, value: bool(1)}",
        "f = Const() {dtype: float32, value: float32(3)}",
        "size = Const() {dtype: int32, value: int32([4])}",
    ]
    for number, op in enumerate(draw(st.lists(st.sampled_from(sorted(_OPS)), min_size=1, max_size=14))):
        inputs = [draw(st.sampled_from(tensors)) for _ in range(_OPS[op][0])]
        text, outputs = node_text(f"n{number}", op, inputs)
        lines.append(text)
        tensors += outputs
    body = "\n".join(lines)
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <4>}}
      call = StatefulPartitionedCall(x) {{f: @F, Tin: [float32], Tout: [float32]}}
    }}
    @F(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @T, Tin: [float32], Tout: [float32]}}
      return on_tpu:output:0, ^on_tpu
    }}
    @T(x: float32) -> (y: float32) {{ {body}
      return {draw(st.sampled_from(tensors))} }}
    {_PAIR}
    """


def produced(scope: Scope, model: Model) -> dict[str, int]:
    """Reference -> dtype of everything that a scope's nodes can take."""
    found = {} if scope.function is None else {a.name: a.type for a in scope.function.signature.input_arg}
    for node in scope.nodes:
        for number, slot in enumerate(ops.output_slots(node, ops.op_def(node.op, model))):
            ref = scope.ref(node.name, slot.arg, slot.index, number)
            found[refs.canonical_ref(ref, scope)] = slot.dtype
    return found


def assert_well_typed(model: Model) -> None:
    for scope in model.scopes():
        given_types = produced(scope, model)
        for node in scope.nodes:
            taken = [slot.dtype for slot in ops.input_slots(node, ops.op_def(node.op, model))]
            inputs = [given_types[refs.canonical_ref(ref, scope)] for ref in refs.data_inputs(node)]
            assert inputs == taken, f"{scope.name}: {node.name} ({node.op})"
            if node.op in ("While", "If"):
                for attr in ("body", "then_branch", "else_branch"):
                    if attr in node.attr:
                        callee = model.functions[node.attr[attr].func.name].signature
                        assert [a.type for a in callee.input_arg] == inputs[-len(callee.input_arg) :]
        if scope.function is not None:
            results = [given_types[scope.function.ret[r.name]] for r in scope.function.signature.output_arg]
            assert results == [r.type for r in scope.function.signature.output_arg], scope.name


def assert_no_needless_casts(model: Model) -> None:
    for scope in model.scopes():
        casts = {f"{n.name}:y:0": n for n in scope.nodes if n.op == "Cast"}
        made = Counter((n.input[0], n.attr["DstT"].type) for n in casts.values() if "/" in n.name)
        assert max(made.values(), default=1) == 1, f"{scope.name}: a tensor is cast twice"
        for cast in casts.values():
            source = casts.get(cast.input[0])
            if "/" in cast.name and source is not None:
                # The model may have chains of its own, such as float32 to float64 and back.
                between = source.attr["DstT"].type
                assert between not in (types_pb2.DT_FLOAT, types_pb2.DT_BFLOAT16), f"{cast.name} casts a Cast"
            used = any(f"{cast.name}:y:0" in node.input for node in scope.nodes)
            returned = scope.function is not None and f"{cast.name}:y:0" in scope.function.ret.values()
            assert used or returned or "/" not in cast.name, f"{scope.name}: {cast.name} is unused"


@settings(max_examples=200)
@given(models(), st.sets(st.sampled_from(["Tanh", "Cross", "Identity", "While", "Const", "Cast"]), max_size=2))
def test_any_graph_stays_well_typed(text: str, filterlist: set[str]) -> None:
    model = parse_model(text)
    assert_well_typed(model)
    BFloat16(filterlist=tuple(sorted(filterlist))).apply(model)
    check_structure(model)
    assert_well_typed(model)
    assert_no_needless_casts(model)
    for scope in model.scopes():
        for node in scope.nodes:
            if node.op in filterlist and node.attr["T"].type != types_pb2.DT_VARIANT and "/" not in node.name:
                held = [v.type for v in node.attr.values()] + [t for v in node.attr.values() for t in v.list.type]
                assert types_pb2.DT_BFLOAT16 not in held, f"{node.name} ({node.op}) is in the filterlist"


@settings(max_examples=50)
@given(models())
def test_a_second_run_over_any_graph_changes_nothing(text: str) -> None:
    model = parse_model(text)
    BFloat16().apply(model)
    once = model.saved_model.SerializeToString(deterministic=True)
    assert not BFloat16().apply(model).changes
    assert model.saved_model.SerializeToString(deterministic=True) == once
