"""Finds normalizations: layer, batch, group and RMS norms that a model spells out op by op.

    inverse = Rsqrt(variance + epsilon)
    y = (x - mean) * inverse * gain + offset   in any order of products

A *statistic* is made of sums, means, variables and constants by ops on single elements. A normalization is a root of a
statistic that scales something. float32 are the root, the statistic with its reductions and squares, the products and
what is subtracted before them, and the sum behind them. Every one of these ops would round the whole of x again, which
adds up over the layers of a model. What TensorFlow fuses (FusedBatchNorm) stays float32 for the same reason.

A difference of two reductions (E[x^2] - E[x]^2) stays float32 with them wherever it is: it is what rounding leaves of
two large numbers, perhaps below zero.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from converter.graph import refs, tensors
from converter.graph.model import Scope
from converter.graph.protos import NodeDef
from converter.graph.scope_index import ScopeIndex

NORMALIZATION = "is part of a normalization"

_MOVES = {"Identity", "StopGradient", "Squeeze", "Reshape", "ExpandDims", "BroadcastTo", "Tile"}
_SUMS = {"Add", "AddV2", "Sub", "BiasAdd"}
_PRODUCTS = {"Mul", "RealDiv", "DivNoNan", "Div"}
_SQUARES = {"SquaredDifference", "Square", "Mul"}
_ROOTS = {"Rsqrt", "Sqrt"}
_POWERS = {"Pow"}
_ON_ELEMENTS = (
    _SUMS | _PRODUCTS | _ROOTS | _POWERS | {"Square", "SquaredDifference", "Maximum", "Minimum", "Abs", "Neg"}
) | {"Reciprocal", "Inv"}
_REDUCTIONS = {"Mean", "Sum"}
_READS = {"ReadVariableOp"}


class _Statistic(enum.IntEnum):
    """What a statistic is made of; the greatest counts."""

    CONSTANT = 0
    VARIABLE = 1
    REDUCTION = 2


def normalization_nodes(scope: Scope, is_constant: Callable[[str], bool] = lambda argument: False) -> set[str]:
    """Names of the nodes of a scope that compute normalizations.

    Ops that move values are not among them: those follow what is around them.

    Args:
      is_constant: of an argument of the scope's function, whether only constants are passed there.
    """
    if not any(n.op in _ROOTS or n.op in _POWERS or n.op in _REDUCTIONS for n in scope.nodes):
        return set()
    return _Finder(scope, is_constant).find()


class _Finder:
    def __init__(self, scope: Scope, is_constant: Callable[[str], bool]) -> None:
        self._index = ScopeIndex(scope)
        self._nodes = self._index.nodes
        self._statistics = {a: _Statistic.CONSTANT for a in self._index.arguments if is_constant(a)}
        for node in self._index.in_order()[0]:
            found = self._classify(node)
            if found is not None:
                self._statistics[node.name] = found

    def _classify(self, node: NodeDef) -> _Statistic | None:
        if node.op in _REDUCTIONS:
            return _Statistic.REDUCTION
        if node.op in _READS:
            return _Statistic.VARIABLE
        if node.op == "Const":
            return _Statistic.CONSTANT
        values = self._values(node)
        if values and all(value in self._statistics for value in values):
            return max(self._statistics[value] for value in values)
        return None

    def _values(self, node: NodeDef) -> list[str]:
        """What an op on single elements takes, or the value that an op moves; nothing for any other op."""
        producers = [refs.producer_of(ref) for ref in refs.data_inputs(node)]
        if node.op in _ON_ELEMENTS:
            return producers
        return producers[:1] if node.op in _MOVES else []

    def find(self) -> set[str]:
        found: set[str] = set()
        for node in self._nodes.values():
            if self._is_root(node):
                found |= self._normalization(node)
            elif node.op == "Sub" and self._is_difference_of_reductions(node):
                found |= self._statistic(node.name)
        return {name for name in found if self._nodes[name].op not in _MOVES}

    def _is_root(self, node: NodeDef) -> bool:
        if node.name not in self._statistics:
            return False
        if node.op in _ROOTS:
            return True
        return node.op in _POWERS and self._constant(refs.data_inputs(node)[1]) in (0.5, -0.5)

    def _constant(self, ref: str) -> float | None:
        node = self._nodes.get(refs.producer_of(ref))
        if node is None or node.op != "Const":
            return None
        value = tensors.values(node.attr["value"].tensor)
        return float(value.flat[0]) if value.size == 1 else None

    def _is_difference_of_reductions(self, node: NodeDef) -> bool:
        values = self._values(node)
        return all(self._statistics.get(value) is _Statistic.REDUCTION for value in values)

    def _normalization(self, root: NodeDef) -> set[str]:
        """All of the normalization by this root; nothing if it is the root of something else."""
        applied, meets = self._application(root)
        if not any(self._nodes[name].op in _PRODUCTS for name in applied):
            return set()  # It scales nothing, as the length of a vector does not.
        of_constants = self._statistics[root.name] is _Statistic.CONSTANT
        if of_constants and not any(self._subtracts_statistic(name) for name in meets):
            return set()  # Attention scores are scaled by constants as well, but nothing is subtracted before.
        beside = {v for name in applied for v in self._values(self._nodes[name]) if v in self._statistics}
        return applied.union(*(self._statistic(name) for name in (root.name, *sorted(beside))))

    def _statistic(self, name: str) -> set[str]:
        """All that makes up a statistic, with what its reductions square."""
        found: set[str] = set()
        stack = [name]
        while stack:
            name = stack.pop()
            node = self._nodes.get(name)
            if node is None or name in found or node.op in _READS or node.op == "Const":
                continue
            found.add(name)
            if node.op in _REDUCTIONS:
                found |= self._squares(node)
            else:
                stack += self._values(node)
        return found

    def _squares(self, reduction: NodeDef) -> set[str]:
        """The square that a variance is the mean of, and the mean in it."""
        found: set[str] = set()
        for square in self._producers(reduction):
            if square.op not in _SQUARES:
                continue
            found.add(square.name)
            stack = [n for n in self._producers(square) if n.op in _REDUCTIONS or n.op in _MOVES or n.op == "Sub"]
            while stack:
                node = stack.pop()
                found.add(node.name)
                if node.op == "Sub" or node.op in _MOVES:
                    inner = [n for n in self._producers(node) if n.op in _REDUCTIONS or n.op in _MOVES]
                    stack += [n for n in inner if n.name not in found]
        return found

    def _application(self, root: NodeDef) -> tuple[set[str], set[str]]:
        """The products that a root scales, what is subtracted before them, the sum behind them; and what meets x."""
        found: set[str] = set()
        meets: set[str] = set()
        stack = [root.name]
        while stack:
            name = stack.pop()
            for node in self._index.users_of(name):
                if node.name in found:
                    continue
                if node.op in _PRODUCTS:
                    found |= {node.name, *self._subtractions(node.name)}
                    if name in self._statistics and node.name not in self._statistics:
                        meets.add(node.name)
                    stack.append(node.name)
                elif node.op in _MOVES or (node.op in _ON_ELEMENTS and node.name in self._statistics):
                    found.add(node.name)
                    stack.append(node.name)
                elif node.op in _SUMS:
                    found.add(node.name)
        return found, meets

    def _subtractions(self, name: str) -> set[str]:
        return {n.name for n in self._producers(self._nodes[name]) if n.op == "Sub"}

    def _subtracts_statistic(self, name: str) -> bool:
        """Whether a product scales the difference of x and a statistic."""
        values: Iterable[list[str]] = (self._values(self._nodes[sub]) for sub in self._subtractions(name))
        return any(any(v in self._statistics for v in each) for each in values)

    def _producers(self, node: NodeDef) -> list[NodeDef]:
        found = (self._nodes.get(refs.producer_of(ref)) for ref in refs.data_inputs(node))
        return [n for n in found if n is not None]
