"""Batches functions, signatures and TPU calls: concurrent requests run as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.analysis import tpu
from converter.analysis.shape_inference import infer
from converter.errors import ConversionError
from converter.graph import calls, edit, shapes
from converter.graph.edit import make_node
from converter.graph.model import Model, Scope
from converter.graph.protos import FunctionDef, NodeDef
from converter.options.slices import BatchOptions
from converter.passes.batching import rules
from converter.passes.batching.checks import check_components
from converter.passes.batching.op import (
    argument_order,
    batch_node,
    free_batch_dimension,
    padding_table,
    permute_arguments,
    present_values,
    update_node,
    updated_values,
)
from converter.passes.batching.plan import Plan, Target, Update, batched_within, make_plan, ordinal_producer
from converter.passes.pass_result import Json, PassResult, RawDetails


@dataclass(frozen=True)
class Batch:
    """Puts a BatchFunction op in front of every component that is to be batched.

    before:  X(x, v, y) { body }
    after:   X(x, v, y)         { BatchFunction[f=X_batched](in_tensors=(x, y), captured_tensors=(v,)) }
             X_batched(x, y, v) { body }

    1. A named function or signature X: OUTLINE, then the call becomes a BatchFunction. X keeps its argument order;
       X_batched takes the request's tensors first and then the captures, as the op requires.
    2. Without components, every TPU call that no BatchFunction leads to: its stub, as in rule 1; or, where the function
       that holds the call does other work too, the call alone becomes BatchFunction[f=G](...) in place, where
       G(...) { ordinal selector; TPUPartitionedCall }.
    3. BatchFunctions that are there already get the options as their attributes; an option left unset keeps what is
       there.
    4. No attribute is written at its default. Every batched function has a queue (`shared_name`) of its own.
    5. Calls on the way to a BatchFunction become stateful ops and are no longer jit_compile'd.
    """

    options: tuple[BatchOptions, ...]
    allow_violations: bool = False

    name = "batch"

    def apply(self, model: Model) -> PassResult:
        plan = make_plan(model, self.options)
        result = PassResult(skips=list(plan.skips))
        unclear = self._check_shapes(model, plan, result)
        batched: list[Json] = []
        shared: dict[int, str] = {}
        for target in plan.targets:
            node = _batch_function(model, target) if target.call is None else _batch_call(model, target, shared)
            where = target.function if target.scope is None else target.scope.name
            result.changed(where, f"{target.what} batched as {node.attr['f'].func.name}")
            batched.append(_details(model, target.name, target.what, node))
        for update in plan.updates:
            changes = update_node(update)
            if changes:
                result.changed(update.scope.name, f'batching op "{update.node.name}": {", ".join(changes)}')
            else:
                result.skipped(update.name, f'its batching op "{update.node.name}" has these options already')
            batched.append(_details(model, update.name, "batching op", update.node))
        around = [s.name for t in plan.targets if (s := t.scope or model.scope(t.function)).function is not None]
        if around:
            calls.drop_jit_compile(model, around)
            calls.make_callers_stateful(model, around)
        result.details = _raw_details(unclear, batched, {s.where: s.reason for s in plan.skips})
        return result

    def _check_shapes(self, model: Model, plan: Plan, result: PassResult) -> dict[str, str]:
        components = [(t.name, _target_component(model, t)) for t in plan.targets]
        components += [(u.name, _update_component(model, u)) for u in plan.updates]
        findings = check_components(model, components)
        if findings.certain and not self.allow_violations:
            raise ConversionError(f"{' '.join(findings.certain)} (--allow_batching_violations converts all the same.)")
        result.warnings += [*findings.certain, *findings.possible]
        for name, why in findings.unclear.items():
            result.skipped(name, f"cannot tell whether rows of a batch influence each other: {why}")
        threads = [(t.name, t.options, t.options.num_batch_threads or 0) for t in plan.targets]
        threads += [(u.name, u.options, updated_values(u)["num_batch_threads"]) for u in plan.updates]
        for name, options, number in threads:
            if not options.enable_large_batch_splitting and number <= 0:
                result.warnings.append(
                    f'Batching "{name}": disable_large_batch_splitting has no effect with num_batch_threads: 0, '
                    "because the runtime's adaptive scheduler always splits. Set num_batch_threads."
                )
        return findings.unclear


# --- shapes -----------------------------------------------------------------------------------------------------


def _target_component(model: Model, target: Target) -> rules.Component:
    function = model.functions[target.function]
    declared = shapes.declared_shapes(function)
    if target.call is not None and target.scope is not None and None in declared:
        # A TPU call that somebody else built often records no shapes; what feeds it may be known.
        around = infer(model, target.scope.name)
        fed = [around.of(ref) for ref in edit.data_inputs(target.call)[:-1]]
        declared = [f if d is None else d for d, f in zip(declared, fed, strict=True)]
    return _component(model, target.function, target.inputs, declared, target.options)


def _update_component(model: Model, update: Update) -> rules.Component:
    name = update.node.attr["f"].func.name
    function = model.functions[name]
    declared = shapes.declared_shapes(function)
    inputs = tuple(range(len(update.node.attr["Tin"].list.type)))
    values = updated_values(update)
    return _component(model, name, inputs, declared, update.options, values["allowed_batch_sizes"])


def _component(
    model: Model,
    name: str,
    inputs: tuple[int, ...],
    declared: Sequence[shapes.Shape],
    options: BatchOptions,
    allowed: tuple[int, ...] | None = None,
) -> rules.Component:
    signature = model.functions[name].signature
    sizes = options.allowed_batch_sizes if allowed is None else allowed
    keys = _signature_outputs(model, name)
    return rules.Component(
        function=name,
        declared=tuple(declared),
        inputs=inputs,
        input_names=tuple(a.name for a in signature.input_arg),
        result_names=tuple(keys.get(i, r.name) for i, r in enumerate(signature.output_arg)),
        sizes=rules.batch_sizes(sizes, options.max_batch_size),
        max_batch_size=options.max_batch_size,
        largest_batch=sizes[-1] if sizes else options.max_batch_size,
    )


def _signature_outputs(model: Model, function: str) -> dict[int, str]:
    """Result number -> output key, for a function that computes a signature."""
    callers = {n.name for n in model.graph_def.node if function in calls.called_functions(n, model)}
    found = {}
    for signature in model.signatures.values():
        for key, output in signature.outputs.items():
            node, _, number = output.name.partition(":")
            if node in callers:
                found[int(number or 0)] = key
    return found


# --- new batching ops -------------------------------------------------------------------------------------------


def _batch_function(model: Model, target: Target) -> NodeDef:
    """Rule 1: X becomes one BatchFunction call of its old body."""
    inner, call = edit.outline(model, target.function, "batched")
    outer = model.functions[target.function]
    order = argument_order(target.inputs, len(call.input))
    permute_arguments(inner, order)
    free_batch_dimension(inner, len(target.inputs))
    node = batch_node(
        edit.UniqueNames(Scope.of(outer))(tpu.BATCH_CALL), call, inner, target, f"batch_{target.function}"
    )
    results = {r.name: f"{node.name}:out_tensors:{i}" for i, r in enumerate(outer.signature.output_arg)}
    edit.replace_body(outer, [node], results)
    # Inlined, the node would have another name in every caller, and for the adaptive scheduler that is another queue.
    outer.attr["_noinline"].b = True
    return outer.node_def[0]


def _batch_call(model: Model, target: Target, shared: dict[int, str]) -> NodeDef:
    """Rule 2 for a TPU call among other nodes: it becomes a BatchFunction where it stands."""
    assert target.call is not None and target.scope is not None
    call, scope = target.call, target.scope
    ordinal = ordinal_producer(scope, call)
    if target.group not in shared:
        shared[target.group] = _call_alone(model, target, call, ordinal).signature.name
    inner = model.functions[shared[target.group]]
    control = [ref for ref in call.input if edit.is_control(ref)]
    node = batch_node(call.name, call, inner, target, f"batch_{inner.signature.name}")
    node.input.extend(control)
    # The node keeps its name, which control outputs, signatures and captured tensors may refer to.
    call.CopyFrom(node)
    if scope.function is not None:
        count = len(node.attr["Tout"].list.type)
        edit.rewire(scope, {f"{node.name}:output:{i}": f"{node.name}:out_tensors:{i}" for i in range(count)})
    if ordinal is not None:
        _remove_if_unused(scope, ordinal.name)
    return call


def _call_alone(model: Model, target: Target, call: NodeDef, ordinal: NodeDef | None) -> FunctionDef:
    """Adds the function that holds nothing but this TPU call, its arguments in the batching op's order."""
    callee = model.functions[target.function]
    function = FunctionDef()
    function.signature.name = edit.function_name(model, target.function, "batched")
    function.signature.is_stateful = True
    names = [f"argument_{i}" for i in range(len(callee.signature.input_arg))]
    for name, argument in zip(names, callee.signature.input_arg, strict=True):
        added = function.signature.input_arg.add(name=name, type=argument.type)
        added.handle_data.extend(argument.handle_data)
    for i, result in enumerate(callee.signature.output_arg):
        function.signature.output_arg.add(name=f"result_{i}", type=result.type)
    assert ordinal is not None
    core = make_node("device_ordinal", ordinal.op, **dict(ordinal.attr))
    output = "device_ordinals" if ordinal.op == "TPUOrdinalSelector" else "output"
    alone = make_node(tpu.TPU_CALL, call.op, [*names, f"{core.name}:{output}:0"], **dict(call.attr))
    results = {r.name: f"{alone.name}:output:{i}" for i, r in enumerate(function.signature.output_arg)}
    edit.replace_body(function, [core, alone], results)
    permute_arguments(function, argument_order(target.inputs, len(names)))
    return model.add_function(function)


