"""Lets tensors cross between CPU and TPU in their cheapest shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from converter import calls, graph_edit, shapes, tpu, transfer_shape
from converter.graph_edit import make_node, type_attr
from converter.model import FunctionDef, Model, NodeDef, Scope
from converter.pass_result import PassResult
from converter.shape_graph import FunctionShapes
from converter.shape_inference import ShapeInferenceError, infer
from converter.shapes import RECORDED, Shape
from converter.transfer_shape import DEFAULT_BATCHES, Keep, Reshape

_SHARDING_ATTR = "_XlaSharding"


@dataclass(frozen=True)
class _Crossing:
    """One tensor that crosses at a TPU call: argument or result `index` of the TPU function."""

    is_input: bool
    index: int
    name: str
    dtype: int
    shape: Shape
    chain: tuple[NodeDef, ...]
    """Inside the TPU function, the nodes from argument or result to the tagged Identity, the last one."""

    @property
    def marker(self) -> NodeDef:
        return self.chain[-1]

    @property
    def where(self) -> str:
        return f"{'input' if self.is_input else 'output'} {self.name}"


@dataclass(frozen=True)
class IoShape:
    """Reshapes what crosses at every TPU call to the shape that `converter.transfer_shape` chooses.

    before:  TPUPartitionedCall[f=T](x, ...) -> y
             T(x) { x -> TPUReplicatedInput -> Identity -> call -> Identity -> TPUReplicatedOutput -> y }
    after:   TPUPartitionedCall[f=T](Reshape(x, [-1, 672]), ...) -> Reshape(y, [-1, 4])
             T(x) { x -> TPUReplicatedInput -> Identity -> Reshape([-1, 224, 3]) -> call
                    -> Reshape([-1]) -> Identity -> TPUReplicatedOutput -> y }

    1. The host's Reshapes stand around the call; those of the TPU are tagged as part of the cluster, their shapes
       being tagged Consts, so that XLA sees static shapes for a batch of static size.
    2. Shapes are those that TensorFlow infers at the call; what has no static shape crosses as it is.
    3. A TPU function that several nodes call, that is called otherwise than by a TPU call, that the object graph
       exposes, or whose tensors do not enter and leave through markers of one replica, is left alone.
    4. A tensor with a sharding of its own is left alone: the annotation counts its dimensions.
    5. Signatures and captured tensors that name a result of the call name the restored one.
    """

    name = "io_shape"

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        rows: list[dict[str, Any]] = []
        uses = _uses(model)
        for computation in tpu.tpu_computations(model):
            where = tpu.display_name(model, computation)
            reason = _obstacle(model, computation, uses)
            if reason is not None:
                result.skipped(where, reason)
                continue
            batches = _batch_sizes(computation.scope.name, uses)
            try:
                inferred = infer(model, computation.scope.name)
            except ShapeInferenceError as error:
                result.skipped(where, str(error))
                continue
            rows += _rewrite(model, computation, where, inferred, batches, result)
        result.details = {"crossing": rows} if rows else {}
        return result


def _uses(model: Model) -> dict[str, list[NodeDef]]:
    """Function name -> nodes that refer to it."""
    uses: dict[str, list[NodeDef]] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            for name in calls.called_functions(node, model):
                uses.setdefault(name, []).append(node)
    return uses


def _obstacle(model: Model, computation: tpu.TpuComputation, uses: dict[str, list[NodeDef]]) -> str | None:
    name = computation.function.signature.name
    if len(uses[name]) > 1:
        return f"the TPU function is used by {len(uses[name])} nodes, which would all have to change"
    if name in model.exposed_functions():
        return "the TPU function itself can be called by users of the model, so its types must stay"
    return None


def _batch_sizes(scope_name: str, uses: dict[str, list[NodeDef]]) -> tuple[int, ...]:
    """The sizes of the batch at a call site that only a BatchFunction runs; empty if any size can come."""
    users = uses.get(scope_name, [])
    if len(users) != 1 or users[0].op != tpu.BATCH_CALL or "allowed_batch_sizes" not in users[0].attr:
        return ()
    return tuple(users[0].attr["allowed_batch_sizes"].list.i)


def _rewrite(
    model: Model,
    computation: tpu.TpuComputation,
    where: str,
    inferred: FunctionShapes,
    batches: tuple[int, ...],
    result: PassResult,
) -> list[dict[str, Any]]:
    rows = []
    for crossing in _crossings(computation, inferred, where, result):
        dtype = graph_edit.dtype_name(crossing.dtype)
        choice = transfer_shape.choose(crossing.shape, dtype, batches or DEFAULT_BATCHES)
        if isinstance(choice, Reshape):
            if crossing.is_input:
                _reshape_input(computation, crossing, choice.transfer)
            else:
                _reshape_output(model, computation, crossing, choice.transfer)
            what = (
                f"crosses as {shapes.text(choice.transfer)} instead of {shapes.text(crossing.shape)}: {choice.reason}"
            )
            if crossing.shape is not None and crossing.shape[0] is None:
                what += f", for a batch of {max(batches or DEFAULT_BATCHES)}"
            result.changed(f"{where}, {crossing.where}", what)
        else:
            result.skipped(f"{where}, {crossing.where}", choice.reason)
        rows.append(_row(where, crossing, choice, dtype, max(batches, default=1)))
    return rows


def _row(where: str, crossing: _Crossing, choice: Keep | Reshape, dtype: str, batch: int) -> dict[str, Any]:
    """One tensor in the report; bytes are padded to tiles, for `batch` rows; None where shape or type has no size."""
    transfer = choice.transfer if isinstance(choice, Reshape) else crossing.shape
    return {
        "tpu_function": where,
        "tensor": crossing.where,
        "dtype": dtype,
        "shape": shapes.text(crossing.shape),
        "crosses_as": shapes.text(transfer),
        "batch_size": batch,
        "bytes_before": _bytes(crossing.shape, Keep(""), dtype, batch),
        "bytes_after": _bytes(crossing.shape, choice, dtype, batch),
    }


def _bytes(shape: Shape, choice: Keep | Reshape, dtype: str, batch: int) -> int | None:
    try:
        return None if shape is None else transfer_shape.crossing_bytes(shape, choice, dtype, batch)
    except ValueError:
        return None


def _crossings(
    computation: tpu.TpuComputation, inferred: FunctionShapes, where: str, result: PassResult
) -> list[_Crossing]:
    """The tensors that cross through markers that can be rewritten; the others are reported as skipped."""
    function, call, scope = computation.function, computation.call, computation.scope
    nodes = {n.name: n for n in function.node_def}
    consumers = _consumers(function)
    found: list[_Crossing] = []

    def add(is_input: bool, index: int, declared: Any, ref: str, chain: list[NodeDef]) -> None:
        crossing = _Crossing(is_input, index, declared.name, declared.type, inferred.of(ref), tuple(chain))
        attrs = [n.attr for n in chain]
        if is_input and index in function.arg_attr:
            attrs.append(function.arg_attr[index].attr)
        if any(_SHARDING_ATTR in a for a in attrs):
            result.skipped(f"{where}, {crossing.where}", "has a sharding of its own")
        elif not chain or any(chain[-1] is f.chain[-1] for f in found):
            way = "enter" if is_input else "leave"
            reason = f"does not {way} the TPU through a marker of one replica that is its own"
            result.skipped(f"{where}, {crossing.where}", reason)
        else:
            found.append(crossing)

    for index, argument in enumerate(function.signature.input_arg):
        if argument.type != types_pb2.DT_RESOURCE:
            chain = _input_chain(argument.name, consumers)
            add(True, index, argument, graph_edit.data_inputs(call)[index], chain)
    for index, output in enumerate(function.signature.output_arg):
        chain = _output_chain(function.ret[output.name], nodes, consumers)
        add(False, index, output, scope.ref(call.name, "output", index, index), chain)
    return found


def _consumers(function: FunctionDef) -> dict[str, list[NodeDef | None]]:
    """Tensor -> nodes that use it, None standing for a result of the function."""
    uses: dict[str, list[NodeDef | None]] = {}
    for node in function.node_def:
        for ref in graph_edit.data_inputs(node):
            uses.setdefault(ref, []).append(node)
    for ref in function.ret.values():
        uses.setdefault(ref, []).append(None)
    return uses


def _input_chain(argument: str, consumers: dict[str, list[NodeDef | None]]) -> list[NodeDef]:
    """The TPUReplicatedInput that alone takes this argument, and the tagged Identity behind it; empty without."""
    replicated = _only(consumers.get(argument, []))
    if replicated is None or replicated.op != "TPUReplicatedInput" or len(graph_edit.data_inputs(replicated)) != 1:
        return []
    identity = _only(consumers.get(f"{replicated.name}:output:0", []))
    return [replicated, identity] if identity is not None and _is_marker(identity) else []


def _output_chain(ref: str, nodes: dict[str, NodeDef], consumers: dict[str, list[NodeDef | None]]) -> list[NodeDef]:
    """From the result `ref` back: Identities, the TPUReplicatedOutput, the tagged Identity before it; else empty."""
    chain: list[NodeDef] = []
    while len(consumers.get(ref, [])) == 1 and (node := nodes.get(graph_edit.producer_of(ref))) is not None:
        chain.append(node)
        if len(chain) > 1 and chain[-2].op == "TPUReplicatedOutput":
            return chain if _is_marker(node) else []
        if node.op != "Identity" and (node.op != "TPUReplicatedOutput" or node.attr["num_replicas"].i != 1):
            return []
        ref = graph_edit.data_inputs(node)[0]
    return []


def _only(found: list[NodeDef | None]) -> NodeDef | None:
    return found[0] if len(found) == 1 else None


def _is_marker(node: NodeDef) -> bool:
    return bool(node.op == "Identity" and tpu.CLUSTER_ATTR in node.attr)


def _reshape_input(computation: tpu.TpuComputation, crossing: _Crossing, transfer: Shape) -> None:
    call, function, marker = computation.call, computation.function, crossing.marker
    position = [i for i, r in enumerate(call.input) if not graph_edit.is_control(r)][crossing.index]
    stem = tpu.reshape_prefixes(call)[0] + crossing.name
    call.input[position] = _add_reshape(computation.scope, stem, call.input[position], transfer, crossing.dtype)
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    _restore(Scope.of(function), f"{marker.name}/restore", f"{marker.name}:output:0", crossing, tag)
    for node in crossing.chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(function.attr, "_input_shapes", crossing.index, transfer)
    if crossing.index in function.arg_attr:
        _record(function.arg_attr[crossing.index].attr, RECORDED, 0, transfer)


def _reshape_output(model: Model, computation: tpu.TpuComputation, crossing: _Crossing, transfer: Shape) -> None:
    call, scope, marker = computation.call, computation.scope, crossing.marker
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    position = next(i for i, r in enumerate(marker.input) if not graph_edit.is_control(r))
    stem, inside = f"{marker.name}/transfer", Scope.of(computation.function)
    marker.input[position] = _add_reshape(inside, stem, marker.input[position], transfer, crossing.dtype, **tag)
    for node in crossing.chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(call.attr, RECORDED, crossing.index, transfer)
    arriving = scope.ref(call.name, "output", crossing.index, crossing.index)
    restored = _restore(scope, tpu.reshape_prefixes(call)[1] + crossing.name, arriving, crossing, {})
    _rename_exposed(model, scope, arriving, restored)


def _restore(scope: Scope, stem: str, ref: str, crossing: _Crossing, attrs: dict[str, Any]) -> str:
    """Gives all that uses the tensor `ref` a Reshape of it to its own shape."""
    ref, before = graph_edit.canonical_ref(ref, scope), {n.name for n in scope.nodes}
    restored = _add_reshape(scope, stem, ref, crossing.shape, crossing.dtype, **attrs)
    graph_edit.rewire(scope, {ref: restored}, except_nodes={n.name for n in scope.nodes} - before)
    return restored


def _rename_exposed(model: Model, scope: Scope, arriving: str, restored: str) -> None:
    if scope.function is None:
        old, new = (graph_edit.canonical_ref(ref, scope) for ref in (arriving, restored))
        for signature in model.meta_graph.signature_def.values():
            for output in signature.outputs.values():
                output.name = new if output.name == old else output.name
        return
    for saved in model.object_graph.nodes:
        captured = saved.captured_tensor
        if saved.WhichOneof("kind") == "captured_tensor" and captured.concrete_function == scope.name:
            captured.name = restored if captured.name == arriving else captured.name


def _record(attrs: Any, key: str, index: int, transfer: Shape) -> None:
    """What was recorded of a tensor's shape is now `transfer`; what was not recorded stays so."""
    if key in attrs and index < len(attrs[key].list.shape):
        attrs[key].list.shape[index].CopyFrom(shapes.to_proto(transfer))


def _add_reshape(scope: Scope, stem: str, ref: str, shape: Shape, dtype: int, **attrs: Any) -> str:
    """Adds Reshape(ref, shape) to a scope, after all its nodes; returns how the scope spells the result."""
    if shape is None:
        raise ValueError(f"no reshape to an unknown shape: {stem}")
    taken = graph_edit.UniqueNames(scope)
    target = graph_edit.const_node(
        taken(f"{stem}/shape"), np.array(transfer_shape.reshape_argument(shape), np.int32), **attrs
    )
    reshape = make_node(
        taken(stem),
        "Reshape",
        [ref, scope.ref(target.name, "output", 0, 0)],
        T=type_attr(dtype),
        _output_shapes=graph_edit.shape_list_attr([shapes.to_proto(shape)]),
        **attrs,
    )
    scope.nodes.extend([target, reshape])
    return scope.ref(reshape.name, "output", 0, 0)
