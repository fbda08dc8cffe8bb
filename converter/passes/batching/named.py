"""The functions and signatures that options name: what of them is batched, and what is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from converter.analysis import resolve, tpu
from converter.errors import ConversionError
from converter.options.slices import BatchOptions, FunctionKind
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.existing import update_of
from converter.passes.batching.op import obstacle
from converter.passes.batching.survey import Survey, batched_function, only_calls
from converter.passes.batching.targets import Target, Update


def named_components(survey: Survey, options: Sequence[BatchOptions]) -> tuple[list[Target], list[Update]]:
    """What becomes of the components that the entries name, in their order.

    Raises:
      ConversionError: a component does not exist, is named twice, cannot be batched, runs on the TPU, or would be
        batched inside of another batch.
    """
    targets: list[Target] = []
    updates: list[Update] = []
    entries = {each.component: each for each in options}
    references = tuple(each.component for each in options if each.component is not None)
    on_tpu = set(survey.reached(c.function.signature.name for c in survey.computations))
    for resolved in resolve.resolve_all(survey.model, references, "batch_options"):
        entry = entries[resolved.reference]
        existing = _existing(survey, resolved, entry, on_tpu)
        updates += existing
        if not existing:
            targets.append(_target(survey, resolved, entry))
    _refuse_nested(survey, targets, updates)
    return targets, updates


def _existing(
    survey: Survey, resolved: resolve.ResolvedFunction, options: BatchOptions, on_tpu: Collection[str]
) -> list[Update]:
    """Of a function that does nothing but call a batching op, that op."""
    name, function = resolved.given, resolved.function
    if function in on_tpu:
        raise ConversionError(
            f'"{name}" ({function}) cannot be batched: it is called on the TPU, and the batching op can only run '
            "on the CPU. Name a function that is called on the CPU: the TPU function itself, or one that calls it."
        )
    scope = survey.model.scope(function)
    if not only_calls(scope, tpu.BATCH_CALL):
        return []
    return [update_of(name, scope, node, options) for node in scope.nodes if node.op == tpu.BATCH_CALL]


def _target(survey: Survey, resolved: resolve.ResolvedFunction, options: BatchOptions) -> Target:
    name, function = resolved.given, resolved.function
    inputs = survey.request_inputs(function)
    problem = obstacle(survey.model.functions[function], inputs)
    if problem:
        raise ConversionError(f'"{name}" ({function}) cannot be batched: {problem}')
    what = "signature" if resolved.reference.kind is FunctionKind.SIGNATURE_NAME else "function"
    return Target(name, what, function, inputs, Attributes().with_options(options))


def _refuse_nested(survey: Survey, targets: Sequence[Target], updates: Sequence[Update]) -> None:
    updated = {u.place.scope: u.name for u in updates}
    components = {**{t.function: t.name for t in targets}, **updated}
    for function, name in components.items():
        this = f'"{name}" ({function})'
        inside = survey.reached(survey.graph.callees[function])
        for other, other_name in components.items():
            if other in inside and other != function:
                raise _nested(this, f'"{other_name}" ({other})')
        for scope, node in survey.batching:
            existing = f'the batching op "{node.name}" in {scope.name}'
            if scope.name in inside or (scope.name == function and function not in updated):
                raise _nested(this, existing)
            if function in survey.reached([batched_function(node)]):
                raise _nested(existing, this)


def _nested(outer: str, inner: str) -> ConversionError:
    return ConversionError(
        f"Batching both {outer} and {inner} would batch twice: the first calls the second, found one batch inside of "
        "another, expected one on each way from a signature to the TPU. Keep one of the two in batch_options; if the "
        "model was batched before, convert the original model instead."
    )
