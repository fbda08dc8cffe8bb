"""Decides what is batched: which functions, signatures and TPU calls, with which options, and what is left and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.errors import ConversionError
from converter.graph.model import MAIN_GRAPH, Model
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.checks import Findings, check_components
from converter.passes.batching.component import target_component, update_component
from converter.passes.batching.details import BatchDetails
from converter.passes.batching.existing import check_kept_sizes, other_batching_ops
from converter.passes.batching.named import named_components
from converter.passes.batching.survey import Survey
from converter.passes.batching.targets import Place, Target, Update
from converter.passes.batching.tpu_calls import tpu_targets, unused_ordinals
from converter.passes.pass_result import Skip


@dataclass(frozen=True)
class Selection:
    """What options ask for in a model, and what they leave alone."""

    targets: tuple[Target, ...]
    updates: tuple[Update, ...]
    skips: tuple[Skip, ...]


@dataclass(frozen=True)
class BatchPlan:
    """Everything that one run of the pass does, and what it leaves alone.

    Attributes:
      unused: nodes that only the TPU calls in place needed.
      details: all but the rows of what is batched, which name functions that do not exist yet.
    """

    targets: tuple[Target, ...]
    updates: tuple[Update, ...]
    unused: tuple[Place, ...]
    skips: tuple[Skip, ...]
    warnings: tuple[str, ...]
    details: BatchDetails

    @property
    def is_empty(self) -> bool:
        return not self.targets and all(update.before == update.after for update in self.updates)

    @property
    def stateful(self) -> tuple[str, ...]:
        """Functions that come to hold a batching op, so that calls on the way to them must be stateful."""
        return tuple(target.scope for target in self.targets if target.scope != MAIN_GRAPH)


def make_plan(model: Model, options: Sequence[BatchOptions], allow_violations: bool = False) -> BatchPlan:
    """What the pass does to this model.

    Raises:
      ConversionError: as `select`; or what is selected breaks a rule of the batching op, or mixes the rows of a batch.
    """
    selected = select(model, options)
    findings = _check(model, selected, allow_violations)
    unclear = tuple(Skip(name, why) for name, why in findings.unclear.items())
    settled = [u for u in selected.updates if u.before == u.after]
    return BatchPlan(
        targets=selected.targets,
        updates=selected.updates,
        unused=unused_ordinals(model, selected.targets),
        skips=(
            *selected.skips,
            *(Skip(s.where, f"cannot tell whether rows of a batch influence each other: {s.reason}") for s in unclear),
            *(Skip(u.name, f'its batching op "{u.place.node}" has these options already') for u in settled),
        ),
        warnings=(*findings.certain, *findings.possible, *_scheduler_warnings(selected)),
        details=BatchDetails(not_batched=selected.skips, rows_unclear=unclear),
    )


def select(model: Model, options: Sequence[BatchOptions]) -> Selection:
    """What `options` ask for in this model, before any rule is looked at.

    Raises:
      ConversionError: a component does not exist, is named twice, cannot be batched, runs on the TPU, or would be
        batched inside of another batch.
    """
    survey = Survey.of(model)
    default = {each.component: each for each in options}.get(None)
    components, named = named_components(survey, options)
    others, kept = other_batching_ops(survey, default, named)
    on_tpu, left = tpu_targets(survey, default, components)
    return Selection((*components, *on_tpu), (*named, *others), (*kept, *left))


def _check(model: Model, selected: Selection, allow_violations: bool) -> Findings:
    components = [(t.name, target_component(model, t)) for t in selected.targets]
    for update in selected.updates:
        check_kept_sizes(update)
        components.append((update.name, update_component(model, update)))
    findings = check_components(model, components)
    if findings.certain and not allow_violations:
        raise ConversionError(f"{' '.join(findings.certain)} (--allow_batching_violations converts all the same.)")
    return findings


def _scheduler_warnings(selected: Selection) -> list[str]:
    decided: list[tuple[str, Attributes]] = [(t.name, t.attributes) for t in selected.targets]
    decided += [(u.name, u.after) for u in selected.updates]
    return [
        f'Batching "{name}": disable_large_batch_splitting has no effect with num_batch_threads: 0, because the '
        "runtime's adaptive scheduler always splits. Set num_batch_threads."
        for name, attributes in decided
        if not attributes.enable_large_batch_splitting and attributes.num_batch_threads <= 0
    ]
