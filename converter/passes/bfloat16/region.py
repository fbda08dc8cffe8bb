"""Which functions a conversion to bfloat16 works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from converter.analysis import tpu
from converter.errors import ConversionError
from converter.graph import calls
from converter.graph.model import MAIN_GRAPH, Model
from converter.graph.nodes import nodes_where
from converter.graph.protos import DT_BFLOAT16, AttrValue, DataType, NodeDef
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.function_ends import follows_calls
from converter.passes.bfloat16.places import NodeKey
from converter.passes.pass_result import Skip

# On the calls that lead into converted code: later runs leave it alone. A FunctionDef cannot carry it, the loader
# refuses function attributes that it does not know.
DONE_ATTR = "_tpu_convert_bfloat16"
_BFLOAT16 = DT_BFLOAT16
_MAX_NAMED = 5


@dataclass(frozen=True)
class Region:
    """What one run converts.

    Attributes:
      scopes: functions -> whether they run on the TPU.
      on_both: functions of `scopes` that run on the CPU as well and are to be converted there too; none are left once
        the TPU code has copies of its own.
      tpu_entries, cpu_entries: calls that lead into converted code.
      fixed: functions of `scopes` whose arguments and results stay float32.
      done: what is converted already.
    """

    scopes: Mapping[str, bool]
    on_both: tuple[str, ...]
    tpu_entries: tuple[NodeKey, ...]
    cpu_entries: tuple[NodeKey, ...]
    fixed: tuple[str, ...]
    done: tuple[Skip, ...]

    def observed(self, model: Model) -> list[str]:
        """Functions around the region, and the main graph, through which values come to it."""
        callers = calls.call_graph(model).callers_of(self.scopes)
        return [name for name in callers if name not in self.scopes]


def find_region(model: Model, scope: ConversionScope) -> Region:
    """What is left to convert."""
    computations = tpu.tpu_computations(model)
    done = [tpu.display_name(model, c) for c in computations if DONE_ATTR in c.call.attr]
    entries = [c for c in computations if is_entry(c.call)]
    on_tpu = _followed(model, list(dict.fromkeys(c.function.signature.name for c in entries)))
    scopes = dict.fromkeys(on_tpu, True)
    on_both: list[str] = []
    roots: list[NodeDef] = []
    if scope is ConversionScope.ALL:
        signature_calls = _signature_calls(model)
        done += [n.name for n in signature_calls if DONE_ATTR in n.attr]
        roots = [n for n in signature_calls if DONE_ATTR not in n.attr]
        called = [f for n in roots if n.op != tpu.TPU_CALL for f in calls.called_functions(n, model)]
        served = _followed(model, called, through_tpu=False)
        on_both = [name for name in served if name in scopes]
        tpu_code = set(tpu.tpu_scopes(model))
        scopes |= dict.fromkeys((name for name in served if name not in tpu_code), False)
    visible = _batched(model).union(model.object_graph.concrete_functions)
    on_cpu = [name for name, is_tpu in scopes.items() if not is_tpu] + on_both
    return Region(
        scopes=scopes,
        on_both=tuple(on_both),
        tpu_entries=tuple((c.scope.name, c.call.name) for c in entries),
        cpu_entries=tuple((MAIN_GRAPH, n.name) for n in roots),
        fixed=tuple(name for name in on_cpu if name in visible),
        done=tuple(Skip(name, "computes in bfloat16 already") for name in done),
    )


def is_entry(node: NodeDef) -> bool:
    """Whether `node` is a TPU call that leads into code which is not converted yet."""
    return bool(node.op == tpu.TPU_CALL) and DONE_ATTR not in node.attr


def _followed(model: Model, roots: list[str], through_tpu: bool = True) -> list[str]:
    """`roots` and all functions that they reach through calls whose types can change with them."""
    seen: dict[str, None] = {}
    avoided: list[str] = []
    stack = roots[::-1]
    while stack:
        name = stack.pop()
        if name in seen or name not in model.functions:
            continue
        seen[name] = None
        for node in model.functions[name].node_def:
            called = calls.called_functions(node, model)
            if not called or (node.op == tpu.TPU_CALL and not through_tpu):
                continue
            if follows_calls(node, model) or node.op == tpu.BATCH_CALL:
                stack += called
            else:
                avoided += called
    # What an op calls that fixes the types of its functions stays as it is, whoever else calls it.
    fixed = set(calls.call_graph(model).reachable(avoided)) if avoided else set()
    return [name for name in seen if name not in fixed]


def _signature_calls(model: Model) -> list[NodeDef]:
    """Nodes of the main graph by which signatures call functions."""
    return [n for n in calls.served_nodes(model) if calls.called_functions(n, model)]


def _batched(model: Model) -> set[str]:
    """Functions of BatchFunction ops, which the batching thread feeds with what the requests hold."""
    found = nodes_where(model, lambda n: bool(n.op == tpu.BATCH_CALL))
    return {name for _, node in found for name in calls.called_functions(node, model)}


def refuse_existing_bfloat16(model: Model, region: Region) -> None:
    """Raises ConversionError if anything in the region is bfloat16 before any of it is converted."""
    found: list[tuple[NodeDef, str]] = []
    for name in region.scopes:
        scope = model.scope(name)
        converted = any(n.op == tpu.TPU_CALL and DONE_ATTR in n.attr for n in scope.nodes)
        for node in scope.nodes:
            # A converted TPU call has bfloat16 casts around it. Calls and markers only pass on what others hold.
            passes_on = calls.called_functions(node, model) or tpu.is_boundary(node)
            if _holds_bfloat16(node) and not passes_on and not (converted and node.op == "Cast"):
                found.append((node, name))
    if not found:
        return
    stubs = _stubs(model)
    shown = ", ".join(f'"{n.name}" ({n.op}) in {stubs.get(name, name)}' for n, name in found[:_MAX_NAMED])
    more = f", and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    raise ConversionError(
        f"The bfloat16 optimization found bfloat16 ops in the model, expected none: {shown}{more}. Whoever made them "
        "chose the precision of the ops around them as well, which converting these would upset. Turn the optimization "
        "off (`bfloat16_optimization: DISABLED`), or convert all the same with "
        "`bfloat16_optimization_options { skip_safety_checks: true }`."
    )


def _stubs(model: Model) -> dict[str, str]:
    """Functions that putting a function on the TPU has made of it -> that function, which is what users know."""
    stubs: dict[str, str] = {}
    for computation in tpu.tpu_computations(model):
        if computation.scope.function is not None:
            on_tpu = computation.function
            called = [f for node in on_tpu.node_def for f in calls.called_functions(node, model)]
            stubs |= dict.fromkeys([on_tpu.signature.name, *called], computation.scope.name)
    return stubs


def _holds_bfloat16(node: NodeDef) -> bool:
    return any(_BFLOAT16 in _types(value) for value in node.attr.values())


def _types(value: AttrValue) -> Iterator[DataType]:
    kind = value.WhichOneof("value")
    if kind == "type":
        yield value.type
    elif kind == "list":
        yield from value.list.type
