"""Plans the edits by which the decisions of a `Retyping` are written into the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from converter.graph import refs, tensors
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import DT_BFLOAT16, DT_FLOAT, Attrs, DataType, NodeDef
from converter.passes.bfloat16.constants import exceeds_bfloat16
from converter.passes.bfloat16.decisions import Retyping
from converter.passes.bfloat16.edits import Draft, Surroundings, cluster_of, recorded_shape
from converter.passes.bfloat16.places import Edge, NodeKey, Tensor
from converter.passes.bfloat16.type_graph import TypeGraph

_FLOAT, _BFLOAT16 = DT_FLOAT, DT_BFLOAT16


@dataclass
class Rewritten:
    """What a rewrite does.

    Attributes:
      scopes: names of the scopes that change.
      converted: op type -> number of nodes that become bfloat16.
      kept: op type -> reason -> number of nodes that stay float32.
      casts: Casts put in.
    """

    scopes: list[str] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Counter[str]] = field(default_factory=dict)
    casts: int = 0


def plan_rewrite(model: Model, graph: TypeGraph, decided: Retyping, draft: Draft) -> Rewritten:
    """Plans to change all places that are to be bfloat16, with a Cast on every edge the ends of which then differ.

    There is one Cast for each tensor and type, and none behind another. The edits go to `draft`.
    """
    done = Rewritten()
    changed: dict[str, None] = {}
    for place, site in graph.sites.items():
        if decided.is_bfloat16(place):
            draft.retype(site.scope.name, None if site.node is None else site.node.name, site.attr, site.index)
            changed[site.scope.name] = None
            if site.node is not None and site.node.HasField("experimental_type"):
                draft.full_types[(site.scope.name, site.node.name)] = None
    _plan_constants(graph, decided, draft)
    casts = _Casts(draft)
    for edge in graph.edges:
        takes = decided.takes_bfloat16(edge)
        if decided.gives_bfloat16(edge.tensor) != takes:
            casts.connect(edge, _BFLOAT16 if takes else _FLOAT)
            changed[edge.scope.name] = None
    _connect_signatures(model, graph, decided, casts, draft)
    done.casts = casts.count
    done.scopes = list(changed)
    _count(graph, decided, done)
    return done


def _plan_constants(graph: TypeGraph, decided: Retyping, draft: Draft) -> None:
    needed = set()
    rounded = []
    for edge in graph.edges:
        if edge.tensor is None or decided.gives_bfloat16(edge.tensor):
            continue
        if decided.takes_bfloat16(edge):
            rounded.append(edge.tensor)
        elif edge.place is None or graph.root(edge.place) in graph.pins:
            needed.add(edge.tensor.place)
    origins = graph.origins(rounded)
    for place, (scope, node) in graph.constants.items():
        if decided.is_bfloat16(place):
            draft.rounded.append((scope.name, node.name))
        elif graph.root(place) in origins and place not in needed and exceeds_bfloat16(node.attr["value"].tensor):
            # What is made of it becomes bfloat16 in the end. Infinite there, a mask would make NaNs.
            draft.clamped.append((scope.name, node.name))


def _connect_signatures(model: Model, graph: TypeGraph, decided: Retyping, casts: _Casts, draft: Draft) -> None:
    """Signatures that name a tensor of the main graph go on naming a float32 one."""
    scope = model.main_scope()
    tensors = graph.tensors.get(MAIN_GRAPH, {})
    for _, signature in sorted(model.meta_graph.signature_def.items()):
        for _, info in sorted(signature.outputs.items()):
            tensor = tensors.get(refs.canonical_ref(info.name, scope))
            if tensor is not None and decided.gives_bfloat16(tensor):
                draft.rename(scope, info.name, casts.cast(scope, tensor.ref, tensor, _FLOAT, None))


def _count(graph: TypeGraph, decided: Retyping, done: Rewritten) -> None:
    nodes: dict[NodeKey, tuple[NodeDef, list[int]]] = {}
    for place, site in graph.sites.items():
        if site.node is not None and graph.root(place) not in graph.outside:
            nodes.setdefault((site.scope.name, site.node.name), (site.node, []))[1].append(place)
    for node, places in nodes.values():
        if any(decided.is_bfloat16(p) for p in places):
            done.converted[node.op] += 1
        else:
            done.kept.setdefault(node.op, Counter())[decided.reason(places[0])] += 1


class _Casts:
    """The Casts that a rewrite puts in; one for each tensor and type."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._made: dict[tuple[str, str, int], str] = {}

    @property
    def count(self) -> int:
        return len(self._made)

    def connect(self, edge: Edge, dtype: DataType) -> None:
        """Gives `edge` its tensor as `dtype`."""
        before = self._draft.replaced(edge.scope, edge.node, edge.position, edge.result)
        if before is None:
            ref = self.cast(edge.scope, edge.ref, edge.tensor, dtype, edge.node)
        elif before.source == dtype:
            ref = before.ref  # of a variable that is stored so: its Cast back to float32 is not needed here
        else:
            return
        if edge.node is not None:
            self._draft.give(edge.scope, edge.node, edge.position, ref)
        elif edge.scope.function is not None:
            self._draft.give_result(edge.scope, edge.result, ref)

    def cast(self, scope: Scope, ref: str, tensor: Tensor | None, dtype: DataType, taker: NodeDef | None) -> str:
        """A reference to this tensor as `dtype`; `taker` is a node that wants it so."""
        source_ref, source_dtype = self._source(scope, ref, tensor, dtype)
        if source_dtype == dtype:
            return source_ref
        key = (scope.name, source_ref, dtype)
        if key not in self._made:
            stem = f"{refs.producer_of(ref)}/{tensors.dtype_name(dtype)}"
            around = _surroundings(scope, tensor, taker)
            self._made[key] = self._draft.cast(scope, stem, source_ref, source_dtype, dtype, around)
        return self._made[key]

    def _source(self, scope: Scope, ref: str, tensor: Tensor | None, dtype: DataType) -> tuple[str, DataType]:
        """What to cast: the tensor, or where it is a Cast itself, what that casts."""
        node = tensor.node if tensor is not None else None
        if node is not None and node.op == "Cast" and dtype == _BFLOAT16:
            retyped = self._draft.is_retyped(scope.name, node.name, "SrcT")
            source = refs.canonical_ref(self._draft.given(scope, node, 0), scope)
            return source, _BFLOAT16 if retyped else node.attr["SrcT"].type
        return ref, _FLOAT if dtype == _BFLOAT16 else _BFLOAT16


def _surroundings(scope: Scope, tensor: Tensor | None, taker: NodeDef | None) -> Surroundings:
    """A Cast runs where its input is made or, in a cluster, where its output is used."""
    if tensor is None:
        return Surroundings(cluster=cluster_of(taker))
    maker = tensor.node
    if maker is not None:
        shape = recorded_shape(maker.attr, tensor.number)
        return Surroundings(maker.device, cluster_of(taker, maker), shape)
    attrs = _argument_attrs(scope, tensor)
    shape = recorded_shape(attrs, tensor.number) if attrs is not None else ()
    return Surroundings(cluster=cluster_of(taker), shapes=shape)


def _argument_attrs(scope: Scope, tensor: Tensor) -> Attrs | None:
    function = scope.function
    for i, argument in enumerate(function.signature.input_arg if function is not None else ()):
        if function is not None and argument.name == tensor.ref and i in function.arg_attr:
            return function.arg_attr[i].attr
    return None
