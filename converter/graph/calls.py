"""Who calls whom: functions that nodes refer to, what they reach, and what has to change on the way to some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from converter.graph import ops, outside, refs
from converter.graph.model import MAIN_GRAPH, Model
from converter.graph.protos import Attrs, NameAttrList, NodeDef
from converter.graph.scope_index import scope_index

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall", "BatchFunction"})
JIT_ATTR = "_XlaMustCompile"

# Same attributes and arguments, but free to be pruned, deduplicated or folded: wrong around stateful work.
STATEFUL_TWIN = {
    "PartitionedCall": "StatefulPartitionedCall",
    "StatelessIf": "If",
    "StatelessWhile": "While",
    "StatelessCase": "Case",
}


def _name_attr_lists(attrs: Attrs) -> Iterator[NameAttrList]:
    """Every NameAttrList in an attribute map, nested ones included."""
    for key in sorted(attrs):
        value = attrs[key]
        kind = value.WhichOneof("value")
        lists = [value.func] if kind == "func" else value.list.func if kind == "list" else ()
        for reference in lists:
            yield reference
            yield from _name_attr_lists(reference.attr)


def called_functions(node: NodeDef, model: Model) -> list[str]:
    """Library functions that `node` refers to: through any function attribute, or by being an op of that name."""
    called = [r.name for r in _name_attr_lists(node.attr) if r.name in model.functions]
    return [node.op, *called] if node.op in model.functions else called


def passes_to(node: NodeDef, model: Model) -> tuple[int, list[str]] | None:
    """How many inputs of a node come before the arguments that it passes on, and the functions that are given these.

    None for a node that calls nothing, or in a way of its own. Behind the arguments of a TPUPartitionedCall comes its
    ordinal. BatchFunction takes in_tensors and then captured_tensors, in the order of its function's arguments.
    """
    if node.op in model.functions:
        return 0, [node.op]
    # Of a damaged node, an attribute may be missing; reading it would create it.
    if node.op in CALLS:
        return 0, [node.attr[a].func.name for a in ("f",) if a in node.attr]
    if node.op in ops.BRANCHES:
        attrs = [node.attr[a] for a in ops.BRANCHES[node.op] if a in node.attr]
        return 1, [f.name for a in attrs for f in (a.list.func or [a.func])]
    if node.op in ops.LOOPS:
        return 0, [node.attr[a].func.name for a in ("body", "cond") if a in node.attr]
    return None


def rename_callees(node: NodeDef, names: Mapping[str, str]) -> bool:
    """Calls of functions that are keys of `names` become calls of their values; says whether there were any."""
    changed = False
    for reference in _name_attr_lists(node.attr):
        if reference.name in names:
            reference.name = names[reference.name]
            changed = True
    if node.op in names:
        node.op = names[node.op]
        changed = True
    return changed


@dataclass(frozen=True)
class CallGraph:
    """Who refers to whom.

    Attributes:
      callees: scope name -> functions that it refers to, each once, in order of first use.
    """

    callees: Mapping[str, Sequence[str]]

    @cached_property
    def callers(self) -> Mapping[str, Sequence[str]]:
        """Function -> the scopes that refer to it, each once."""
        found: dict[str, list[str]] = {}
        for caller, callees in self.callees.items():
            for callee in callees:
                found.setdefault(callee, []).append(caller)
        return found

    def reachable(self, roots: Iterable[str]) -> list[str]:
        """Functions reached from `roots`, roots included, each once, callers before what they first call."""
        return _reached(self.callees, roots)

    def callers_of(self, targets: Iterable[str]) -> list[str]:
        """Scopes from which any of `targets` is reached, targets included."""
        return _reached(self.callers, targets)


def _reached(edges: Mapping[str, Sequence[str]], roots: Iterable[str]) -> list[str]:
    seen: dict[str, None] = {}
    stack = list(roots)[::-1]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen[name] = None
            stack.extend(reversed(edges.get(name, ())))
    return list(seen)


def call_graph(model: Model) -> CallGraph:
    """The calls of the model as it is; kept while it is unchanged."""
    return model.kept("call graph", lambda: CallGraph(_callees(model)))


def _callees(model: Model) -> dict[str, list[str]]:
    return {
        scope.name: list(dict.fromkeys(f for node in scope.nodes for f in called_functions(node, model)))
        for scope in model.scopes()
    }


def call_sites(model: Model) -> Mapping[str, Sequence[NodeDef]]:
    """Function -> the nodes that refer to it, once for each reference; kept while the model is unchanged."""
    return model.kept("call sites", lambda: _call_sites(model))


def _call_sites(model: Model) -> dict[str, list[NodeDef]]:
    found: dict[str, list[NodeDef]] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            for name in called_functions(node, model):
                found.setdefault(name, []).append(node)
    return found


def served_nodes(model: Model) -> list[NodeDef]:
    """The nodes of the main graph that the signatures reach, in the model's order."""
    nodes = scope_index(model, MAIN_GRAPH).nodes
    seen: set[str] = set()
    stack = [name for roots in outside.serving_roots(model).values() for name in roots]
    while stack:
        name = stack.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            stack.extend(refs.producer_of(ref) for ref in nodes[name].input)
    return [node for name, node in nodes.items() if name in seen]


def make_callers_stateful(model: Model, stateful: Iterable[str]) -> None:
    """Calls that lead to one of these functions become stateful ops, and their functions stateful.

    A stateless call may be folded or deduplicated by the runtime's graph optimizers; a TPU or batching op must not.
    """
    reaching = set(call_graph(model).callers_of(stateful))
    for scope in model.scopes():
        if scope.name not in reaching:
            continue
        if scope.function is not None:
            scope.function.signature.is_stateful = True
        for node in scope.nodes:
            if node.op in STATEFUL_TWIN and reaching.intersection(called_functions(node, model)):
                node.op = STATEFUL_TWIN[node.op]


def drop_jit_compile(model: Model, functions: Iterable[str]) -> None:
    """`functions`, their callers and the calls between them are no longer compiled by XLA for the CPU.

    It would have to compile the TPU or batching op that they have come to hold, and cannot.
    """
    reaching = set(call_graph(model).callers_of(functions))
    for scope in model.scopes():
        if scope.name not in reaching:
            continue
        if scope.function is not None:
            scope.function.attr.pop(JIT_ATTR, None)
        for node in scope.nodes:
            if JIT_ATTR in node.attr and reaching.intersection(called_functions(node, model)):
                del node.attr[JIT_ATTR]
    outside.not_jit_compiled(model, reaching)
