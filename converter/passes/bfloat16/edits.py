"""The edits that make a model bfloat16: values alone, which `carry_out` writes into the model."""

from __future__ import annotations

from dataclasses import dataclass

from converter.analysis import tpu
from converter.graph import refs, shapes
from converter.graph.model import Scope
from converter.graph.nodes import UniqueNames
from converter.graph.protos import Attrs, DataType, NodeDef
from converter.graph.shapes import RECORDED, Shape
from converter.passes.bfloat16.places import NodeKey


@dataclass(frozen=True)
class Retyped:
    """What is bfloat16 from now on: attribute `attr` of a node, or, without one, a function's "argument" or "result".

    `index` counts the elements of a list attribute, or arguments, or results; it is None for a plain attribute. Of a
    resource or variant argument, what becomes bfloat16 is what it holds.
    """

    scope: str
    node: str | None
    attr: str
    index: int | None


@dataclass(frozen=True)
class Surroundings:
    """What a Cast has of the nodes beside it: it runs where they do.

    Attributes:
      cluster: the TPU cluster that it belongs to; empty outside of all.
      shapes: the recorded shape of its result; empty if none was recorded.
    """

    device: str = ""
    cluster: bytes = b""
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class NewCast:
    """A Cast of the tensor `ref`, at the end of its scope."""

    scope: str
    name: str
    ref: str
    source: DataType
    target: DataType
    surroundings: Surroundings


@dataclass(frozen=True)
class NewInput:
    """Input `position` of a node becomes `ref`."""

    scope: str
    node: str
    position: int
    ref: str


@dataclass(frozen=True)
class NewResult:
    """A result of a function becomes the tensor `ref`."""

    function: str
    result: str
    ref: str


@dataclass(frozen=True)
class NewName:
    """Who names the tensor `old` of a scope from outside now names the tensor `new`."""

    scope: str
    old: str
    new: str


@dataclass(frozen=True)
class Edits:
    """All edits of one run.

    Attributes:
      retyped: in any order.
      full_types: nodes the full type of which follows their attributes.
      rounded, clamped: Consts that become bfloat16, and float32 ones that lose what is infinite in it.
      casts: in the order in which they are added.
      saved_variables: ids of the object graph's nodes of variables that are bfloat16.
      recasts: checkpoint keys of these variables.
    """

    retyped: tuple[Retyped, ...] = ()
    full_types: tuple[NodeKey, ...] = ()
    rounded: tuple[NodeKey, ...] = ()
    clamped: tuple[NodeKey, ...] = ()
    casts: tuple[NewCast, ...] = ()
    inputs: tuple[NewInput, ...] = ()
    results: tuple[NewResult, ...] = ()
    names: tuple[NewName, ...] = ()
    saved_variables: tuple[int, ...] = ()
    recasts: tuple[str, ...] = ()


class Draft:
    """Edits while they are being planned; knows the names that its Casts take."""

    def __init__(self) -> None:
        self.retyped: dict[Retyped, None] = {}
        self.full_types: dict[NodeKey, None] = {}
        self.rounded: list[NodeKey] = []
        self.clamped: list[NodeKey] = []
        self._casts: dict[NodeKey, NewCast] = {}
        self._names: list[NewName] = []
        self.saved_variables: list[int] = []
        self.recasts: set[str] = set()
        self._inputs: dict[tuple[str, str, int], str] = {}
        self._results: dict[tuple[str, str], str] = {}
        self._taken: dict[str, UniqueNames] = {}

    def retype(self, scope: str, node: str | None, attr: str, index: int | None = None) -> None:
        self.retyped[Retyped(scope, node, attr, index)] = None

    def is_retyped(self, scope: str, node: str, attr: str) -> bool:
        """Of a plain attribute."""
        return Retyped(scope, node, attr, None) in self.retyped

    def cast(
        self, scope: Scope, stem: str, ref: str, source: DataType, target: DataType, surroundings: Surroundings
    ) -> str:
        """Plans a Cast, named after `stem`; returns its result in canonical spelling."""
        if scope.name not in self._taken:
            self._taken[scope.name] = UniqueNames(scope)
        name = self._taken[scope.name](stem)
        self._casts[scope.name, name] = NewCast(scope.name, name, ref, source, target, surroundings)
        return refs.canonical_ref(scope.ref(name, "y", 0, 0), scope)

    def give(self, scope: Scope, node: NodeDef, position: int, ref: str) -> None:
        """The node takes another tensor as its input `position`."""
        self._inputs[(scope.name, node.name, position)] = refs.input_ref(ref, scope)

    def given(self, scope: Scope, node: NodeDef, position: int) -> str:
        """What the node will take there."""
        return self._inputs.get((scope.name, node.name, position), node.input[position])

    def replaced(self, scope: Scope, node: NodeDef | None, position: int, result: str) -> NewCast | None:
        """The Cast that a node, or else a result of the scope's function, will take in place of what it took."""
        if node is not None:
            ref = self._inputs.get((scope.name, node.name, position))
        else:
            ref = self._results.get((scope.name, result))
        return None if ref is None else self._casts[scope.name, refs.producer_of(ref)]

    def give_result(self, scope: Scope, result: str, ref: str) -> None:
        self._results[(scope.name, result)] = ref

    def rename(self, scope: Scope, old: str, new: str) -> None:
        self._names.append(NewName(scope.name, old, new))

    def edits(self) -> Edits:
        return Edits(
            retyped=tuple(self.retyped),
            full_types=tuple(self.full_types),
            rounded=tuple(self.rounded),
            clamped=tuple(self.clamped),
            casts=tuple(self._casts.values()),
            inputs=tuple(NewInput(*where, ref) for where, ref in self._inputs.items()),
            results=tuple(NewResult(*where, ref) for where, ref in self._results.items()),
            names=tuple(self._names),
            saved_variables=tuple(self.saved_variables),
            recasts=tuple(sorted(self.recasts)),
        )


def cluster_of(*nodes: NodeDef | None) -> bytes:
    """The TPU cluster of the first of these nodes that is in one."""
    found = (n.attr[tpu.CLUSTER_ATTR].s for n in nodes if n is not None and tpu.CLUSTER_ATTR in n.attr)
    return next(found, b"")


def recorded_shape(attrs: Attrs, number: int) -> tuple[Shape, ...]:
    """The shape that attributes record for output `number`; nothing if they do not."""
    recorded = attrs[RECORDED].list.shape if RECORDED in attrs else ()
    return (shapes.from_proto(recorded[number]),) if number < len(recorded) else ()
