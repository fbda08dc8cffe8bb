"""Values flow through a BatchFunction: what stays float32 on the TPU is the same with batching and without."""

import pytest
from tensorflow.core.framework import types_pb2

from converter.options.slices import ConversionScope
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.pass_result import PassResult
from tests.harness import assert_pass, parse_model, render_function

TYPES = "Tin: [float32, float32], Tout: [float32]"
BATCHED = "Tin: [float32], Tcaptured: [float32], Tout: [float32], num_batch_threads: 1, max_batch_size: 4"
BATCHED += ", batch_timeout_micros: 0"
STUB = f"""(x: float32, c: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, c, core:device_ordinals:0) {{f: @T, {TYPES}}}
      return on_tpu:output:0, ^on_tpu
    }}"""
BATCHING_STUB = f"""(x: float32, c: float32) -> (y: float32) [stateful] {{
      batch = BatchFunction(x, c) {{f: @G, {BATCHED}}}
      return batch:out_tensors:0
    }}
    @G{STUB}"""
COSINE = "wave = Cos(c) {T: float32}; a = Mul(x, wave:y:0) {T: float32}; return a:z:0"

CAPTURED = {
    "a Const of the main graph": (
        "",
        "c = Const() {dtype: float32, value: float32([300.0, 301.0, 302.0, 303.0])}",
    ),
    "bound by the object graph": (
        """
        object c = constant "c"
        object tpu_func = function @F(c)
        """,
        "c = Const() {dtype: float32, value: float32([300.0, 301.0, 302.0, 303.0])}",
    ),
    "a tensor that the object graph captures": (
        """
        object c = captured positions:0 in @other
        object other = function @other
        object tpu_func = function @F(c)
        @other() -> (y: float32) {
          positions = Const() {dtype: float32, value: float32([300.0, 301.0, 302.0, 303.0])}
          return positions:output:0
        }
        """,
        "c = Const() {dtype: float32, value: float32([300.0, 301.0, 302.0, 303.0])}",
    ),
    "counted": (
        "",
        """
        i = Const() {dtype: int32, value: int32([300, 301, 302, 303])}
        c = Cast(i) {SrcT: int32, DstT: float32}
        """,
    ),
    "given": ("", "c = Placeholder() {dtype: float32, shape: <4>}"),
}


def model(
    body: str, batched: bool, functions: str = "", captured: str = "a Const of the main graph", extra: str = ""
) -> str:
    """A model that runs `@T(x: float32, c: float32) -> (y: float32) { body }` on the TPU; `c` is no request's."""
    header, made = CAPTURED[captured]
    return f"""
    {header}
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      {made}
      call = StatefulPartitionedCall(x, c) {{f: @F, {TYPES}}}
      {extra}
    }}
    @F{BATCHING_STUB if batched else STUB}
    @T(x: float32, c: float32) -> (y: float32) {{ {body} }}
    {functions}
    """


def on_tpu(text: str, each: BFloat16, names: tuple[str, ...] = ("T",)) -> dict[str, str]:
    """The functions of a converted model that run on the TPU."""
    found = parse_model(text)
    each.apply(found)
    return {name: render_function(found.functions[name]) for name in names}


