"""FLOPs and bytes of a model: what runs where, beside the heuristic's integers of `cost`.

Counted as the heuristic counts: a call adds what it calls at every call site, a loop its body and condition once, a
branch all its branches. Shapes are inferred for the arguments of each call; a dimension that stays unknown, such as
the batch of a signature, counts as 1. So all figures are for one row, and lower bounds where sizes depend on values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from converter.analysis import tpu
from converter.analysis.op_work import TensorInfo, Work, op_work
from converter.analysis.shape_graph import Argument, FunctionShapes, Handle, Known
from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import calls, edit, ops, shapes
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import NodeDef


@dataclass
class Workload:
    """Work on the CPU, and on the TPU by the name that the user gave."""

    cpu: Work = field(default_factory=Work)
    tpu: dict[str, Work] = field(default_factory=dict)

    @property
    def total(self) -> Work:
        return sum(self.tpu.values(), self.cpu)

    def add(self, other: Workload) -> None:
        self.cpu += other.cpu
        for name, work in other.tpu.items():
            self.tpu[name] = self.tpu.get(name, Work()) + work


def model_workload(model: Model) -> Workload:
    """Work of all that the signatures reach, for one row. Every TPU function of the model has an entry."""
    counter = _Counter(model)
    result = Workload(tpu={name: Work() for name in counter.tpu_names.values()})
    result.add(counter.nodes(model.main_scope(), calls.served_nodes(model), counter.shapes_in(MAIN_GRAPH, [()])))
    return result


def function_workloads(model: Model, names: Iterable[str]) -> dict[str, Work]:
    """Work of one call of each of these functions, CPU and TPU together, for the argument shapes that it declares."""
    counter = _Counter(model)
    return {name: counter.function(name, shapes.declared_shapes(model.functions[name])).total for name in names}


class _Counter:
    def __init__(self, model: Model) -> None:
        self._model = model
        self.tpu_names = tpu.display_names(model)
        self._inference = Inference(model)
        self._known: dict[tuple[str, tuple[Argument, ...]], Workload] = {}

    def function(self, name: str, arguments: Iterable[Argument]) -> Workload:
        key = (name, tuple(_of_one_row(argument) for argument in arguments))
        if key not in self._known:
            self._known[key] = Workload()  # what a recursive function sees of itself
            scope = self._model.scope(name)
            # One row may be what the function cannot compute, such as halves of a batch.
            known = self.shapes_in(name, [key[1], shapes.declared_shapes(self._model.functions[name])])
            self._known[key] = self.nodes(scope, scope.nodes, known)
        return self._known[key]

    def shapes_in(self, name: str, arguments: Iterable[Sequence[Argument]]) -> FunctionShapes | None:
        """Shapes in a scope for the first of these arguments that it can compute; None if there are no such."""
        for given in arguments:
            try:
                return self._inference.infer(name, given)
            except ShapeInferenceError:
                continue
        return None

    def nodes(self, scope: Scope, nodes: Iterable[NodeDef], known: FunctionShapes | None) -> Workload:
        """Work of these nodes of a scope, given the shapes of its tensors."""
        result = Workload()
        for node in nodes:
            called = calls.called_functions(node, self._model)
            if called:
                result.add(self._call(node, called, known))
                continue
            definition = ops.op_def(node.op, self._model)
            if definition is not None:
                inputs = zip(ops.input_slots(node, definition), edit.data_inputs(node), strict=True)
                outputs = enumerate(ops.output_slots(node, definition))
                taken = [_info(slot, ref, known) for slot, ref in inputs]
                given = [_info(s, scope.ref(node.name, s.arg, s.index, i), known) for i, s in outputs]
                result.cpu += op_work(node, taken, given)
        return result

    def _call(self, node: NodeDef, called: list[str], known: FunctionShapes | None) -> Workload:
        given = [known.passed(ref) if known else None for ref in edit.data_inputs(node)]
        first, passed = calls.passes_to(node, self._model) or (0, [])
        result = Workload()
        for name in called:
            function = self._model.functions[name]
            end = first + len(function.signature.input_arg)
            # What calls in a way of its own (a map over a data set, say) tells nothing of the arguments.
            result.add(self.function(name, given[first:end] if name in passed else shapes.declared_shapes(function)))
        if node.op == tpu.TPU_CALL:
            return Workload(tpu={self.tpu_names[called[0]]: result.total})
        return result


def _info(slot: ops.ArgSlot, ref: str, known: FunctionShapes | None) -> TensorInfo:
    return TensorInfo(slot.dtype, known.of(ref) if known is not None else None)


def _of_one_row(argument: Argument) -> Argument:
    if argument is None or isinstance(argument, Handle | Known):
        return argument
    return tuple(1 if size is None else size for size in argument)
