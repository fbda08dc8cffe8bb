"""Computes in bfloat16 what was float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.analysis.variables.index import Variable, VariableIndex
from converter.graph.model import Model
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.decisions import Retyping
from converter.passes.bfloat16.filter import OpFilter, warnings_for_absent
from converter.passes.bfloat16.region import (
    DONE_ATTR,
    Region,
    copy_shared,
    find_region,
    is_entry,
    refuse_existing_bfloat16,
)
from converter.passes.bfloat16.rewrite import Rewritten, rewrite
from converter.passes.bfloat16.storage import store_as_bfloat16
from converter.passes.bfloat16.type_graph import TypeGraph
from converter.passes.bfloat16.variables import VariableChoice, find_candidates, reads, warnings_of_cpu_readers
from converter.passes.pass_result import PassResult, RawDetails

_GRADIENT_ATTR = "_gradient_op_type"


@dataclass(frozen=True)
class BFloat16:
    """Makes the TPU, or with scope ALL the whole model, compute in bfloat16; signatures stay float32.

    before:  F(x: float32, v: float32)          { TPUPartitionedCall[f=F_on_tpu](x, v) }
             F_body(x: float32, v: float32)     { MatMul[float32](x, ReadVariableOp[float32](v)) }
    after:   F(x: float32, v: bfloat16)         { x16 = Cast[float32 to bfloat16](x)
                                                  Cast[bfloat16 to float32](TPUPartitionedCall[f=F_on_tpu](x16, v)) }
             F_body(x: bfloat16, v: bfloat16)   { MatMul[bfloat16](x, ReadVariableOp[bfloat16](v)) }

    1. Converted are all functions that TPU calls reach; with scope ALL, all functions that signatures reach. Of a
       function that other code reaches too, the TPU code gets a copy, since kernels differ; with scope ALL both are
       converted.
    2. Every type attribute in them that is float32 becomes bfloat16, with the exceptions and in the order that `retype`
       documents. Ops that stay float32: `bfloat16_filter`.
    3. Variables that only bfloat16 computation reads, of all that the signatures reach, are stored as bfloat16.
    4. Casts stand where the two ends of an edge differ: on the host around each TPU call, inside next to what stays
       float32.
    5. bfloat16 that is there already is an error, unless a run of this pass put it there: the calls that lead to
       converted code are marked and left alone.
    """

    scope: ConversionScope = ConversionScope.TPU
    skip_safety_checks: bool = False
    filterlist: tuple[str, ...] = ()

    name = "bfloat16"

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        op_filter = OpFilter(model, self.filterlist)
        region = find_region(model, self.scope, result)
        if not region.scopes:
            result.skipped("model", "nothing in it is left to convert" if result.skips else _nothing_to_do(self.scope))
            return result
        if not self.skip_safety_checks:
            refuse_existing_bfloat16(model, region)
        result.warnings += warnings_for_absent(model, self.filterlist)
        region = copy_shared(model, region, result)
        index = VariableIndex(model)
        variables = index.variables
        types = TypeGraph(model, region.scopes, region.observed, op_filter, is_entry, region.fixed)
        choice = find_candidates(variables, op_filter, types)
        retyping = Retyping(types, set(reads(choice.candidates)))
        choice.restrict(retyping)
        result.warnings += warnings_of_cpu_readers(model, variables, types, self.scope)
        stored = store_as_bfloat16(model, choice.candidates, list(region.scopes), index)
        retyping.settle_variables(set(reads(stored)))
        rewritten = rewrite(model, types, retyping)
        _report(region, choice, stored, rewritten, result)
        if result.changes:
            _mark(model, region)
        result.details = _details(variables, choice, stored, rewritten)
        return result


def _nothing_to_do(scope: ConversionScope) -> str:
    if scope is ConversionScope.TPU:
        return "nothing in it runs on the TPU; bfloat16_optimization_options { scope: ALL } converts CPU code as well"
    return "no signature calls a function"


def _mark(model: Model, region: Region) -> None:
    for node in region.entries:
        node.attr[DONE_ATTR].b = True
    for name in region.scopes:
        # Functions of one interface are swapped for each other at run time, and must have the same types.
        model.functions[name].attr.pop("api_implements", None)
        for node in model.functions[name].node_def:
            # The gradient that it names is of float32 code, which keeps it, and holds tensors of that.
            node.attr.pop(_GRADIENT_ATTR, None)


def _report(
    region: Region, choice: VariableChoice, stored: Sequence[Variable], rewritten: Rewritten, result: PassResult
) -> None:
    for variable in stored:
        result.changed(variable.name, "variable stored as bfloat16")
    for name, reason in choice.reportable.items():
        result.skipped(name, f"stays float32: it {reason}")
    for scope in rewritten.scopes:
        result.changed(scope, "computes in bfloat16" if scope in region.scopes else "casts at the TPU call")
    for op, kept in sorted(rewritten.kept.items()):
        for reason, count in sorted(kept.items()):
            what = "stays float32" if count == 1 else f"{count} of them stay float32"
            result.skipped(op, f"{what}: {reason}")


def _details(
    variables: Sequence[Variable], choice: VariableChoice, stored: Sequence[Variable], rewritten: Rewritten
) -> RawDetails:
    names = {v.name for v in stored}
    saved = [v for v in variables if v.checkpoint_key is not None]
    before = sum(v.size_bytes for v in saved)
    after = before - sum(v.size_bytes // 2 for v in saved if v.name in names)
    kept_ops = {op: dict(sorted(kept.items())) for op, kept in sorted(rewritten.kept.items())}
    values: dict[str, object] = {
        "converted_ops": dict(sorted(rewritten.converted.items())),
        "kept_ops": kept_ops,
        "casts": rewritten.casts,
        "variable_bytes_before": before,
        "variable_bytes_after": after,
        "variables_bfloat16": len(stored),
        "variables_float32": list(choice.reportable),
    }
    lines = [
        f"bfloat16: variables {before:,} -> {after:,} bytes, {sum(rewritten.converted.values())} ops converted, "
        f"{rewritten.casts} casts"
    ]
    kept = [f"{count} {op} ({reason})" for op, reasons in kept_ops.items() for reason, count in reasons.items()]
    lines += [f"Kept float32: {', '.join(kept)}"] if kept else []
    return RawDetails(values, tuple(lines))
