"""Where resources go: from VarHandleOp nodes and captures, through calls and loops, to the ops that use them.

Every resource tensor of the model is a slot. Tensors that may hold the same resource are joined: an Identity and its
input, a call's input and the argument of what it calls, a function's result and the call's output. So a class of
joined slots holds one variable, or several where a function is called with several. Calls are not followed one by
one, hence every node of the model is looked at once, however calls nest or recur.
"""

from __future__ import annotations

from dataclasses import dataclass

from converter.graph import calls, ops, outside, refs
from converter.graph.disjoint_sets import Classes
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_RESOURCE, CapturedTensor, FunctionDef, NodeDef, OpDef
from converter.graph.scope_index import scope_index

# A resource tensor: (scope name, reference); or a node of the object graph: (OBJECT, node id).
Slot = tuple[str, str]
OBJECT = "object graph"
HANDLE_OP = "VarHandleOp"

_RESOURCE = DT_RESOURCE
_ONE_TO_ONE = {"Identity", "IdentityN", "Enter", "RefEnter", "Exit", "RefExit", "NextIteration", "RefNextIteration"}
# All inputs that are resources, and all outputs that are, may be the same resource.
_ALL_TO_ALL = {"Switch", "RefSwitch", "Merge", "RefMerge"}


@dataclass(frozen=True)
class Consumer:
    """A node that uses a resource rather than passing it on; `position` counts its data inputs."""

    scope: Scope
    node: NodeDef
    position: int


