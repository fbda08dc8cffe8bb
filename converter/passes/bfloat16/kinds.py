"""What float32 tensors are made of, found by propagation: through ops, through calls, around loops."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable

from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import ops
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_BFLOAT16, DT_COMPLEX64, DT_DOUBLE, DT_HALF, NodeDef

_INEXACT = {DT_HALF, DT_BFLOAT16, DT_DOUBLE, DT_COMPLEX64}
_COUNTING = {"Range", "LinSpace"}


class Kind(enum.IntEnum):
    """What a float32 tensor is made of; of two kinds the greater one wins."""

    CONSTANT = 0
    """Constants only."""
    COUNTED = 1
    """Integers, random numbers, and constants: positions, lengths, masks. bfloat16 has no odd integers above 256."""
    GIVEN = 2
    """What comes from outside, and what is made of it without variables or sums of products: not rounded yet."""
    DATA = 3
    """Anything else."""


class KindFlow:
    """How kinds spread over vertices, which are numbered by the caller.

    `add_...` first, `propagate` once, then `of`. Two vertices are one if `root` says the same of them.
    """

    def __init__(self, root: Callable[[int], int]) -> None:
        self._root = root
        self._floors: list[tuple[int, Kind]] = []
        self._flows: list[tuple[int, int]] = []
        self._contractions: list[tuple[int, Scope, NodeDef]] = []
        self._kinds: dict[int, Kind] = {}

    def of(self, vertex: int) -> Kind:
        return self._kinds.get(self._root(vertex), Kind.CONSTANT)

    def add_floor(self, vertex: int, kind: Kind) -> None:
        """The vertex is of this kind or a greater one."""
        self._floors.append((vertex, kind))

    def add_flow(self, source: int, target: int) -> None:
        """What `source` is made of, `target` is made of as well."""
        self._flows.append((source, target))

    def add_flows(self, sources: Iterable[int | None], targets: Iterable[int | None]) -> None:
        """The same for each pair of two that are vertices; either may have more than the other."""
        self._flows += [(s, t) for s, t in zip(sources, targets, strict=False) if s is not None and t is not None]

    def add_node(
        self, scope: Scope, node: NodeDef, own: int, taken: Collection[int], given: Collection[int], inside: bool
    ) -> None:
        """A node that computes float32: `taken` and `given` are vertices of its inputs and outputs, `own` its own.

        Inputs and outputs may share vertices, as they do where an op has but one type. What a node makes that is not
        `inside` of what is converted is no more than GIVEN.
        """
        data = Kind.DATA if inside else Kind.GIVEN
        if not taken:
            for vertex in given:
                self.add_floor(vertex, min(_source_kind(node), data))
            return
        through = set(taken)
        fresh = [v for v in given if v not in through]
        if fresh:
            self._flows += [(v, own) for v in through if v != own]
            self._flows += [(own, v) for v in fresh if v != own]
        if node.op in _COUNTING or node.op in ops.RANDOM:
            self._floors += [(v, Kind.COUNTED) for v in given]
        elif node.op in ops.LOOKUPS:
            # A table that integers look up in is data even where it is a constant.
            self._floors += [(v, Kind.GIVEN) for v in given]
        elif ops.product(node.op) is not None and given and inside:
            self._contractions.append((next(iter(given)), scope, node))

    def propagate(self, model: Model) -> None:
        """Finds the kind of every vertex."""
        successors: dict[int, list[int]] = {}
        for source, target in self._flows:
            successors.setdefault(self._root(source), []).append(self._root(target))
        self._spread(self._floors, successors)
        # Sums of products are data, whatever they are made of. Few nodes are left to ask whether they sum up at all.
        inference = Inference(model)
        sums = [
            (vertex, Kind.DATA)
            for vertex, scope, node in self._contractions
            if self.of(vertex) < Kind.DATA and not _is_outer_product(inference, scope, node)
        ]
        self._spread(sums, successors)

    def origins(self, vertices: Iterable[int]) -> set[int]:
        """What these vertices are made of, themselves included, by their roots."""
        predecessors: dict[int, list[int]] = {}
        for source, target in self._flows:
            predecessors.setdefault(self._root(target), []).append(self._root(source))
        stack = [self._root(v) for v in vertices]
        found = set(stack)
        while stack:
            for source in predecessors.get(stack.pop(), ()):
                if source not in found:
                    found.add(source)
                    stack.append(source)
        return found

    def _spread(self, floors: list[tuple[int, Kind]], successors: dict[int, list[int]]) -> None:
        stack = []
        for vertex, kind in floors:
            root = self._root(vertex)
            if kind > self._kinds.get(root, Kind.CONSTANT):
                self._kinds[root] = kind
                stack.append(root)
        while stack:
            source = stack.pop()
            for target in successors.get(source, ()):
                if self._kinds[source] > self._kinds.get(target, Kind.CONSTANT):
                    self._kinds[target] = self._kinds[source]
                    stack.append(target)


def _source_kind(node: NodeDef) -> Kind:
    """The kind of what a node gives that takes no float32."""
    if node.op == "Const":
        return Kind.CONSTANT
    if node.op == "Cast":
        return Kind.GIVEN if node.attr["SrcT"].type in _INEXACT else Kind.COUNTED
    return Kind.COUNTED if node.op in _COUNTING or node.op in ops.RANDOM else Kind.DATA


def _is_outer_product(inference: Inference, scope: Scope, node: NodeDef) -> bool:
    """Whether a product sums nothing up: positions times frequencies, as rotary embeddings have it."""
    family = ops.product(node.op)
    if family is ops.Product.EINSUM:
        inputs, arrow, output = node.attr["equation"].s.decode().partition("->")
        return bool(arrow) and set(inputs) - {",", ".", " "} <= set(output)
    if family is not ops.Product.MATRIX:
        return False
    try:
        shape = inference.infer(scope.name).of(node.input[0])
    except ShapeInferenceError:
        return False
    transposed = any(a in node.attr and node.attr[a].b for a in ("transpose_a", "adj_x"))
    return shape is not None and len(shape) >= 2 and shape[-2 if transposed else -1] == 1
