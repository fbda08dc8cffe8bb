"""The pass with options of its own, and a model with a TPU function, as text."""

from typing import Any

from converter.graph.model import Model
from converter.options.slices import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.batch import Batch
from converter.passes.pass_result import PassResult
from tests.harness import parse_model

ALIAS, CONCRETE, SIGNATURE = (
    FunctionKind.FUNCTION_ALIAS,
    FunctionKind.CONCRETE_FUNCTION_NAME,
    FunctionKind.SIGNATURE_NAME,
)


def batch(*names: str, kind: FunctionKind = CONCRETE, allow_violations: bool = False, **options: Any) -> Batch:
    """The pass with the same options for each named component; for the default without names."""
    options = {"num_batch_threads": 2, "max_batch_size": 8, "allowed_batch_sizes": (4, 8), **options}
    components: list[FunctionRef | None] = [FunctionRef(kind, name) for name in names] or [None]
    return Batch(tuple(BatchOptions(component=c, **options) for c in components), allow_violations)


def run(each: Batch, text: str) -> tuple[Model, PassResult]:
    model = parse_model(text)
    return model, each.apply(model)


def queues(model: Model) -> list[str]:
    nodes = [n for s in model.scopes() for n in s.nodes if n.op == "BatchFunction"]
    return [n.attr["shared_name"].s.decode() for n in nodes]


NESTED = """
alias "outer" = @outer; alias "inner" = @inner
object outer = function @outer; object inner = function @inner
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  call = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @outer}
}
@outer(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) [stateful] {
  n = Neg(x) {T: float32}
  c = StatefulPartitionedCall(n:y:0) {Tin: [float32], Tout: [float32], f: @inner}
  return c:output:0, ^c
}
"""
INNER = "@inner(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) [stateful] {"


def nested(body: str) -> str:
    return f"{NESTED}{INNER}{body}"
