"""Which arguments of a function are captures: the same variable or constant whoever calls it.

The rest belong to the request. Requests that run as one batch share the captures of one of them, so an argument counts
as a capture only if all that ever reaches it is one and the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from converter.graph import calls, edit, ops
from converter.graph.model import Model, NodeDef, Scope

# Resources without inputs: of one container and name, all of them are the same object.
_RESOURCE_SOURCES = ("VarHandleOp", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2", "LookupTableImport")

# What a value comes from: (world, what). The object graph and the main graph each name the same variable in their own
# way, so a capture may have one origin in each; literals are Consts inside of functions.
Origin = tuple[str, str]
_OBJECT, _MAIN, _LITERAL = "object graph", "main graph", "literal"


@dataclass(frozen=True)
class _CallSite:
    scope: Scope
    node: NodeDef
    first_input: int
    """Input of the node that is the function's argument 0."""


@dataclass
class Captures:
    """Answers for one model; valid until the model's calls change."""

    model: Model
    _call_sites: dict[str, list[_CallSite]] = field(default_factory=dict)
    _other_uses: set[str] = field(default_factory=set)
    _known: dict[tuple[str, int], frozenset[Origin] | None] = field(default_factory=dict)
    _open: set[tuple[str, int]] = field(default_factory=set)
    _awaited: set[tuple[str, int]] = field(default_factory=set)
    """Open arguments that an answer in the making has run into again."""
    _nodes: dict[str, dict[str, NodeDef]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scope in self.model.scopes():
            for node in scope.nodes:
                first, passed = calls.passes_to(node, self.model) or (0, [])
                for name in calls.called_functions(node, self.model):
                    if name in passed:
                        self._call_sites.setdefault(name, []).append(_CallSite(scope, node, first))
                    else:
                        self._other_uses.add(name)

    def argument(self, function: str, index: int) -> bool:
        """Whether argument `index` of a function is a capture."""
        return is_one(self.argument_origins(function, index))

    def tensor(self, scope: Scope, ref: str) -> bool:
        """Whether a tensor of a scope is the same variable or constant in every call of the scope."""
        return is_one(self.tensor_origins(scope, ref))

    def argument_origins(self, function: str, index: int) -> frozenset[Origin] | None:
        """Everything that reaches an argument; None if any of it depends on the request."""
        key = (function, index)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            self._awaited.add(key)
            return frozenset()  # a loop that hands its own argument on adds nothing
        self._open.add(key)
        origins = self._trace_argument(function, index)
        self._open.discard(key)
        self._awaited.discard(key)
        if not self._awaited:
            # Inside of a cycle an answer is incomplete until the cycle's first argument has its own.
            self._known[key] = origins
        return origins

    def tensor_origins(self, scope: Scope, ref: str) -> frozenset[Origin] | None:
        """Everything that a tensor may be; None if it depends on the request."""
        producer = edit.producer_of(ref)
        if scope.function is not None:
            for i, argument in enumerate(scope.function.signature.input_arg):
                if argument.name == producer:
                    return self.argument_origins(scope.name, i)
        if scope.name not in self._nodes:
            self._nodes[scope.name] = {n.name: n for n in scope.nodes}
        node = self._nodes[scope.name].get(producer)
        return None if node is None else self._trace_node(scope, node, ref)

    def _trace_argument(self, function: str, index: int) -> frozenset[Origin] | None:
        if function in self._other_uses:
            return None
        found: set[Origin] = set()
        bound = self.model.captures_of(function).get(index)
        if bound is not None:
            found.add((_OBJECT, str(bound)))
        for scope, ref in self._fed(function, index):
            origins = self.tensor_origins(scope, ref)
            if origins is None:
                return None
            found |= origins
        return frozenset(found)

    def _fed(self, function: str, index: int) -> Iterator[tuple[Scope, str]]:
        for site in self._call_sites.get(function, ()):
            yield site.scope, edit.data_inputs(site.node)[index + site.first_input]
            if site.node.op in ops.LOOPS:
                # What the body returns is what the loop's functions are given next.
                body = self.model.functions[site.node.attr["body"].func.name]
                result = body.signature.output_arg[index].name
                yield Scope.of(body), body.ret[result]

    def _trace_node(self, scope: Scope, node: NodeDef, ref: str) -> frozenset[Origin] | None:
        world = _MAIN if scope.function is None else _LITERAL
        if node.op == "Const":
            return frozenset({(world, _content(node))})
        if node.op in _RESOURCE_SOURCES:
            name = node.attr["shared_name"].s if "shared_name" in node.attr else b""
            container = node.attr["container"].s if "container" in node.attr else b""
            return frozenset({(_MAIN, f"{node.op} {container!r} {name or node.name.encode()!r}")})
        if node.op in ("Identity", "ReadVariableOp"):
            return self.tensor_origins(scope, node.input[0])
        definition = ops.op_def(node.op, self.model)
        inputs = edit.data_inputs(node)
        if definition is None or definition.is_stateful or not inputs or calls.called_functions(node, self.model):
            return None
        parts = [self.tensor_origins(scope, each) for each in inputs]
        return _combined(f"{node.op} {_attributes(node)} {ref.partition(':')[2]}", parts)


def _combined(recipe: str, parts: Sequence[frozenset[Origin] | None]) -> frozenset[Origin] | None:
    """The origins of a pure function of capture-like tensors: in each world one, which its recipe tells from others."""
    if not all(is_one(part) for part in parts):
        return None
    by_world = [dict(part or ()) for part in parts]
    worlds = {world for part in by_world for world in part if world != _LITERAL} or {_LITERAL}
    combined = []
    for world in sorted(worlds):
        if not all(world in part or _LITERAL in part for part in by_world):
            return None
        combined.append((world, f"{recipe} {[part.get(world) or part[_LITERAL] for part in by_world]}"))
    return frozenset(combined)


def is_one(origins: frozenset[Origin] | None) -> bool:
    """Whether all these are one and the same thing, and do not depend on the request."""
    if not origins:
        return False
    worlds = [world for world, _ in origins]
    return len(worlds) == len(set(worlds)) and (_LITERAL not in worlds or len(worlds) == 1)


def _content(const: NodeDef) -> str:
    return repr(const.attr["value"].tensor.SerializeToString(deterministic=True))


def _attributes(node: NodeDef) -> str:
    return repr([(k, node.attr[k].SerializeToString(deterministic=True)) for k in sorted(node.attr) if k[0] != "_"])
