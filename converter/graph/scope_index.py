"""Looking things up in one scope: nodes by name, who takes a tensor, what comes behind what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from converter.graph import refs
from converter.graph.model import Model, Scope
from converter.graph.protos import NodeDef


@dataclass(frozen=True)
class Taken:
    """A data input of a node; `position` counts data inputs."""

    node: NodeDef
    position: int


class ScopeIndex:
    """The nodes, arguments and inputs of a scope as they were when first asked for; an edit makes it stale.

    Attributes:
      scope: what it is an index of.
      nodes: by name.
      arguments: name -> position, of the function's arguments.
    """

    def __init__(self, scope: Scope) -> None:
        declared = () if scope.function is None else scope.function.signature.input_arg
        self.scope = scope
        self.nodes: dict[str, NodeDef] = {n.name: n for n in scope.nodes}
        self.arguments: dict[str, int] = {a.name: i for i, a in enumerate(declared)}

    def producer(self, ref: str) -> NodeDef | None:
        """The node that makes a tensor; None for an argument, or if there is no such node."""
        return self.nodes.get(refs.producer_of(ref))

    def inputs_of(self, ref: str) -> Sequence[Taken]:
        """The inputs that take this tensor, in the scope's order."""
        return self._inputs.get(refs.canonical_ref(ref, self.scope), ())

    def results_of(self, ref: str) -> Sequence[str]:
        """The results of the function that are this tensor."""
        return self._results.get(ref, ())

    def users_of(self, name: str) -> Sequence[NodeDef]:
        """The nodes that take an output of this node, or this argument, each once, in the scope's order."""
        return self._users.get(name, ())

    @cached_property
    def _inputs(self) -> dict[str, list[Taken]]:
        found: dict[str, list[Taken]] = {}
        for node in self.scope.nodes:
            for position, ref in enumerate(refs.data_inputs(node)):
                found.setdefault(refs.canonical_ref(ref, self.scope), []).append(Taken(node, position))
        return found

    @cached_property
    def _users(self) -> dict[str, list[NodeDef]]:
        found: dict[str, list[NodeDef]] = {}
        for node in self.scope.nodes:
            for producer in dict.fromkeys(map(refs.producer_of, refs.data_inputs(node))):
                found.setdefault(producer, []).append(node)
        return found

    @cached_property
    def _results(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for result, ref in {} if self.scope.function is None else self.scope.function.ret.items():
            found.setdefault(ref, []).append(result)
        return found

    def in_order(self) -> tuple[Sequence[NodeDef], Sequence[NodeDef]]:
        """The nodes, each behind those it takes; and apart, rings (loops of TensorFlow 1) and what follows."""
        return self._ordered

    @cached_property
    def _ordered(self) -> tuple[Sequence[NodeDef], Sequence[NodeDef]]:
        missing = dict.fromkeys(self.nodes, 0)
        for name in self.nodes:
            for user in self.users_of(name):
                missing[user.name] += 1
        ready = [name for name, count in missing.items() if count == 0]
        for name in ready:
            for user in self.users_of(name):
                missing[user.name] -= 1
                if missing[user.name] == 0:
                    ready.append(user.name)
        return [self.nodes[name] for name in ready], [self.nodes[name] for name, count in missing.items() if count > 0]


def scope_index(model: Model, name: str) -> ScopeIndex:
    """The index of a scope of the model, by the scope's name; kept while the model is unchanged."""
    return model.kept(("scope index", name), lambda: ScopeIndex(model.scope(name)))
