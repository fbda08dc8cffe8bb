"""Scope ALL converts what the CPU runs as well, with code that the TPU runs too and with the variables of both."""

from converter.options.slices import ConversionScope
from converter.passes.bfloat16.convert import BFloat16
from tests.harness import assert_pass, parse_model, render_function

ALL = BFloat16(ConversionScope.ALL)
CALL = "Tin: [float32, resource], Tout: [float32]"
CAST_X = "x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}"
CPU = "@cpu(x: float32, v: resource(float32<4,4>)) -> (y: float32) [stateful]"
HELPER = """
    @helper(h: float32, v: resource(float32<4,4>)) -> (r: float32) {
      w = ReadVariableOp(v) {dtype: float32}
      m = MatMul(h, w:value:0) {T: float32}
      g = Lgamma(m:product:0) {T: float32}
      return g:y:0
    }
"""


def shared(cpu: str = "", helper: str = HELPER, header: str = "") -> str:
    """The TPU and the CPU both call `@helper`, which reads a variable."""
    body = f"p = StatefulPartitionedCall(x, v) {{f: @helper, {CALL}}}; return p:output:0"
    return f"""
    {header}
    signature "serving_default" x=x:0 -> y=call:0, z=cpu:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      v = VarHandleOp() {{dtype: float32, shape: <4,4>, shared_name: "v"}}
      call = StatefulPartitionedCall(x, v) {{f: @F, {CALL}}}
      cpu = StatefulPartitionedCall(x, v) {{f: @cpu, {CALL}}}
      prefix = Placeholder() {{dtype: string, shape: <>}}
      keys = Const() {{dtype: string, value: string(["v/.ATTRIBUTES/VARIABLE_VALUE"])}}
      slices = Const() {{dtype: string, value: string([""])}}
      restore = RestoreV2(prefix, keys, slices) {{dtypes: [float32]}}
      assign = AssignVariableOp(v, restore) {{dtype: float32}}
    }}
    @F(x: float32, v: resource(float32<4,4>)) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, v, core:device_ordinals:0) {{f: @T, {CALL}}}
      return on_tpu:output:0, ^on_tpu
    }}
    @T(x: float32, v: resource(float32<4,4>)) -> (y: float32) [stateful] {{ {body} }}
    {CPU} {{ {cpu or body} }}
    {helper}
    """


def converted(text: str, *names: str) -> tuple[dict[str, str], list[str]]:
    """The functions of these names after a conversion of the whole model, and its warnings."""
    model = parse_model(text)
    result = ALL.apply(model)
    return {name: render_function(model.functions[name]) for name in names}, result.warnings


def test_a_function_of_the_tpu_and_the_cpu_is_converted_for_each_and_its_variable_too() -> None:
    # Lgamma has a kernel for bfloat16 on the TPU and none on the CPU.
    half = "Tin: [bfloat16, resource], Tout: [bfloat16]"
    variable = "v: resource(bfloat16<4,4>)"
    assert_pass(
        ALL,
        shared(),
        f"""
        signature "serving_default" x=x:0 -> y=call:0, z=cpu:0
        main {{
          x = Placeholder() {{dtype: float32, shape: <?,4>}}
          v = VarHandleOp() {{dtype: bfloat16, shape: <4,4>, shared_name: "v"}}
          call = StatefulPartitionedCall(x, v) {{f: @F, {CALL}, _tpu_convert_bfloat16: true}}
          cpu = StatefulPartitionedCall(x, v) {{f: @cpu, {CALL}, _tpu_convert_bfloat16: true}}
          prefix = Placeholder() {{dtype: string, shape: <>}}
          keys = Const() {{dtype: string, value: string(["v/.ATTRIBUTES/VARIABLE_VALUE"])}}
          slices = Const() {{dtype: string, value: string([""])}}
          restore = RestoreV2(prefix, keys, slices) {{dtypes: [bfloat16]}}
          assign = AssignVariableOp(v, restore) {{dtype: bfloat16}}
        }}
        @F(x: float32, {variable}) -> (y: float32) [stateful] {{
          core = TPUOrdinalSelector()
          on_tpu = TPUPartitionedCall(x/bfloat16:y:0, v, core:device_ordinals:0)
            {{f: @T, {half}, _tpu_convert_bfloat16: true}}
          {CAST_X}
          on_tpu/float32 = Cast(on_tpu:output:0) {{SrcT: bfloat16, DstT: float32}}
          return on_tpu/float32:y:0, ^on_tpu
        }}
        @T(x: bfloat16, {variable}) -> (y: bfloat16) [stateful] {{
          p = StatefulPartitionedCall(x, v) {{f: @helper_bfloat16, {half}}}
          return p:output:0
        }}
        @helper_bfloat16(h: bfloat16, {variable}) -> (r: bfloat16) {{
          w = ReadVariableOp(v) {{dtype: bfloat16}}
          m = MatMul(h, w:value:0) {{T: bfloat16}}
          g = Lgamma(m:product:0) {{T: bfloat16}}
          return g:y:0
        }}
        @cpu(x: float32, {variable}) -> (y: float32) [stateful] {{
          p = StatefulPartitionedCall(x/bfloat16:y:0, v) {{f: @helper, Tin: [bfloat16, resource], Tout: [float32]}}
          {CAST_X}
          return p:output:0
        }}
        @helper(h: bfloat16, {variable}) -> (r: float32) {{
          w = ReadVariableOp(v) {{dtype: bfloat16}}
          m = MatMul(h, w:value:0) {{T: bfloat16}}
          g = Lgamma(m/float32:y:0) {{T: float32}}
          m/float32 = Cast(m:product:0) {{SrcT: bfloat16, DstT: float32}}
          return g:y:0
        }}
        """,
        skips=["Lgamma: stays float32: has no CPU kernel for bfloat16"],
        recasts=["v/.ATTRIBUTES/VARIABLE_VALUE"],
    )


