"""Puts functions on the TPU: the contract with the TPU runtime, spelled out."""

import re

import pytest
from tensorflow.core.protobuf.tpu import topology_pb2

from converter.errors import ConversionError, OptionsError
from converter.graph.invariants import verify_structure
from converter.options.parse import FunctionKind, FunctionRef, XlaShardingOptions
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import assert_pass, assert_pass_raises, parse_model


def functions(*names: str) -> tuple[FunctionRef, ...]:
    return tuple(FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, name) for name in names)


F = PlaceOnTpu(functions("F"))
FG = PlaceOnTpu(functions("F", "G"))


def placed(name: str, body: str) -> str:
    """What becomes of `@NAME(x: float32) -> (y: float32) { body }`; the tests at the top spell it out."""
    return f"""
    @{name}(x: float32) -> (y: float32) [stateful] {{
      TPUOrdinalSelector = TPUOrdinalSelector()
      TPUPartitionedCall = TPUPartitionedCall(x, TPUOrdinalSelector:device_ordinals:0)
        {{Tin: [float32], Tout: [float32], _tpu_convert_name: "{name}", f: @{name}_on_tpu}}
      return TPUPartitionedCall:output:0, ^TPUPartitionedCall
    }}
    @{name}_on_tpu(x: float32) -> (y: float32) {{
      cluster_{name}_on_tpu/pivot = NoOp() {{_pivot_for_cluster: "cluster_{name}_on_tpu"}}
      TPUReplicateMetadata = TPUReplicateMetadata(^cluster_{name}_on_tpu/pivot)
        {{_tpu_replicate: "cluster_{name}_on_tpu", num_replicas: 1}}
      TPUCompilationResult = TPUCompilationResult(^TPUReplicateMetadata)
        {{_tpu_compilation_status: "cluster_{name}_on_tpu"}}
      input0 = TPUReplicatedInput(x) {{N: 1, T: float32}}
      replicated_input_0 = Identity(input0:output:0, ^TPUReplicateMetadata)
        {{T: float32, _tpu_input_identity: true, _tpu_replicate: "cluster_{name}_on_tpu"}}
      tpu_call = StatefulPartitionedCall(replicated_input_0:output:0, ^TPUReplicateMetadata)
        {{Tin: [float32], Tout: [float32], _tpu_replicate: "cluster_{name}_on_tpu", f: @{name}_body}}
      out_id_0 = Identity(tpu_call:output:0)
        {{T: float32, _tpu_output_identity: true, _tpu_replicate: "cluster_{name}_on_tpu"}}
      output0 = TPUReplicatedOutput(out_id_0:output:0) {{T: float32, num_replicas: 1}}
      output_0_shard_0 = Identity(output0:outputs:0) {{T: float32}}
      return output_0_shard_0:output:0
    }}
    @{name}_body(x: float32) -> (y: float32) {{ {body} }}
    """


# --- the rewrite ------------------------------------------------------------------------------------------------


def test_a_function_becomes_a_stub_that_runs_its_body_on_the_tpu() -> None:
    assert_pass(
        F,
        """
        main {
          x = Placeholder() {dtype: float32}
          v = VarHandleOp() {dtype: float32, shape: <4>}
          call = StatefulPartitionedCall(x, v)
            {f: @F, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?,4>]}
        }
        @F(x: float32 {_user_specified_name: "x", _output_shapes: [<?,4>]}, v: resource(float32<4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,4>, <>], _construction_context: "kEagerRuntime"] {
          r = ReadVariableOp(v) {dtype: float32}
          m = Mul(x, r:value:0) {T: float32, _output_shapes: [<?,4>]}
          n = NoOp(^r)
          return m:z:0, ^n
        }
        """,
        """
        main {
          x = Placeholder() {dtype: float32}
          v = VarHandleOp() {dtype: float32, shape: <4>}
          call = StatefulPartitionedCall(x, v)
            {f: @F, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?,4>]}
        }
        # The stub keeps its name, arguments, their attributes and its own: nothing outside need change.
        @F(x: float32 {_user_specified_name: "x", _output_shapes: [<?,4>]}, v: resource(float32<4>)) -> (y: float32)
            [stateful, _input_shapes: [<?,4>, <>], _construction_context: "kEagerRuntime"] {
          TPUOrdinalSelector = TPUOrdinalSelector()
          TPUPartitionedCall = TPUPartitionedCall(x, v, TPUOrdinalSelector:device_ordinals:0)
            {f: @F_on_tpu, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?,4>], _tpu_convert_name: "F"}
          return TPUPartitionedCall:output:0, ^TPUPartitionedCall
        }
        # The cluster: the tensor enters through TPUReplicatedInput, the variable goes straight to the call.
        @F_on_tpu(x: float32 {_user_specified_name: "x", _output_shapes: [<?,4>]}, v: resource(float32<4>))
            -> (y: float32) [stateful, _input_shapes: [<?,4>, <>], _construction_context: "kEagerRuntime"] {
          cluster_F_on_tpu/pivot = NoOp() {_pivot_for_cluster: "cluster_F_on_tpu"}
          TPUReplicateMetadata = TPUReplicateMetadata(^cluster_F_on_tpu/pivot)
            {num_replicas: 1, _tpu_replicate: "cluster_F_on_tpu"}
          TPUCompilationResult = TPUCompilationResult(^TPUReplicateMetadata)
            {_tpu_compilation_status: "cluster_F_on_tpu"}
          input0 = TPUReplicatedInput(x) {N: 1, T: float32}
          replicated_input_0 = Identity(input0:output:0, ^TPUReplicateMetadata)
            {T: float32, _tpu_input_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          tpu_call = StatefulPartitionedCall(replicated_input_0:output:0, v, ^TPUReplicateMetadata)
            {f: @F_body, Tin: [float32, resource], Tout: [float32], _output_shapes: [<?,4>],
             _tpu_replicate: "cluster_F_on_tpu"}
          out_id_0 = Identity(tpu_call:output:0)
            {T: float32, _tpu_output_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          output0 = TPUReplicatedOutput(out_id_0:output:0) {T: float32, num_replicas: 1}
          output_0_shard_0 = Identity(output0:outputs:0) {T: float32, _output_shapes: [<?,4>]}
          return output_0_shard_0:output:0
        }
        @F_body(x: float32 {_user_specified_name: "x", _output_shapes: [<?,4>]}, v: resource(float32<4>))
            -> (y: float32) [stateful, _input_shapes: [<?,4>, <>], _construction_context: "kEagerRuntime"] {
          r = ReadVariableOp(v) {dtype: float32}
          m = Mul(x, r:value:0) {T: float32, _output_shapes: [<?,4>]}
          n = NoOp(^r)
          return m:z:0, ^n
        }
        """,
        changes=["F: runs on the TPU as F_on_tpu"],
        show=["_output_shapes"],
    )


