"""What nodes do with a variable, and which nodes and functions the signatures reach."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from converter.graph import calls, ops
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_BFLOAT16, NodeDef

_BFLOAT16 = DT_BFLOAT16
_READERS = {"ReadVariableOp", "ReadVariableXlaSplitND"} | ops.VARIABLE_LOOKUPS
_WRITERS = {
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "AssignVariableXlaConcatND",
    "ResourceStridedSliceAssign",
}
_WRITER_FAMILIES = ("ResourceScatter", "ResourceApply", "ResourceSparseApply")


class UseKind(enum.Enum):
    """What a node does with a variable."""

    READ = "reads it"
    WRITE = "writes it"
    INDIFFERENT = "does not touch its values"
    OPAQUE = "unknown"


@dataclass(frozen=True)
class VariableUse:
    """One node that uses a variable.

    Attributes:
      scope: name of the function, or MAIN_GRAPH.
      node: name of the node; of an argument or result of a function that callers outside the model can use as well.
      op: the node's op; empty for an argument or result.
      kind: what it does; OPAQUE if there is no telling.
      served: whether a signature reaches it. An opaque use always counts as served.
    """

    scope: str
    node: str
    op: str
    kind: UseKind
    served: bool


class Served:
    """What the signatures reach."""

    def __init__(self, model: Model) -> None:
        nodes = calls.served_nodes(model)
        self._nodes = {n.name for n in nodes}
        called = [f for node in nodes for f in calls.called_functions(node, model)]
        self._functions = set(calls.call_graph(model).reachable(called))

    def reaches(self, scope: Scope, node: NodeDef) -> bool:
        return node.name in self._nodes if scope.function is None else scope.name in self._functions


def value_attr(node: NodeDef) -> str | None:
    """The attribute that holds the type of the variable that `node` reads or writes; None if it does neither."""
    if node.op in _READERS or node.op in _WRITERS or node.op.startswith(_WRITER_FAMILIES):
        return "dtype" if "dtype" in node.attr else "T"
    return None


def use_kind(node: NodeDef, model: Model) -> UseKind:
    """What `node` does with a variable that it is given."""
    if node.op in ops.UNTOUCHING:
        return UseKind.INDIFFERENT
    attr = value_attr(node)
    definition = ops.op_def(node.op, model)
    declared = None if definition is None else next((a for a in definition.attr if a.name == attr), None)
    if declared is None:
        return UseKind.OPAQUE
    if declared.HasField("allowed_values") and _BFLOAT16 not in declared.allowed_values.list.type:
        return UseKind.OPAQUE
    return UseKind.READ if node.op in _READERS else UseKind.WRITE
