"""The ways of values between ops that are bfloat16: where nothing else uses a value, the way is bfloat16 as well."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from converter.graph import calls, outside, refs
from converter.graph.model import Model, Scope
from converter.graph.protos import FunctionDef, NodeDef
from converter.graph.scope_index import scope_index
from converter.passes.bfloat16.edits import Retyped

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


@dataclass(frozen=True)
class Output:
    """An output of a node, as its scope spells it and by its number."""

    scope: Scope
    node: NodeDef
    ref: str
    number: int

    @property
    def outside_name(self) -> str:
        return outside.name_for(self.node.name, self.number)


@dataclass(frozen=True)
class Input:
    """A data input of a node."""

    scope: Scope
    node: NodeDef
    position: int

    @property
    def ref(self) -> str:
        return refs.canonical_ref(self.node.input[self.position], self.scope)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scope.name, self.node.name, self.position


@dataclass
class Way:
    """What lies between a value that is bfloat16 and the inputs that want it so, and these inputs."""

    retyped: list[Retyped] = field(default_factory=list)
    ends: list[Input] = field(default_factory=list)


class Uses:
    """Who uses which tensor of a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._outside = outside.names(model)
        self._sites = calls.call_sites(model)

    def inputs_of(self, scope: Scope, ref: str) -> list[Input]:
        """The inputs that take the tensor, in the model's order."""
        return [Input(scope, t.node, t.position) for t in scope_index(self._model, scope.name).inputs_of(ref)]

    def results_of(self, scope: Scope, ref: str) -> Sequence[str]:
        """The results of the scope's function that are the tensor."""
        return scope_index(self._model, scope.name).results_of(ref)

    def is_named(self, scope: Scope, outside_name: str) -> bool:
        """Whether a signature or the object graph names the tensor."""
        return (scope.name, outside_name) in self._outside

    def way(self, output: Output, wanted: Container[tuple[str, str, int]]) -> Way | None:
        """The way of a value to inputs whose keys are all `wanted`; None if anything else uses it on the way."""
        way = Way()
        stack = [(output.scope, output.ref, output.outside_name)]
        while stack:
            scope, ref, outside_name = stack.pop()
            if self.is_named(scope, outside_name) or self.results_of(scope, ref):
                return None
            for user in self.inputs_of(scope, ref):
                node = user.node
                if user.key in wanted:
                    way.ends.append(user)
                elif node.op == "Identity":
                    way.retyped.append(Retyped(scope.name, node.name, "T", None))
                    copied = refs.canonical_ref(scope.ref(node.name, "output", 0, 0), scope)
                    stack.append((scope, copied, outside.name_for(node.name, 0)))
                elif node.op in _CALLS and (callee := self._private_callee(node)) is not None:
                    inner, argument = Scope.of(callee), callee.signature.input_arg[user.position].name
                    way.retyped.append(Retyped(scope.name, node.name, "Tin", user.position))
                    way.retyped.append(Retyped(inner.name, None, "argument", user.position))
                    stack.append((inner, argument, outside.name_for(argument, 0)))
                else:
                    return None
        return way

    def _private_callee(self, call: NodeDef) -> FunctionDef | None:
        """What `call` calls, if nothing else does and no one outside the model can."""
        name = call.attr["f"].func.name
        if len(self._sites.get(name, ())) != 1 or name in self._model.object_graph.concrete_functions:
            return None
        return self._model.functions[name]