def test_without_arguments_there_is_nothing_to_replicate() -> None:
    assert_pass(
        F,
        """
        main { call = PartitionedCall() {f: @F, Tin: [], Tout: [int32]} }
        @F() -> (y: int32) {
          c = Const() {dtype: int32, value: int32(7)}
          return c:output:0
        }
        """,
        """
        main { call = StatefulPartitionedCall() {f: @F, Tin: [], Tout: [int32]} }
        @F() -> (y: int32) [stateful] {
          TPUOrdinalSelector = TPUOrdinalSelector()
          TPUPartitionedCall = TPUPartitionedCall(TPUOrdinalSelector:device_ordinals:0)
            {f: @F_on_tpu, Tin: [], Tout: [int32], _tpu_convert_name: "F"}
          return TPUPartitionedCall:output:0, ^TPUPartitionedCall
        }
        @F_on_tpu() -> (y: int32) {
          cluster_F_on_tpu/pivot = NoOp() {_pivot_for_cluster: "cluster_F_on_tpu"}
          TPUReplicateMetadata = TPUReplicateMetadata(^cluster_F_on_tpu/pivot)
            {num_replicas: 1, _tpu_replicate: "cluster_F_on_tpu"}
          TPUCompilationResult = TPUCompilationResult(^TPUReplicateMetadata)
            {_tpu_compilation_status: "cluster_F_on_tpu"}
          tpu_call = StatefulPartitionedCall(^TPUReplicateMetadata)
            {f: @F_body, Tin: [], Tout: [int32], _tpu_replicate: "cluster_F_on_tpu"}
          out_id_0 = Identity(tpu_call:output:0)
            {T: int32, _tpu_output_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          output0 = TPUReplicatedOutput(out_id_0:output:0) {T: int32, num_replicas: 1}
          output_0_shard_0 = Identity(output0:outputs:0) {T: int32}
          return output_0_shard_0:output:0
        }
        @F_body() -> (y: int32) {
          c = Const() {dtype: int32, value: int32(7)}
          return c:output:0
        }
        """,
        changes=["F: runs on the TPU as F_on_tpu"],
    )


