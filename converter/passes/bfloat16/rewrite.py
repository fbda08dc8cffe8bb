"""Writes the decisions of a `Retyping` into the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converter.analysis import tpu
from converter.graph import edit, tensors
from converter.graph.edit import make_node, type_attr
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import (
    DT_BFLOAT16,
    DT_FLOAT,
    TFT_BFLOAT16,
    TFT_FLOAT,
    AttrValue,
    DataType,
    FullTypeDef,
    NodeDef,
    TensorProto,
)
from converter.passes.bfloat16.decisions import NodeKey, Retyping
from converter.passes.bfloat16.places import Edge, Site, Tensor
from converter.passes.bfloat16.type_graph import TypeGraph
from converter.rounding import clipped, rounded

_FLOAT, _BFLOAT16 = DT_FLOAT, DT_BFLOAT16


@dataclass
class Rewritten:
    """What a rewrite did.

    Attributes:
      scopes: names of the scopes that changed.
      converted: op type -> number of nodes that are bfloat16 now.
      kept: op type -> reason -> number of nodes that stay float32.
      casts: Casts put in.
    """

    scopes: list[str] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Counter[str]] = field(default_factory=dict)
    casts: int = 0


def rewrite(model: Model, graph: TypeGraph, decided: Retyping) -> Rewritten:
    """Changes all places that are to be bfloat16, and puts a Cast on every edge the ends of which now differ.

    There is one Cast for each tensor and type, and none behind another.
    """
    done = Rewritten()
    changed: dict[str, None] = {}
    full_types: dict[NodeKey, NodeDef] = {}
    for place, site in graph.sites.items():
        if decided.is_bfloat16(place):
            _write_site(site)
            changed[site.scope.name] = None
            if site.node is not None and site.node.HasField("experimental_type"):
                full_types[(site.scope.name, site.node.name)] = site.node
    for node in full_types.values():
        _retype_full_type(node.experimental_type)
    _write_constants(graph, decided)
    casts = _Casts()
    for edge in graph.edges:
        takes = decided.takes_bfloat16(edge)
        if decided.gives_bfloat16(edge.tensor) != takes:
            casts.connect(edge, _BFLOAT16 if takes else _FLOAT)
            changed[edge.scope.name] = None
    _connect_signatures(model, graph, decided, casts)
    done.casts = casts.count
    done.scopes = list(changed)
    _count(graph, decided, done)
    return done


def _write_constants(graph: TypeGraph, decided: Retyping) -> None:
    for place, node in graph.constants.items():
        if decided.is_bfloat16(place):
            _to_bfloat16(node.attr["value"].tensor)
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
    for place, node in graph.constants.items():
        if graph.root(place) in origins and place not in needed and not decided.is_bfloat16(place):
            # What is made of it becomes bfloat16 in the end. Infinite there, a mask would make NaNs.
            _clamp(node.attr["value"].tensor)


def _connect_signatures(model: Model, graph: TypeGraph, decided: Retyping, casts: _Casts) -> None:
    """Signatures that name a tensor of the main graph go on naming a float32 one."""
    scope = model.main_scope()
    tensors = graph.tensors.get(MAIN_GRAPH, {})
    for _, signature in sorted(model.meta_graph.signature_def.items()):
        for _, info in sorted(signature.outputs.items()):
            tensor = tensors.get(edit.canonical_ref(info.name, scope))
            if tensor is not None and decided.gives_bfloat16(tensor):
                info.name = casts.cast(scope, tensor.ref, tensor, _FLOAT, None)


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

    def __init__(self) -> None:
        self.count = 0
        self._names: dict[str, edit.UniqueNames] = {}
        self._made: dict[tuple[str, str, int], str] = {}

    def connect(self, edge: Edge, dtype: DataType) -> None:
        """Gives `edge` its tensor as `dtype`."""
        ref = self.cast(edge.scope, edge.ref, edge.tensor, dtype, edge.node)
        if edge.node is not None:
            edge.node.input[edge.position] = _spelled(ref, edge.scope)
        elif edge.scope.function is not None:
            edge.scope.function.ret[edge.result] = ref

    def cast(self, scope: Scope, ref: str, tensor: Tensor | None, dtype: DataType, taker: NodeDef | None) -> str:
        """A reference to this tensor as `dtype`; `taker` is a node that wants it so."""
        source_ref, source_dtype = self._source(scope, ref, tensor, dtype)
        if source_dtype == dtype:
            return source_ref
        key = (scope.name, source_ref, dtype)
        if key not in self._made:
            if scope.name not in self._names:
                self._names[scope.name] = edit.UniqueNames(scope)
            stem = f"{edit.producer_of(ref)}/{tensors.dtype_name(dtype)}"
            cast = make_node(
                self._names[scope.name](stem),
                "Cast",
                [_spelled(source_ref, scope)],
                SrcT=type_attr(source_dtype),
                DstT=type_attr(dtype),
            )
            self._copy_surroundings(cast, scope, tensor, taker)
            scope.nodes.add().CopyFrom(cast)
            self._made[key] = edit.canonical_ref(scope.ref(cast.name, "y", 0, 0), scope)
            self.count += 1
        return self._made[key]

    def _source(self, scope: Scope, ref: str, tensor: Tensor | None, dtype: DataType) -> tuple[str, DataType]:
        """What to cast: the tensor, or where it is a Cast itself, what that casts."""
        node = tensor.node if tensor is not None else None
        if node is not None and node.op == "Cast" and dtype == _BFLOAT16:
            return edit.canonical_ref(node.input[0], scope), node.attr["SrcT"].type
        return ref, _FLOAT if dtype == _BFLOAT16 else _BFLOAT16

    @staticmethod
    def _copy_surroundings(cast: NodeDef, scope: Scope, tensor: Tensor | None, taker: NodeDef | None) -> None:
        """Device, cluster and shape: a Cast runs where its input is made or, in a cluster, where its output is used."""
        maker = tensor.node if tensor is not None else None
        if maker is not None:
            cast.device = maker.device
        for node in (taker, maker):
            if node is not None and tpu.CLUSTER_ATTR in node.attr and tpu.CLUSTER_ATTR not in cast.attr:
                cast.attr[tpu.CLUSTER_ATTR].CopyFrom(node.attr[tpu.CLUSTER_ATTR])
        if tensor is None:
            return
        attrs = maker.attr if maker is not None else _argument_attrs(scope, tensor)
        shapes = attrs["_output_shapes"].list.shape if "_output_shapes" in attrs else ()
        if tensor.number < len(shapes):
            cast.attr["_output_shapes"].CopyFrom(edit.shape_list_attr([shapes[tensor.number]]))


def _argument_attrs(scope: Scope, tensor: Tensor) -> Mapping[str, AttrValue]:
    function = scope.function
    for i, argument in enumerate(function.signature.input_arg if function is not None else ()):
        if function is not None and argument.name == tensor.ref and i in function.arg_attr:
            return function.arg_attr[i].attr
    return {}


def _spelled(ref: str, scope: Scope) -> str:
    return ref.removesuffix(":0") if scope.function is None else ref


def _write_site(site: Site) -> None:
    if site.node is None:
        assert site.scope.function is not None and site.index is not None
        signature = site.scope.function.signature
        argument = (signature.output_arg if site.attr == "result" else signature.input_arg)[site.index]
        if argument.type == _FLOAT:
            argument.type = _BFLOAT16
        for data in argument.handle_data:
            data.dtype = _BFLOAT16
    elif site.index is None:
        site.node.attr[site.attr].type = _BFLOAT16
    else:
        site.node.attr[site.attr].list.type[site.index] = _BFLOAT16


def _retype_full_type(full_type: FullTypeDef) -> None:
    if full_type.type_id == TFT_FLOAT:
        full_type.type_id = TFT_BFLOAT16
    for argument in full_type.args:
        _retype_full_type(argument)


def _values(tensor: TensorProto) -> NDArray[np.float32]:
    """The float32 values of a TensorProto as they are stored: one may stand for many."""
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, "<f4")
    return np.array(tensor.float_val, np.float32)


def _to_bfloat16(tensor: TensorProto) -> None:
    cast = rounded(_values(tensor))
    in_bytes = bool(tensor.tensor_content)
    tensor.dtype = _BFLOAT16
    tensor.ClearField("tensor_content")
    tensor.ClearField("float_val")
    if in_bytes:
        tensor.tensor_content = cast.tobytes()
    else:
        tensor.half_val.extend(cast.view(np.uint16).tolist())


def _clamp(tensor: TensorProto) -> None:
    values = _values(tensor)
    finite = clipped(values)
    if np.array_equal(values, finite, equal_nan=True):
        return
    if tensor.tensor_content:
        tensor.tensor_content = finite.astype("<f4").tobytes()
    else:
        del tensor.float_val[:]
        tensor.float_val.extend(finite.tolist())
