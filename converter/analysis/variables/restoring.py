"""What the functions that save and restore call the tensors that they handle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converter.graph import refs, tensors
from converter.graph.model import Model, Scope
from converter.graph.protos import NodeDef
from converter.graph.scope_index import scope_index


def restored_tensors(model: Model, scope: Scope) -> dict[str, str]:
    """Reference -> checkpoint key of every tensor that RestoreV2 reads in this scope, where keys are constants."""
    restores = [n for n in scope.nodes if n.op == "RestoreV2"]
    if not restores:
        return {}
    nodes = scope_index(model, scope.name).nodes
    return {
        refs.canonical_ref(scope.ref(node.name, "tensors", i, i), scope): key
        for node in restores
        for i, key in enumerate(checkpoint_keys(node, scope, nodes))
    }


def checkpoint_keys(node: NodeDef, scope: Scope, nodes: Mapping[str, NodeDef]) -> list[str]:
    """The keys that a SaveV2 or RestoreV2 saves or restores, in order; none if they are not constant."""
    names = refs.maker_of(node.input[1], nodes)
    if names is None or names.op != "Const":
        return []
    values = np.atleast_1d(tensors.values(names.attr["value"].tensor))
    # Of a damaged key nothing in the checkpoint has the name.
    return [value.decode(errors="replace") for value in values.tolist()]