def test_many_arguments_of_all_kinds_and_many_results_keep_their_order() -> None:
    # v and w are variables, c is a captured constant; names that the pass would like to use are taken.
    assert_pass(
        F,
        """
        @F(v: resource, TPUOrdinalSelector: int64, w: resource, input1: bool, c: float32)
            -> (a: float32, b: bool, a_2: float32) [stateful] {
          r = ReadVariableOp(v) {dtype: float32}
          s = ReadVariableOp(w) {dtype: float32}
          call = Cast(TPUOrdinalSelector) {SrcT: int64, DstT: float32}
          sum = AddN(r:value:0, s:value:0, call:y:0, c) {N: 4, T: float32}
          return sum:sum:0, input1, c, ^sum
        }
        """,
        """
        @F(v: resource, TPUOrdinalSelector: int64, w: resource, input1: bool, c: float32)
            -> (a: float32, b: bool, a_2: float32) [stateful] {
          TPUOrdinalSelector_1 = TPUOrdinalSelector()
          TPUPartitionedCall = TPUPartitionedCall(v, TPUOrdinalSelector, w, input1, c,
                                                  TPUOrdinalSelector_1:device_ordinals:0)
            {f: @F_on_tpu, Tin: [resource, int64, resource, bool, float32], Tout: [float32, bool, float32],
             _tpu_convert_name: "F"}
          return TPUPartitionedCall:output:0, TPUPartitionedCall:output:1, TPUPartitionedCall:output:2,
                 ^TPUPartitionedCall
        }
        @F_on_tpu(v: resource, TPUOrdinalSelector: int64, w: resource, input1: bool, c: float32)
            -> (a: float32, b: bool, a_2: float32) [stateful] {
          cluster_F_on_tpu/pivot = NoOp() {_pivot_for_cluster: "cluster_F_on_tpu"}
          TPUReplicateMetadata = TPUReplicateMetadata(^cluster_F_on_tpu/pivot)
            {num_replicas: 1, _tpu_replicate: "cluster_F_on_tpu"}
          TPUCompilationResult = TPUCompilationResult(^TPUReplicateMetadata)
            {_tpu_compilation_status: "cluster_F_on_tpu"}
          input1_1 = TPUReplicatedInput(TPUOrdinalSelector) {N: 1, T: int64}
          replicated_input_1 = Identity(input1_1:output:0, ^TPUReplicateMetadata)
            {T: int64, _tpu_input_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          input3 = TPUReplicatedInput(input1) {N: 1, T: bool}
          replicated_input_3 = Identity(input3:output:0, ^TPUReplicateMetadata)
            {T: bool, _tpu_input_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          input4 = TPUReplicatedInput(c) {N: 1, T: float32}
          replicated_input_4 = Identity(input4:output:0, ^TPUReplicateMetadata)
            {T: float32, _tpu_input_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          tpu_call = StatefulPartitionedCall(v, replicated_input_1:output:0, w, replicated_input_3:output:0,
                                             replicated_input_4:output:0, ^TPUReplicateMetadata)
            {f: @F_body, Tin: [resource, int64, resource, bool, float32], Tout: [float32, bool, float32],
             _tpu_replicate: "cluster_F_on_tpu"}
          out_id_0 = Identity(tpu_call:output:0)
            {T: float32, _tpu_output_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          output0 = TPUReplicatedOutput(out_id_0:output:0) {T: float32, num_replicas: 1}
          output_0_shard_0 = Identity(output0:outputs:0) {T: float32}
          out_id_1 = Identity(tpu_call:output:1)
            {T: bool, _tpu_output_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          output1 = TPUReplicatedOutput(out_id_1:output:0) {T: bool, num_replicas: 1}
          output_1_shard_0 = Identity(output1:outputs:0) {T: bool}
          out_id_2 = Identity(tpu_call:output:2)
            {T: float32, _tpu_output_identity: true, _tpu_replicate: "cluster_F_on_tpu"}
          output2 = TPUReplicatedOutput(out_id_2:output:0) {T: float32, num_replicas: 1}
          output_2_shard_0 = Identity(output2:outputs:0) {T: float32}
          return output_0_shard_0:output:0, output_1_shard_0:output:0, output_2_shard_0:output:0
        }
        @F_body(v: resource, TPUOrdinalSelector: int64, w: resource, input1: bool, c: float32)
            -> (a: float32, b: bool, a_2: float32) [stateful] {
          r = ReadVariableOp(v) {dtype: float32}
          s = ReadVariableOp(w) {dtype: float32}
          call = Cast(TPUOrdinalSelector) {SrcT: int64, DstT: float32}
          sum = AddN(r:value:0, s:value:0, call:y:0, c) {N: 4, T: float32}
          return sum:sum:0, input1, c, ^sum
        }
        """,
    )


def test_traced_names_keep_their_number_and_the_user_s_name_is_on_the_call() -> None:
    result = assert_pass(
        PlaceOnTpu((FunctionRef(FunctionKind.FUNCTION_ALIAS, "encoder"),)),
        """
        alias "encoder" = @__inference_encode_23
        @__inference_encode_23(x: float32) -> (y: float32) { return x }
        """,
        'alias "encoder" = @__inference_encode_23'
        + placed("__inference_encode_23", "return x")
        .replace("__inference_encode_23_on_tpu", "__inference_encode_on_tpu_23")
        .replace("__inference_encode_23_body", "__inference_encode_body_23")
        .replace('_tpu_convert_name: "__inference_encode_23"', '_tpu_convert_name: "encoder"'),
    )
    assert [c.where for c in result.changes] == ["__inference_encode_23"]


def test_names_that_are_taken_are_numbered() -> None:
    taken = "@F_body() -> () { return } @F_on_tpu() -> () { return }"
    text = placed("F", "return x")
    assert_pass(
        F,
        "@F(x: float32) -> (y: float32) { return x }" + taken,
        text.replace("F_on_tpu", "F_on_tpu1").replace("F_body", "F_body1") + taken,
    )


