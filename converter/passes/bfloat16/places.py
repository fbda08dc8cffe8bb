"""Places where a model writes float32, and classes of places that must have one type; see `type_graph`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converter.graph import ops, outside
from converter.graph.disjoint_sets import Classes
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_FLOAT, DT_VARIANT, NodeDef
from converter.graph.scope_index import ScopeIndex

NodeKey = tuple[str, str]
"""Names of a scope and of a node in it."""

_FLOAT, _VARIANT = DT_FLOAT, DT_VARIANT
_LIST_ATTR = "element_dtype"
_LIST_OPS = ("TensorList", "EmptyTensorList")


@dataclass(slots=True, eq=False)
class Site:
    """Where a place is written: attribute `attr` of `node`; or, without one, an "argument" or "result" of a function.

    `index` counts the elements of a list attribute, or arguments, or results; it is None for a plain attribute.
    """

    scope: Scope
    node: NodeDef | None
    attr: str
    index: int | None


@dataclass(slots=True, eq=False)
class Tensor:
    """A float32 (or variant) output of a node, or argument of a function (`node` None).

    Attributes:
      ref: canonical spelling in its scope.
      number: of the output, as a graph counts.
      place: its class's type is the tensor's; None if the op always gives float32.
      vertex: carries the tensor's kind.
    """

    scope: Scope
    node: NodeDef | None
    ref: str
    number: int
    place: int | None
    vertex: int


@dataclass(slots=True, eq=False)
class Edge:
    """An input of `node`, or, without one, the function result `result`, that is given a float32 tensor.

    Attributes:
      position: of the input among the node's data inputs.
      ref: canonical spelling of the tensor.
      tensor: None if it comes from an op that nothing is known of.
      place: its class's type is what the input takes; None if the op always takes float32.
    """

    scope: Scope
    node: NodeDef | None
    position: int
    result: str
    ref: str
    tensor: Tensor | None
    place: int | None


class Places:
    """All places, numbered, in disjoint classes. Numbers without a site are good for other vertices of a graph.

    Attributes:
      sites: place -> where it is written.
      pinned: places, and why each stays float32.
    """

    def __init__(self) -> None:
        self.sites: dict[int, Site] = {}
        self.pinned: list[tuple[int, str]] = []
        self._classes = Classes[int]()
        self._moves: list[bool] = []

    def new(self, moves: bool, site: Site | None = None) -> int:
        """A new place; `moves` if it belongs to something that passes values on as they are."""
        place = len(self._moves)
        self._moves.append(moves)
        if site is not None:
            self.sites[place] = site
        return place

    def root(self, place: int) -> int:
        """The class of a place."""
        return self._classes.root(place)

    def join(self, a: int | None, b: int | None, reason: str) -> None:
        """Joins two places; what has no place always is float32 and keeps the other so, for this reason."""
        if a is not None and b is not None:
            self._classes.join(a, b)
        else:
            self.pinned += [(place, reason) for place in (a, b) if place is not None]

    def movement(self) -> set[int]:
        """Classes with sites of which every place moves values."""
        still = {self.root(place) for place, moves in enumerate(self._moves) if not moves}
        return {self.root(place) for place in self.sites} - still


class NodePlaces:
    """The places of one node, made when they are first asked for."""

    def __init__(self, places: Places, scope: Scope, node: NodeDef, moves: bool) -> None:
        self.scope = scope
        self.node = node
        self._places = places
        self._moves = moves
        self._made: dict[tuple[str, int | None], int] = {}
        self._vertex: int | None = None
        self.is_list = node.op.startswith(_LIST_OPS)
        if self.is_list:
            # One class for a list: its handle and its elements.
            holds_float = _LIST_ATTR in node.attr and node.attr[_LIST_ATTR].type == _FLOAT
            site = Site(scope, node, _LIST_ATTR, None) if holds_float else None
            self._made[(_LIST_ATTR, None)] = places.new(True, site)

    def of(self, slot: ops.ArgSlot) -> int | None:
        """The place that gives an input or output its type; None if that is neither float32 nor variant, or fixed."""
        if slot.dtype not in (_FLOAT, _VARIANT):
            return None
        if self.is_list and (slot.dtype == _VARIANT or slot.attr == _LIST_ATTR):
            return self._made[(_LIST_ATTR, None)]
        if not slot.attr:
            return None
        key = (slot.attr, slot.attr_index)
        if key not in self._made:
            site = Site(self.scope, self.node, slot.attr, slot.attr_index) if slot.dtype == _FLOAT else None
            self._made[key] = self._places.new(self._moves, site)
        return self._made[key]

    @property
    def vertex(self) -> int:
        """Carries the kind of what has no place."""
        if self._vertex is None:
            self._vertex = self._places.new(moves=False)
        return self._vertex

    @property
    def all(self) -> list[int]:
        return list(self._made.values())

    @property
    def float_attrs(self) -> set[str]:
        """Attributes that hold float32."""
        return {attr for (attr, _), place in self._made.items() if place in self._places.sites}


def nodes_at(model: Model, keys: Sequence[NodeKey]) -> list[NodeDef]:
    """The nodes of these names."""
    indexes = {name: ScopeIndex(model.scope(name)) for name in dict.fromkeys(scope for scope, _ in keys)}
    return [indexes[scope].nodes[node] for scope, node in keys]


def named_tensor(tensors: Iterable[Tensor], name: str) -> Tensor | None:
    """The one of a function's tensors that the object graph calls `name`.

    Raises:
      ConversionError: no tensor can have that name.
    """
    producer, number = outside.spelled(name)
    for tensor in tensors:
        made_by = tensor.ref if tensor.node is None else tensor.node.name
        if made_by == producer and tensor.number == number:
            return tensor
    return None


def makes_list(node: NodeDef) -> bool:
    """Whether `node` makes a TensorList of nothing: its only float32 is an attribute."""
    return node.op in ("EmptyTensorList", "TensorListReserve")
