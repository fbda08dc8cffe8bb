"""The converter's cost heuristic: how much of the model runs on the TPU.

The weights are those of the public bfloat16 toolkit of orbax.export, so that the integers mean what users of
Google's converter know: convolutions 5000, matrix products 1000, einsums 1001, a call what it calls, any other
op 1. They are no times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converter.analysis.call_tree import CallTree, Split
from converter.analysis.shape_graph import FunctionShapes
from converter.graph.model import Model, Scope
from converter.graph.ops import Product, product
from converter.graph.protos import NodeDef

# A depthwise convolution is any other op to them.
_PRODUCT_COSTS = {Product.CONVOLUTION: 5000, Product.MATRIX: 1000, Product.DOT: 1000, Product.EINSUM: 1001}


@dataclass
class Cost(Split[int]):
    """Cost of one piece of graph: on the CPU, and on the TPU by the name that the user gave."""

    cpu: int = 0

    @property
    def tpu_total(self) -> int:
        return sum(self.tpu.values())


def op_cost(op: str) -> int:
    """Cost of one op that calls nothing."""
    family = product(op)
    return 1 if family is None else _PRODUCT_COSTS.get(family, 1)


def model_cost(model: Model) -> Cost:
    """Cost of all that the signatures reach; saving and restoring do not count.

    A function counts at every call site. Every TPU function of the model has an entry, even at 0 calls.
    """
    total = _Costs(model, 0).of_model()
    return Cost(total.cpu, total.tpu)


def function_costs(model: Model, names: Iterable[str]) -> dict[str, int]:
    """Cost of one call of each of these functions, CPU and TPU together."""
    return _Costs(model, 0).of_functions(names)


class _Costs(CallTree[int]):
    def amount(self, scope: Scope, node: NodeDef, known: FunctionShapes | None) -> int:
        return op_cost(node.op)
