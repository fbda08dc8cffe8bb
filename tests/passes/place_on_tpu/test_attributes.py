"""Attributes and captured tensors follow the body or go; sharding over cores is in the metadata."""

import pytest
from tensorflow.core.protobuf.tpu import topology_pb2

from converter.errors import OptionsError
from converter.options.slices import XlaShardingOptions
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import assert_pass
from tests.passes.place_on_tpu.models import F, functions, placed

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
