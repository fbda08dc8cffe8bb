"""Batches functions, signatures and TPU calls: concurrent requests run as one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from converter.analysis import tpu
from converter.graph import calls, refs
from converter.graph.functions import function_name, outline, replace_body
from converter.graph.model import Model, Scope
from converter.graph.nodes import UniqueNames, make_node, rewire
from converter.graph.protos import FunctionDef, NodeDef
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import changes_text, read_attributes, write_attributes
from converter.passes.batching.details import BatchedRow, padding_table
from converter.passes.batching.op import argument_order, batch_node, free_batch_dimension, permute_arguments
from converter.passes.batching.plan import BatchPlan, make_plan
from converter.passes.batching.survey import batched_function
from converter.passes.batching.targets import Place, Site, Target
from converter.passes.batching.tpu_calls import batched_within
from converter.passes.pass_result import Pass, PassResult


@dataclass(frozen=True)
class Batch(Pass[BatchPlan]):
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

    def plan(self, model: Model) -> BatchPlan:
        return make_plan(model, self.options, self.allow_violations)

    def carry_out(self, model: Model, plan: BatchPlan) -> PassResult:
        result = PassResult(skips=list(plan.skips), warnings=list(plan.warnings))
        done: list[tuple[str, str, NodeDef]] = []
        shared: dict[int, str] = {}
        for target in plan.targets:
            if target.site is None:
                node = _batch_function(model, target)
            else:
                node = _batch_call(model, target, target.site, shared)
            result.changed(target.scope, f"{target.what} batched as {batched_function(node)}")
            done.append((target.name, target.what, node))
        for place in plan.unused:
            _remove(model, place)
        for update in plan.updates:
            _, node = update.place.find(model)
            changes = changes_text(update.before, update.after)
            if changes:
                write_attributes(node, update.before.changed(update.after))
                result.changed(update.place.scope, f'batching op "{node.name}": {", ".join(changes)}')
            done.append((update.name, "batching op", node))
        if plan.stateful:  # each looks at the whole model
            calls.drop_jit_compile(model, plan.stateful)
            calls.make_callers_stateful(model, plan.stateful)
        with model.unchanged():
            rows = tuple(_row(model, *each) for each in done)
        result.details = dataclasses.replace(plan.details, batched=rows)
        return result


# --- new batching ops -------------------------------------------------------------------------------------------


def _batch_function(model: Model, target: Target) -> NodeDef:
    """Rule 1: X becomes one BatchFunction call of its old body."""
    inner, call = outline(model, target.function, "batched")
    outer = model.functions[target.function]
    order = argument_order(target.inputs, len(call.input))
    permute_arguments(inner, order)
    free_batch_dimension(inner, len(target.inputs))
    node = batch_node(UniqueNames(Scope.of(outer))(tpu.BATCH_CALL), call, inner, target, f"batch_{target.function}")
    results = {r.name: f"{node.name}:out_tensors:{i}" for i, r in enumerate(outer.signature.output_arg)}
    replace_body(outer, [node], results)
    # Inlined, the node would have another name in every caller, and for the adaptive scheduler that is another queue.
    outer.attr["_noinline"].b = True
    return outer.node_def[0]


def _batch_call(model: Model, target: Target, site: Site, shared: dict[int, str]) -> NodeDef:
    """Rule 2 for a TPU call among other nodes: it becomes a BatchFunction where it stands.

    `shared` has the function that each queue runs, by the number of the queue.
    """
    scope, call = site.call.find(model)
    if site.group not in shared:
        _, ordinal = site.ordinal.find(model)
        shared[site.group] = _call_alone(model, target, call, ordinal).signature.name
    inner = model.functions[shared[site.group]]
    control = refs.control_inputs(call)
    node = batch_node(call.name, call, inner, target, f"batch_{inner.signature.name}")
    node.input.extend(control)
    # The node keeps its name, which control outputs, signatures and captured tensors may refer to.
    call.CopyFrom(node)
    if scope.function is not None:
        count = len(node.attr["Tout"].list.type)
        rewire(scope, {f"{node.name}:output:{i}": f"{node.name}:out_tensors:{i}" for i in range(count)})
    return call


def _call_alone(model: Model, target: Target, call: NodeDef, ordinal: NodeDef) -> FunctionDef:
    """Adds the function that holds nothing but this TPU call, its arguments in the batching op's order."""
    callee = model.functions[target.function]
    function = FunctionDef()
    function.signature.name = function_name(model, target.function, "batched")
    function.signature.is_stateful = True
    names = [f"argument_{i}" for i in range(len(callee.signature.input_arg))]
    for name, argument in zip(names, callee.signature.input_arg, strict=True):
        added = function.signature.input_arg.add(name=name, type=argument.type)
        added.handle_data.extend(argument.handle_data)
    for i, result in enumerate(callee.signature.output_arg):
        function.signature.output_arg.add(name=f"result_{i}", type=result.type)
    core = make_node("device_ordinal", ordinal.op, **dict(ordinal.attr))
    output = "device_ordinals" if ordinal.op == "TPUOrdinalSelector" else "output"
    alone = make_node(tpu.TPU_CALL, call.op, [*names, f"{core.name}:{output}:0"], **dict(call.attr))
    results = {r.name: f"{alone.name}:output:{i}" for i, r in enumerate(function.signature.output_arg)}
    replace_body(function, [core, alone], results)
    permute_arguments(function, argument_order(target.inputs, len(names)))
    return model.add_function(function)


def _remove(model: Model, place: Place) -> None:
    scope, _ = place.find(model)
    position = next(i for i, node in enumerate(scope.nodes) if node.name == place.node)
    del scope.nodes[position]


# --- report -----------------------------------------------------------------------------------------------------


def _row(model: Model, name: str, what: str, node: NodeDef) -> BatchedRow:
    attributes, function = read_attributes(node), batched_function(node)
    return BatchedRow(
        name=name,
        what=what,
        function=function,
        queue=node.attr["shared_name"].s.decode() if "shared_name" in node.attr else node.name,
        inputs=len(node.attr["Tin"].list.type),
        captures=len(node.attr["Tcaptured"].list.type) if "Tcaptured" in node.attr else 0,
        tpu_functions=batched_within(model, [function]),
        options=attributes,
        padding=padding_table(attributes.allowed_batch_sizes, attributes.max_batch_size),
    )
