"""TPU calls that no component leads to: how each is batched by default, or why it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from converter.analysis import tpu
from converter.graph import calls, outside
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import NodeDef
from converter.graph.refs import control_inputs, data_inputs, producer_of
from converter.graph.scope_index import scope_index
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.captures import Origin, is_one
from converter.passes.batching.op import obstacle
from converter.passes.batching.survey import Survey, batched_function, only_calls
from converter.passes.batching.targets import Place, Site, Target
from converter.passes.pass_result import Skip


@dataclass(frozen=True)
class _Batches:
    """What is batched before TPU calls are looked at.

    Attributes:
      inside: function that a batch runs -> name of that batch.
      unbatched: scopes to which a way leads that is not through a batch: from the signatures or, to those that no
        signature needs, from what can be called from Python.
    """

    inside: Mapping[str, str]
    unbatched: frozenset[str]

    @classmethod
    def of(cls, survey: Survey, components: Iterable[Target]) -> _Batches:
        model = survey.model
        planned = {t.function: t.name for t in components}
        batches = [*planned.items(), *((batched_function(node), scope.name) for scope, node in survey.batching)]
        inside = {name: batch for root, batch in batches for name in survey.reached([root])}
        direct: dict[str, list[str]] = {}
        for scope in model.scopes():
            nodes = (n for n in scope.nodes if n.op != tpu.BATCH_CALL)
            callees = dict.fromkeys(f for n in nodes for f in calls.called_functions(n, model))
            direct[scope.name] = [f for f in callees if f not in planned]
        signatures = [outside.signature_function(model, key) for key in model.signatures]
        roots = [MAIN_GRAPH, *(s for s in signatures if s is not None)]
        served = set(survey.reached(roots))
        ways = calls.CallGraph(direct)
        from_signatures = ways.reachable([r for r in roots if r not in planned])
        from_python = ways.reachable([r for r in model.object_graph.concrete_functions if r not in planned])
        return cls(inside, frozenset(served.intersection(from_signatures).union(set(from_python) - served)))


def tpu_targets(
    survey: Survey, default: BatchOptions | None, components: Sequence[Target]
) -> tuple[list[Target], list[Skip]]:
    """What becomes of the TPU calls of the model, beside these components: nothing, where a batch runs them already."""
    targets: list[Target] = []
    skips: list[Skip] = []
    batches = _Batches.of(survey, components)
    sites = Counter(c.function.signature.name for c in survey.computations)
    queues = _Queues()
    for computation in survey.computations:
        name = tpu.display_name(survey.model, computation)
        batch = batches.inside.get(computation.scope.name)
        if batch is not None and computation.scope.name not in batches.unbatched:
            continue
        found: Target | str
        if batch is not None:
            found = (
                f'is called both inside of the batch of "{batch}" and outside of it; a batching op here would batch '
                "twice, so the calls outside are not batched"
            )
        elif default is None:
            found = (
                "is not batched: batch_options name other components, which replaces the default of batching every "
                "TPU function, and none of them calls it"
            )
        else:
            attributes = Attributes().with_options(default)
            whole = sites[computation.function.signature.name] == 1 and _is_stub(computation.scope)
            found = (
                _stub(survey, name, computation.scope.name, attributes)
                if whole
                else _call_in_place(survey, name, computation, attributes, queues)
            )
        if isinstance(found, Target):
            targets.append(found)
        else:
            skips.append(Skip(name, found))
    return targets, skips


def _is_stub(scope: Scope) -> bool:
    """Whether it is a function that does nothing but call the TPU."""
    return scope.function is not None and only_calls(scope, tpu.TPU_CALL)


def _stub(survey: Survey, name: str, function: str, attributes: Attributes) -> Target | str:
    """A function that does nothing but call the TPU, batched as a whole; or the reason why it is not."""
    inputs = survey.request_inputs(function)
    problem = obstacle(survey.model.functions[function], inputs)
    return f"is not batched: {problem}" if problem else Target(name, "TPU function", function, inputs, attributes)


# --- calls in place ---------------------------------------------------------------------------------------------


@dataclass
class _Queues:
    """The queues of calls in place: what tells each from others, and all that its captures are known to be."""

    known: list[tuple[tuple[object, ...], list[frozenset[Origin]]]] = field(default_factory=list)

    def number(self, key: tuple[object, ...], captured: list[frozenset[Origin]]) -> int:
        """The queue of a call: calls of one key share it if they capture the same."""
        for number, (other, found) in enumerate(self.known):
            pairs = list(zip(captured, found, strict=False))
            if key == other and all(a & b and is_one(a | b) for a, b in pairs):
                self.known[number] = (key, [a | b for a, b in pairs])
                return number
        self.known.append((key, captured))
        return len(self.known) - 1


def _call_in_place(
    survey: Survey, name: str, computation: tpu.TpuComputation, attributes: Attributes, queues: _Queues
) -> Target | str:
    """A TPU call among other nodes, or one of several of its function; or the reason why it is not batched."""
    scope, call, function = computation.scope, computation.call, computation.function
    given = data_inputs(call)[:-1]
    inputs = tuple(i for i, ref in enumerate(given) if not survey.captures.tensor(scope, ref))
    captured = [survey.captures.tensor_origins(scope, ref) for i, ref in enumerate(given) if i not in inputs]
    ordinal = _ordinal_producer(survey.model, scope, call)
    key = (function.signature.name, inputs, ordinal and _content(ordinal))
    group = queues.number(key, [origins or frozenset() for origins in captured])
    if any(n.name.startswith(tpu.reshape_prefixes(call)) for n in scope.nodes):
        problem = (
            "an earlier conversion reshaped what crosses at its call, which has no batch dimension since; give "
            "batch_options when converting the original model, or with io_shape_optimization: DISABLED"
        )
    elif ordinal is None:
        problem = "the TPU core that it runs on is computed for each call, so its calls cannot be merged"
    else:
        problem = obstacle(function, inputs)
    if problem or ordinal is None:
        return f"is not batched: {problem}"
    site = Site(Place(scope.name, str(call.name)), Place(scope.name, str(ordinal.name)), group)
    return Target(name, "TPU call", str(function.signature.name), inputs, attributes, site)


def _ordinal_producer(model: Model, scope: Scope, call: NodeDef) -> NodeDef | None:
    """The node that gives a TPU call its core, if it is one that may be copied next to the call."""
    node = scope_index(model, scope.name).producer(data_inputs(call)[-1])
    return node if node is not None and node.op in ("TPUOrdinalSelector", "Const") else None


def _content(node: NodeDef) -> bytes:
    """Equal for nodes that make the same core, whatever they are called and wait for."""
    nameless = type(node)()
    nameless.CopyFrom(node)
    nameless.name = ""
    del nameless.input[:]
    return bytes(nameless.SerializeToString(deterministic=True))


def unused_ordinals(model: Model, targets: Iterable[Target]) -> tuple[Place, ...]:
    """Nodes that nothing needs once these calls no longer take their core from them."""
    sites = [t.site for t in targets if t.site is not None]
    calls_in_place = {site.call for site in sites}
    ordinals = dict.fromkeys(site.ordinal for site in sites)
    named = outside.names(model)
    scopes = [model.scope(name) for name in dict.fromkeys(o.scope for o in ordinals)]
    needed = {scope.name: _needed(scope, calls_in_place, named) for scope in scopes}
    return tuple(o for o in ordinals if o.node not in needed[o.scope])


def _needed(scope: Scope, in_place: Collection[Place], named: Iterable[tuple[str, str]]) -> set[str]:
    """Names of the nodes that others in the scope take or wait for, cores of calls in place left out, or that are
    `named` from outside."""
    refs: list[str] = []
    for node in scope.nodes:
        data = data_inputs(node)
        refs += control_inputs(node)
        refs += data[:-1] if Place(scope.name, node.name) in in_place else data
    if scope.function is not None:
        refs += [*scope.function.ret.values(), *scope.function.control_ret.values()]
    refs += [name for named_in, name in named if named_in == scope.name]
    return {producer_of(ref) for ref in refs}


# --- report -----------------------------------------------------------------------------------------------------


def batched_within(model: Model, functions: Iterable[str]) -> tuple[str, ...]:
    """Names of the TPU functions that run in these functions or in what they call."""
    inside = set(calls.call_graph(model).reachable(functions))
    found = (tpu.display_name(model, c) for c in tpu.tpu_computations(model) if c.scope.name in inside)
    return tuple(dict.fromkeys(found))
