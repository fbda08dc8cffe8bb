"""Which variables a conversion stores as bfloat16, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.analysis.variables.index import Variable
from converter.analysis.variables.uses import UseKind
from converter.graph import calls
from converter.graph.model import Model
from converter.graph.outside import signature_function
from converter.graph.protos import DT_FLOAT
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.decisions import Retyping
from converter.passes.bfloat16.filter import OpFilter
from converter.passes.bfloat16.places import NodeKey
from converter.passes.bfloat16.type_graph import TypeGraph

_FLOAT = DT_FLOAT
# Among these are an optimizer's settings, which training needs in float32: beta_2 = 0.999 is 1 in bfloat16.
_UNREAD = "is not read by anything that is converted"


@dataclass
class VariableChoice:
    """The float32 variables of a model.

    Attributes:
      candidates: those that only converted code reads, of all that the signatures reach; `restrict` takes from these.
      reasons: name -> why a variable stays float32.
    """

    candidates: list[Variable]
    reasons: dict[str, str]

    @property
    def reportable(self) -> dict[str, str]:
        """`reasons` without the variables that have nothing to do with what is converted."""
        return {name: reason for name, reason in sorted(self.reasons.items()) if reason is not _UNREAD}

    def restrict(self, retyping: Retyping) -> None:
        """Leaves out candidates the values of which something takes as float32."""
        users = retyping.float32_users()
        for variable in self.candidates:
            edge = next((users[key] for key in reads([variable]) if key in users), None)
            if edge is not None:
                what = f'"{edge.node.name}" ({edge.node.op})' if edge.node is not None else f'result "{edge.result}"'
                self.reasons[variable.name] = (
                    f"is read by {what} in {edge.scope.name}, which {retyping.reason(edge.place)}"
                )
        self.candidates = [v for v in self.candidates if v.name not in self.reasons]


def find_candidates(variables: Sequence[Variable], op_filter: OpFilter, types: TypeGraph) -> VariableChoice:
    """Those of `variables` that could be stored as bfloat16, whatever takes their values."""
    choice = VariableChoice([], {})
    for variable in variables:
        if variable.dtype == _FLOAT and variable.uses:
            reason = _reason(variable, op_filter, types)
            if reason is None:
                choice.candidates.append(variable)
            else:
                choice.reasons[variable.name] = reason
    return choice


def reads(variables: Sequence[Variable]) -> list[NodeKey]:
    """The nodes that use these variables."""
    return [(use.scope, use.node) for variable in variables for use in variable.uses]


def _reason(variable: Variable, op_filter: OpFilter, types: TypeGraph) -> str | None:
    """Why a variable cannot be stored as bfloat16; None if nothing but its values' users could stand in the way."""
    if not any(use.kind is UseKind.READ and types.converts(use.scope) for use in variable.uses):
        return _UNREAD
    if op_filter.keeps_variables:
        return "is a variable, and VarHandleOp is in the filterlist"
    if variable.ineligible is not None:
        return variable.ineligible
    for use in variable.uses:
        if use.kind is not UseKind.READ:
            continue
        if use.served and not types.converts(use.scope):
            return f'is read by "{use.node}" ({use.op}) in {use.scope}, which is not converted'
        if types.converts(use.scope) and types.is_pinned_variable(use.scope, use.node):
            return f'is read by "{use.node}" ({use.op}) in {use.scope}, which stays float32'
    return None


def warnings_of_cpu_readers(
    model: Model, variables: Sequence[Variable], types: TypeGraph, scope: ConversionScope
) -> list[str]:
    """Says which signatures cost the saving: a variable that they read on the CPU stays float32 on the TPU too."""
    held: list[Variable] = []
    scopes: set[str] = set()
    for variable in variables:
        reads = [u.scope for u in variable.uses if u.kind is UseKind.READ and u.served]
        outside = {scope for scope in reads if not types.converts(scope)}
        if variable.dtype == _FLOAT and variable.ineligible is None and outside and len(outside) < len(set(reads)):
            held.append(variable)
            scopes |= outside
    if not held:
        return []
    graph = calls.call_graph(model)
    functions = {key: signature_function(model, key) for key in sorted(model.signatures)}
    keys = [key for key, name in functions.items() if name and scopes.intersection(graph.reachable([name]))]
    named = f" for the signature{'s' if len(keys) > 1 else ''} " + ", ".join(f'"{key}"' for key in keys) if keys else ""
    size = sum(v.size_bytes for v in held)
    if scope is ConversionScope.TPU:
        remedy = "To halve them, put what reads them there on the TPU as well: add it to tpu_functions."
    else:
        remedy = (
            f"Scope ALL does not convert what reads them there: {', '.join(sorted(scopes))}. It converts the functions "
            "that calls, branches and loops lead to."
        )
    return [
        f"The CPU reads variables of the TPU too{named}, so these stay float32: {len(held)} of them with {size:,} "
        f"bytes, for example {held[0].name}. {remedy}"
    ]
