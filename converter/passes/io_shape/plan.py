"""Decides what crosses between CPU and TPU in another shape, at which calls, and what is left and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.analysis import tpu
from converter.analysis.shape_graph import FunctionShapes
from converter.analysis.shape_inference import ShapeInferenceError, infer
from converter.graph import calls, outside, refs, shapes
from converter.graph.model import Model
from converter.graph.protos import DT_RESOURCE, NodeDef
from converter.graph.scope_index import scope_index
from converter.graph.shapes import Shape
from converter.passes.io_shape import transfer_shape
from converter.passes.io_shape.crossings import Crossing, find_crossings
from converter.passes.io_shape.details import CrossingRow, IoShapeDetails
from converter.passes.io_shape.transfer_shape import DEFAULT_BATCHES, Keep, Reshape
from converter.passes.pass_result import Change, Skip


@dataclass(frozen=True)
class Presumed:
    """An argument of a TPU call, of which the reshapes presume a shape."""

    index: int
    shape: transfer_shape.RankedShape


@dataclass(frozen=True)
class Transfer:
    """A tensor that is to cross as `shape`, and what the report says of it."""

    crossing: Crossing
    shape: transfer_shape.RankedShape
    change: Change


@dataclass(frozen=True)
class CallPlan:
    """What is done around one TPU call: the node `call` of the scope `scope`, which runs `function`."""

    scope: str
    call: str
    function: str
    presumed: tuple[Presumed, ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class IoShapePlan:
    """The calls at which something is reshaped, what is left alone, and the report of all that crosses."""

    calls: tuple[CallPlan, ...]
    skips: tuple[Skip, ...]
    details: IoShapeDetails

    @property
    def is_empty(self) -> bool:
        return not self.calls


def make_plan(model: Model) -> IoShapePlan:
    """What the pass does to this model."""
    planned: list[CallPlan] = []
    skips: list[Skip] = []
    rows: list[CrossingRow] = []
    for computation in tpu.tpu_computations(model):
        where = tpu.display_name(model, computation)
        reason = _obstacle(model, computation)
        if reason is not None:
            skips.append(Skip(where, reason))
            continue
        try:
            inferred = infer(model, computation.scope.name)
        except ShapeInferenceError as error:
            skips.append(Skip(where, str(error)))
            continue
        batches = _batch_sizes(model, computation.scope.name)
        crossings, obstructed = find_crossings(model, computation, inferred, where)
        choices = [transfer_shape.choose(c.shape, c.dtype_name, batches or DEFAULT_BATCHES) for c in crossings]
        decided = list(zip(crossings, choices, strict=True))
        skips += [*obstructed, *_kept(where, decided)]
        rows += [_row(where, crossing, choice, max(batches, default=1)) for crossing, choice in decided]
        call = _call_plan(model, computation, inferred, _transfers(where, decided, batches))
        if call.transfers:
            planned.append(call)
    return IoShapePlan(tuple(planned), tuple(skips), IoShapeDetails(tuple(rows)))


def _obstacle(model: Model, computation: tpu.TpuComputation) -> str | None:
    name = computation.function.signature.name
    sites = calls.call_sites(model)[name]
    if len(sites) > 1:
        return f"the TPU function is used by {len(sites)} nodes, which would all have to change"
    if name in outside.exposed_functions(model):
        return "the TPU function itself can be called by users of the model, so its types must stay"
    return None


def _batch_sizes(model: Model, scope_name: str) -> tuple[int, ...]:
    """The sizes of the batch at a call site that only a BatchFunction runs; empty if any size can come."""
    sites = calls.call_sites(model).get(scope_name, ())
    if len(sites) != 1 or sites[0].op != tpu.BATCH_CALL or "allowed_batch_sizes" not in sites[0].attr:
        return ()
    return tuple(sites[0].attr["allowed_batch_sizes"].list.i)


def _kept(where: str, decided: Sequence[tuple[Crossing, Keep | Reshape]]) -> list[Skip]:
    return [Skip(f"{where}, {c.where}", choice.reason) for c, choice in decided if isinstance(choice, Keep)]


def _transfers(
    where: str, decided: Sequence[tuple[Crossing, Keep | Reshape]], batches: tuple[int, ...]
) -> tuple[Transfer, ...]:
    found = []
    for crossing, choice in decided:
        if isinstance(choice, Reshape):
            shape, before = shapes.text(choice.transfer), shapes.text(crossing.shape)
            what = f"crosses as {shape} instead of {before}: {choice.reason}"
            if crossing.shape is not None and crossing.shape[0] is None:
                what += f", for a batch of {max(batches or DEFAULT_BATCHES)}"
            found.append(Transfer(crossing, choice.transfer, Change(f"{where}, {crossing.where}", what)))
    return tuple(found)


def _call_plan(
    model: Model, computation: tpu.TpuComputation, inferred: FunctionShapes, transfers: tuple[Transfer, ...]
) -> CallPlan:
    return CallPlan(
        scope=computation.scope.name,
        call=str(computation.call.name),
        function=str(computation.function.signature.name),
        presumed=_presumed(model, computation, inferred, [t.crossing for t in transfers]),
        transfers=transfers,
    )


def _presumed(
    model: Model, computation: tpu.TpuComputation, inferred: FunctionShapes, reshaped: list[Crossing]
) -> tuple[Presumed, ...]:
    """The arguments of the call of which the reshapes presume the shape, and which nothing ensures yet: rule 6."""
    call, inputs = computation.call, computation.function.signature.input_arg
    chosen = {c.index for c in reshaped} if all(c.is_input for c in reshaped) else set(range(len(inputs)))
    around, given = scope_index(model, computation.scope.name), refs.data_inputs(call)
    presumed = []
    for index in sorted(chosen):
        shape = None if inputs[index].type == DT_RESOURCE else inferred.of(given[index])
        if shape is not None and not _ensures(around.producer(given[index]), shape):
            presumed.append(Presumed(index, shape))
    return tuple(presumed)


def _ensures(node: NodeDef | None, shape: Shape) -> bool:
    return node is not None and node.op == "EnsureShape" and shapes.from_proto(node.attr["shape"].shape) == shape


def _row(where: str, crossing: Crossing, choice: Keep | Reshape, batch: int) -> CrossingRow:
    dtype = crossing.dtype_name
    return CrossingRow(
        tpu_function=where,
        tensor=crossing.where,
        dtype=dtype,
        shape=shapes.text(crossing.shape),
        crosses_as=shapes.text(choice.transfer if isinstance(choice, Reshape) else crossing.shape),
        batch_size=batch,
        bytes_before=_bytes(crossing.shape, Keep(""), dtype, batch),
        bytes_after=_bytes(crossing.shape, choice, dtype, batch),
    )


def _bytes(shape: Shape, choice: Keep | Reshape, dtype: str, batch: int) -> int | None:
    try:
        return None if shape is None else transfer_shape.crossing_bytes(shape, choice, dtype, batch)
    except ValueError:
        return None
