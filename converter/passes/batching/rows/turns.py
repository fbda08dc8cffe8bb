"""The turns of a loop: which of its variables number them, how many there are, and what changes with them."""

from __future__ import annotations

from collections.abc import Iterable

from converter.analysis.shape_graph import FunctionShapes
from converter.graph import edit, tensors
from converter.graph.protos import DT_VARIANT, FunctionDef, NodeDef
from converter.passes.batching.rows.values import ROWS, Value

_BOUNDS = {"Less": (0, 1), "Greater": (1, 0)}
"""Which input of a comparison is the counter, and which one its bound."""


def plain_counters(body: FunctionDef) -> list[int]:
    """Which arguments of a loop's body it returns one greater."""
    nodes = _nodes(body)
    results = [body.ret[r.name] for r in body.signature.output_arg]
    return [
        i
        for i, (argument, ref) in enumerate(zip(body.signature.input_arg, results, strict=True))
        if _is_next(argument.name, edit.before_identities(ref, nodes), nodes)
    ]


def visits_all(
    cond: FunctionDef,
    views: tuple[FunctionShapes, FunctionShapes],
    counters: Iterable[int],
    sizes: tuple[int, int],
) -> bool:
    """Whether a loop goes on for as long as its counters, which begin at 0, are less than the number of rows."""
    nodes = _nodes(cond)
    counting = {cond.signature.input_arg[i].name for i in counters}
    stack = [cond.ret[r.name] for r in cond.signature.output_arg]
    while stack:
        node = nodes.get(edit.producer_of(edit.before_identities(stack.pop(), nodes)))
        refs = [] if node is None else [edit.before_identities(ref, nodes) for ref in edit.data_inputs(node)]
        if node is not None and node.op == "LogicalAnd":
            stack += refs
            continue
        if node is None or node.op not in _BOUNDS:
            return False
        counter, bound = (refs[i] for i in _BOUNDS[node.op])
        bounds = zip((view.value(bound) for view in views), sizes, strict=True)
        if counter not in counting or any(value is None or (value < rows).any() for value, rows in bounds):
            return False
    return True


def depends_on_turns(body: FunctionDef, index: int, value: Value) -> bool:
    """Whether a variable of a loop may become another in each turn: not one that stays, or a list of the rows."""
    argument = body.signature.input_arg[index]
    if edit.before_identities(body.ret[body.signature.output_arg[index].name], _nodes(body)) == argument.name:
        return False
    return not (argument.type == DT_VARIANT and (value.axis == ROWS or not value.rows))


def _nodes(function: FunctionDef) -> dict[str, NodeDef]:
    return {node.name: node for node in function.node_def}


def _is_next(name: str, ref: str, nodes: dict[str, NodeDef]) -> bool:
    """Whether the tensor `ref` is the argument `name` plus 1."""
    step = nodes.get(edit.producer_of(ref))
    if step is None or step.op not in ("Add", "AddV2"):
        return False
    operands = [edit.before_identities(each, nodes) for each in edit.data_inputs(step)]
    others = [nodes.get(edit.producer_of(each)) for each in operands if each != name]
    if len(others) != 1 or others[0] is None or others[0].op != "Const":
        return False
    return bool((tensors.values(others[0].attr["value"].tensor) == 1).all())
