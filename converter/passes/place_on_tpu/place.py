"""Puts functions on the TPU."""

from __future__ import annotations

from dataclasses import dataclass

from converter.analysis import compatibility, tpu
from converter.analysis.resolve import ResolvedFunction, resolve_all, same_signatures
from converter.errors import ConversionError
from converter.graph import calls
from converter.graph.functions import outline
from converter.graph.model import Model
from converter.options.slices import FunctionRef, XlaShardingOptions
from converter.passes.pass_result import Pass, PassResult, Skip
from converter.passes.place_on_tpu.cluster import build_call_site, build_cluster
from converter.passes.place_on_tpu.sharding import check_sharding


@dataclass(frozen=True)
class SameSignature:
    """A signature that nobody named and that is the same function as one that the options name."""

    function: ResolvedFunction
    named: str


@dataclass(frozen=True)
class PlacementDetails:
    """The signatures that go to the TPU unnamed."""

    same: tuple[SameSignature, ...]

    def lines(self) -> list[str]:
        return [
            f"Also on the TPU: signature {other}, which is the same function as {named}"
            for other, named in self._by_signature().items()
        ]

    def to_json(self) -> dict[str, object]:
        return {"same_signatures": self._by_signature()} if self.same else {}

    def _by_signature(self) -> dict[str, str]:
        return {s.function.given: s.named for s in self.same}


@dataclass(frozen=True)
class PlacementPlan:
    """The functions that go on the TPU, none of which is there, and those that are left as they are."""

    placed: tuple[ResolvedFunction, ...]
    details: PlacementDetails
    skips: tuple[Skip, ...]
    warnings: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.placed