def test_a_captured_constant_that_a_batch_shares_is_known() -> None:
    captured = CAPTURED["a Const of the main graph"][1]
    assert_pass(
        BFloat16(),
        model(COSINE, batched=True),
        f"""
        signature "serving_default" x=x:0 -> y=call:0
        main {{
          x = Placeholder() {{dtype: float32, shape: <?,4>}}
          {captured}
          call = StatefulPartitionedCall(x, c) {{f: @F, {TYPES}}}
        }}
        @F(x: float32, c: float32) -> (y: float32) [stateful] {{
          batch = BatchFunction(x, c) {{f: @G, {BATCHED}}}
          return batch:out_tensors:0
        }}
        @G(x: float32, c: float32) -> (y: float32) [stateful] {{
          core = TPUOrdinalSelector()
          on_tpu = TPUPartitionedCall(x/bfloat16:y:0, c, core:device_ordinals:0)
            {{f: @T, Tin: [bfloat16, float32], Tout: [bfloat16], _tpu_convert_bfloat16: true}}
          x/bfloat16 = Cast(x) {{SrcT: float32, DstT: bfloat16}}
          on_tpu/float32 = Cast(on_tpu:output:0) {{SrcT: bfloat16, DstT: float32}}
          return on_tpu/float32:y:0, ^on_tpu
        }}
        @T(x: bfloat16, c: float32) -> (y: bfloat16) {{
          wave = Cos(c) {{T: float32}}
          a = Mul(x, wave/bfloat16:y:0) {{T: bfloat16}}
          wave/bfloat16 = Cast(wave:y:0) {{SrcT: float32, DstT: bfloat16}}
          return a:z:0
        }}
        """,
        skips=["Cos: stays float32: computes with constants only"],
    )


HELPER = "@helper(h: float32) -> (r: float32) { wave = Cos(h) {T: float32}; return wave:y:0 }"
LOOP = """
    @cond(i: int32, h: float32, p: float32) -> (b: bool) {
      n = Const() {dtype: int32, value: int32(3)}
      l = Less(i, n:output:0) {T: int32}
      return l:z:0
    }
    @body(i: int32, h: float32, p: float32) -> (i2: int32, h2: float32, p2: float32) {
      n = Const() {dtype: int32, value: int32(1)}
      j = AddV2(i, n:output:0) {T: int32}
      wave = Cos(p) {T: float32}
      t = Mul(h, wave:y:0) {T: float32}
      return j:z:0, t:z:0, p
    }
"""
BODIES = {
    "positions": (COSINE, ""),
    "a normalization": (
        """
        minus = Sub(x, c) {T: float32}
        root = Sqrt(c) {T: float32}
        scaled = RealDiv(minus:z:0, root:y:0) {T: float32}
        w = Tanh(scaled:z:0) {T: float32}
        return w:y:0
        """,
        "",
    ),
    "a nested call": (
        """
        wave = PartitionedCall(c) {f: @helper, Tin: [float32], Tout: [float32]}
        a = Mul(x, wave:output:0) {T: float32}
        return a:z:0
        """,
        HELPER,
    ),
    "a loop": (
        """
        zero = Const() {dtype: int32, value: int32(0)}
        w = While(zero:output:0, x, c) {T: [int32, float32, float32], body: @body, cond: @cond}
        return w:output:1
        """,
        LOOP,
    ),
    "whole numbers": (
        """
        scaled = Mul(x, c) {T: float32}
        ids = Cast(scaled:z:0) {SrcT: float32, DstT: int32}
        back = Cast(ids:y:0) {SrcT: int32, DstT: float32}
        a = Tanh(back:y:0) {T: float32}
        return a:y:0
        """,
        "",
    ),
}


@pytest.mark.parametrize("scope", [ConversionScope.TPU, ConversionScope.ALL])
@pytest.mark.parametrize("captured", CAPTURED)
@pytest.mark.parametrize("body", BODIES)
def test_batching_changes_nothing_on_the_tpu(body: str, captured: str, scope: ConversionScope) -> None:
    text, functions = BODIES[body]
    names = ("T", *(name for name in ("helper", "body", "cond") if f"@{name}(" in functions))
    one, other = (
        on_tpu(model(text, batched, functions, captured), BFloat16(scope), names) for batched in (False, True)
    )
    assert one == other
    known = captured != "given"
    if body != "whole numbers":
        assert ("T: float32" in "".join(one.values())) == known


