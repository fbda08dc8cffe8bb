"""float32 or bfloat16: decides for every place of a `TypeGraph`; `rewrite` then plans the edits.

Decisions, in this order; each class of places gets one:

1. What the filter, the op or the outside pins stays float32.
2. What is made of constants only, or of integers (`Kind`), stays float32; the cast to bfloat16 comes where such a chain
   meets data.
3. All else becomes bfloat16, except that
4. ops that only move values follow their neighbours, a connected group of them as one. It stays float32 if something
   takes it that needs exact values and not all of it has been rounded before (an op in the user's filterlist, a Cast to
   integers), or if it crosses to the TPU to be normalized there. Else it becomes bfloat16 if an op that computes in
   bfloat16 is next to it; or, without one that needs float32 (normalizations do not), if it crosses from the TPU behind
   a normalization, or if a variable that could be bfloat16 is next to it;
5. a variable is bfloat16 if all that takes its values is, or is a normalization, but not of what crosses as float32;
6. ops that take float32 and give none take whatever is there;
7. a constant, or a Cast to float32, becomes bfloat16 if all that take it want that. A Cast from float32 takes whatever
   is there.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from converter.graph.disjoint_sets import Classes
from converter.passes.bfloat16.kinds import Kind
from converter.passes.bfloat16.normalization import NORMALIZATION
from converter.passes.bfloat16.places import Edge, NodeKey, Tensor
from converter.passes.bfloat16.type_graph import TypeGraph

_BY_KIND = {
    Kind.CONSTANT: "computes with constants only",
    Kind.COUNTED: "computes with integers (positions, lengths, masks) or random numbers",
}
_MOVES = "moves values that stay float32"
_VARIABLE_STAYS = "reads a variable that stays float32"


class Retyping:
    """The decisions for one `TypeGraph`, complete after `settle_variables`."""

    def __init__(self, graph: TypeGraph, readable: Collection[NodeKey]) -> None:
        """
        Args:
          readable: nodes that read or write variables which may be stored as bfloat16.
        """
        self._graph = graph
        self._bfloat16: dict[int, bool] = {}
        self._reasons: dict[int, str] = {}
        self._weak: set[int] = set()
        self._variables: dict[int, NodeKey] = {}
        self._entry: set[int] = set()  # what moves values from outside to a normalization
        self._entered: set[int] = set()  # such normalizations
        for place, (scope, node) in graph.variables.items():
            self._variables[place] = (scope.name, node.name)
            root = graph.root(place)
            if (scope.name, node.name) in readable and root not in graph.pins:
                self._weak.add(root)
            else:
                self._keep(root, _VARIABLE_STAYS)
        self._flexible = {graph.root(p) for p in (*graph.constants, *graph.cast_sources, *graph.cast_targets)}
        self._sinks = {graph.root(p) for p in graph.sinks}
        self._decide_classes()

    # --- deciding -----------------------------------------------------------------------------------------------

    def _keep(self, root: int, reason: str) -> None:
        self._bfloat16[root] = False
        self._reasons[root] = reason

    def _decide_classes(self) -> None:
        """Rules 1 to 4."""
        graph = self._graph
        moving = set()
        for place in graph.sites:
            root = graph.root(place)
            if root in self._bfloat16 or root in self._weak:
                continue
            if root in graph.pins:
                self._keep(root, graph.pins[root])
            elif root in self._flexible or root in self._sinks:
                continue
            elif root in graph.movement and graph.kind(root) is not Kind.COUNTED:
                moving.add(root)
            elif graph.is_data(root):
                self._bfloat16[root] = True
            else:
                self._keep(root, _BY_KIND[graph.kind(root)])
        self._decide_movement(moving)

    def _decide_movement(self, moving: set[int]) -> None:
        """Rule 4."""
        graph = self._graph
        groups = Classes[int]()
        ends = [(e, self._end(e.tensor.place if e.tensor else None), self._end(e.place)) for e in graph.edges]
        for _, source, target in ends:
            if source in moving and target in moving:
                groups.join(source, target)
        votes: dict[int, set[_Vote]] = {}
        makers: dict[int, set[_Vote]] = {}
        for edge, source, target in ends:
            if source in moving and target not in moving:
                vote = _Vote.EXACT if graph.is_exact(edge) else self._vote(edge, target)
                votes.setdefault(groups.root(source), set()).add(vote)
            if target in moving and source not in moving:
                makers.setdefault(groups.root(target), set()).add(self._vote(edge, source))
        for place in graph.boundary:
            if (root := graph.root(place)) in moving:
                makers.setdefault(groups.root(root), set()).add(_Vote.CROSSES)
        self._enter(moving, groups, ends, votes, makers)
        decided = {g: _bfloat16_wins(votes.get(g, set()), makers.get(g, set())) for g in votes.keys() | makers.keys()}
        for root in moving:
            if decided.get(groups.root(root), False):
                self._bfloat16[root] = True
            else:
                self._keep(root, _MOVES)

    def _enter(
        self,
        moving: set[int],
        groups: Classes[int],
        ends: list[tuple[Edge, int, int]],
        votes: dict[int, set[_Vote]],
        makers: dict[int, set[_Vote]],
    ) -> None:
        """Normalizations of what crosses to the TPU as it is: their statistics have to be as exact as their values."""
        entry = {g for g, found in makers.items() if _Vote.CROSSES in found and _Vote.SENSITIVE in votes.get(g, ())}
        normal = {root for root, reason in self._reasons.items() if reason == NORMALIZATION}
        parts = Classes[int]()
        either = moving | normal
        for _, source, target in ends:
            if source in either and target in either:
                one, other = (groups.root(end) if end in moving else end for end in (source, target))
                parts.join(one, other)
        entered = {parts.root(g) for g in entry}
        self._entry = {root for root in moving if groups.root(root) in entry}
        self._entered = {root for root in normal if parts.root(root) in entered}
        for group, found in votes.items():
            if group not in entry and _Vote.SENSITIVE in found and parts.root(group) in entered:
                found.add(_Vote.FLOAT32)

    def _end(self, place: int | None) -> int:
        return -1 if place is None else self._graph.root(place)

    def _vote(self, edge: Edge, other: int) -> _Vote:
        """What a class beside a moving op wants of it."""
        if other == -1:
            return _Vote.FLOAT32 if self._graph.converts(edge.scope.name) else _Vote.EITHER
        if other in self._weak:
            return _Vote.VARIABLE
        if other in self._graph.outside or other not in self._bfloat16:
            return _Vote.EITHER
        if self._bfloat16[other]:
            return _Vote.BFLOAT16
        return _Vote.SENSITIVE if self._reasons[other] == NORMALIZATION else _Vote.FLOAT32

    def float32_users(self) -> dict[NodeKey, Edge]:
        """Nodes that read variables -> an edge to something that takes the values as float32 (rule 5)."""
        found: dict[NodeKey, Edge] = {}
        for edge in self._graph.edges:
            if edge.tensor is None or edge.tensor.place not in self._variables:
                continue
            target = self._end(edge.place)
            if self._graph.is_exact(edge) and not self._bfloat16.get(target, False):
                found.setdefault(self._variables[edge.tensor.place], edge)
                continue
            if target in self._sinks or target in self._flexible or target in self._graph.outside:
                continue
            if target in self._entry or (self._reasons.get(target) == NORMALIZATION and target not in self._entered):
                # A gain or offset rounded once does little; what the normalization computes with it stays exact.
                continue
            if target == -1 or not self._bfloat16.get(target, True):
                found.setdefault(self._variables[edge.tensor.place], edge)
        return found

    def reason(self, place: int | None) -> str:
        """Why a place, or an input without one, stays float32; a phrase that follows the name of an op."""
        return "always takes float32" if place is None else self._reasons.get(self._graph.root(place), _MOVES)

    def settle_variables(self, stored: Collection[NodeKey]) -> None:
        """Rules 5 to 7: `stored` are the nodes that read or write variables which are bfloat16 from now on."""
        graph = self._graph
        for place, key in self._variables.items():
            root = graph.root(place)
            if key in stored:
                self._bfloat16[root] = True
            elif root not in self._bfloat16 or root in self._weak:
                self._keep(root, _VARIABLE_STAYS)
        for place, edges in graph.sinks.items():
            root = graph.root(place)
            if root in self._bfloat16:
                continue
            given = [self.gives_bfloat16(e.tensor) for e in edges]
            if graph.is_data(root) and any(given):
                self._bfloat16[root] = True
            else:
                self._keep(root, _MOVES if graph.is_data(root) else _BY_KIND[graph.kind(root)])
        self._settle_flexible()

    def _settle_flexible(self) -> None:
        """Rule 7."""
        graph = self._graph
        wanted: dict[int, set[bool]] = {}
        for edge in graph.edges:
            source = self._end(edge.tensor.place if edge.tensor else None)
            if source in self._flexible and graph.is_exact(edge):
                wanted.setdefault(source, set()).add(False)
            elif source in self._flexible and self._end(edge.place) not in self._flexible:
                wanted.setdefault(source, set()).add(self.takes_bfloat16(edge))
        for place in (*graph.constants, *graph.cast_targets):
            root = graph.root(place)
            if root not in self._bfloat16:
                if wanted.get(root) == {True}:
                    self._bfloat16[root] = True
                else:
                    self._keep(root, "is needed as float32")
        for edge in graph.edges:
            if edge.place in graph.cast_sources and graph.root(edge.place) not in graph.pins:
                given = self.gives_bfloat16(edge.tensor)
                self._bfloat16[graph.root(edge.place)] = given
                self._reasons.setdefault(graph.root(edge.place), "casts a value that stays float32")

    def is_bfloat16(self, place: int | None) -> bool:
        return place is not None and self._bfloat16.get(self._graph.root(place), False)

    def gives_bfloat16(self, tensor: Tensor | None) -> bool:
        return tensor is not None and self.is_bfloat16(tensor.place)

    def takes_bfloat16(self, edge: Edge) -> bool:
        return self.is_bfloat16(edge.place)


class _Vote(enum.Enum):
    """What a neighbour of moving ops wants of them."""

    EXACT = enum.auto()
    """float32 as long as nothing has rounded the values."""
    BFLOAT16 = enum.auto()
    FLOAT32 = enum.auto()
    SENSITIVE = enum.auto()
    """float32 for the sake of what it computes with the values, not for the values themselves."""
    VARIABLE = enum.auto()
    """A variable that could be bfloat16."""
    CROSSES = enum.auto()
    """Between host and TPU, where bfloat16 is half the bytes."""
    EITHER = enum.auto()


def _bfloat16_wins(takers: Collection[_Vote], makers: Collection[_Vote]) -> bool:
    if _Vote.EXACT in takers and set(makers) != {_Vote.BFLOAT16}:
        return False
    if _Vote.SENSITIVE in takers and _Vote.CROSSES in makers:
        # 50,000 +- 1,000 is 50,176 +- 1,024 in bfloat16: little is left when the mean has been taken away.
        return False
    votes = {*takers, *makers}
    if _Vote.BFLOAT16 in votes:
        return True
    if _Vote.FLOAT32 in votes:
        return False
    if _Vote.SENSITIVE in votes:
        return _Vote.CROSSES in votes or _Vote.VARIABLE in votes
    return _Vote.VARIABLE in votes
