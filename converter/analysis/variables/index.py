"""The variables of a model: what they are, what the checkpoint calls them, and everything that uses them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.analysis.variables.flow import HANDLE_OP, OBJECT, Consumer, ResourceFlow, Slot, object_slot
from converter.analysis.variables.restoring import restored_tensors
from converter.analysis.variables.uses import Served, UseKind, VariableUse, use_kind, value_attr
from converter.checkpoint.read import OBJECT_GRAPH_KEY, StoredTensor, checkpoint_key_of_variables, list_tensors
from converter.graph import outside, refs, tensors
from converter.graph.disjoint_sets import Classes
from converter.graph.model import MAIN_GRAPH, VARIABLES_PREFIX, Model
from converter.graph.protos import DT_FLOAT, DataType, NodeDef
from converter.graph.scope_index import scope_index

_FLOAT = DT_FLOAT


@dataclass(frozen=True)
class Variable:
    """One variable: one resource at run time, or one tensor of the checkpoint.

    Attributes:
      name: the main graph's first VarHandleOp for it; of a variable without one, its path in the object graph.
      dtype: as an enum of TensorFlow's DataType.
      shape: of the saved values, if the graph leaves it open. None if its rank is unknown, -1 for a size that is.
      size_bytes: of its values; 0 if the shape is not known.
      checkpoint_key: None if it is not saved.
      handles: the main graph's VarHandleOp nodes.
      object_node_ids: its nodes in the object graph, for tf.saved_model.load.
      companions: names of the variables that have to be stored with the same type: a function takes either as the same
        argument, an op updates both, or one is an optimizer's slot of the other.
      uses: of the variable and of its companions, since they can only be decided on together.
      ineligible: why it cannot be stored as bfloat16, whoever reads it; None if it can. Code that no signature reaches
        never stands in the way, it is converted along.
    """

    name: str
    dtype: DataType
    shape: tuple[int, ...] | None
    size_bytes: int
    checkpoint_key: str | None
    handles: tuple[str, ...]
    object_node_ids: tuple[int, ...]
    companions: tuple[str, ...]
    uses: tuple[VariableUse, ...]
    ineligible: str | None


def find_variables(model: Model) -> list[Variable]:
    """Every variable of the model, in the order of the main graph and then of the object graph."""
    return VariableIndex(model).variables


class VariableIndex:
    """All variables of a model as it is now, with the slots that hold them. Changes to the model make it stale.

    Attributes:
      variables: as `find_variables` returns them.
      flow: where resources go.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        with model.unchanged():
            self.flow = ResourceFlow(model)
            nodes = model.object_graph.nodes
            self._saved = {i: n.variable for i, n in enumerate(nodes) if n.WhichOneof("kind") == "variable"}
            self._handles = {n.name: n for n in model.graph_def.node if n.op == HANDLE_OP}
            self._tensors: dict[str, StoredTensor] = {}
            self._keys = self._checkpoint_keys()
            self._groups = self._identities()
            self._together = self._storage_classes()
            self._served = Served(model)
            self._class_uses = self._uses_by_class()
            self.variables = self._variables()
            self._by_name = {v.name: v for v in self.variables}

    def storage_class(self, slot: Slot) -> Hashable:
        """The same thing for all slots whose variables have to be stored with the same type."""
        return self._together.root(self.flow.classes.root(slot))

    def keys_of(self, variable: Variable) -> list[str]:
        """All its keys in the checkpoint: more than one if handles of one shared name are restored from several."""
        return list(dict.fromkeys(self._keys[slot] for slot in slots_of(variable) if slot in self._keys))

    def with_companions(self, variables: Sequence[Variable]) -> list[Variable]:
        """These variables, as they are now, and all that have to be stored alike, in the model's order.

        Raises:
          KeyError: the model has no variable of that name.
        """
        wanted = {name for v in variables for name in (v.name, *self._by_name[v.name].companions)}
        return [v for v in self.variables if v.name in wanted]

    def _storage_classes(self) -> Classes[Slot]:
        """Classes of flow's classes: joined further by optimizers, shared names and checkpoint keys."""
        together = Classes[Slot]()
        root = self.flow.classes.root
        first: dict[tuple[str, str], Slot] = {}
        for slot, consumers in self.flow.consumers.items():
            for consumer in consumers:
                if value_attr(consumer.node) is not None:
                    # ResourceApplyAdam updates a variable and its moments, all of one type.
                    key = (consumer.scope.name, consumer.node.name)
                    together.join(root(first.setdefault(key, slot)), root(slot))
        for node in self._model.object_graph.nodes:
            for reference in node.slot_variables:
                # The loader makes a slot variable with the type of the variable that it belongs to.
                original, own = reference.original_variable_node_id, reference.slot_variable_node_id
                if {original, own} <= self._saved.keys() and self._saved[own].dtype == self._saved[original].dtype:
                    together.join(root(object_slot(original)), root(object_slot(own)))
        for group in self._groups:
            for item in group:
                together.join(root(group[0]), root(item))
        return together

    def _identities(self) -> list[list[Slot]]:
        """Handles and object graph nodes that are one variable, each group in the model's order."""
        same = Classes[Slot]()
        shared: dict[tuple[bytes, bytes], Slot] = {}
        slots = [handle_slot(name) for name in self._handles]
        for slot, node in zip(slots, self._handles.values(), strict=True):
            if (key := _resource_name(node)) is not None:
                same.join(shared.setdefault(key, slot), slot)
        slots += [object_slot(i) for i in self._saved]
        by_key: dict[str, Slot] = {}
        for slot, saved_as in self._keys.items():
            same.join(by_key.setdefault(saved_as, slot), slot)
        for handle, capture in self._captured_handles():
            if handle not in self._keys:
                same.join(capture, handle)
        groups: dict[Hashable, list[Slot]] = {}
        for slot in slots:
            groups.setdefault(same.root(slot), []).append(slot)
        return list(groups.values())

    def _captured_handles(self) -> Iterator[tuple[Slot, Slot]]:
        """Handles that the main graph passes to a function in place of a variable that the object graph has it capture.

        Of a Keras 3 model inside another module TensorFlow saves one handle and serves another, which nothing restores.
        """
        concrete_functions = self._model.object_graph.concrete_functions
        scope = self._model.main_scope()
        for node in scope.nodes:
            name = node.attr["f"].func.name if "f" in node.attr else ""
            arguments = refs.data_inputs(node)
            if name not in concrete_functions or len(arguments) != len(self._model.functions[name].signature.input_arg):
                continue
            for i, node_id in outside.captures_of(self._model, name).items():
                for origin in self.flow.origins((scope.name, refs.canonical_ref(arguments[i], scope))):
                    if node_id in self._saved and refs.producer_of(origin[1]) in self._handles:
                        yield origin, object_slot(node_id)

    def _checkpoint_keys(self) -> dict[Slot, str]:
        """The checkpoint key of handles, as the restore function assigns them, and of object graph nodes."""
        keys: dict[Slot, str] = {}
        prefix = self._model.path / VARIABLES_PREFIX
        if prefix.with_suffix(".index").is_file():
            self._tensors = list_tensors(prefix)
        if self._saved and OBJECT_GRAPH_KEY in self._tensors:
            for node_id, key in checkpoint_key_of_variables(prefix).items():
                if node_id in self._saved and self._may_hold(key):
                    keys[object_slot(node_id)] = key
        for scope in self._model.scopes():
            restored = restored_tensors(self._model, scope)
            if not restored:
                continue
            nodes = scope_index(self._model, scope.name).nodes
            for node in scope.nodes:
                if node.op != "AssignVariableOp":
                    continue
                handle, value = refs.data_inputs(node)
                saved_as = restored.get(refs.canonical_ref(refs.before_identities(value, nodes), scope))
                if saved_as is not None and self._may_hold(saved_as):
                    for origin in self.flow.origins((scope.name, refs.canonical_ref(handle, scope))):
                        if origin[0] == MAIN_GRAPH:
                            keys[origin] = saved_as
        return keys

    def _may_hold(self, key: str) -> bool:
        """Whether the checkpoint has a tensor of this key; a model that is not on disk is taken at its word."""
        return key in self._tensors or not self._tensors

    def _uses_by_class(self) -> dict[Hashable, list[VariableUse]]:
        uses: dict[Hashable, list[VariableUse]] = {}
        for slot, consumers in self.flow.consumers.items():
            found = uses.setdefault(self.storage_class(slot), [])
            found += [self._use(c) for c in consumers]
        for slot, where in self.flow.escapes.items():
            use = VariableUse(slot[0], where, "", UseKind.OPAQUE, True)
            uses.setdefault(self.storage_class(slot), []).append(use)
        by_name = {_resource_name(node): handle_slot(name) for name, node in self._handles.items()}
        for scope, node in self.flow.inner_handles:
            # The same resource by its name alone, past all arguments.
            if (key := _resource_name(node)) is not None and key in by_name:
                uses.setdefault(self.storage_class(by_name[key]), []).append(self._use(Consumer(scope, node, 0)))
        return uses

    def _use(self, consumer: Consumer) -> VariableUse:
        node = consumer.node
        kind = use_kind(node, self._model)
        served = kind is UseKind.OPAQUE or self._served.reaches(consumer.scope, node)
        return VariableUse(consumer.scope.name, node.name, node.op, kind, served)

    def _variables(self) -> list[Variable]:
        by_class: dict[Hashable, list[list[Slot]]] = {}
        for group in self._groups:
            by_class.setdefault(self.storage_class(group[0]), []).append(group)
        found = [self._variable(group, by_class[self.storage_class(group[0])]) for group in self._groups]
        reasons = {v.name: _own_reason(v) for v in found}
        return [replace(v, ineligible=_reason(v, reasons)) for v in found]

    def _name(self, group: list[Slot]) -> str:
        scope, ref = group[0]
        if scope == MAIN_GRAPH:
            return refs.producer_of(ref)
        key = self._key(group)
        path = key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") if key else self._saved[int(ref)].name
        return f"{path or 'variable'} (object {ref})"

    def _key(self, group: list[Slot]) -> str | None:
        return next((self._keys[slot] for slot in group if slot in self._keys), None)

    def _variable(self, group: list[Slot], together: list[list[Slot]]) -> Variable:
        handles = tuple(refs.producer_of(ref) for scope, ref in group if scope == MAIN_GRAPH)
        ids = tuple(int(ref) for scope, ref in group if scope == OBJECT)
        if handles:
            attrs = self._handles[handles[0]].attr
            dtype, shape = attrs["dtype"].type, attrs["shape"].shape if "shape" in attrs else None
        else:
            dtype, shape = self._saved[ids[0]].dtype, self._saved[ids[0]].shape
        sizes = None if shape is None or shape.unknown_rank else tuple(int(d.size) for d in shape.dim)
        key = self._key(group)
        if key in self._tensors and (sizes is None or -1 in sizes):
            sizes = self._tensors[key].shape
        elements = 0 if sizes is None or -1 in sizes else int(np.prod(sizes, dtype=np.int64))
        return Variable(
            self._name(group),
            dtype,
            sizes,
            elements * tensors.bytes_per_element(dtype),
            key,
            handles,
            ids,
            tuple(self._name(other) for other in together if other is not group),
            tuple(self._class_uses.get(self.storage_class(group[0]), ())),
            None,
        )


