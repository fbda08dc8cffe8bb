"""What is batched, by names: a function or a TPU call behind a new BatchFunction, or a BatchFunction that is there."""

from __future__ import annotations

from dataclasses import dataclass

from converter.graph.model import Model, Scope
from converter.graph.protos import NodeDef
from converter.passes.batching.attributes import Attributes


@dataclass(frozen=True)
class Place:
    """A node by its name and that of the scope that holds it."""

    scope: str
    node: str

    def find(self, model: Model) -> tuple[Scope, NodeDef]:
        scope = model.scope(self.scope)
        return scope, next(node for node in scope.nodes if node.name == self.node)


@dataclass(frozen=True)
class Site:
    """A TPU call that becomes a batching op where it stands.

    Attributes:
      call: the TPUPartitionedCall.
      ordinal: the node beside it that gives it its core.
      group: equal for calls that may share a queue.
    """

    call: Place
    ordinal: Place
    group: int


@dataclass(frozen=True)
class Target:
    """Something to put behind a new BatchFunction.

    Attributes:
      name: what the user calls it.
      what: "function", "signature", "TPU function" or "TPU call".
      function: the batching op has its arguments and results.
      inputs: indices of the arguments that belong to the request.
      site: of a TPU call that is replaced where it stands; None where the whole of `function` is batched.
    """

    name: str
    what: str
    function: str
    inputs: tuple[int, ...]
    attributes: Attributes
    site: Site | None = None

    @property
    def scope(self) -> str:
        """Where the batching op is to stand."""
        return self.function if self.site is None else self.site.call.scope


@dataclass(frozen=True)
class Update:
    """A BatchFunction of the model whose attributes options decide anew.

    Attributes:
      name: what the user calls it.
      function: what it calls.
      inputs: indices of that function's arguments that belong to the request.
      before, after: equal if it has what the options ask for.
    """

    name: str
    place: Place
    function: str
    inputs: tuple[int, ...]
    before: Attributes
    after: Attributes