def test_a_shared_function_that_users_can_call_keeps_the_types_of_its_arguments() -> None:
    helper = "@helper(h: float32, v: resource(float32<4,4>)) -> (r: float32) { a = Exp(h) {T: float32}; return a:y:0 }"
    found, _ = converted(shared(helper=helper, header="object helper = function @helper"), "helper", "helper_bfloat16")
    assert found["helper"].startswith("@helper(h: float32, v: resource(float32<4,4>)) -> (r: float32)")
    assert found["helper_bfloat16"].startswith("@helper_bfloat16(h: bfloat16, v: resource(float32<4,4>)) -> (r: bfloat")
    assert "a = Exp(h/bfloat16:y:0) {T: bfloat16}" in found["helper"]


def test_what_a_shared_function_calls_is_converted_for_each_as_well() -> None:
    outer = f"""
    @helper(h: float32, v: resource(float32<4,4>)) -> (r: float32) {{
      i = StatefulPartitionedCall(h, v) {{f: @inner, {CALL}}}
      return i:output:0
    }}
    """
    found, warnings = converted(shared(helper=outer + HELPER.replace("@helper", "@inner")), "inner", "inner_bfloat16")
    assert warnings == []
    for name, function in found.items():
        assert "m = MatMul(h, w:value:0) {T: bfloat16}" in function, name
    assert "Lgamma(m/float32:y:0)" in found["inner"]
    assert "Lgamma(m:product:0)" in found["inner_bfloat16"]


def test_a_variable_that_the_main_graph_reads_stays_float32_and_the_warning_says_why() -> None:
    text = (
        shared()
        .replace("z=cpu:0", "z=read:0")
        .replace("prefix =", "read = ReadVariableOp(v) {dtype: float32}\nprefix =")
    )
    found, warnings = converted(text, "helper", "T")
    assert "w = ReadVariableOp(v) {dtype: float32}" in found["helper"]
    [warning] = warnings
    assert warning.endswith(
        "Scope ALL does not convert what reads them there: main graph. It converts the functions that calls, branches "
        "and loops lead to."
    )


def test_what_a_tpu_call_of_the_main_graph_calls_is_no_cpu_code() -> None:
    text = """
    object t = function @T
    signature "serving_default" x=x:0 -> y=call:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,4>}
      core = TPUOrdinalSelector()
      call = TPUPartitionedCall(x, core) {f: @T, Tin: [float32], Tout: [float32]}
    }
    @T(x: float32) -> (y: float32) { a = Tanh(x) {T: float32}; return a:y:0 }
    """
    found, _ = converted(text, "T", "T_bfloat16")
    assert "a = Tanh(x) {T: float32}" in found["T"]
    assert "a = Tanh(x) {T: bfloat16}" in found["T_bfloat16"]