class ResourceFlow:
    """The slots of a model, joined.

    Attributes:
      classes: slots that may hold the same resource.
      consumers: slot -> the nodes that use it, in the model's order.
      escapes: slots that callers outside the model may set or take, each with how: free arguments and results of
        functions of the object graph.
      inner_handles: VarHandleOp nodes of functions.
    """

    def __init__(self, model: Model) -> None:
        self.classes = Classes[Slot]()
        self.consumers: dict[Slot, list[Consumer]] = {}
        self.escapes: dict[Slot, str] = {}
        self.inner_handles: list[tuple[Scope, NodeDef]] = []
        self._sources: dict[Slot, list[Slot]] = {}
        self._model = model
        self._definitions: dict[str, OpDef | None] = {}
        for scope in model.scopes():
            self._add_scope(scope)
        self._add_captures()

    def origins(self, slot: Slot) -> list[Slot]:
        """The slots without a source of their own from which a resource may come to `slot`."""
        seen = {slot: None}
        stack = [slot]
        found = []
        while stack:
            current = stack.pop()
            sources = self._sources.get(current, [])
            if not sources:
                found.append(current)
            for source in sources:
                if source not in seen:
                    seen[source] = None
                    stack.append(source)
        return found

    def _flow(self, source: Slot, target: Slot) -> None:
        self.classes.join(source, target)
        self._sources.setdefault(target, []).append(source)

    def _add_scope(self, scope: Scope) -> None:
        outputs: dict[str, list[tuple[int, str]]] = {}
        resources = set()
        if scope.function is not None:
            resources = {a.name for a in scope.function.signature.input_arg if a.type == _RESOURCE}
        for node in scope.nodes:
            outputs[node.name] = self._resource_outputs(scope, node)
            resources.update(ref for _, ref in outputs[node.name])
            if node.op == HANDLE_OP and scope.function is not None:
                self.inner_handles.append((scope, node))
        if not resources:
            return
        for node in scope.nodes:
            inputs = {
                position: ref
                for position, ref in enumerate(refs.canonical_ref(r, scope) for r in refs.data_inputs(node))
                if ref in resources
            }
            if inputs or outputs[node.name]:
                self._add_node(scope, node, inputs, dict(outputs[node.name]))

    def _resource_outputs(self, scope: Scope, node: NodeDef) -> list[tuple[int, str]]:
        """(position, reference) of the node's outputs that are resources."""
        if node.op not in self._definitions:
            self._definitions[node.op] = ops.op_def(node.op, self._model)
        definition = self._definitions[node.op]
        if definition is None or not _may_give_resources(node, definition):
            return []
        slots = ops.output_slots(node, definition)
        return [
            (i, refs.canonical_ref(scope.ref(node.name, s.arg, s.index, i), scope))
            for i, s in enumerate(slots)
            if s.dtype == _RESOURCE
        ]

    def _add_node(self, scope: Scope, node: NodeDef, inputs: dict[int, str], outputs: dict[int, str]) -> None:
        def slot(ref: str) -> Slot:
            return scope.name, ref

        if node.op in _ONE_TO_ONE:
            for position in inputs.keys() & outputs.keys():
                self._flow(slot(inputs[position]), slot(outputs[position]))
        elif node.op in _ALL_TO_ALL:
            for ref in inputs.values():
                for output in outputs.values():
                    self._flow(slot(ref), slot(output))
        elif node.op in ops.LOOPS:
            self._add_loop(scope, node, inputs, outputs)
        elif (called := calls.passes_to(node, self._model)) is not None:
            offset, names = called
            for callee in (self._model.functions[name] for name in names if name in self._model.functions):
                self._pass_arguments(scope, inputs, callee, offset)
                for position, output in outputs.items():
                    self._flow(_result(callee, position), slot(output))
        else:
            for position, ref in inputs.items():
                self.consumers.setdefault(slot(ref), []).append(Consumer(scope, node, position))

    def _add_loop(self, scope: Scope, node: NodeDef, inputs: dict[int, str], outputs: dict[int, str]) -> None:
        body, cond = (self._model.functions[node.attr[a].func.name] for a in ("body", "cond"))
        for callee in (body, cond):
            self._pass_arguments(scope, inputs, callee, 0)
        for position, output in outputs.items():
            if position in inputs:
                self._flow((scope.name, inputs[position]), (scope.name, output))
            self._flow(_result(body, position), (scope.name, output))
            self._flow(_result(body, position), _argument(body, position))
            self._flow(_result(body, position), _argument(cond, position))

    def _pass_arguments(self, scope: Scope, inputs: dict[int, str], callee: FunctionDef, offset: int) -> None:
        for position, ref in inputs.items():
            self._flow((scope.name, ref), _argument(callee, position - offset))

    def _add_captures(self) -> None:
        object_graph = self._model.object_graph
        for node_id, saved in enumerate(object_graph.nodes):
            if saved.WhichOneof("kind") == "captured_tensor":
                captured = saved.captured_tensor
                if captured.concrete_function in self._model.functions:
                    self._flow(self._captured_slot(captured), object_slot(node_id))
        for name in sorted(object_graph.concrete_functions):
            function = self._model.functions.get(name)
            if function is None:
                continue
            captures = outside.captures_of(self._model, name)
            for i, argument in enumerate(function.signature.input_arg):
                if argument.type == _RESOURCE and i in captures:
                    self._flow(object_slot(captures[i]), (name, argument.name))
                elif argument.type == _RESOURCE:
                    self.escapes[(name, argument.name)] = f'the argument "{argument.name}" of function "{name}"'
            for result in function.signature.output_arg:
                if result.type == _RESOURCE:
                    self.escapes[(name, function.ret[result.name])] = f'the result "{result.name}" of function "{name}"'

    def _captured_slot(self, captured: CapturedTensor) -> Slot:
        name, position = outside.spelled(captured.name)
        index = scope_index(self._model, captured.concrete_function)
        if name not in index.nodes:
            return captured.concrete_function, name
        found = dict(self._resource_outputs(index.scope, index.nodes[name])).get(position)
        return captured.concrete_function, found if found is not None else captured.name


def object_slot(node_id: int) -> Slot:
    return OBJECT, str(node_id)


def _argument(function: FunctionDef, position: int) -> Slot:
    return function.signature.name, function.signature.input_arg[position].name


def _result(function: FunctionDef, position: int) -> Slot:
    return function.signature.name, function.ret[function.signature.output_arg[position].name]


def _may_give_resources(node: NodeDef, definition: OpDef) -> bool:
    """A quick look at the attributes, since nearly all nodes give none."""
    for arg in definition.output_arg:
        attr = arg.type_attr or arg.type_list_attr
        if arg.type == _RESOURCE:
            return True
        if attr and attr in node.attr and (node.attr[attr].type == _RESOURCE or _RESOURCE in node.attr[attr].list.type):
            return True
    return False