def test_an_alias_of_several_functions_puts_each_on_the_tpu() -> None:
    head = 'alias "f" = @F, @G'
    assert_pass(
        PlaceOnTpu((FunctionRef(FunctionKind.FUNCTION_ALIAS, "f"),)),
        head + "@F(x: float32) -> (y: float32) { return x } @G(x: float32) -> (y: float32) { return x }",
        head + (placed("F", "return x") + placed("G", "return x")).replace('e: "F"', 'e: "f"').replace('"G"', '"f"'),
        changes=["F: runs on the TPU as F_on_tpu", "G: runs on the TPU as G_on_tpu"],
    )


# --- what calls the function ------------------------------------------------------------------------------------


def test_a_function_that_is_called_from_within_another_one_is_placed_and_its_callers_become_stateful() -> None:
    main = "main {{ x = Placeholder() {{dtype: float32}}; y = {}(x) {{f: @serve, Tin: [float32], Tout: [float32]}} }}"
    serve = """
        @serve(x: float32) -> (y: float32) {} {{
          half = PartitionedCall(x) {{f: @helper, Tin: [float32], Tout: [float32]}}
          y = {}(half:output:0) {{f: @F, Tin: [float32], Tout: [float32]}}
          return y:output:0
        }}
        @helper(x: float32) -> (y: float32) {{ return x }}
        """
    assert_pass(
        F,
        main.format("PartitionedCall")
        + serve.format("", "PartitionedCall")
        + "@F(x: float32) -> (y: float32) { y = Neg(x) {T: float32}; return y:y:0 }",
        main.format("StatefulPartitionedCall")
        + serve.format("[stateful]", "StatefulPartitionedCall")
        + placed("F", "y = Neg(x) {T: float32}; return y:y:0"),
    )


