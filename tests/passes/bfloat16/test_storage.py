"""Storing variables as bfloat16, on graphs as text."""

from collections.abc import Collection

from converter.analysis.variables.index import find_variables
from converter.graph.invariants import check_structure
from converter.graph.protos import DT_BFLOAT16
from converter.passes.bfloat16.convert import BFloat16
from tests.analysis.variables.models import READER, model_text
from tests.harness import parse_model, render
from tests.passes.bfloat16.models import store_as_bfloat16


def stored(text: str, scopes: Collection[str] = ()) -> str:
    """The model with all its variables as bfloat16, as text."""
    model = parse_model(text)
    store_as_bfloat16(model, find_variables(model), scopes)
    if not scopes:  # in these, the rewrite that comes next puts the Casts
        check_structure(model)
    return render(model)


def test_reads_are_cast_back_outside_of_bfloat16_scopes() -> None:
    text = model_text(
        """
        p = Const() {dtype: bool, value: bool(true)}
        y = If(p, x, v) {Tcond: bool, Tin: [float32, resource], Tout: [float32], then_branch: @tpu, else_branch: @cpu}
        FUNCTIONS
        """
        + "".join(
            f"""
            @{name}(x: float32, v: resource(float32<4>)) -> (y: float32, raw: float32) {{
              r = ReadVariableOp(v) {{dtype: float32}}
              m = Mul(r:value:0, r:value:0) {{T: float32}}
              n = Mul(m:z:0, x, ^r) {{T: float32}}
              return n:z:0, r:value:0
            }}
            """
            for name in ("tpu", "cpu")
        )
    )
    found = stored(text, ["tpu"])
    assert (
        """
@cpu(x: float32, v: resource(bfloat16<4>)) -> (y: float32, raw: float32) {
  r = ReadVariableOp(v) {dtype: bfloat16}
  m = Mul(r/float32:y:0, r/float32:y:0) {T: float32}
  n = Mul(m:z:0, x, ^r) {T: float32}
  r/float32 = Cast(r:value:0) {DstT: float32, SrcT: bfloat16}
  return n:z:0, r/float32:y:0
}
"""
        in found
    )
    assert (
        """
@tpu(x: float32, v: resource(bfloat16<4>)) -> (y: float32, raw: float32) {
  r = ReadVariableOp(v) {dtype: bfloat16}
  m = Mul(r:value:0, r:value:0) {T: float32}
"""
        in found
    )
    assert "dtypes: [bfloat16]" in found
    assert "assign_v = AssignVariableOp(v, restore) {dtype: bfloat16}" in found


def test_main_graph_initializers_and_visible_reads() -> None:
    text = model_text(
        """
        zero = Const() {dtype: float32, value: float32([0, 0, 0, 0])}
        init = AssignVariableOp(v, zero) {dtype: float32}
        copy = AssignVariableOp(w, y) {dtype: float32}
        y = ReadVariableOp(v) {dtype: float32}
        """,
        ("v", "w"),
    )
    found = stored(text)
    assert "init = AssignVariableOp(v, init/bfloat16) {dtype: bfloat16}" in found
    assert "init/bfloat16 = Cast(zero) {DstT: bfloat16, SrcT: float32}" in found
    # The signature sees float32; another bfloat16 variable takes the value as it is.
    assert "copy = AssignVariableOp(w, y) {dtype: bfloat16}" in found
    assert "-> y=y/float32:0" in found


def test_a_variable_that_stays_float32_is_given_float32() -> None:
    text = model_text(
        """
        copy = AssignVariableOp(w, r) {dtype: float32}
        back = AssignVariableOp(v, s) {dtype: float32}
        r = ReadVariableOp(v) {dtype: float32}; s = ReadVariableOp(w) {dtype: float32}
        y = Identity(x) {T: float32}
        """,
        ("v", "w"),
    )
    model = parse_model(text)
    store_as_bfloat16(model, find_variables(model)[:1])
    check_structure(model)
    found = render(model)
    assert "copy = AssignVariableOp(w, r/float32) {dtype: float32}" in found
    assert "back = AssignVariableOp(v, back/bfloat16) {dtype: bfloat16}" in found
    assert "dtypes: [bfloat16, float32]" in found


def test_types_that_mlir_repeats_on_arguments() -> None:
    text = model_text(
        "y = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @read}; FUNCTIONS"
        + READER.replace("(float32<4>)", "(float32<4>) {_handle_dtypes: [float32], _handle_shapes: [<4>]}")
    )
    assert "resource(bfloat16<4>) {_handle_dtypes: [bfloat16], _handle_shapes: [<4>]}" in stored(text)


def test_a_slice_of_a_restored_tensor_is_restored_as_bfloat16_and_cast() -> None:
    """Where RestoreV2's output does other work on its way, that work stays float32."""
    text = model_text("y = ReadVariableOp(v) {dtype: float32}").replace(
        "AssignVariableOp(v, restore)", "AssignVariableOp(v, twice)"
    )
    text = text.replace(
        "main {",
        "main { twice = AddV2(restore, restore) {T: float32}; early = Identity(restore) {T: float32}; "
        "use = AssignVariableOp(v, early) {dtype: float32};",
    )
    found = stored(text)
    assert "twice = AddV2(restore/float32, restore/float32) {T: float32}" in found
    assert "assign_v = AssignVariableOp(v, assign_v/bfloat16) {dtype: bfloat16}" in found


def test_a_stored_variable_that_a_tpu_call_takes_as_a_tensor_is_given_as_it_is() -> None:
    """Of a caller that no signature reaches: its read is bfloat16 since the variable is, and the call takes that."""
    types = "Tin: [float32, resource], Tout: [float32]"
    text = model_text(
        f"""
        call = StatefulPartitionedCall(x, v) {{f: @F, {types}}}
        other = StatefulPartitionedCall(v) {{f: @G, Tin: [resource], Tout: [float32]}}
        FUNCTIONS
        @F(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {{
          core = TPUOrdinalSelector()
          on_tpu = TPUPartitionedCall(x, v, core:device_ordinals:0) {{f: @T, {types}}}
          return on_tpu:output:0, ^on_tpu
        }}
        @G(v: resource(float32<4>)) -> (y: float32) [stateful] {{
          core = TPUOrdinalSelector()
          r = ReadVariableOp(v) {{dtype: float32}}
          on_tpu = TPUPartitionedCall(r:value:0, v, core:device_ordinals:0) {{f: @T, {types}}}
          return on_tpu:output:0, ^on_tpu
        }}
        @T(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {{
          w = ReadVariableOp(v) {{dtype: float32}}
          m = Mul(x, w:value:0) {{T: float32}}
          return m:z:0
        }}
        """,
        serve="call",
    )
    model = parse_model(text)
    BFloat16().apply(model)
    check_structure(model)
    nodes = {node.name: node for node in model.functions["G"].node_def}
    assert nodes["r"].attr["dtype"].type == DT_BFLOAT16
    assert nodes["on_tpu"].input[0] == "r:value:0"
