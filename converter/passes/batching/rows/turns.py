"""The turns of a loop: which of its variables number them, how many there are, and what stays in all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from converter.analysis.shape_graph import FunctionShapes
from converter.graph import tensors
from converter.graph.model import Scope
from converter.graph.protos import FunctionDef, NodeDef
from converter.graph.refs import before_identities, control_inputs, data_inputs, maker_of, producer_of
from converter.graph.scope_index import ScopeIndex
from converter.passes.batching.rows.values import Value

_BOUNDS = {"Less": (0, 1), "Greater": (1, 0)}
"""Which input of a comparison is the counter, and which one its bound."""

_INDEXED = {"Gather": 1, "GatherV2": 1, "TensorListGetItem": 1, "TensorListSetItem": 1}
_MASKS = ("begin_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
_READING = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
_WRITING = ("Assign", "ResourceScatter", "ResourceApply")


def plain_counters(body: FunctionDef) -> list[int]:
    """Which arguments of a loop's body it returns one greater."""
    nodes = nodes_of(body)
    results = [body.ret[r.name] for r in body.signature.output_arg]
    return [
        i
        for i, (argument, ref) in enumerate(zip(body.signature.input_arg, results, strict=True))
        if _is_next(argument.name, before_identities(ref, nodes), nodes)
    ]


def counters_from_0(
    body: FunctionDef, inputs: Sequence[str], views: tuple[FunctionShapes, FunctionShapes]
) -> frozenset[int]:
    """Which arguments of a loop's body number its turns from 0; `inputs` are the tensors that the loop begins with."""
    begun = {i: [view.value(inputs[i]) for view in views] for i in plain_counters(body)}
    zero = {i for i, values in begun.items() if all(v is not None and v.size == 1 and not v.any() for v in values)}
    return frozenset(zero)


def visits_all(
    cond: FunctionDef,
    views: tuple[FunctionShapes, FunctionShapes],
    counters: Iterable[int],
    turns: Sequence[int],
) -> bool:
    """Whether a loop goes on for as long as its counters, which begin at 0, are less than `turns` for each batch."""
    nodes = nodes_of(cond)
    counting = {cond.signature.input_arg[i].name for i in counters}
    for term in terms(cond, nodes):
        op, inputs = made(term, nodes)
        if op not in _BOUNDS:
            return False
        counter, bound = (inputs[i] for i in _BOUNDS[op])
        bounds = zip((view.value(bound) for view in views), turns, strict=True)
        if counter not in counting or any(value is None or (value < needed).any() for value, needed in bounds):
            return False
    return True


def made(ref: str, nodes: Mapping[str, NodeDef]) -> tuple[str, list[str]]:
    """The op that makes a tensor, and its inputs, past Identities; "" of an argument."""
    node = maker_of(ref, nodes)
    return ("", []) if node is None else (node.op, [before_identities(each, nodes) for each in data_inputs(node)])


def terms(cond: FunctionDef, nodes: Mapping[str, NodeDef]) -> list[str]:
    """What must all be true for a loop to go on."""
    stack = [cond.ret[r.name] for r in cond.signature.output_arg]
    found = []
    while stack:
        ref = before_identities(stack.pop(), nodes)
        op, inputs = made(ref, nodes)
        if op == "LogicalAnd":
            stack += inputs
        else:
            found.append(ref)
    return found


def stays(body: FunctionDef) -> list[bool]:
    """Which variables of a loop are the same in all turns."""
    nodes, signature = nodes_of(body), body.signature
    pairs = zip(signature.input_arg, signature.output_arg, strict=True)
    return [before_identities(body.ret[result.name], nodes) == argument.name for argument, result in pairs]


def fills(body: FunctionDef, index: int, given: str, outside: Mapping[str, NodeDef]) -> bool:
    """Whether each turn puts an item into this list, and none takes another list in its place.

    Args:
      given: the list that the loop begins with, of the nodes `outside`.
    """
    nodes = nodes_of(body)
    node = maker_of(body.ret[body.signature.output_arg[index].name], nodes)
    if node is None or before_identities(data_inputs(node)[0], nodes) != body.signature.input_arg[index].name:
        return False
    pushes = node.op == "TensorListPushBack" and made(given, outside)[0] == "EmptyTensorList"
    return pushes or node.op == "TensorListSetItem"


def is_by_turn(
    node: NodeDef, nodes: Mapping[str, NodeDef], arguments: Sequence[str], counters: Collection[str]
) -> bool:
    """Whether the index into a list numbers the turns of the loop of which this is the body."""
    if node.op == "TensorListPushBack":
        return before_identities(data_inputs(node)[0], nodes) in arguments
    index = _index(node, nodes)
    return index is not None and before_identities(index, nodes) in counters


def _index(node: NodeDef, nodes: Mapping[str, NodeDef]) -> str | None:
    """The one index along the 0th dimension by which a node takes or sets an item."""
    if node.op in _INDEXED:
        return data_inputs(node)[_INDEXED[node.op]]
    masks = {m: node.attr[m].i & 1 for m in _MASKS if m in node.attr}
    if node.op != "StridedSlice" or [m for m in masks if masks[m]] != ["shrink_axis_mask"]:
        return None
    begin = maker_of(data_inputs(node)[1], nodes)
    return data_inputs(begin)[0] if begin is not None and begin.op == "Pack" else None


def reads_written(node: NodeDef, nodes: Mapping[str, NodeDef]) -> bool:
    """Whether a node reads a variable after another has written it, perhaps what was made of all rows."""
    before = (nodes.get(producer_of(ref)) for ref in control_inputs(node))
    return node.op in _READING and any(each is not None and each.op.startswith(_WRITING) for each in before)


def after_turns(value: Value, goes_on: Value) -> Value:
    """A variable of a loop behind it, of which `goes_on` decides how many turns there are."""
    if goes_on.turn:
        value = replace(value, axis=None, turn=goes_on.turn)
    return replace(value, count=value.count or goes_on.count)


def nodes_of(function: FunctionDef) -> dict[str, NodeDef]:
    return ScopeIndex(Scope.of(function)).nodes


def _is_next(name: str, ref: str, nodes: dict[str, NodeDef]) -> bool:
    """Whether the tensor `ref` is the argument `name` plus 1."""
    step = nodes.get(producer_of(ref))
    if step is None or step.op not in ("Add", "AddV2"):
        return False
    operands = [before_identities(each, nodes) for each in data_inputs(step)]
    others = [nodes.get(producer_of(each)) for each in operands if each != name]
    if len(others) != 1 or others[0] is None or others[0].op != "Const":
        return False
    return bool((tensors.values(others[0].attr["value"].tensor) == 1).all())
