"""The CPU twin of a converted model: the same graph, TPU ops replaced, so that CPU TensorFlow runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converter.analysis import tpu
from converter.errors import ConversionError
from converter.graph import ops, refs
from converter.graph.model import Model, Scope
from converter.graph.nodes import const_node, rewire
from converter.graph.protos import NodeDef
from converter.proofs.bfloat16_on_cpu import compute_in_float32
from converter.saved_model.reader import read_model
from converter.saved_model.writer import check_output_dir, write_model

_CLUSTER_ATTRS = (
    tpu.CLUSTER_ATTR,
    "_tpu_input_identity",
    "_tpu_output_identity",
    "_tpu_compilation_status",
    "_pivot_for_cluster",
    "_xla_compile_device_type",
    "_replication_info",
)
# op -> the output arg that it has, which the twin's node spells "output"
_REPLACED_OUTPUT = {
    "TPUReplicatedOutput": "outputs",
    "TPUOrdinalSelector": "device_ordinals",
    "TPUCompilationResult": "output",
}


def write_cpu_twin(model_dir: Path | str, output_dir: Path | str, *, overwrite: bool = False) -> None:
    """Writes the CPU twin of the converted SavedModel in `model_dir` to `output_dir`.

    Raises:
      ConversionError: the model cannot be read or written, or holds TPU computation replicated over several TPUs.
    """
    model_path, output_path = Path(model_dir), Path(output_dir)
    check_output_dir(model_path, output_path, overwrite)
    model = read_model(model_path)
    write_model(model, output_path, unchanged=not make_cpu_twin(model))


def make_cpu_twin(model: Model) -> bool:
    """Rewrites `model` in place; says whether there was anything to rewrite.

    1. TPUPartitionedCall -> StatefulPartitionedCall without the device ordinal.
    2. TPUReplicatedInput, TPUReplicatedOutput -> Identity (one replica only).
    3. TPUReplicateMetadata -> NoOp; TPUCompilationResult -> an empty string; TPUOrdinalSelector -> 0.
    4. Attributes that mark a TPU cluster are dropped.
    5. What was stateful in a cluster becomes a control output of its function, as in functions that TensorFlow traces:
       grappler inlines no function without, and would then fuse less than in the original.
    6. What the CPU would compute worse in bfloat16 than the TPU, or not at all, is computed in float32 between casts
       (`bfloat16_on_cpu`).
    """
    changed = compute_in_float32(model, tpu.tpu_scopes(model)) > 0
    for scope in model.scopes():
        renamed: dict[str, str] = {}
        stateful: list[str] = []
        for node in scope.nodes:
            if scope.function is not None and tpu.CLUSTER_ATTR in node.attr and _is_stateful(model, node):
                stateful.append(node.name)
            if node.op in _REPLACED_OUTPUT and scope.function is not None:
                old = f"{node.name}:{_REPLACED_OUTPUT[node.op]}:0"
                renamed[old] = f"{node.name}:output:0"
            changed |= _replace(node, scope)
        rewire(scope, renamed)
        if scope.function is not None:
            present = set(scope.function.control_ret.values())
            for name in (n for n in stateful if n not in present):
                scope.function.control_ret[name] = name
                scope.function.signature.control_output.append(name)
    return changed


def _is_stateful(model: Model, node: NodeDef) -> bool:
    definition = ops.op_def(node.op, model)
    return definition is not None and bool(definition.is_stateful)


def _replace(node: NodeDef, scope: Scope) -> bool:
    marked = [a for a in _CLUSTER_ATTRS if a in node.attr]
    for attr in marked:
        del node.attr[attr]
    if node.op == tpu.TPU_CALL:
        node.op = "StatefulPartitionedCall"
        ordinal = refs.data_inputs(node)[-1]
        position = max(i for i, ref in enumerate(node.input) if ref == ordinal)
        del node.input[position]
        node.attr.pop("autotuner_thresh", None)
    elif node.op in ("TPUReplicatedInput", "TPUReplicatedOutput"):
        _expect_one_replica(node, scope)
        dtype = node.attr["T"].type
        node.attr.clear()
        node.attr["T"].type = dtype
        node.op = "Identity"
    elif node.op == "TPUReplicateMetadata":
        node.op = "NoOp"
        node.attr.clear()
    elif node.op in ("TPUCompilationResult", "TPUOrdinalSelector"):
        value = b"" if node.op == "TPUCompilationResult" else np.int32(0)
        control = refs.control_inputs(node)
        node.CopyFrom(const_node(node.name, value))
        node.input.extend(control)
    else:
        return bool(marked)
    return True


def _expect_one_replica(node: NodeDef, scope: Scope) -> None:
    count = node.attr["N" if node.op == "TPUReplicatedInput" else "num_replicas"].i
    if count != 1:
        raise ConversionError(
            f'The node "{node.name}" ({node.op}) in {scope.name} has {count} replicas, expected 1: a model replicated '
            "over several TPUs has no CPU twin."
        )
