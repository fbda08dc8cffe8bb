"""What the planning asks of one model again and again, looked up once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converter.analysis import tpu
from converter.graph import calls
from converter.graph.model import Model, Scope
from converter.graph.nodes import nodes_where
from converter.graph.protos import NodeDef
from converter.passes.batching.captures import Captures

# What may stand beside a call in a function that does nothing of its own.
_GLUE = ("Identity", "IdentityN", "NoOp", "Const", "Cast", "EnsureShape", "Reshape", "TPUOrdinalSelector")


@dataclass(frozen=True)
class Survey:
    """Valid until the model changes.

    Attributes:
      graph: who calls whom.
      batching: every BatchFunction.
      computations: every TPU call.
    """

    model: Model
    captures: Captures
    graph: calls.CallGraph
    batching: tuple[tuple[Scope, NodeDef], ...]
    computations: tuple[tpu.TpuComputation, ...]

    @classmethod
    def of(cls, model: Model) -> Survey:
        return cls(
            model,
            Captures(model),
            calls.call_graph(model),
            tuple(nodes_where(model, lambda n: bool(n.op == tpu.BATCH_CALL))),
            tuple(tpu.tpu_computations(model)),
        )

    def reached(self, roots: Iterable[str]) -> list[str]:
        """Functions that calls lead to from `roots`, roots included."""
        return self.graph.reachable(roots)

    def request_inputs(self, function: str) -> tuple[int, ...]:
        """Indices of a function's arguments that are not captures."""
        count = len(self.model.functions[function].signature.input_arg)
        return tuple(i for i in range(count) if not self.captures.argument(function, i))


def batched_function(batching_op: NodeDef) -> str:
    return str(batching_op.attr["f"].func.name)


def only_calls(scope: Scope, op: str) -> bool:
    """Whether a function does nothing but call: one node of type `op`, and glue."""
    return sum(n.op == op for n in scope.nodes) == 1 and all(n.op == op or n.op in _GLUE for n in scope.nodes)
