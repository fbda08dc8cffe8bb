"""Puts functions on the TPU: the contract with the TPU runtime, spelled out."""

from converter.options.slices import FunctionKind, FunctionRef
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import assert_pass
from tests.passes.place_on_tpu.models import F, placed


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
