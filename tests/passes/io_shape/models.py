"""TPU functions whose tensors cross in another shape, and what is put around them."""


def stub(argument: str, feed: str = "x", result: str = "call:output:0", extra: str = "") -> str:
    """F, which calls the TPU function T with one tensor; `extra` are the nodes that the pass adds."""
    return f"""
    @F(x: {argument}) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      call = TPUPartitionedCall({feed}, core:device_ordinals:0)
        {{Tin: [float32], Tout: [float32], _tpu_convert_name: "f", f: @T}}
      {extra}
      return {result}, ^call
    }}
    """


def tpu_function(
    argument: str = "float32", fed: str = "in:output:0", left: str = "relu:activations:0", extra: str = ""
) -> str:
    """T: a cluster of one op, between markers."""
    return f"""
    @T(x: {argument}) -> (y: float32) {{
      metadata = TPUReplicateMetadata() {{_tpu_replicate: "c", num_replicas: 1}}
      input0 = TPUReplicatedInput(x) {{N: 1, T: float32}}
      in = Identity(input0:output:0, ^metadata) {{T: float32, _tpu_input_identity: true, _tpu_replicate: "c"}}
      relu = Relu({fed}) {{T: float32, _tpu_replicate: "c"}}
      out = Identity({left}) {{T: float32, _tpu_output_identity: true, _tpu_replicate: "c"}}
      output0 = TPUReplicatedOutput(out:output:0) {{T: float32, num_replicas: 1}}
      shard = Identity(output0:outputs:0) {{T: float32}}
      {extra}
      return shard:output:0
    }}
    """


def reshape(name: str, ref: str, target: str, tag: str = "") -> str:
    attrs = ', _tpu_replicate: "c"' if tag else ""
    return f"""
      {name}/shape = Const() {{dtype: int32, value: int32({target})}}
      {name} = Reshape({ref}, {name}/shape:output:0) {{T: float32}}
    """.replace("}", f"{attrs}}}")


def ensure(shape: str, ref: str = "x", name: str = "x") -> str:
    return f"""
      call/shape_of_{name} = EnsureShape({ref}) {{T: float32, shape: {shape}}}
    """


def crossing_as(shape: str, transfer: str, target: str) -> str:
    """What becomes of a model whose TPU function takes and returns float32 of one shape."""
    host = ensure(shape) + reshape("call/transfer_x", "call/shape_of_x:output:0", transfer)
    host += reshape("call/restore_y", "call:output:0", target)
    inside = reshape("in/restore", "in:output:0", target, "tag")
    inside += reshape("out/transfer", "relu:activations:0", transfer, "tag")
    return stub(
        f"float32 {{_output_shapes: [{shape}]}}", "call/transfer_x:output:0", "call/restore_y:output:0", host
    ) + tpu_function("float32", "in/restore:output:0", "out/transfer:output:0", inside)


def taking(shape: str) -> str:
    """A model whose TPU function takes and returns float32 of this shape."""
    return stub(f"float32 {{_output_shapes: [{shape}]}}") + tpu_function()


BATCHING = """
@served(x: float32 {{_output_shapes: [<?,10>]}}) -> (y: float32) [stateful] {{
  batch = BatchFunction(x) {{f: @F, Tin: [float32], Tcaptured: [], Tout: [float32], num_batch_threads: 1,
    max_batch_size: {largest}, batch_timeout_micros: 0, allowed_batch_sizes: [{sizes}]}}
  return batch:out_tensors:0
}}
"""
