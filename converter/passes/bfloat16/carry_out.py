"""Carries a plan out: copies, edits, marks."""

from __future__ import annotations

from collections.abc import Iterable

from converter.analysis import tpu
from converter.graph import outside, shapes
from converter.graph.model import Model
from converter.graph.nodes import add_cast, shape_list_attr, type_list_attr
from converter.graph.protos import (
    DT_BFLOAT16,
    DT_FLOAT,
    DT_RESOURCE,
    TFT_BFLOAT16,
    TFT_FLOAT,
    AttrValue,
    FullTypeDef,
    FunctionDef,
    NodeDef,
    TensorProto,
)
from converter.graph.scope_index import ScopeIndex
from converter.graph.shapes import RECORDED
from converter.passes.bfloat16 import constants
from converter.passes.bfloat16.edits import Edits, NewCast, Retyped
from converter.passes.bfloat16.places import NodeKey, nodes_at
from converter.passes.bfloat16.plan import BFloat16Plan
from converter.passes.bfloat16.region import DONE_ATTR

_BFLOAT16 = DT_BFLOAT16
_HANDLE_DTYPES = "_handle_dtypes"
_GRADIENT_ATTR = "_gradient_op_type"


def carry_out(model: Model, plan: BFloat16Plan) -> None:
    """Edits the model as it was planned."""
    if plan.is_empty:
        return
    plan.copies.make(model)
    write(model, plan.edits)
    _mark(model, plan)


def write(model: Model, edits: Edits) -> None:
    """Edits the model, which is as it was when these edits were planned."""
    _Writer(model).write(edits)


def _mark(model: Model, plan: BFloat16Plan) -> None:
    for node in nodes_at(model, plan.entries):
        node.attr[DONE_ATTR].b = True
    for function in (model.functions[name] for name in plan.converted):
        # Functions of one interface are swapped for each other at run time, and must have the same types.
        function.attr.pop("api_implements", None)
        for node in function.node_def:
            # The gradient that it names is of float32 code, which keeps it, and holds tensors of that.
            node.attr.pop(_GRADIENT_ATTR, None)


class _Writer:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._nodes: dict[str, dict[str, NodeDef]] = {}

    def write(self, edits: Edits) -> None:
        for retyped in edits.retyped:
            self._retype(retyped)
        for key in edits.full_types:
            _retype_full_type(self._node(*key).experimental_type)
        for value in self._values(edits.rounded):
            constants.to_bfloat16(value)
        for value in self._values(edits.clamped):
            constants.clamp(value)
        for new in edits.inputs:
            self._node(new.scope, new.node).input[new.position] = new.ref
        for result in edits.results:
            self._model.functions[result.function].ret[result.result] = result.ref
        for cast in edits.casts:
            self._add_cast(cast)
        named = outside.names(self._model)
        for name in edits.names:
            for message in named[(name.scope, name.old)]:
                message.name = name.new
        for node_id in edits.saved_variables:
            saved = self._model.object_graph.nodes[node_id].variable
            for part in (saved, *saved.experimental_distributed_variable_components):
                part.dtype = _BFLOAT16
        self._model.recasts.update(edits.recasts)

    def _node(self, scope: str, name: str) -> NodeDef:
        if scope not in self._nodes:
            self._nodes[scope] = ScopeIndex(self._model.scope(scope)).nodes
        return self._nodes[scope][name]

    def _values(self, keys: Iterable[NodeKey]) -> list[TensorProto]:
        return [self._node(*key).attr["value"].tensor for key in keys]

    def _retype(self, retyped: Retyped) -> None:
        if retyped.node is None:
            assert retyped.index is not None
            _retype_end(self._model.functions[retyped.scope], retyped.attr, retyped.index)
            return
        attr = self._node(retyped.scope, retyped.node).attr[retyped.attr]
        if retyped.index is None:
            attr.type = _BFLOAT16
        else:
            attr.list.type[retyped.index] = _BFLOAT16

    def _add_cast(self, cast: NewCast) -> None:
        around = cast.surroundings
        attrs: dict[str, AttrValue] = {}
        if around.cluster:
            attrs[tpu.CLUSTER_ATTR] = AttrValue(s=around.cluster)
        if around.shapes:
            attrs[RECORDED] = shape_list_attr(map(shapes.to_proto, around.shapes))
        scope = self._model.scope(cast.scope)
        add_cast(scope, cast.name, cast.ref, cast.source, cast.target, around.device, **attrs)


def _retype_end(function: FunctionDef, attr: str, index: int) -> None:
    """An argument or result of a function."""
    signature = function.signature
    end = (signature.output_arg if attr == "result" else signature.input_arg)[index]
    if end.type == DT_FLOAT:
        end.type = _BFLOAT16
    for data in end.handle_data:
        data.dtype = _BFLOAT16
    if attr == "argument" and end.type == DT_RESOURCE and index in function.arg_attr:
        attrs = function.arg_attr[index].attr
        if _HANDLE_DTYPES in attrs:
            # What MLIR exports has the type once more.
            attrs[_HANDLE_DTYPES].CopyFrom(type_list_attr([_BFLOAT16]))


def _retype_full_type(full_type: FullTypeDef) -> None:
    if full_type.type_id == TFT_FLOAT:
        full_type.type_id = TFT_BFLOAT16
    for argument in full_type.args:
        _retype_full_type(argument)