LOOP = "{T: [float32], cond: @cond, body: @caller, parallel_iterations: 10, output_shapes: [<>]}"
BRANCHES = "{Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @caller, else_branch: @helper}"
CASES = "{Tin: [float32], Tout: [float32], branches: [@helper, @caller]}"
MAP = "{f: @caller, Targuments: [float32], Tcaptured: [], output_shapes: [<>], output_types: [float32]}"
BATCH = """{f: @caller, Tin: [float32], Tcaptured: [], Tout: [float32], num_batch_threads: 1, max_batch_size: 8,
            batch_timeout_micros: 0}"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"StatelessWhile(x) {LOOP}", f"While(x) {LOOP}"),
        (f"StatelessIf(p, x) {BRANCHES}", f"If(p, x) {BRANCHES}"),
        (f"StatelessCase(i, x) {CASES}", f"Case(i, x) {CASES}"),
        (f"MapDefun(x) {MAP}", f"MapDefun(x) {MAP}"),
        (f"BatchFunction(x) {BATCH}", f"BatchFunction(x) {BATCH}"),
        ("caller(x)", "caller(x)"),
    ],
    ids=["While", "If", "Case", "functional op", "BatchFunction", "function as an op"],
)
def test_callers_of_every_kind_lead_to_the_stub(before: str, after: str) -> None:
    def model(call: str, statefulness: str, inner_call: str, rest: str) -> str:
        return f"""
        main {{
          x = Placeholder() {{dtype: float32}}
          p = Placeholder() {{dtype: bool}}
          i = Placeholder() {{dtype: int32}}
          y = {call}
        }}
        @caller(x: float32) -> (y: float32) {statefulness} {{
          y = {inner_call}(x) {{f: @F, Tin: [float32], Tout: [float32]}}
          return y:output:0
        }}
        @cond(x: float32) -> (more: bool) {{
          c = Const() {{dtype: bool, value: bool(false)}}
          return c:output:0
        }}
        @helper(x: float32) -> (y: float32) {{ return x }}
        {rest}
        """

    assert_pass(
        F,
        model(before, "", "PartitionedCall", "@F(x: float32) -> (y: float32) { return x }"),
        model(after, "[stateful]", "StatefulPartitionedCall", placed("F", "return x")),
    )


def test_a_function_may_itself_be_the_body_of_a_loop_or_a_function_called_as_an_op() -> None:
    main = """
    main {{
      x = Placeholder() {{dtype: float32}}
      y = {}(x) {{T: [float32], cond: @cond, body: @F, output_shapes: [<>]}}
      z = F(y)
    }}
    @cond(x: float32) -> (more: bool) {{ c = Const() {{dtype: bool, value: bool(false)}}; return c:output:0 }}
    """
    assert_pass(
        F,
        main.format("StatelessWhile") + "@F(x: float32) -> (y: float32) { return x }",
        main.format("While") + placed("F", "return x"),
    )


# --- TPU functions that call each other -------------------------------------------------------------------------


def test_a_direct_call_of_another_tpu_function_calls_its_body() -> None:
    call = "y = PartitionedCall(x) {{f: @{}, Tin: [float32], Tout: [float32]}}; return y:output:0"
    # CPU code also calls G: it goes through G's stub.
    main = "main {{ x = Placeholder() {{dtype: float32}}; y = {}(x) {{f: @G, Tin: [float32], Tout: [float32]}} }}"
    assert_pass(
        FG,
        main.format("PartitionedCall")
        + f"@F(x: float32) -> (y: float32) {{ {call.format('G')} }} @G(x: float32) -> (y: float32) {{ return x }}",
        main.format("StatefulPartitionedCall") + placed("F", call.format("G_body")) + placed("G", "return x"),
        changes=["F: runs on the TPU as F_on_tpu", "G: runs on the TPU as G_on_tpu"],
    )


def test_a_direct_call_in_a_loop_or_as_an_op_calls_the_body_too() -> None:
    body = """
    y = StatelessWhile(x) {{T: [float32], cond: @cond, body: @{0}, output_shapes: [<>]}}
    z = {0}(y:output:0)
    return z:y:0
    """
    cond = "@cond(x: float32) -> (more: bool) { c = Const() {dtype: bool, value: bool(false)}; return c:output:0 }"
    assert_pass(
        FG,
        cond + f"@F(x: float32) -> (y: float32) {{ {body.format('G')} }} @G(x: float32) -> (y: float32) {{ return x }}",
        cond + placed("F", body.format("G_body")) + placed("G", "return x"),
    )


def test_a_recursive_function_calls_its_own_body_on_the_tpu() -> None:
    body = "y = StatefulPartitionedCall(x) {{f: @{}, Tin: [float32], Tout: [float32]}}; return y:output:0"
    assert_pass(
        F,
        f"@F(x: float32) -> (y: float32) {{ {body.format('F')} }}",
        placed("F", body.format("F_body")),
    )


HELPERS = {
    "call": "y = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}; return y:output:0",
    "loop": "y = While(x) {T: [float32], cond: @cond, body: @G, output_shapes: [<>]}; return y:output:0",
    "op": "y = G(x); return y:y:0",
}


@pytest.mark.parametrize("body", HELPERS.values(), ids=HELPERS)
def test_an_indirect_call_is_refused_in_the_words_of_the_reference(body: str) -> None:
    text = f"""
    @F(x: float32) -> (y: float32) {{
      y = PartitionedCall(x) {{f: @helper, Tin: [float32], Tout: [float32]}}
      return y:output:0
    }}
    @helper(x: float32) -> (y: float32) {{ {body} }}
    @cond(x: float32) -> (more: bool) {{ c = Const() {{dtype: bool, value: bool(false)}}; return c:output:0 }}
    @G(x: float32) -> (y: float32) {{ return x }}
    """
    message = (
        'Unable to place both "F" and "G" on the TPU because "F" indirectly calls "G". This behavior is unsupported '
        "because it can cause invalid graphs to be generated."
    )
    assert_pass_raises(FG, text, ConversionError, f"^{re.escape(message)}$")
    assert_pass_raises(PlaceOnTpu(functions("G", "F")), text, ConversionError, f"^{re.escape(message)}$")


def test_an_indirect_call_is_refused_although_there_is_a_direct_one_as_well() -> None:
    assert_pass_raises(
        FG,
        """
        @F(x: float32) -> (y: float32) {
          a = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}
          y = PartitionedCall(a:output:0) {f: @helper, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        @helper(x: float32) -> (y: float32) {
          y = PartitionedCall(x) {f: @G, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        @G(x: float32) -> (y: float32) { return x }
        """,
        ConversionError,
        'Unable to place both "F" and "G" on the TPU',
    )


# --- models that have TPU computation already -------------------------------------------------------------------


def test_a_function_that_is_on_the_tpu_already_is_skipped() -> None:
    text = placed("F", "return x")
    assert_pass(F, text, text, changes=[], skips=["F: is on the TPU already"])


def test_another_tpu_call_of_the_model_is_left_as_it_is() -> None:
    theirs = """
    @other(x: float32) -> (y: float32) [stateful] {
      ordinal = Const() {dtype: int32, value: int32(1)}
      TPUPartitionedCall = TPUPartitionedCall(x, ordinal:output:0)
        {f: @theirs, Tin: [float32], Tout: [float32], autotuner_thresh: 5}
      return TPUPartitionedCall:output:0
    }
    @theirs(x: float32) -> (y: float32) { return x }
    """
    assert_pass(
        F,
        theirs + "@F(x: float32) -> (y: float32) { return x }",
        theirs + placed("F", "return x"),
        changes=["F: runs on the TPU as F_on_tpu"],
    )


def test_a_function_that_reaches_the_tpu_after_work_of_its_own_is_refused() -> None:
    assert_pass_raises(
        F,
        """
        @F(x: float32) -> (y: float32) [stateful] {
          n = Neg(x) {T: float32}
          y = StatefulPartitionedCall(n:y:0) {f: @G, Tin: [float32], Tout: [float32]}
          return y:output:0
        }
        """
        + placed("G", "return x"),
        ConversionError,
        r'^"F" cannot be put on the TPU: it reaches "G", which calls the TPU already, and a TPU function cannot '
        r"call the TPU\. Name functions that do not contain TPU computation\.$",
    )


# --- functions that cannot go there -----------------------------------------------------------------------------


def test_a_function_without_results_is_refused() -> None:
    assert_pass_raises(
        F,
        "@F(x: float32) -> () { n = NoOp(^x); return ^n }",
        ConversionError,
        r'^"F" cannot be put on the TPU: it has no results\. Found 0 output tensors, expected at least 1; let '
        r"the function return what it computes\.$",
    )


ADVICE = (
    r"The TPU takes no strings, variants or tables: keep the part of the model that needs them on the CPU, in the "
    r"caller, and let the TPU function take and return plain numeric tensors"
)
INCOMPATIBLE = [
    pytest.param(
        '@F(arg: string {_user_specified_name: "text"}) -> (y: int32) { y = StringLength(arg); return y:output:0 }',
        'argument "text" is a string tensor',
        ["StringLength"],
        id="string argument",
    ),
    pytest.param(
        "@F(x: float32, list: variant) -> (y: float32) { return x }",
        'argument "list" is a variant tensor',
        [],
        id="variant argument",
    ),
    pytest.param(
        "@F(table: resource, x: int64, default: float32) -> (y: float32) {"
        "  y = LookupTableFindV2(table, x, default) {Tin: int64, Tout: float32}; return y:values:0 }",
        'argument "table" is a resource that is no variable (a lookup table or the like, used by op LookupTableFindV2)',
        ["LookupTableFindV2"],
        id="table argument",
    ),
    pytest.param(
        "@F(x: float32) -> (name: string) { c = AsString(x) {T: float32}; return c:output:0 }",
        'result "name" is a string tensor',
        ["AsString"],
        id="string result",
    ),
    pytest.param(
        "@F(x: float32, v: resource) -> (same: resource, y: float32) [stateful] { return v, x }",
        'result "same" is a resource tensor',
        [],
        id="resource result",
    ),
    pytest.param(
        "@F(x: float32, v: resource(string<>)) -> (y: float32) [stateful] {"
        "  r = ReadVariableOp(v) {dtype: string}; return x, ^r }",
        'argument "v" is a variable of strings or variants',
        [],
        id="string variable",
    ),
]


@pytest.mark.parametrize(("text", "problem", "missing"), INCOMPATIBLE)
def test_what_cannot_cross_to_the_tpu_is_refused_by_name(text: str, problem: str, missing: list[str]) -> None:
    assert_pass_raises(
        F,
        text,
        ConversionError,
        rf'^"F" cannot be put on the TPU: {re.escape(problem)}\. {ADVICE}\. '
        r"\(--allow_incompatible converts all the same\.\)$",
    )


@pytest.mark.parametrize(("text", "problem", "missing"), INCOMPATIBLE)
def test_with_allow_incompatible_it_is_a_warning(text: str, problem: str, missing: list[str]) -> None:
    model = parse_model(text)
    result = PlaceOnTpu(functions("F"), allow_incompatible=True).apply(model)
    verify_structure(model)
    assert re.search(rf"{re.escape(problem)}\. {ADVICE}\.$", result.warnings[0])
    assert [c.where for c in result.changes] == ["F"]
    expected = [f"holds ops that have no TPU kernel: {', '.join(missing)}."] if missing else []
    assert len(result.warnings) == 1 + len(expected)
    assert all(text in warning for text, warning in zip(expected, result.warnings[1:], strict=True))


def test_all_problems_of_a_function_are_told_at_once() -> None:
    assert_pass_raises(
        F,
        "@F(a: string, b: variant) -> (c: string) { return a }",
        ConversionError,
        r'argument "a" is a string tensor; argument "b" is a variant tensor; result "c" is a string tensor\. ',
    )


def test_a_table_is_found_behind_calls_loops_and_branches() -> None:
    assert_pass_raises(
        F,
        """
        @F(p: bool, table: resource {_user_specified_name: "12"}, x: int64) -> (y: int64) [stateful] {
          y = If(p, table, x)
            {Tcond: bool, Tin: [resource, int64], Tout: [int64], then_branch: @then, else_branch: @e}
          return y:output:0
        }
        @e(t: resource, x: int64) -> (y: int64) { return x }
        @then(t: resource, x: int64) -> (y: int64) {
          again = Identity(t) {T: resource}
          y = While(x, again:output:0)
            {T: [int64, resource], cond: @cond, body: @loop_body, output_shapes: [<>, <>]}
          return y:output:0
        }
        @cond(x: int64, t: resource) -> (more: bool) {
          c = Const() {dtype: bool, value: bool(false)}
          return c:output:0
        }
        @loop_body(x: int64, t: resource) -> (y: int64, same: resource) {
          y = LookupTableFindV2(t, x, x) {Tin: int64, Tout: int64}
          return y:values:0, t
        }
        """,
        ConversionError,
        # A capture's recorded name is a number, which would tell nothing.
        r'argument "table" is a resource that is no variable \(a lookup table or the like, used by op '
        r"LookupTableFindV2\)",
    )


def test_ops_without_a_tpu_kernel_are_warned_of_wherever_they_are() -> None:
    body = """
        y = PartitionedCall(x) {f: @helper, Tin: [float32], Tout: [float32]}; return y:output:0"""
    helper = """
    @helper(x: float32) -> (y: float32) {
      s = AsString(x) {T: float32}
      l = StringLength(s:output:0)
      y = Cast(l:output:0) {SrcT: int32, DstT: float32}
      return y:y:0
    }
    """
    assert_pass(
        F,
        helper + f"@F(x: float32) -> (y: float32) {{ {body} }}",
        helper + placed("F", body),
        warnings=[
            '"F" holds ops that have no TPU kernel: AsString, StringLength. Unless they are optimized away, the '
            "TPU will refuse the function when it is first served; move them to the CPU."
        ],
    )


# --- attributes that must follow or go --------------------------------------------------------------------------


def test_jit_compile_is_dropped_from_the_stub_and_its_callers_and_stays_on_the_body() -> None:
    def model(jit: str, call: str, node_jit: str, function: str, spec: str) -> str:
        return f"""
        object f = function @F {spec}
        object serve = function @serve {spec}
        object helper = function @helper {{jit_compile}}
        main {{ x = Placeholder() {{dtype: float32}}
               y = {call}(x) {{f: @serve, Tin: [float32], Tout: [float32]{node_jit}}} }}
        @serve(x: float32) -> (y: float32) {jit} {{
          h = PartitionedCall(x) {{f: @helper, Tin: [float32], Tout: [float32], _XlaMustCompile: true}}
          y = {call}(h:output:0) {{f: @F, Tin: [float32], Tout: [float32]{node_jit}}}
          return y:output:0
        }}
        @helper(x: float32) -> (y: float32) [_XlaMustCompile: true] {{ return x }}
        {function}
        """

    head = "(x: float32) -> (y: float32)"
    jit = "[_XlaMustCompile: true]"
    assert_pass(
        F,
        model(jit, "PartitionedCall", ", _XlaMustCompile: true", f"@F{head} {jit} {{ return x }}", "{jit_compile}"),
        model(
            "[stateful]",
            "StatefulPartitionedCall",
            "",
            placed("F", "return x").replace(f"@F_body{head}", f"@F_body{head} {jit}"),
            "",
        ),
    )


def test_captured_tensors_of_the_object_graph_follow_the_body_and_arguments_stay() -> None:
    head = """
    object f = function @F
    object inside = captured n:0 in @{}
    object argument = captured x:0 in @F
    object elsewhere = captured n:0 in @G
    @G(x: float32) -> (y: float32) {{ n = Neg(x) {{T: float32}}; return n:y:0 }}
    """
    body = "n = Neg(x) {T: float32}; return n:y:0"
    assert_pass(
        F,
        head.format("F") + f"@F(x: float32) -> (y: float32) {{ {body} }}",
        head.format("F_body") + placed("F", body),
    )


def test_api_implements_stays_on_the_stub_alone() -> None:
    # It makes TensorFlow swap whole functions for each other; a copy of the interface must not take part.
    assert_pass(
        F,
        '@F(x: float32) -> (y: float32) [api_implements: "lstm"] { return x }',
        placed("F", "return x").replace("(y: float32) [stateful]", '(y: float32) [stateful, api_implements: "lstm"]'),
    )


# --- sharding over cores ----------------------------------------------------------------------------------------


def topology(*mesh_shape: int, devices: tuple[int, ...]) -> bytes:
    proto = topology_pb2.TopologyProto(
        mesh_shape=mesh_shape, num_tasks=1, num_tpu_devices_per_task=len(devices) // 4, device_coordinates=devices
    )
    return bytes(proto.SerializeToString())


TWO_CORES = topology(1, 2, 1, 1, devices=(0, 0, 0, 0, 0, 1, 0, 0))


def test_sharding_goes_into_the_metadata_and_argument_attributes_are_kept() -> None:
    def quoted(value: bytes) -> str:
        return "".join(f"\\x{byte:02x}" for byte in value)

    argument = '@F(x: float32 {_XlaSharding: "s"}) -> (y: float32)'
    text = placed("F", "return x").replace("(x: float32)", '(x: float32 {_XlaSharding: "s"})')
    metadata = f'num_cores_per_replica: 2, topology: "{quoted(TWO_CORES)}", use_spmd_for_xla_partitioning: true'
    assert_pass(
        PlaceOnTpu(functions("F"), XlaShardingOptions(2, (), TWO_CORES)),
        argument + " { return x }",
        text.replace("num_replicas: 1}\n      TPUC", f"num_replicas: 1, {metadata}}}\n      TPUC"),
    )


def test_a_device_assignment_goes_with_ordinal_0() -> None:
    text = placed("F", "return x").replace("TPUOrdinalSelector:device_ordinals:0", "device_ordinal:output:0")
    zero = "device_ordinal = Const() {dtype: int32, value: int32(0)}"
    text = text.replace("TPUOrdinalSelector = TPUOrdinalSelector()", zero)
    metadata = "device_assignment: [0, 0, 0, 0], use_spmd_for_xla_partitioning: true"
    assert_pass(
        PlaceOnTpu(functions("F"), XlaShardingOptions(1, (0, 0, 0, 0))),
        "@F(x: float32) -> (y: float32) { return x }",
        text.replace("num_replicas: 1}\n      TPUC", f"num_replicas: 1, {metadata}}}\n      TPUC"),
    )


def test_sharding_that_the_runtime_would_refuse_is_refused_without_a_model() -> None:
    with pytest.raises(OptionsError, match=r"is not a serialized tensorflow\.tpu\.TopologyProto"):
        PlaceOnTpu(functions("F"), XlaShardingOptions(2, (), b"no topology"))


EXPORTED = """
signature "serve" x=serve_x:0 -> output_0=serve:0
signature "serving_default" x=x:0 -> output_0=default:0
object v = variable float32<4>
object signatures.serve = bare @wrapper_1
object signatures.serving_default = bare @wrapper_2
object call = function @call(v)
main {
  serve_x = Placeholder() {dtype: float32}
  x = Placeholder() {dtype: float32}
  v = VarHandleOp() {dtype: float32, shape: <4>}
  serve = StatefulPartitionedCall(serve_x, v) {f: @wrapper_1, Tin: [float32, resource], Tout: [float32]}
  default = StatefulPartitionedCall(x, v) {f: @wrapper_2, Tin: [float32, resource], Tout: [float32]}
}
@call(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  r = ReadVariableOp(v) {dtype: float32}; m = Mul(x, r:value:0) {T: float32}; return m:z:0
}
@wrapper_1(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  c = StatefulPartitionedCall(x, v) {f: @call, Tin: [float32, resource], Tout: [float32]}; return c:output:0
}
@wrapper_2(x: float32, v: resource(float32<4>)) -> (y: float32) [stateful] {
  c = StatefulPartitionedCall(x, v) {f: @call, Tin: [float32, resource], Tout: [float32]}; return c:output:0
}
"""
DEFAULT = FunctionRef(FunctionKind.SIGNATURE_NAME, "serving_default")


def placed_by(each: PlaceOnTpu, text: str) -> list[str]:
    return [c.where for c in each.apply(parse_model(text)).changes]


def test_signatures_that_are_the_same_function_go_to_the_tpu_together() -> None:
    model = parse_model(capturing(EXPORTED, "v", "v"))
    result = PlaceOnTpu((DEFAULT,)).apply(model)
    assert [c.where for c in result.changes] == ["wrapper_2", "wrapper_1"]
    assert result.details.to_json() == {"same_signatures": {"serve": "serving_default"}}
    assert result.details.lines() == ["Also on the TPU: signature serve, which is the same function as serving_default"]
    verify_structure(model)
    again = PlaceOnTpu((DEFAULT,)).apply(model)
    assert not again.changes
    assert not again.details.to_json()


def test_the_plan_is_made_of_names_and_values() -> None:
    text = capturing(EXPORTED, "v", "v")
    plan = PlaceOnTpu((DEFAULT,)).plan(parse_model(text))
    assert len({plan, PlaceOnTpu((DEFAULT,)).plan(parse_model(text))}) == 1
    assert [(f.function, f.given) for f in plan.placed] == [("wrapper_2", "serving_default"), ("wrapper_1", "serve")]
    assert not plan.is_empty and plan.skips == plan.warnings == ()


def test_signatures_may_all_be_named_as_well() -> None:
    both = PlaceOnTpu((DEFAULT, FunctionRef(FunctionKind.SIGNATURE_NAME, "serve")))
    result = both.apply(parse_model(capturing(EXPORTED, "v", "v")))
    assert [c.where for c in result.changes] == ["wrapper_2", "wrapper_1"]
    assert not result.details.to_json()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (EXPORTED, "what a signature captures is not recorded"),
        (EXPORTED.replace("c:output:0\n}\n@wrapper_2", "x\n}\n@wrapper_2"), "another result"),
    ],
)
def test_signatures_that_differ_stay_where_they_are(text: str, why: str) -> None:
    recorded = text if why.endswith("recorded") else capturing(text, "v", "v")
    assert placed_by(PlaceOnTpu((DEFAULT,)), recorded) == ["wrapper_2"]


def test_signatures_with_variables_of_their_own_stay_where_they_are() -> None:
    two = EXPORTED.replace("object v =", "object w = variable float32<4>\nobject v =")
    assert placed_by(PlaceOnTpu((DEFAULT,)), capturing(two, "w", "v")) == ["wrapper_2"]


def test_a_function_named_otherwise_takes_no_signature_with_it() -> None:
    assert placed_by(PlaceOnTpu(functions("wrapper_2")), capturing(EXPORTED, "v", "v")) == ["wrapper_2"]


def capturing(text: str, first: str, second: str) -> str:
    """The two wrappers with their bound inputs, as concrete functions of the object graph."""
    objects = f"object w1 = function @wrapper_1({first})\nobject w2 = function @wrapper_2({second})\nmain {{"
    return text.replace("main {", objects)
