"""Amounts summed up over the tree of calls: what all ops under a piece of graph take, on the CPU and on the TPU.

A call adds what it calls at every call site, a loop its body and condition once, a branch all its branches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from converter.analysis import tpu
from converter.analysis.arguments import Argument
from converter.analysis.op_work import Work
from converter.analysis.shape_graph import FunctionShapes
from converter.graph import calls
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import NodeDef

Amount = TypeVar("Amount", int, Work)
Arguments: TypeAlias = tuple[Argument, ...]


@dataclass
class Split(Generic[Amount]):
    """An amount on the CPU, and on the TPU by the name that the user gave."""

    cpu: Amount
    tpu: dict[str, Amount] = field(default_factory=dict)

    @property
    def total(self) -> Amount:
        total = self.cpu
        for amount in self.tpu.values():
            total = total + amount
        return total

    def add(self, other: Split[Amount]) -> None:
        self.cpu = self.cpu + other.cpu
        for name, amount in other.tpu.items():
            self.tpu[name] = self.tpu[name] + amount if name in self.tpu else amount


class CallTree(ABC, Generic[Amount]):
    """The sum of one measure of ops. A measure that depends on shapes says what calls pass and what scopes make of it.

    A function is summed up once for all calls that pass the same.
    """

    def __init__(self, model: Model, nothing: Amount) -> None:
        self._model = model
        self._nothing: Amount = nothing
        self._tpu_names = tpu.display_names(model)
        self._known: dict[tuple[str, Arguments], Split[Amount]] = {}

    @abstractmethod
    def amount(self, scope: Scope, node: NodeDef, known: FunctionShapes | None) -> Amount:
        """What a node takes that calls nothing."""

    def declared(self, function: str) -> Arguments:
        """What a function is given where no call says so."""
        return ()

    def passed(self, node: NodeDef, called: Sequence[str], known: FunctionShapes | None) -> list[Arguments]:
        """What a node gives to each of the functions that it calls."""
        return [()] * len(called)

    def shapes(self, scope_name: str, given: Arguments) -> FunctionShapes | None:
        """What is known inside of a scope that is given this."""
        return None

    def of_model(self) -> Split[Amount]:
        """All that the signatures reach; saving and restoring do not count. Every TPU function has an entry."""
        total = Split(self._nothing, dict.fromkeys(self._tpu_names.values(), self._nothing))
        nodes = calls.served_nodes(self._model)
        total.add(self._sum(self._model.main_scope(), nodes, self.shapes(MAIN_GRAPH, ())))
        return total

    def of_functions(self, names: Iterable[str]) -> dict[str, Amount]:
        """One call of each of these functions, CPU and TPU together."""
        return {name: self._function(name, self.declared(name)).total for name in names}

    def _function(self, name: str, given: Arguments) -> Split[Amount]:
        key = (name, given)
        if key not in self._known:
            self._known[key] = Split(self._nothing)  # what a recursive function sees of itself
            scope = self._model.scope(name)
            self._known[key] = self._sum(scope, scope.nodes, self.shapes(name, given))
        return self._known[key]

    def _sum(self, scope: Scope, nodes: Iterable[NodeDef], known: FunctionShapes | None) -> Split[Amount]:
        total = Split(self._nothing)
        for node in nodes:
            called = calls.called_functions(node, self._model)
            total.add(self._call(node, called, known) if called else Split(self.amount(scope, node, known)))
        return total

    def _call(self, node: NodeDef, called: Sequence[str], known: FunctionShapes | None) -> Split[Amount]:
        below = Split(self._nothing)
        for name, given in zip(called, self.passed(node, called, known), strict=True):
            below.add(self._function(name, given))
        if node.op == tpu.TPU_CALL:
            return Split(self._nothing, {self._tpu_names[called[0]]: below.total})
        return below
