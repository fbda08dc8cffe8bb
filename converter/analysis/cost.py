"""The converter's cost heuristic: how much of the model runs on the TPU.

The weights are those of the public bfloat16 toolkit of orbax.export, so that the integers mean what users of
Google's converter know: convolutions 5000, matrix products 1000, einsums 1001, a call what it calls, any other
op 1. They are no times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from converter.analysis import tpu
from converter.graph import calls
from converter.graph.model import Model
from converter.graph.protos import NodeDef

_PREFIX_COSTS = (
    (("Conv", "FusedConv2DBiasActivation", "_FusedConv2D", "XlaConv"), 5000),
    (("MatMul", "BatchMatMul", "XlaDot"), 1000),
    (("Einsum", "XlaEinsum"), 1001),
)


@dataclass
class Cost:
    """Cost of one piece of graph: on the CPU, and on the TPU by the name that the user gave."""

    cpu: int = 0
    tpu: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.cpu + self.tpu_total

    @property
    def tpu_total(self) -> int:
        return sum(self.tpu.values())

    def add(self, other: Cost) -> None:
        self.cpu += other.cpu
        self.tpu.update(other.tpu)


def op_cost(op: str) -> int:
    """Cost of one op that calls nothing."""
    return next((cost for prefixes, cost in _PREFIX_COSTS if op.startswith(prefixes)), 1)


def model_cost(model: Model) -> Cost:
    """Cost of all that the signatures reach; saving and restoring do not count.

    A function counts at every call site. Every TPU function of the model has an entry, even at 0 calls.
    """
    names = tpu.display_names(model)
    calculator = _Calculator(model, names)
    total = Cost(tpu=Counter(dict.fromkeys(names.values(), 0)))
    for node in calls.served_nodes(model):
        total.add(calculator.node(node))
    return total


def function_costs(model: Model, names: Iterable[str]) -> dict[str, int]:
    """Cost of one call of each of these functions, CPU and TPU together."""
    calculator = _Calculator(model, tpu.display_names(model))
    return {name: calculator.function(name).total for name in names}


class _Calculator:
    def __init__(self, model: Model, tpu_names: dict[str, str]) -> None:
        self._model = model
        self._tpu_names = tpu_names
        self._known: dict[str, Cost] = {}

    def node(self, node: NodeDef) -> Cost:
        called = calls.called_functions(node, self._model)
        if not called:
            return Cost(cpu=op_cost(node.op))
        if node.op == tpu.TPU_CALL:
            return Cost(tpu=Counter({self._tpu_names[called[0]]: self.function(called[0]).total}))
        cost = Cost()
        for name in called:
            cost.add(self.function(name))
        return cost

    def function(self, name: str) -> Cost:
        if name not in self._known:
            self._known[name] = Cost()  # what a recursive function sees of itself
            cost = Cost()
            for node in self._model.functions[name].node_def:
                cost.add(self.node(node))
            self._known[name] = cost
        return self._known[name]
