"""Where a model computes on the TPU: its TPUPartitionedCall nodes and what surrounds them."""

from __future__ import annotations

from dataclasses import dataclass

from converter.graph import calls, ops
from converter.graph.model import Model, Scope
from converter.graph.nodes import nodes_where
from converter.graph.protos import FunctionDef, NodeDef

TPU_CALL = "TPUPartitionedCall"
BATCH_CALL = "BatchFunction"
# What may stand around a single call without being computation of its own.
_BESIDE_A_CALL = ("Identity", "NoOp", "Cast", "EnsureShape", "Reshape", "Const", "TPUOrdinalSelector")
CLUSTER_ATTR = "_tpu_replicate"
_BOUNDARY_ATTRS = ("_tpu_input_identity", "_tpu_output_identity")
# On a TPUPartitionedCall: the name by which the user asked for it; reports of later conversions need it too.
# (On a FunctionDef the loader would refuse an attribute that it does not know.)
NAME_ATTR = "_tpu_convert_name"


@dataclass(frozen=True)
class TpuComputation:
    """One TPUPartitionedCall: the scope that holds it, the node, and the function that it runs on the TPU."""

    scope: Scope
    call: NodeDef
    function: FunctionDef


def tpu_computations(model: Model) -> list[TpuComputation]:
    """Every TPUPartitionedCall of the model whose function exists, whoever put it there."""
    return [
        TpuComputation(scope, node, model.functions[node.attr["f"].func.name])
        for scope, node in nodes_where(model, lambda n: bool(n.op == TPU_CALL))
        if node.attr["f"].func.name in model.functions
    ]


def reshape_prefixes(call: NodeDef) -> tuple[str, str]:
    """How the names of the host's Reshapes begin that let tensors cross at `call` in another shape: before, after."""
    return f"{call.name}/transfer_", f"{call.name}/restore_"


def is_boundary(node: NodeDef) -> bool:
    """Whether `node` marks where a tensor enters or leaves a TPU cluster."""
    return node.op in ops.TPU_MARKERS or any(attr in node.attr for attr in _BOUNDARY_ATTRS)


def tpu_scopes(model: Model) -> list[str]:
    """Names of the functions that run on the TPU: those that TPU calls run and all that these reach."""
    roots = dict.fromkeys(c.function.signature.name for c in tpu_computations(model))
    return calls.call_graph(model).reachable(roots)


def is_tpu_stub(model: Model, name: str) -> bool:
    """Whether function `name` does nothing but call the TPU: directly, or through a chain of single calls."""
    seen: set[str] = set()
    while name in model.functions and name not in seen:
        seen.add(name)
        work = [n for n in model.functions[name].node_def if n.op not in _BESIDE_A_CALL]
        if len(work) != 1:
            return False
        if work[0].op == TPU_CALL:
            return True
        if len(calls.called_functions(work[0], model)) != 1:
            return False
        name = calls.called_functions(work[0], model)[0]
    return False


def display_name(model: Model, computation: TpuComputation) -> str:
    """What to call a TPU computation in reports: the name its user gave, else an alias or name of what calls it."""
    call = computation.call
    if NAME_ATTR in call.attr:
        return str(call.attr[NAME_ATTR].s.decode())
    aliases = model.meta_graph.meta_info_def.function_aliases
    scope, function = computation.scope.name, computation.function.signature.name
    return str(aliases[scope]) if scope in aliases else str(function)


def display_names(model: Model) -> dict[str, str]:
    """Function that runs on the TPU -> what to call it in reports."""
    return {c.function.signature.name: display_name(model, c) for c in tpu_computations(model)}
