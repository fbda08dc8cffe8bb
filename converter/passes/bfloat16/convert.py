"""Computes in bfloat16 what was float32."""

from __future__ import annotations

from dataclasses import dataclass

from converter.graph.model import Model
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.carry_out import carry_out
from converter.passes.bfloat16.plan import BFloat16Plan, make_plan
from converter.passes.pass_result import Pass, PassResult


@dataclass(frozen=True)
class BFloat16(Pass[BFloat16Plan]):
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

    def plan(self, model: Model) -> BFloat16Plan:
        return make_plan(model, self.scope, self.skip_safety_checks, self.filterlist)

    def carry_out(self, model: Model, plan: BFloat16Plan) -> PassResult:
        carry_out(model, plan)
        return PassResult(list(plan.changes), list(plan.skips), list(plan.warnings), plan.details)
