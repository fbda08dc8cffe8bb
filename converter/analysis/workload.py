"""FLOPs and bytes of a model: what runs where, beside the heuristic's integers of `cost`.

Counted over the tree of calls, as the heuristic counts. Shapes are inferred for the arguments of each call; a dimension
that stays unknown, such as the batch of a signature, counts as 1. So all figures are for one row, and lower bounds
where sizes depend on values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from converter.analysis.arguments import Argument, Handle, Known
from converter.analysis.call_tree import Arguments, CallTree, Split
from converter.analysis.op_work import TypedShape, Work, op_work
from converter.analysis.shape_graph import FunctionShapes
from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import calls, ops, refs, shapes
from converter.graph.model import Model, Scope
from converter.graph.protos import NodeDef


@dataclass
class Workload(Split[Work]):
    """Work on the CPU, and on the TPU by the name that the user gave."""

    cpu: Work = field(default_factory=Work)


def model_workload(model: Model) -> Workload:
    """Work of all that the signatures reach, for one row. Every TPU function of the model has an entry."""
    total = _Works(model).of_model()
    return Workload(total.cpu, total.tpu)


def function_workloads(model: Model, names: Iterable[str]) -> dict[str, Work]:
    """Work of one call of each of these functions, CPU and TPU together, for the argument shapes that it declares."""
    return _Works(model).of_functions(names)


class _Works(CallTree[Work]):
    def __init__(self, model: Model) -> None:
        super().__init__(model, Work())
        self._inference = Inference(model)

    def amount(self, scope: Scope, node: NodeDef, known: FunctionShapes | None) -> Work:
        definition = ops.op_def(node.op, self._model)
        if definition is None:
            return Work()
        inputs = zip(ops.input_slots(node, definition), refs.data_inputs(node), strict=True)
        outputs = enumerate(ops.output_slots(node, definition))
        taken = [_info(slot, ref, known) for slot, ref in inputs]
        given = [_info(s, scope.ref(node.name, s.arg, s.index, i), known) for i, s in outputs]
        return op_work(node, taken, given)

    def declared(self, function: str) -> Arguments:
        return _of_one_row(shapes.declared_shapes(self._model.functions[function]))

    def passed(self, node: NodeDef, called: Sequence[str], known: FunctionShapes | None) -> list[Arguments]:
        given = [known.passed(ref) if known else None for ref in refs.data_inputs(node)]
        first, passed = calls.passes_to(node, self._model) or (0, [])
        ends = [first + len(self._model.functions[name].signature.input_arg) for name in called]
        # What calls in a way of its own (a map over a data set, say) tells nothing of the arguments.
        return [
            _of_one_row(given[first:end]) if name in passed else self.declared(name)
            for name, end in zip(called, ends, strict=True)
        ]

    def shapes(self, scope_name: str, given: Arguments) -> FunctionShapes | None:
        attempts: list[Sequence[Argument]] = [given]
        if scope_name in self._model.functions:
            # One row may be what the function cannot compute, such as halves of a batch.
            attempts.append(shapes.declared_shapes(self._model.functions[scope_name]))
        for arguments in attempts:
            try:
                return self._inference.infer(scope_name, arguments)
            except ShapeInferenceError:
                continue
        return None


def _info(slot: ops.ArgSlot, ref: str, known: FunctionShapes | None) -> TypedShape:
    return TypedShape(slot.dtype, known.of(ref) if known is not None else None)


def _of_one_row(arguments: Iterable[Argument]) -> Arguments:
    """Unknown dimensions become 1."""
    return tuple(
        a if a is None or isinstance(a, Handle | Known) else tuple(1 if size is None else size for size in a)
        for a in arguments
    )
