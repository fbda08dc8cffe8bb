"""Structural invariants of a model: run after every pass in tests, and at the end of every conversion."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TypeAlias

from converter.errors import InternalError
from converter.graph import calls, ops, outside, refs
from converter.graph.model import Model, Scope
from converter.graph.protos import DATA_TYPES, DT_INVALID, CapturedTensor, DataType, FunctionDef, NodeDef
from converter.graph.scope_index import scope_index

_TYPES = DATA_TYPES - {DT_INVALID}

_Tensors: TypeAlias = dict[str, Mapping[str, DataType] | None]
"""Node or argument -> the tensors that it gives, spelled as in its scope, with types; None if that is not known."""
_REF = 100
"""What the type of a reference to a variable of TensorFlow 1 is greater than the type of what it holds."""


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
    with model.unchanged():
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
        names = outside.functions_of(saved)
        if saved.WhichOneof("kind") == "captured_tensor":
            names = [saved.captured_tensor.concrete_function]
            yield from _captured_tensor_problems(model, saved.captured_tensor)
        for name in names:
            if name not in model.functions:
                yield f'object graph node {node_id} names the missing function "{name}"'


def _captured_tensor_problems(model: Model, captured: CapturedTensor) -> Iterator[str]:
    function = captured.concrete_function
    if function not in model.functions:
        return
    index = scope_index(model, function)
    producer, number = refs.split_ref(captured.name)
    if producer not in index.arguments and producer not in index.nodes:
        yield f'captured tensor "{producer}" is not in function "{function}"'
        return
    # The loader asks the function's graph, which counts a node's outputs, where a FunctionDef names them.
    count = 1 if producer in index.arguments else _output_count(model, index.nodes[producer])
    if not number.isdecimal() or int(number) >= count:
        yield f'captured tensor "{captured.name}" is not spelled as the loader looks it up in function "{function}"'


def _output_count(model: Model, node: NodeDef) -> float:
    """Infinite where nothing is known of the op."""
    definition = ops.op_def(node.op, model)
    try:
        return math.inf if definition is None else len(ops.output_slots(node, definition))
    except ops.MissingAttributeError:
        return math.inf  # said of the node itself


def _scope_problems(model: Model, scope: Scope) -> Iterator[str]:
    arguments = [] if scope.function is None else scope.function.signature.input_arg
    tensors: _Tensors = {a.name: {a.name: a.type} for a in arguments}
    taken: dict[str, Sequence[ops.ArgSlot]] = {}
    for node in scope.nodes:
        tensors[node.name], taken[node.name] = yield from _node_problems(model, scope, node)
    if len(tensors) != len(arguments) + len(scope.nodes):
        yield f"{scope.name}: two nodes or arguments share a name"
    for node in scope.nodes:
        slots = iter(taken[node.name])
        for ref in node.input:
            slot = None if refs.is_control(ref) else next(slots, None)
            found = _type_of(ref, scope, tensors)
            if found is None:
                yield f'{scope.name}: input "{ref}" of node "{node.name}" does not exist'
            elif found and slot is not None and slot.dtype and found != slot.dtype % _REF:
                yield f'{scope.name}: node "{node.name}" takes "{ref}" as a tensor of another type'
    if scope.function is not None:
        yield from _result_problems(scope, scope.function, tensors)


def _node_problems(
    model: Model, scope: Scope, node: NodeDef
) -> Generator[str, None, tuple[Mapping[str, DataType] | None, Sequence[ops.ArgSlot]]]:
    """Returns the tensors that the node gives, spelled as in its scope (None if not known), and what it takes."""
    definition = ops.op_def(node.op, model)
    if definition is None:
        return None, ()  # a custom op
    try:
        given, taken = ops.output_slots(node, definition), ops.input_slots(node, definition)
    except ops.MissingAttributeError as error:
        yield f"{scope.name}: {error}"
        return None, ()
    found, expected = len(refs.data_inputs(node)), len(taken)
    if expected != found:
        yield f'{scope.name}: node "{node.name}" ({node.op}) has {found} inputs, its attributes say {expected}'
    if any(slot.dtype not in _TYPES for slot in (*taken, *given)):
        yield f'{scope.name}: node "{node.name}" ({node.op}) has a tensor of no type that TensorFlow knows'
    yield from _call_problems(model, scope, node)
    names = (refs.canonical_ref(scope.ref(node.name, s.arg, s.index, i), scope) for i, s in enumerate(given))
    return {name: slot.dtype for name, slot in zip(names, given, strict=True)}, taken


def _result_problems(scope: Scope, function: FunctionDef, tensors: _Tensors) -> Iterator[str]:
    for result in function.signature.output_arg:
        given = function.ret.get(result.name)
        found = None if given is None else _type_of(given, scope, tensors)
        if found is None:
            yield f'{scope.name}: result "{result.name}" comes from "{given}", which does not exist'
        elif found and found != result.type:
            yield f'{scope.name}: result "{result.name}" comes from "{given}", a tensor of another type'
    for output in function.signature.control_output:
        if function.control_ret.get(output) not in tensors:
            yield f'{scope.name}: control output "{output}" does not exist'


def _type_of(ref: str, scope: Scope, tensors: _Tensors) -> int | None:
    """The type of a tensor, and of a reference that of what it holds; 0 if it is not known, None if there is none."""
    producer = refs.producer_of(ref)
    if producer not in tensors:
        return None
    known = tensors[producer]
    if known is None or refs.is_control(ref):
        return DT_INVALID
    found = known.get(refs.canonical_ref(ref, scope))
    return None if found is None else found % _REF


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
