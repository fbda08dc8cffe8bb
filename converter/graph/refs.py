"""How references to tensors are spelled: "node:output_arg:0" in a function, "node" or "node:1" in a graph, "^node"."""

from __future__ import annotations

from collections.abc import Mapping

from converter.graph.model import Scope
from converter.graph.protos import NodeDef


def is_control(ref: str) -> bool:
    return ref.startswith("^")


def data_inputs(node: NodeDef) -> list[str]:
    return [i for i in node.input if not is_control(i)]


def control_inputs(node: NodeDef) -> list[str]:
    return [i for i in node.input if is_control(i)]


def split_ref(ref: str) -> tuple[str, str]:
    """The node, or argument, of a tensor and which of its outputs it is: 'a:y:0' gives 'a' and 'y:0', 'a' gives ''."""
    producer, _, output = ref.partition(":")
    return producer, output


def producer_of(ref: str) -> str:
    """The node, or function argument, that a reference names: 'a:y:0', 'a:1', 'a' and '^a' all give 'a'."""
    return ref.lstrip("^").partition(":")[0]


def output_number(ref: str) -> int:
    """The number that a reference ends with, which in a function counts in one output arg: 'a:y:2' and 'a:2' give 2."""
    return int(split_ref(ref)[1].rpartition(":")[2] or 0)


def canonical_ref(ref: str, scope: Scope) -> str:
    """One spelling for one tensor; in the main graph 'a' and 'a:0' are the same."""
    return f"{ref}:0" if scope.function is None and ":" not in ref and not is_control(ref) else ref


def input_ref(ref: str, scope: Scope) -> str:
    """How a node takes the tensor: in the main graph 'a', not 'a:0'."""
    return ref.removesuffix(":0") if scope.function is None else ref


def maker_of(ref: str, nodes: Mapping[str, NodeDef]) -> NodeDef | None:
    """The node that makes what chains of Identity copy to `ref`; None for an argument."""
    return nodes.get(producer_of(before_identities(ref, nodes)))


def before_identities(ref: str, nodes: Mapping[str, NodeDef]) -> str:
    """The tensor that chains of Identity copy to `ref`."""
    producer = nodes.get(producer_of(ref))
    while producer is not None and producer.op == "Identity":
        ref = data_inputs(producer)[0]
        producer = nodes.get(producer_of(ref))
    return ref
