"""Lets tensors cross between CPU and TPU in their cheapest shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converter.analysis import tpu
from converter.graph import outside, refs, shapes
from converter.graph.model import Model, Scope
from converter.graph.nodes import UniqueNames, const_node, make_node, rewire, shape_list_attr, type_attr
from converter.graph.protos import Attrs, AttrValue, DataType, FunctionDef, NodeDef
from converter.graph.scope_index import ScopeIndex
from converter.graph.shapes import RECORDED, Shape
from converter.passes.io_shape import transfer_shape
from converter.passes.io_shape.crossings import Crossing
from converter.passes.io_shape.plan import CallPlan, IoShapePlan, Presumed, make_plan
from converter.passes.pass_result import Pass, PassResult


@dataclass(frozen=True)
class IoShape(Pass[IoShapePlan]):
    """Reshapes what crosses at every TPU call to the shape that `converter.passes.io_shape.transfer_shape` chooses.

    before:  TPUPartitionedCall[f=T](x, ...) -> y
             T(x) { x -> TPUReplicatedInput -> Identity -> call -> Identity -> TPUReplicatedOutput -> y }
    after:   TPUPartitionedCall[f=T](Reshape(EnsureShape(x, [?, 224, 3]), [-1, 672]), ...) -> Reshape(y, [-1, 4])
             T(x) { x -> TPUReplicatedInput -> Identity -> Reshape([-1, 224, 3]) -> call
                    -> Reshape([-1]) -> Identity -> TPUReplicatedOutput -> y }

    1. The host's Reshapes stand around the call; those of the TPU are tagged as part of the cluster, their shapes
       being tagged Consts, so that XLA sees static shapes for a batch of static size.
    2. Shapes are those that TensorFlow infers at the call; what has no static shape crosses as it is.
    3. A TPU function that several nodes call, that is called otherwise than by a TPU call, that the object graph
       exposes, or whose tensors do not enter and leave through markers of one replica, is left alone.
    4. A tensor with a sharding of its own is left alone: the annotation counts its dimensions.
    5. Signatures and captured tensors that name a result of the call name the restored one.
    6. A Reshape would make rows of whatever it is given: a tensor of other sizes than were inferred, in a request of
       another shape than the signature's, would silently become more or fewer of them. So on the host EnsureShape
       stands before each Reshape of an argument; where a result is reshaped, whose shape was inferred from those of
       the arguments, before all arguments. TensorFlow's optimizer keeps it, and its error names argument and shapes.
    """

    name = "io_shape"

    def plan(self, model: Model) -> IoShapePlan:
        return make_plan(model)

    def carry_out(self, model: Model, plan: IoShapePlan) -> PassResult:
        for planned in plan.calls:
            around = _Around.find(model, planned)
            for presumed in planned.presumed:
                _ensure_shape(around, presumed)
            for transfer in planned.transfers:
                if transfer.crossing.is_input:
                    _reshape_input(around, transfer.crossing, transfer.shape)
                else:
                    _reshape_output(model, around, transfer.crossing, transfer.shape)
        changes = [transfer.change for planned in plan.calls for transfer in planned.transfers]
        return PassResult(changes, list(plan.skips), details=plan.details)


@dataclass(frozen=True)
class _Around:
    """The protos that a CallPlan names."""

    scope: Scope
    call: NodeDef
    function: FunctionDef
    inside: dict[str, NodeDef]
    """The nodes of `function` by name, those that this pass adds left out."""

    @classmethod
    def find(cls, model: Model, planned: CallPlan) -> _Around:
        scope = model.scope(planned.scope)
        call = ScopeIndex(scope).nodes[planned.call]
        function = model.functions[planned.function]
        return cls(scope, call, function, ScopeIndex(Scope.of(function)).nodes)

    def chain(self, crossing: Crossing) -> list[NodeDef]:
        return [self.inside[name] for name in crossing.chain]


def _ensure_shape(around: _Around, presumed: Presumed) -> None:
    """Puts EnsureShape before an argument of the call: rule 6."""
    argument = around.function.signature.input_arg[presumed.index]
    position = _position(around.call, presumed.index)
    expected = shapes.to_proto(presumed.shape)
    ensure = make_node(
        UniqueNames(around.scope)(f"{around.call.name}/shape_of_{argument.name}"),
        "EnsureShape",
        [around.call.input[position]],
        T=type_attr(argument.type),
        shape=AttrValue(shape=expected),
        _output_shapes=shape_list_attr([expected]),
    )
    around.scope.nodes.append(ensure)
    around.call.input[position] = around.scope.ref(ensure.name, "output", 0, 0)


def _position(node: NodeDef, index: int) -> int:
    """Where among its inputs a node takes its data input `index`."""
    return [i for i, ref in enumerate(node.input) if not refs.is_control(ref)][index]


def _reshape_input(around: _Around, crossing: Crossing, transfer: Shape) -> None:
    call, function, chain = around.call, around.function, around.chain(crossing)
    marker = chain[-1]
    position = _position(call, crossing.index)
    stem = tpu.reshape_prefixes(call)[0] + crossing.name
    call.input[position] = _add_reshape(around.scope, stem, call.input[position], transfer, crossing.dtype)
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    _restore(Scope.of(function), f"{marker.name}/restore", f"{marker.name}:output:0", crossing, tag)
    for node in chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(function.attr, "_input_shapes", crossing.index, transfer)
    if crossing.index in function.arg_attr:
        _record(function.arg_attr[crossing.index].attr, RECORDED, 0, transfer)


def _reshape_output(model: Model, around: _Around, crossing: Crossing, transfer: Shape) -> None:
    call, scope, chain = around.call, around.scope, around.chain(crossing)
    marker = chain[-1]
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    position = _position(marker, 0)
    stem, inside = f"{marker.name}/transfer", Scope.of(around.function)
    marker.input[position] = _add_reshape(inside, stem, marker.input[position], transfer, crossing.dtype, **tag)
    for node in chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(call.attr, RECORDED, crossing.index, transfer)
    arriving = scope.ref(call.name, "output", crossing.index, crossing.index)
    restored = _restore(scope, tpu.reshape_prefixes(call)[1] + crossing.name, arriving, crossing, {})
    outside.rename(model, scope, arriving, restored)


def _restore(scope: Scope, stem: str, ref: str, crossing: Crossing, attrs: Mapping[str, AttrValue]) -> str:
    """Gives all that uses the tensor `ref` a Reshape of it to its own shape."""
    ref, before = refs.canonical_ref(ref, scope), {n.name for n in scope.nodes}
    restored = _add_reshape(scope, stem, ref, crossing.shape, crossing.dtype, **attrs)
    rewire(scope, {ref: restored}, except_nodes={n.name for n in scope.nodes} - before)
    return restored


def _record(attrs: Attrs, key: str, index: int, transfer: Shape) -> None:
    """What was recorded of a tensor's shape is now `transfer`; what was not recorded stays so."""
    if key in attrs and index < len(attrs[key].list.shape):
        attrs[key].list.shape[index].CopyFrom(shapes.to_proto(transfer))


def _add_reshape(scope: Scope, stem: str, ref: str, shape: Shape, dtype: DataType, **attrs: AttrValue) -> str:
    """Adds Reshape(ref, shape) to a scope, after all its nodes; returns how the scope spells the result."""
    if shape is None:
        raise ValueError(f"no reshape to an unknown shape: {stem}")
    taken = UniqueNames(scope)
    target = const_node(taken(f"{stem}/shape"), np.array(transfer_shape.reshape_argument(shape), np.int32), **attrs)
    reshape = make_node(
        taken(stem),
        "Reshape",
        [ref, scope.ref(target.name, "output", 0, 0)],
        T=type_attr(dtype),
        _output_shapes=shape_list_attr([shapes.to_proto(shape)]),
        **attrs,
    )
    scope.nodes.extend([target, reshape])
    return scope.ref(reshape.name, "output", 0, 0)
