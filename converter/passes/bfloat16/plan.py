"""Decides what becomes bfloat16, and which edits make it so."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from converter.analysis.variables.index import Variable, VariableIndex
from converter.graph.model import Model
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.copies import Copies, find_copies
from converter.passes.bfloat16.decisions import Retyping
from converter.passes.bfloat16.details import BFloat16Details, Converted, Kept
from converter.passes.bfloat16.edits import Draft, Edits
from converter.passes.bfloat16.filter import OpFilter
from converter.passes.bfloat16.places import NodeKey
from converter.passes.bfloat16.region import Region, find_region, is_entry, refuse_existing_bfloat16
from converter.passes.bfloat16.rewrite import Rewritten, plan_rewrite
from converter.passes.bfloat16.storage import plan_storage
from converter.passes.bfloat16.type_graph import TypeGraph
from converter.passes.bfloat16.variables import VariableChoice, find_candidates, reads, warnings_of_cpu_readers
from converter.passes.pass_result import Change, Details, NoDetails, Skip


@dataclass(frozen=True)
class BFloat16Plan:
    """First the copies are made, then the edits, which call them by name, and then the marks.

    Attributes:
      converted: functions that compute in bfloat16.
      entries: calls that lead to these, to be marked.
    """

    copies: Copies = field(default_factory=Copies)
    edits: Edits = field(default_factory=Edits)
    converted: tuple[str, ...] = ()
    entries: tuple[NodeKey, ...] = ()
    changes: tuple[Change, ...] = ()
    skips: tuple[Skip, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Details = field(default_factory=NoDetails)

    @property
    def is_empty(self) -> bool:
        return not self.changes


def make_plan(
    model: Model, scope: ConversionScope, skip_safety_checks: bool, filterlist: Sequence[str]
) -> BFloat16Plan:
    """What the pass does to this model; the arguments are its options.

    Raises:
      OptionsError: the filterlist names no op type.
      ConversionError: the model is bfloat16 in part already.
    """
    op_filter = OpFilter(model, filterlist)
    region = find_region(model, scope)
    if not region.scopes:
        reason = "nothing in it is left to convert" if region.done else _nothing_to_do(scope)
        return BFloat16Plan(skips=(*region.done, Skip("model", reason)))
    if not skip_safety_checks:
        refuse_existing_bfloat16(model, region)
    copies, region = find_copies(model, region)
    preview = copies.preview(model)
    with preview.unchanged():
        return _plan(preview, scope, region, copies, op_filter)


def _plan(model: Model, scope: ConversionScope, region: Region, copies: Copies, op_filter: OpFilter) -> BFloat16Plan:
    """The plan of what `model` is with the copies in it."""
    index = VariableIndex(model)
    types = TypeGraph(model, region.scopes, region.observed(model), op_filter, is_entry, region.fixed)
    choice = find_candidates(index.variables, op_filter, types)
    retyping = Retyping(types, set(reads(choice.candidates)))
    choice.restrict(retyping)
    draft = Draft()
    stored = plan_storage(model, choice.candidates, list(region.scopes), index, draft)
    retyping.settle_variables(set(reads(stored)))
    rewritten = plan_rewrite(model, types, retyping, draft)
    return BFloat16Plan(
        copies=copies,
        edits=draft.edits(),
        converted=tuple(region.scopes),
        entries=(*region.tpu_entries, *region.cpu_entries),
        changes=(*copies.changes(), *_changes(stored, rewritten, region.scopes)),
        skips=(*region.done, *_skips(choice, rewritten)),
        warnings=(*op_filter.warnings, *warnings_of_cpu_readers(model, index.variables, types, scope)),
        details=_details(index.variables, choice, stored, rewritten),
    )


def _nothing_to_do(scope: ConversionScope) -> str:
    if scope is ConversionScope.TPU:
        return "nothing in it runs on the TPU; bfloat16_optimization_options { scope: ALL } converts CPU code as well"
    return "no signature calls a function"


def _changes(stored: Sequence[Variable], rewritten: Rewritten, converted: Container[str]) -> list[Change]:
    return [
        *(Change(variable.name, "variable stored as bfloat16") for variable in stored),
        *(Change(s, "computes in bfloat16" if s in converted else "casts at the TPU call") for s in rewritten.scopes),
    ]


def _skips(choice: VariableChoice, rewritten: Rewritten) -> list[Skip]:
    skips = [Skip(name, f"stays float32: it {reason}") for name, reason in choice.reportable.items()]
    for kept in _kept(rewritten):
        what = "stays float32" if kept.count == 1 else f"{kept.count} of them stay float32"
        skips.append(Skip(kept.op, f"{what}: {kept.reason}"))
    return skips


def _kept(rewritten: Rewritten) -> list[Kept]:
    return [Kept(op, reason, n) for op, kept in sorted(rewritten.kept.items()) for reason, n in sorted(kept.items())]


def _details(
    variables: Sequence[Variable], choice: VariableChoice, stored: Sequence[Variable], rewritten: Rewritten
) -> BFloat16Details:
    names = {v.name for v in stored}
    saved = [v for v in variables if v.checkpoint_key is not None]
    before = sum(v.size_bytes for v in saved)
    return BFloat16Details(
        converted_ops=tuple(Converted(op, count) for op, count in sorted(rewritten.converted.items())),
        kept_ops=tuple(_kept(rewritten)),
        casts=rewritten.casts,
        variable_bytes_before=before,
        variable_bytes_after=before - sum(v.size_bytes // 2 for v in saved if v.name in names),
        variables_bfloat16=len(stored),
        variables_float32=tuple(choice.reportable),
    )