def _remove_if_unused(scope: Scope, name: str) -> None:
    if any(edit.producer_of(ref) == name for node in scope.nodes for ref in node.input):
        return
    if scope.function is not None and name in scope.function.control_ret.values():
        return
    position = next(i for i, node in enumerate(scope.nodes) if node.name == name)
    del scope.nodes[position]


# --- report -----------------------------------------------------------------------------------------------------


def _raw_details(unclear: dict[str, str], batched: list[Json], not_batched: dict[str, str]) -> RawDetails:
    lines = []
    for row in batched:
        padding = ", ".join(f"{entry['rows']} -> {entry['padded_to']}" for entry in row["padding"])
        lines.append(f"Batched: {row['name']}" + (f" (rows padded {padding})" if padding else ""))
    lines += [f"Not batched: {name}: {reason}" for name, reason in not_batched.items()]
    lines += [
        f"Cannot tell whether rows of a batch influence each other in {name}: {why}" for name, why in unclear.items()
    ]
    return RawDetails({"rows_unclear": unclear, "batched": batched, "not_batched": not_batched}, tuple(lines))


def _details(model: Model, name: str, what: str, node: NodeDef) -> Json:
    values = present_values(node)
    values["allowed_batch_sizes"] = list(values["allowed_batch_sizes"])
    return {
        "name": name,
        "what": what,
        "function": node.attr["f"].func.name,
        "queue": node.attr["shared_name"].s.decode() if "shared_name" in node.attr else node.name,
        "inputs": len(node.attr["Tin"].list.type),
        "captures": len(node.attr["Tcaptured"].list.type) if "Tcaptured" in node.attr else 0,
        "tpu_functions": batched_within(model, [node.attr["f"].func.name]),
        "options": values,
        "padding": padding_table(values["allowed_batch_sizes"], values["max_batch_size"]),
    }
