"""The tensors that cross between CPU and TPU at one TPU call, and the markers through which they do."""

from __future__ import annotations

from dataclasses import dataclass

from converter.analysis import tpu
from converter.analysis.shape_graph import FunctionShapes
from converter.graph import outside, refs, tensors
from converter.graph.model import Model
from converter.graph.protos import DT_RESOURCE, ArgDef, DataType, NodeDef
from converter.graph.scope_index import ScopeIndex, scope_index
from converter.graph.shapes import Shape
from converter.passes.pass_result import Skip

_SHARDING_ATTR = "_XlaSharding"


@dataclass(frozen=True)
class Crossing:
    """One tensor that crosses at a TPU call: argument or result `index` of the TPU function."""

    is_input: bool
    index: int
    name: str
    dtype: DataType
    shape: Shape
    chain: tuple[str, ...]
    """Inside the TPU function, the names of the nodes from argument or result to the tagged Identity, the last one."""

    @property
    def marker(self) -> str:
        return self.chain[-1]

    @property
    def dtype_name(self) -> str:
        return tensors.dtype_name(self.dtype)

    @property
    def where(self) -> str:
        return f"{'input' if self.is_input else 'output'} {self.name}"


def find_crossings(
    model: Model, computation: tpu.TpuComputation, inferred: FunctionShapes, where: str
) -> tuple[list[Crossing], list[Skip]]:
    """The tensors that cross through markers that can be rewritten; and the others, each with what is in the way."""
    function, call, scope = computation.function, computation.call, computation.scope
    inside = scope_index(model, function.signature.name)
    named = [name for scope_name, name in outside.names(model) if scope_name == function.signature.name]
    captured = {refs.producer_of(name) for name in named}
    found: list[Crossing] = []
    skips: list[Skip] = []

    def add(is_input: bool, index: int, declared: ArgDef, ref: str, chain: list[NodeDef]) -> None:
        names = tuple(n.name for n in chain)
        crossing = Crossing(is_input, index, declared.name, declared.type, inferred.of(ref), names)
        attrs = [n.attr for n in chain]
        if is_input and index in function.arg_attr:
            attrs.append(function.arg_attr[index].attr)
        if any(_SHARDING_ATTR in a for a in attrs):
            skips.append(Skip(f"{where}, {crossing.where}", "has a sharding of its own"))
        elif any(n.name in captured for n in chain):
            reason = "a gradient function captured it inside the TPU function"
            skips.append(Skip(f"{where}, {crossing.where}", reason))
        elif not chain or any(chain[-1].name == f.marker for f in found):
            way = "enter" if is_input else "leave"
            reason = f"does not {way} the TPU through a marker of one replica that is its own"
            skips.append(Skip(f"{where}, {crossing.where}", reason))
        else:
            found.append(crossing)

    for index, argument in enumerate(function.signature.input_arg):
        if argument.type != DT_RESOURCE:
            chain = _input_chain(argument.name, inside)
            add(True, index, argument, refs.data_inputs(call)[index], chain)
    for index, output in enumerate(function.signature.output_arg):
        chain = _output_chain(function.ret[output.name], inside)
        add(False, index, output, scope.ref(call.name, "output", index, index), chain)
    return found, skips


def _input_chain(argument: str, inside: ScopeIndex) -> list[NodeDef]:
    """The TPUReplicatedInput that alone takes this argument, and the tagged Identity behind it; empty without."""
    replicated = _only_user(argument, inside)
    if replicated is None or replicated.op != "TPUReplicatedInput" or len(refs.data_inputs(replicated)) != 1:
        return []
    identity = _only_user(f"{replicated.name}:output:0", inside)
    return [replicated, identity] if identity is not None and _is_marker(identity) else []


def _output_chain(ref: str, inside: ScopeIndex) -> list[NodeDef]:
    """From the result `ref` back: Identities, the TPUReplicatedOutput, the tagged Identity before it; else empty."""
    chain: list[NodeDef] = []
    while _uses(ref, inside) == 1 and (node := inside.producer(ref)) is not None:
        chain.append(node)
        if len(chain) > 1 and chain[-2].op == "TPUReplicatedOutput":
            return chain if _is_marker(node) else []
        if node.op != "Identity" and (node.op != "TPUReplicatedOutput" or node.attr["num_replicas"].i != 1):
            return []
        ref = refs.data_inputs(node)[0]
    return []


def _only_user(ref: str, inside: ScopeIndex) -> NodeDef | None:
    """The node that alone uses a tensor; None if there are several, or a result is that tensor."""
    return inside.inputs_of(ref)[0].node if inside.inputs_of(ref) and _uses(ref, inside) == 1 else None


def _uses(ref: str, inside: ScopeIndex) -> int:
    return len(inside.inputs_of(ref)) + len(inside.results_of(ref))


def _is_marker(node: NodeDef) -> bool:
    return bool(node.op == "Identity" and tpu.CLUSTER_ATTR in node.attr)
