"""The TPU cluster around a function's body, and the call that runs it: the runtime's contract."""

from __future__ import annotations

import re

import numpy as np

from converter.analysis import tpu
from converter.graph.functions import replace_body
from converter.graph.model import Scope
from converter.graph.nodes import (
    PlainAttr,
    UniqueNames,
    const_node,
    int_list_attr,
    make_node,
    shape_list_attr,
    type_attr,
)
from converter.graph.protos import DT_RESOURCE, FunctionDef, NodeDef
from converter.options.slices import XlaShardingOptions

_MARKER = tpu.CLUSTER_ATTR


def build_cluster(function: FunctionDef, sharding: XlaShardingOptions | None) -> None:
    """Turns a function whose body is one call into a TPU cluster around that call."""
    name = function.signature.name
    # The name of a node: a function made from a lambda has characters that nodes must not have.
    cluster = "cluster_" + re.sub(r"[^A-Za-z0-9_.\\/-]", "_", name)
    marker = {_MARKER: cluster}
    inner = function.node_def[0]
    outer_shapes = inner.attr["_output_shapes"].list.shape
    taken = UniqueNames(Scope.of(function))
    pivot = make_node(taken(f"{cluster}/pivot"), "NoOp", _pivot_for_cluster=cluster)
    metadata = make_node(
        taken("TPUReplicateMetadata"), "TPUReplicateMetadata", [f"^{pivot.name}"], **_metadata_attrs(sharding), **marker
    )
    compilation = make_node(
        taken("TPUCompilationResult"),
        "TPUCompilationResult",
        [f"^{metadata.name}"],
        _tpu_compilation_status=cluster,
    )
    nodes = [pivot, metadata, compilation]
    inputs = []
    for i, argument in enumerate(function.signature.input_arg):
        if argument.type == DT_RESOURCE:
            inputs.append(argument.name)
            continue
        dtype = type_attr(argument.type)
        replicated = make_node(taken(f"input{i}"), "TPUReplicatedInput", [argument.name], N=1, T=dtype)
        identity = make_node(
            taken(f"replicated_input_{i}"),
            "Identity",
            [f"{replicated.name}:output:0", f"^{metadata.name}"],
            T=dtype,
            _tpu_input_identity=True,
            **marker,
        )
        nodes += [replicated, identity]
        inputs.append(f"{identity.name}:output:0")
    call = make_node(taken("tpu_call"), inner.op, [*inputs, f"^{metadata.name}"], **dict(inner.attr), **marker)
    nodes.append(call)
    results = {}
    for i, output in enumerate(function.signature.output_arg):
        dtype = type_attr(output.type)
        shape = shape_list_attr(outer_shapes[i : i + 1])
        identity = make_node(
            taken(f"out_id_{i}"), "Identity", [f"{call.name}:output:{i}"], T=dtype, _tpu_output_identity=True, **marker
        )
        replicated = make_node(
            taken(f"output{i}"), "TPUReplicatedOutput", [f"{identity.name}:output:0"], num_replicas=1, T=dtype
        )
        # TPUReplicatedOutput needs a data consumer.
        shard = make_node(
            taken(f"output_{i}_shard_0"), "Identity", [f"{replicated.name}:outputs:0"], T=dtype, _output_shapes=shape
        )
        nodes += [identity, replicated, shard]
        results[output.name] = f"{shard.name}:output:0"
    replace_body(function, nodes, results, control=[])


def _metadata_attrs(sharding: XlaShardingOptions | None) -> dict[str, PlainAttr]:
    # use_tpu, step_marker_location and one core are the op's defaults; older runtimes reject what they don't know.
    attrs: dict[str, PlainAttr] = {"num_replicas": 1}
    if sharding is not None:
        attrs["use_spmd_for_xla_partitioning"] = True
        if sharding.num_cores_per_replica != 1:
            attrs["num_cores_per_replica"] = sharding.num_cores_per_replica
        if sharding.topology:
            attrs["topology"] = sharding.topology
        if sharding.device_assignment:
            attrs["device_assignment"] = int_list_attr(sharding.device_assignment)
    return attrs


def build_call_site(stub: FunctionDef, call: NodeDef, given: str, sharding: XlaShardingOptions | None) -> None:
    """Turns F's single call into a TPU ordinal and a TPUPartitionedCall."""
    taken = UniqueNames(Scope.of(stub))
    attrs: dict[str, PlainAttr] = {**call.attr, tpu.NAME_ATTR: given}
    if sharding is not None and sharding.device_assignment:
        # The runtime takes a manual device assignment with ordinal 0 only.
        ordinal = const_node(taken("device_ordinal"), np.int32(0))
        ordinal_ref = f"{ordinal.name}:output:0"
    else:
        ordinal = make_node(taken("TPUOrdinalSelector"), "TPUOrdinalSelector")
        ordinal_ref = f"{ordinal.name}:device_ordinals:0"
    tpu_call = make_node(taken(tpu.TPU_CALL), tpu.TPU_CALL, [*call.input, ordinal_ref], **attrs)
    results = {r.name: f"{tpu_call.name}:output:{i}" for i, r in enumerate(stub.signature.output_arg)}
    replace_body(stub, [ordinal, tpu_call], results)