def _resource_name(handle: NodeDef) -> tuple[bytes, bytes] | None:
    """Container and shared name of a VarHandleOp; without a shared name it is a resource of its own."""
    container, name = (handle.attr[a].s if a in handle.attr else b"" for a in ("container", "shared_name"))
    return (container, name) if name else None


def handle_slot(name: str) -> Slot:
    """The slot of a VarHandleOp of the main graph."""
    return MAIN_GRAPH, f"{name}:0"


def slots_of(variable: Variable) -> Iterator[Slot]:
    """The slots in which a variable's resource starts."""
    yield from (handle_slot(name) for name in variable.handles)
    yield from (object_slot(i) for i in variable.object_node_ids)


def _own_reason(variable: Variable) -> str | None:
    if variable.dtype != _FLOAT:
        return f"is {tensors.dtype_name(variable.dtype)}, not float32"
    if variable.checkpoint_key is None:
        return "is not saved: the checkpoint holds no value for it, or the converter cannot tell which"
    for use in variable.uses:
        where = f'"{use.node}" ({use.op}) in {use.scope}'
        if use.kind is UseKind.OPAQUE and use.op:
            return f"is used by {where}, which the converter cannot see through"
        if use.kind is UseKind.OPAQUE:
            return f"reaches {use.node}, which code outside the model can use with other variables"
        if use.kind is UseKind.WRITE and use.served:
            # Sums of small steps stand still in bfloat16: 256 + 1 = 256.
            return f"is written while serving, by {where}, and would be rounded every time"
    return None


def _reason(variable: Variable, reasons: Mapping[str, str | None]) -> str | None:
    if reasons[variable.name] is not None:
        return reasons[variable.name]
    for name in variable.companions:
        if reasons[name] is not None:
            return f'has to be stored like the variable "{name}", which {reasons[name]}'
    return None
