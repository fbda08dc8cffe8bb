"""What the functions that save and restore call the tensors that they handle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converter.graph import edit, tensors
from converter.graph.model import Scope
from converter.graph.protos import NodeDef


def restored_tensors(scope: Scope) -> dict[str, str]:
    """Reference -> checkpoint key of every tensor that RestoreV2 reads in this scope, where keys are constants."""
    restores = [n for n in scope.nodes if n.op == "RestoreV2"]
    if not restores:
        return {}
    nodes = {n.name: n for n in scope.nodes}
    return {
        edit.canonical_ref(scope.ref(node.name, "tensors", i, i), scope): key
        for node in restores
        for i, key in enumerate(checkpoint_keys(node, scope, nodes))
    }


def checkpoint_keys(node: NodeDef, scope: Scope, nodes: Mapping[str, NodeDef]) -> list[str]:
    """The keys that a SaveV2 or RestoreV2 saves or restores, in order; none if they are not constant."""
    names = nodes.get(edit.producer_of(edit.before_identities(node.input[1], nodes)))
    if names is None or names.op != "Const":
        return []
    values = np.atleast_1d(tensors.values(names.attr["value"].tensor))
    # Of a damaged key nothing in the checkpoint has the name.
    return [value.decode(errors="replace") for value in values.tolist()]
