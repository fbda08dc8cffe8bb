"""Structural invariants of a model: run after every pass in tests, and at the end of every conversion."""

from __future__ import annotations

import math
from collections.abc import Iterator

from converter.errors import InternalError
from converter.graph import calls, edit, ops
from converter.graph.model import Model, Scope
from converter.graph.protos import DATA_TYPES, DT_INVALID, CapturedTensor, NodeDef

_TYPES = DATA_TYPES - {DT_INVALID}


def check_structure(model: Model) -> None:
    """Checks that names are unique, every reference resolves, and calls fit what they call.

    Raises:
      InternalError: the first few violations, each with its scope and node.
    """
    found = problems(model)
    if found:
        raise InternalError(f"The converted graph is inconsistent: {summary(found)}.")


def problems(model: Model) -> list[str]:
    """Every violation of the invariants."""
    return list(_problems(model))


def summary(found: list[str], limit: int = 5) -> str:
    """The first few problems in one line."""
    return "; ".join(found[:limit]) + (f"; and {len(found) - limit} more" if len(found) > limit else "")


def _problems(model: Model) -> Iterator[str]:
    if len(model.functions) != len(model.graph_def.library.function):
        yield "the function index is out of step with the library"
    for scope in model.scopes():
        yield from _scope_problems(model, scope)
    for node_id, saved in enumerate(model.object_graph.nodes):
        kind = saved.WhichOneof("kind")
        names = []
        if kind == "function":
            names = list(saved.function.concrete_functions)
        elif kind == "bare_concrete_function":
            names = [saved.bare_concrete_function.concrete_function_name]
        elif kind == "captured_tensor":
            names = [saved.captured_tensor.concrete_function]
            yield from _captured_tensor_problems(model, saved.captured_tensor)
        for name in names:
            if name not in model.functions:
                yield f'object graph node {node_id} names the missing function "{name}"'


def _captured_tensor_problems(model: Model, captured: CapturedTensor) -> Iterator[str]:
    function = model.functions.get(captured.concrete_function)
    if function is None:
        return
    held = {n.name: n for n in function.node_def} | {a.name: None for a in function.signature.input_arg}
    producer, _, number = captured.name.partition(":")
    if producer not in held:
        yield f'captured tensor "{producer}" is not in function "{function.signature.name}"'
        return
    # The loader asks the function's graph, which counts a node's outputs, where a FunctionDef names them.
    if not number.isdecimal() or int(number) >= _output_count(model, held[producer]):
        yield (
            f'captured tensor "{captured.name}" is not spelled as the loader looks it up in function '
            f'"{function.signature.name}"'
        )


def _output_count(model: Model, node: NodeDef | None) -> float:
    """Of an argument (no node) one; infinite where nothing is known of the op."""
    if node is None:
        return 1
    definition = ops.op_def(node.op, model)
    try:
        return math.inf if definition is None else len(ops.output_slots(node, definition))
    except ops.MissingAttributeError:
        return math.inf  # said of the node itself


def _scope_problems(model: Model, scope: Scope) -> Iterator[str]:
    arguments = [] if scope.function is None else [a.name for a in scope.function.signature.input_arg]
    names = set(arguments)
    known = len(arguments)
    outputs: dict[str, int | None] = dict.fromkeys(arguments, 1)
    refs: dict[str, set[str] | None] = {}
    for node in scope.nodes:
        names.add(node.name)
        known += 1
        definition = ops.op_def(node.op, model)
        if definition is None:
            outputs[node.name] = None  # a custom op: nothing known of its outputs
            refs[node.name] = None
        else:
            try:
                slots = ops.output_slots(node, definition)
                taken = ops.input_slots(node, definition)
            except ops.MissingAttributeError as error:
                yield f"{scope.name}: {error}"
                outputs[node.name] = refs[node.name] = None
                continue
            outputs[node.name] = len(slots)
            refs[node.name] = {f"{node.name}:{s.arg}:{s.index}" for s in slots}
            found, expected = len(edit.data_inputs(node)), len(taken)
            if expected != found:
                yield f'{scope.name}: node "{node.name}" ({node.op}) has {found} inputs, its attributes say {expected}'
            if any(slot.dtype not in _TYPES for slot in (*taken, *slots)):
                yield f'{scope.name}: node "{node.name}" ({node.op}) has a tensor of no type that TensorFlow knows'
            yield from _call_problems(model, scope, node)
    if known != len(names):
        yield f"{scope.name}: two nodes or arguments share a name"
    for node in scope.nodes:
        for ref in node.input:
            if not _resolves(ref, scope, outputs, refs):
                yield f'{scope.name}: input "{ref}" of node "{node.name}" does not exist'
    if scope.function is None:
        return
    for result in scope.function.signature.output_arg:
        given = scope.function.ret.get(result.name)
        if given is None or not _resolves(given, scope, outputs, refs):
            yield f'{scope.name}: result "{result.name}" comes from "{given}", which does not exist'
    for output in scope.function.signature.control_output:
        if scope.function.control_ret.get(output) not in names:
            yield f'{scope.name}: control output "{output}" does not exist'


def _resolves(ref: str, scope: Scope, outputs: dict[str, int | None], refs: dict[str, set[str] | None]) -> bool:
    producer = edit.producer_of(ref)
    if producer not in outputs:
        return False
    if edit.is_control(ref):
        return True
    count = outputs[producer]
    if count is None:
        return True
    if scope.function is None:
        return int(ref.partition(":")[2] or 0) < count
    spelled = refs.get(producer)
    return ref == producer if spelled is None else ref in spelled


def _call_problems(model: Model, scope: Scope, node: NodeDef) -> Iterator[str]:
    """What a node calls has to exist; argument and result types of a direct call have to be those of what it calls."""
    _, names = calls.passes_to(node, model) or (0, [])
    for name in names:
        if name not in model.functions:
            yield f'{scope.name}: node "{node.name}" calls the missing function "{name}"'
            return
    if node.op not in calls.CALLS:
        return
    if not names:
        yield f'{scope.name}: node "{node.name}" ({node.op}) names no function'
        return
    callee = model.functions[names[0]]
    given = list(node.attr["Tin"].list.type) if "Tin" in node.attr else []
    if "Tcaptured" in node.attr:
        given += list(node.attr["Tcaptured"].list.type)
    results = list(node.attr["Tout"].list.type) if "Tout" in node.attr else []
    if given != [a.type for a in callee.signature.input_arg]:
        yield f'{scope.name}: call "{node.name}" passes other types than "{callee.signature.name}" takes'
    if results != [r.type for r in callee.signature.output_arg]:
        yield f'{scope.name}: call "{node.name}" expects other types than "{callee.signature.name}" returns'