@dataclass(frozen=True)
class PlaceOnTpu(Pass[PlacementPlan]):
    """Makes every named function F a stub that runs its old body on the TPU.

    before:  F(x, v) { body }
    after:   F(x, v)         { selector = TPUOrdinalSelector()
                               TPUPartitionedCall[f=F_on_tpu](x, v, selector) }
             F_on_tpu(x, v)  { x -> TPUReplicatedInput -> Identity -> call[f=F_body] -> Identity
                               -> TPUReplicatedOutput -> Identity; v -> call; all in one cluster }
             F_body(x, v)    { body }

    1. F keeps its name, arguments and callers; two OUTLINEs make F_body and F_on_tpu.
    2. Tensor arguments enter the cluster through TPUReplicatedInput; resources go straight to the call, since the
       runtime mirrors only those in HBM.
    3. A TPU function that another one calls directly is called there by its body, which is already on the TPU.
    4. F, its calls and its callers are no longer jit_compile'd: XLA for the CPU cannot compile a TPU call.
    5. Calls on the way to F become stateful ops.
    6. With a signature go all signatures that are the same function, as `serve` and `serving_default` of a Keras 3
       export are: on the CPU they would read the same variables, and so keep these from becoming bfloat16.
    """

    functions: tuple[FunctionRef, ...]
    sharding: XlaShardingOptions | None = None
    allow_incompatible: bool = False

    name = "place_on_tpu"

    def __post_init__(self) -> None:
        if self.sharding is not None:
            check_sharding(self.sharding)

    def plan(self, model: Model) -> PlacementPlan:
        named = resolve_all(model, self.functions, "tpu_functions")
        same = _same_signatures(model, named)
        wanted = {f.function: f for f in named}
        for each in same:
            wanted.setdefault(each.function.function, each.function)
        done = [name for name in wanted if tpu.is_tpu_stub(model, name)]
        placed = tuple(f for name, f in wanted.items() if name not in done)
        return PlacementPlan(
            placed=placed,
            details=PlacementDetails(same),
            skips=tuple(Skip(name, "is on the TPU already") for name in done),
            warnings=tuple(self._check(model, placed)),
        )

    def carry_out(self, model: Model, plan: PlacementPlan) -> PassResult:
        result = PassResult(skips=list(plan.skips), warnings=list(plan.warnings), details=plan.details)
        bodies = {resolved.function: self._place(model, resolved, result) for resolved in plan.placed}
        for body in bodies.values():
            for node in model.functions[body].node_def:
                calls.rename_callees(node, bodies)
        if bodies:
            calls.drop_jit_compile(model, bodies)
            calls.make_callers_stateful(model, bodies)
        return result

    def _check(self, model: Model, placed: tuple[ResolvedFunction, ...]) -> list[str]:
        """Refuses what the TPU cannot run; returns warnings of what it may not."""
        graph = calls.call_graph(model)
        names = [p.function for p in placed]
        _refuse_indirect_calls(graph, names)
        warnings: list[str] = []
        existing = {c.scope.name for c in tpu.tpu_computations(model)}
        for resolved in placed:
            function = model.functions[resolved.function]
            reached = graph.reachable([resolved.function])
            inner = next((name for name in reached if name in existing), None)
            if inner is not None:
                raise ConversionError(
                    f'{resolved} cannot be put on the TPU: it reaches "{inner}", which '
                    "calls the TPU already, and a TPU function cannot call the TPU. Name functions that do not "
                    "contain TPU computation."
                )
            if not function.signature.output_arg:
                raise ConversionError(
                    f"{resolved} cannot be put on the TPU: it has no results. Found 0 "
                    "output tensors, expected at least 1; let the function return what it computes."
                )
            warnings += self._problems(model, resolved)
        return warnings

    def _problems(self, model: Model, resolved: ResolvedFunction) -> list[str]:
        """What the TPU refuses of one function, as warnings where the user permits it."""
        warnings = []
        problems = compatibility.boundary_problems(model, model.functions[resolved.function])
        if problems:
            message = (
                f"{resolved} cannot be put on the TPU: {'; '.join(problems)}. The TPU "
                "takes no strings, variants or tables: keep the part of the model that needs them on the CPU, in the "
                "caller, and let the TPU function take and return plain numeric tensors"
            )
            if not self.allow_incompatible:
                raise ConversionError(f"{message}. (--allow_incompatible converts all the same.)")
            warnings.append(f"{message}.")
        missing = compatibility.ops_without_tpu_kernel(model, resolved.function)
        if missing:
            warnings.append(
                f"{resolved} holds ops that have no TPU kernel: {', '.join(missing)}. "
                "Unless they are optimized away, the TPU will refuse the function when it is first served; move them "
                "to the CPU."
            )
        return warnings

    def _place(self, model: Model, resolved: ResolvedFunction, result: PassResult) -> str:
        """Rules 1 and 2 for one function; returns the name of its body."""
        body, _ = outline(model, resolved.function, "body")
        on_tpu, call = outline(model, resolved.function, "on_tpu")
        on_tpu.attr.pop(calls.JIT_ATTR, None)
        build_cluster(on_tpu, self.sharding)
        build_call_site(model.functions[resolved.function], call, resolved.given, self.sharding)
        result.changed(resolved.function, f"runs on the TPU as {on_tpu.signature.name}")
        return str(body.signature.name)


def _same_signatures(model: Model, named: list[ResolvedFunction]) -> tuple[SameSignature, ...]:
    """Rule 6."""
    known = {resolved.function for resolved in named}
    return tuple(
        SameSignature(other, resolved.given)
        for resolved in named
        for other in same_signatures(model, resolved)
        if other.function not in known and not tpu.is_tpu_stub(model, resolved.function)
    )


def _refuse_indirect_calls(graph: calls.CallGraph, placed: list[str]) -> None:
    for caller in placed:
        helpers = [f for f in graph.callees[caller] if f not in placed]
        indirect = set(graph.reachable(helpers))
        for callee in placed:
            if callee in indirect:
                raise ConversionError(
                    f'Unable to place both "{caller}" and "{callee}" on the TPU because "{caller}" indirectly calls '
                    f'"{callee}". This behavior is unsupported because it can cause invalid graphs to be generated.'
                )
