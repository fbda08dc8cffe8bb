"""The pass with options of its own, models as text, and functions of them as components."""

from typing import Any

from converter.graph.model import Model
from converter.graph.protos import NodeDef
from converter.graph.shapes import Shape, declared_shape
from converter.options.slices import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.batch import Batch
from converter.passes.batching.component import Component, batch_sizes
from converter.passes.pass_result import PassResult
from tests.harness import parse_model, render

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


def attributes_text(node: NodeDef) -> str:
    """A batching op as text."""
    model = parse_model("")
    model.graph_def.node.add().CopyFrom(node)
    return next(line.strip() for line in render(model).splitlines() if "BatchFunction(" in line)


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


def argument(name: str, shape: str, dtype: str = "float32") -> str:
    return f"{name}: {dtype} {{_output_shapes: [<{shape}>]}}"


def component(model: Model, size: int = 8, allowed: tuple[int, ...] = (), function: str = "f") -> Component:
    definition = model.functions[function]
    arguments, results = definition.signature.input_arg, definition.signature.output_arg
    declared: tuple[Shape, ...] = tuple(declared_shape(definition, i) for i in range(len(arguments)))
    return Component(
        function=function,
        declared=declared,
        inputs=tuple(range(len(arguments))),
        input_names=tuple(a.name for a in arguments),
        result_names=tuple(r.name for r in results),
        sizes=batch_sizes(allowed, size),
        max_batch_size=size,
        largest_batch=allowed[-1] if allowed else size,
    )
