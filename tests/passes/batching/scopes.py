"""Models of TPU calls and batching ops as text, and what options select in them."""

from converter.options.slices import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.plan import Selection, select
from tests.harness import parse_model

DEFAULT = (BatchOptions(max_batch_size=8, num_batch_threads=2),)
TYPES = "Tin: [float32], Tout: [float32]"
BATCHING = "num_batch_threads: 1, max_batch_size: 8, batch_timeout_micros: 0, Tcaptured: []"
MAIN = f"""
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,3>}}
  call = StatefulPartitionedCall(x) {{{TYPES}, f: @outer}}
}}
"""
LEAF = "@leaf(x: float32) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }"


def named(*names: str, kind: FunctionKind = FunctionKind.CONCRETE_FUNCTION_NAME) -> tuple[BatchOptions, ...]:
    return tuple(BatchOptions(component=FunctionRef(kind, name), max_batch_size=8) for name in names)


def function(name: str, body: str, result: str) -> str:
    return f"@{name}(x: float32) -> (y: float32) [stateful] {{ {body}; return {result} }}\n"


def calling(name: str, callee: str, extra: str = "", fed: str = "x") -> str:
    call = f"c = StatefulPartitionedCall({fed}) {{{TYPES}, f: @{callee}}}"
    return function(name, f"{extra}{call}", "c:output:0")


def batching(name: str, callee: str = "leaf", extra: str = "", fed: str = "x") -> str:
    op = f"b = BatchFunction({fed}) {{{TYPES}, f: @{callee}, {BATCHING}}}"
    return function(name, f"{extra}{op}", "b:out_tensors:0")


def on_tpu(name: str, callee: str = "leaf", extra: str = "", fed: str = "x") -> str:
    call = f"t = TPUPartitionedCall({fed}, core:device_ordinals:0) {{{TYPES}, f: @{callee}}}"
    return function(name, f"{extra}core = TPUOrdinalSelector(); {call}", "t:output:0")


def selected(text: str, options: tuple[BatchOptions, ...] = DEFAULT) -> Selection:
    return select(parse_model(text), options)


Found = tuple[list[tuple[str, str, str]], list[tuple[str, str, str]], list[str]]


def found(text: str, options: tuple[BatchOptions, ...] = DEFAULT) -> Found:
    """(name, what, function) of each target, (name, scope, node) of each update, and the name of each skip."""
    made = selected(text, options)
    targets = [(t.name, t.what, t.function) for t in made.targets]
    return targets, [(u.name, u.place.scope, u.place.node) for u in made.updates], [s.where for s in made.skips]
