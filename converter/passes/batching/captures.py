"""Which arguments of a function are captures: the same variable or constant whoever calls it.

The rest belong to the request. Requests that run as one batch share the captures of one of them, so an argument counts
as a capture only if all that ever reaches it is one and the same thing.

The scopes are swept, callers first, and again where arguments have changed, until nothing changes. What a tensor may be
only grows, in few steps: nothing yet, one thing in one world, the same in both, the request's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from converter.graph import calls, ops, outside
from converter.graph.model import Model, Scope
from converter.graph.protos import NodeDef
from converter.graph.refs import canonical_ref, data_inputs, split_ref
from converter.graph.scope_index import ScopeIndex

# Resources without inputs: of one container and name, all of them are the same object.
_RESOURCE_SOURCES = ("VarHandleOp", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2", "LookupTableImport")

# What a value comes from: (world, what). The object graph and the main graph each name the same variable in their own
# way, so a capture may have one origin in each; literals are Consts inside of functions. What is of one content, one
# name, or made in one way of the same things, has one number.
Origin = tuple[str, int]
Origins = frozenset[Origin] | None
"""Everything that a tensor may be, empty if nothing reaches it; None if that is not one thing, or the request's."""
_OBJECT, _MAIN, _LITERAL = "object graph", "main graph", "literal"
_NOTHING: frozenset[Origin] = frozenset()


@dataclass(frozen=True)
class _Step:
    """What the sweep knows of a node.

    Attributes:
      inputs: the tensors that it is made of; empty if `made` tells all.
      made: the origins of a node without inputs; None for what depends on the request or on chance.
      recipe: what tells a pure function from others; empty for a node that hands its input on.
    """

    inputs: tuple[str, ...] = ()
    made: Origins = None
    recipe: tuple[Hashable, ...] = ()


@dataclass(frozen=True)
class _Feed:
    """Tensors of a scope that become arguments of these functions."""

    refs: tuple[str, ...]
    functions: tuple[str, ...]


