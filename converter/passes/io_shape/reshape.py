"""Lets tensors cross between CPU and TPU in their cheapest shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converter.analysis import tpu
from converter.analysis.shape_graph import FunctionShapes
from converter.analysis.shape_inference import ShapeInferenceError, infer
from converter.graph import calls, edit, outside, shapes
from converter.graph.edit import make_node, type_attr
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_RESOURCE, Attrs, AttrValue, DataType, NodeDef
from converter.graph.shapes import RECORDED, Shape
from converter.passes.io_shape import transfer_shape
from converter.passes.io_shape.crossings import Crossing, find_crossings
from converter.passes.io_shape.transfer_shape import DEFAULT_BATCHES, Keep, Reshape
from converter.passes.pass_result import Json, PassResult, RawDetails


@dataclass(frozen=True)
class IoShape:
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

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        rows: list[Json] = []
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
        if rows:
            result.details = RawDetails({"crossing": rows}, tuple(_lines(rows)))
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
) -> list[Json]:
    rows = []
    crossings = find_crossings(model, computation, inferred, where, result)
    choices = [transfer_shape.choose(c.shape, c.dtype_name, batches or DEFAULT_BATCHES) for c in crossings]
    decided = list(zip(crossings, choices, strict=True))
    _ensure_shapes(computation, inferred, [c for c, choice in decided if isinstance(choice, Reshape)])
    for crossing, choice in decided:
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
        rows.append(_row(where, crossing, choice, max(batches, default=1)))
    return rows


def _row(where: str, crossing: Crossing, choice: Keep | Reshape, batch: int) -> Json:
    """One tensor in the report; bytes are padded to tiles, for `batch` rows; None where shape or type has no size."""
    dtype = crossing.dtype_name
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


def _lines(rows: list[Json]) -> list[str]:
    lines = []
    for row in rows:
        if row["shape"] != row["crosses_as"]:
            before, after = row["bytes_before"], row["bytes_after"]
            gain = f"{before:,} -> {after:,} bytes" if after < before else "copied instead of transposed"
            lines.append(
                f"{row['tpu_function']}: {row['tensor']} {row['dtype']}{row['shape']} crosses as "
                f"{row['crosses_as']}, {gain} for {_rows(row['batch_size'])}"
            )
    return lines


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _bytes(shape: Shape, choice: Keep | Reshape, dtype: str, batch: int) -> int | None:
    try:
        return None if shape is None else transfer_shape.crossing_bytes(shape, choice, dtype, batch)
    except ValueError:
        return None


def _ensure_shapes(computation: tpu.TpuComputation, inferred: FunctionShapes, reshaped: list[Crossing]) -> None:
    """Puts EnsureShape before the arguments of the call of which the reshapes presume the shape: rule 6."""
    call, scope, inputs = computation.call, computation.scope, computation.function.signature.input_arg
    presumed = {c.index for c in reshaped} if all(c.is_input for c in reshaped) else set(range(len(inputs)))
    nodes = {n.name: n for n in scope.nodes}
    for index in sorted(presumed):
        position = _position(call, index)
        ref = call.input[position]
        shape = None if inputs[index].type == DT_RESOURCE else inferred.of(ref)
        if shape is None or _ensures(nodes.get(edit.producer_of(ref)), shape):
            continue
        expected = shapes.to_proto(shape)
        ensure = make_node(
            edit.UniqueNames(scope)(f"{call.name}/shape_of_{inputs[index].name}"),
            "EnsureShape",
            [ref],
            T=type_attr(inputs[index].type),
            shape=AttrValue(shape=expected),
            _output_shapes=edit.shape_list_attr([expected]),
        )
        scope.nodes.append(ensure)
        call.input[position] = scope.ref(ensure.name, "output", 0, 0)


def _ensures(node: NodeDef | None, shape: Shape) -> bool:
    return node is not None and node.op == "EnsureShape" and shapes.from_proto(node.attr["shape"].shape) == shape


def _position(call: NodeDef, index: int) -> int:
    """Where among its inputs a call takes argument `index`."""
    return [i for i, ref in enumerate(call.input) if not edit.is_control(ref)][index]


def _reshape_input(computation: tpu.TpuComputation, crossing: Crossing, transfer: Shape) -> None:
    call, function, marker = computation.call, computation.function, crossing.marker
    position = _position(call, crossing.index)
    stem = tpu.reshape_prefixes(call)[0] + crossing.name
    call.input[position] = _add_reshape(computation.scope, stem, call.input[position], transfer, crossing.dtype)
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    _restore(Scope.of(function), f"{marker.name}/restore", f"{marker.name}:output:0", crossing, tag)
    for node in crossing.chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(function.attr, "_input_shapes", crossing.index, transfer)
    if crossing.index in function.arg_attr:
        _record(function.arg_attr[crossing.index].attr, RECORDED, 0, transfer)


def _reshape_output(model: Model, computation: tpu.TpuComputation, crossing: Crossing, transfer: Shape) -> None:
    call, scope, marker = computation.call, computation.scope, crossing.marker
    tag = {tpu.CLUSTER_ATTR: marker.attr[tpu.CLUSTER_ATTR]}
    position = _position(marker, 0)
    stem, inside = f"{marker.name}/transfer", Scope.of(computation.function)
    marker.input[position] = _add_reshape(inside, stem, marker.input[position], transfer, crossing.dtype, **tag)
    for node in crossing.chain:
        _record(node.attr, RECORDED, 0, transfer)
    _record(call.attr, RECORDED, crossing.index, transfer)
    arriving = scope.ref(call.name, "output", crossing.index, crossing.index)
    restored = _restore(scope, tpu.reshape_prefixes(call)[1] + crossing.name, arriving, crossing, {})
    outside.rename(model, scope, arriving, restored)


def _restore(scope: Scope, stem: str, ref: str, crossing: Crossing, attrs: Mapping[str, AttrValue]) -> str:
    """Gives all that uses the tensor `ref` a Reshape of it to its own shape."""
    ref, before = edit.canonical_ref(ref, scope), {n.name for n in scope.nodes}
    restored = _add_reshape(scope, stem, ref, crossing.shape, crossing.dtype, **attrs)
    edit.rewire(scope, {ref: restored}, except_nodes={n.name for n in scope.nodes} - before)
    return restored


def _record(attrs: Attrs, key: str, index: int, transfer: Shape) -> None:
    """What was recorded of a tensor's shape is now `transfer`; what was not recorded stays so."""
    if key in attrs and index < len(attrs[key].list.shape):
        attrs[key].list.shape[index].CopyFrom(shapes.to_proto(transfer))


def _add_reshape(scope: Scope, stem: str, ref: str, shape: Shape, dtype: DataType, **attrs: AttrValue) -> str:
    """Adds Reshape(ref, shape) to a scope, after all its nodes; returns how the scope spells the result."""
    if shape is None:
        raise ValueError(f"no reshape to an unknown shape: {stem}")
    taken = edit.UniqueNames(scope)
    target = edit.const_node(
        taken(f"{stem}/shape"), np.array(transfer_shape.reshape_argument(shape), np.int32), **attrs
    )
    reshape = make_node(
        taken(stem),
        "Reshape",
        [ref, scope.ref(target.name, "output", 0, 0)],
        T=type_attr(dtype),
        _output_shapes=edit.shape_list_attr([shapes.to_proto(shape)]),
        **attrs,
    )
    scope.nodes.extend([target, reshape])
    return scope.ref(reshape.name, "output", 0, 0)
