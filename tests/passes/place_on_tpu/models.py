"""Passes that put functions on the TPU, and what becomes of a function."""

from converter.options.slices import FunctionKind, FunctionRef
from converter.passes.place_on_tpu.place import PlaceOnTpu


def functions(*names: str) -> tuple[FunctionRef, ...]:
    return tuple(FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, name) for name in names)


F = PlaceOnTpu(functions("F"))


def placed(name: str, body: str) -> str:
    """What becomes of `@NAME(x: float32) -> (y: float32) { body }`; test_place.py spells it out."""
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