@dataclass
class Captures:
    """Answers for one model; valid until the model's calls change."""

    model: Model
    _feeds: dict[str, list[_Feed]] = field(default_factory=dict)
    _arguments: dict[str, list[Origins]] = field(default_factory=dict)
    _steps: dict[str, dict[str, _Step]] = field(default_factory=dict)
    """Scope -> its nodes, each behind those it takes."""
    _found: dict[str, dict[str, Origins]] = field(default_factory=dict)
    """Scope -> what its arguments and nodes are."""
    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = self._find_feeds()
        fed = {name for feeds in self._feeds.values() for feed in feeds for name in feed.functions}
        for name, function in self.model.functions.items():
            # What Python alone can call is given a request.
            requested = name in unknown or (name in self.model.object_graph.concrete_functions and name not in fed)
            arguments: list[Origins] = [None if requested else _NOTHING] * len(function.signature.input_arg)
            if name not in unknown:
                for i, bound in outside.captures_of(self.model, name).items():
                    arguments[i] = frozenset({(_OBJECT, self._number(_OBJECT, bound))})
            self._arguments[name] = arguments
        # While the sweep lasts, a world that is missing somewhere may be on its way.
        for missing in (_NOTHING, None):
            self._sweep(missing)

    def argument(self, function: str, index: int) -> bool:
        """Whether argument `index` of a function is a capture."""
        return is_one(self.argument_origins(function, index))

    def tensor(self, scope: Scope, ref: str) -> bool:
        """Whether a tensor of a scope is the same variable or constant in every call of the scope."""
        return is_one(self.tensor_origins(scope, ref))

    def argument_origins(self, function: str, index: int) -> Origins:
        """What reaches an argument, whoever calls the function."""
        return self._arguments[function][index]

    def tensor_origins(self, scope: Scope, ref: str) -> Origins:
        """What a tensor is in the calls of its scope."""
        if scope.name not in self._found:
            self._evaluate(scope, None)
        return self._tensor(scope, ref)

    def _find_feeds(self) -> set[str]:
        """Notes what each scope hands to functions; returns those that are called in a way that is not known."""
        unknown: set[str] = set()
        for scope in self.model.scopes():
            for node in scope.nodes:
                first, passed = calls.passes_to(node, self.model) or (0, [])
                called = calls.called_functions(node, self.model)
                unknown.update(name for name in called if name not in passed)
                fed = tuple(name for name in called if name in passed)
                if not fed:
                    continue
                self._feeds.setdefault(scope.name, []).append(_Feed(tuple(data_inputs(node)[first:]), fed))
                if node.op in ops.LOOPS:
                    # What the body returns is what the loop's functions are given next.
                    body = self.model.functions[node.attr["body"].func.name]
                    results = tuple(body.ret[r.name] for r in body.signature.output_arg)
                    self._feeds.setdefault(body.signature.name, []).append(_Feed(results, fed))
        return unknown

    def _sweep(self, missing: Origins) -> None:
        """Follows what the scopes hand on until nothing changes."""
        scopes = {scope.name: scope for scope in self.model.scopes()}
        order = calls.call_graph(self.model).reachable(scopes)
        pending = OrderedDict.fromkeys(name for name in order if name in self._feeds)
        while pending:
            name, _ = pending.popitem(last=False)
            self._evaluate(scopes[name], missing)
            for feed in self._feeds[name]:
                given = [self._tensor(scopes[name], ref) for ref in feed.refs]
                for function in feed.functions:
                    if self._give(function, given) and function in self._feeds:
                        pending[function] = None

    def _give(self, function: str, given: Sequence[Origins]) -> bool:
        """Joins what a call gives to what others gave; says whether that is more. Only a TPU's ordinal is too many."""
        arguments = self._arguments[function]
        joined = [join(known, more) for known, more in zip(arguments, given, strict=False)]
        changed = joined != arguments[: len(joined)]
        arguments[: len(joined)] = joined
        return changed

    def _evaluate(self, scope: Scope, missing: Origins) -> None:
        """Finds what the nodes of a scope are, given its arguments; a pure function of parts in different worlds is
        `missing`."""
        if scope.name not in self._steps:
            self._steps[scope.name] = {node.name: self._step(scope, node) for node in ScopeIndex(scope).in_order()[0]}
        found = self._found[scope.name] = {}
        if scope.function is not None:
            names = (argument.name for argument in scope.function.signature.input_arg)
            found.update(zip(names, self._arguments[scope.name], strict=True))
        for name, step in self._steps[scope.name].items():
            if not step.inputs:
                found[name] = step.made
                continue
            parts = [self._tensor(scope, ref) for ref in step.inputs]
            found[name] = self._combined(step.recipe, parts, missing) if step.recipe else parts[0]

    def _tensor(self, scope: Scope, ref: str) -> Origins:
        name, output = split_ref(canonical_ref(ref, scope))
        # What is in a ring of nodes, as TensorFlow 1 makes loops, is not found.
        origins = self._found[scope.name].get(name)
        step = self._steps[scope.name].get(name)
        if not origins or step is None or not step.recipe:
            return origins
        return frozenset((world, self._number(what, output)) for world, what in origins)

    def _step(self, scope: Scope, node: NodeDef) -> _Step:
        if node.op == "Const":
            world = _MAIN if scope.function is None else _LITERAL
            return _Step(made=frozenset({(world, self._number("Const", _content(node)))}))
        if node.op in _RESOURCE_SOURCES:
            name = node.attr["shared_name"].s if "shared_name" in node.attr else b""
            container = node.attr["container"].s if "container" in node.attr else b""
            return _Step(made=frozenset({(_MAIN, self._number(node.op, container, name or node.name.encode()))}))
        inputs = tuple(data_inputs(node))
        if node.op in ("Identity", "ReadVariableOp"):
            return _Step(inputs[:1])
        definition = ops.op_def(node.op, self.model)
        if definition is None or definition.is_stateful or calls.called_functions(node, self.model):
            return _Step()
        return _Step(inputs, recipe=(node.op, _attributes(node)))

    def _combined(self, recipe: Hashable, parts: Sequence[Origins], missing: Origins) -> Origins:
        """The origins of a pure function: in each world one, which recipe and parts tell from others."""
        known = [dict(part) for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        if not all(known):
            return _NOTHING
        worlds = {world for part in known for world in part if world != _LITERAL} or {_LITERAL}
        everywhere = {world for world in worlds if all(world in part or _LITERAL in part for part in known)}
        if everywhere != worlds and missing is None:
            return None
        return frozenset(
            (world, self._number(recipe, *(part[world if world in part else _LITERAL] for part in known)))
            for world in everywhere
        )

    def _number(self, *what: Hashable) -> int:
        return self._numbers.setdefault(what, len(self._numbers))


def join(one: Origins, other: Origins) -> Origins:
    """What a tensor is that may be either."""
    if one is None or other is None:
        return None
    both = one | other
    return both if is_one(both) else None if both else _NOTHING


def is_one(origins: Origins) -> bool:
    """Whether all these are one and the same thing, and do not depend on the request."""
    if not origins:
        return False
    worlds = [world for world, _ in origins]
    return len(worlds) == len(set(worlds)) and (_LITERAL not in worlds or len(worlds) == 1)


def _content(const: NodeDef) -> bytes:
    return hashlib.sha256(const.attr["value"].tensor.SerializeToString(deterministic=True)).digest()


def _attributes(node: NodeDef) -> Hashable:
    return tuple((k, node.attr[k].SerializeToString(deterministic=True)) for k in sorted(node.attr) if k[0] != "_")