def two_functions(first: str, second: str) -> str:
    """What one batched TPU function gives, another one takes."""
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, Tin: [float32], Tout: [int32]}}
    }}
    @F(x: float32) -> (y: int32) [stateful] {{
      {first}
      {second}
      return second:{"out_tensors" if "Batch" in second else "output"}:0
    }}
    @G1(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @T1, Tin: [float32], Tout: [float32]}}
      return on_tpu:output:0
    }}
    @G2(x: float32) -> (y: int32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @T2, Tin: [float32], Tout: [int32]}}
      return on_tpu:output:0
    }}
    @T1(x: float32) -> (y: float32) {{ m = MatMul(x, x) {{T: float32}}; return m:product:0 }}
    @T2(x: float32) -> (y: int32) {{
      scaled = Mul(x, x) {{T: float32}}
      ids = Cast(scaled:z:0) {{SrcT: float32, DstT: int32}}
      return ids:y:0
    }}
    """


def _call(name: str, given: str, function: str, result: str, batched: bool) -> str:
    if not batched:
        return f"{name} = StatefulPartitionedCall({given}) {{f: @{function}, Tin: [float32], Tout: [{result}]}}"
    values = "num_batch_threads: 1, max_batch_size: 4, batch_timeout_micros: 0, Tcaptured: []"
    return f"{name} = BatchFunction({given}) {{f: @{function}, Tin: [float32], Tout: [{result}], {values}}}"


@pytest.mark.parametrize("batched", [(True, False), (False, True), (True, True)])
def test_what_one_batched_function_has_rounded_is_known_to_the_next(batched: tuple[bool, bool]) -> None:
    def choices(first: bool, second: bool) -> dict[str, str]:
        made = "first:out_tensors:0" if first else "first:output:0"
        return on_tpu(
            two_functions(_call("first", "x", "G1", "float32", first), _call("second", made, "G2", "int32", second)),
            BFloat16(),
            ("T1", "T2"),
        )

    found = choices(*batched)
    assert found == choices(False, False)
    assert "scaled = Mul(x, x) {T: bfloat16}" in found["T2"]


def test_an_argument_that_only_some_calls_give_a_constant_is_given() -> None:
    other = """
      d = Placeholder() {dtype: float32, shape: <4>}
      other = StatefulPartitionedCall(x, d) {f: @F, Tin: [float32, float32], Tout: [float32]}
    """
    found = on_tpu(model(COSINE, batched=True, extra=other), BFloat16())
    assert "wave = Cos(c) {T: bfloat16}" in found["T"]


def test_an_argument_that_is_bound_to_what_a_request_gives_is_given() -> None:
    bound = """
    object c = captured x:0 in @F
    object tpu_func = function @F(c)
    """
    found = on_tpu(bound + model(COSINE, batched=True), BFloat16())
    assert "wave = Cos(c) {T: bfloat16}" in found["T"]


def test_what_a_cpu_function_makes_is_no_constant() -> None:
    text = """
    signature "serving_default" x=x:0 -> y=call:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,4>}
      p = PartitionedCall(x) {f: @cpu, Tin: [float32], Tout: [float32]}
      core = TPUOrdinalSelector()
      call = TPUPartitionedCall(p, core) {f: @T, Tin: [float32], Tout: [float32]}
    }
    @cpu(x: float32) -> (y: float32) { a = Exp(x) {T: float32}; return a:y:0 }
    @T(x: float32) -> (y: float32) { a = Tanh(x) {T: float32}; return a:y:0 }
    """
    assert "a = Tanh(x) {T: bfloat16}" in on_tpu(text, BFloat16())["T"]
    values = "Tcaptured: [], num_batch_threads: 1, max_batch_size: 4, batch_timeout_micros: 0"
    batched = text.replace("p = PartitionedCall(x) {", f"p = BatchFunction(x) {{{values}, ")
    assert on_tpu(batched, BFloat16()) == on_tpu(text, BFloat16())


def test_scope_all_leaves_the_types_of_a_batching_op() -> None:
    found = parse_model(model(COSINE, batched=True))
    result: PassResult = BFloat16(ConversionScope.ALL).apply(found)
    (batch,) = (n for n in found.functions["F"].node_def if n.op == "BatchFunction")
    for attr in ("Tin", "Tcaptured", "Tout"):
        assert list(batch.attr[attr].list.type) == [types_pb2.DT_FLOAT]
    assert [a.type for a in found.functions["G"].signature.input_arg] == [types_pb2.DT_FLOAT] * 2
    assert result.changes
