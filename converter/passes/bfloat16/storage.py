"""Stores variables as bfloat16: every place that knows their type changes together.

    before:  v: float32    ReadVariableOp[float32](v) -> n
    after:   v: bfloat16   ReadVariableOp[bfloat16](v) -> Cast[bfloat16 to float32] -> n

1. The variable itself: VarHandleOp, the object graph's SavedVariable, the tensor of the checkpoint.
2. Every function argument and result through which its resource flows (`handle_data`): importing a graph checks it.
3. Every op that reads or writes it. Outside of the scopes that compute in bfloat16, one Cast after a read and one
   before a write keep the code around it float32.
4. The functions that save and restore: RestoreV2, SaveV2 and what lies between these and the variable. Where nothing
   else uses a value on its way there, the way is bfloat16 as well, without a Cast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from converter.analysis import tpu
from converter.analysis.variables.index import Variable, VariableIndex, slots_of
from converter.analysis.variables.restoring import checkpoint_keys
from converter.analysis.variables.uses import value_attr
from converter.graph import calls, ops, outside
from converter.graph import edit as graph_edit
from converter.graph.edit import make_node, type_attr
from converter.graph.model import Model, Scope
from converter.graph.protos import (
    DT_BFLOAT16,
    DT_FLOAT,
    DT_RESOURCE,
    CapturedTensor,
    DataType,
    FunctionDef,
    NodeDef,
    TensorInfo,
)

_FLOAT, _BFLOAT16 = DT_FLOAT, DT_BFLOAT16
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_HANDLE_DTYPES = "_handle_dtypes"
_SAVED_TENSORS = 3  # SaveV2's first input that is a tensor to save


def store_as_bfloat16(
    model: Model,
    variables: Sequence[Variable],
    bfloat16_scopes: Collection[str],
    index: VariableIndex | None = None,
) -> list[Variable]:
    """Makes these variables and their companions bfloat16, in the graph and, when it is written, in the checkpoint.

    Args:
      model: edited in place.
      variables: as found in the model by `find_variables`; none of them may be ineligible.
      bfloat16_scopes: names of the scopes that will compute in bfloat16: there what a variable's readers give and its
        writers take becomes bfloat16 without a Cast, and the caller retypes the nodes around.
      index: of the model as it is now, where the caller has one; made here otherwise.

    Returns:
      What is stored as bfloat16 now: `variables` and their companions, as they were before.

    Raises:
      ValueError: one of them is ineligible.
    """
    index = index or VariableIndex(model)
    chosen = index.with_companions(variables)
    for variable in chosen:
        if variable.ineligible is not None:
            raise ValueError(f'the variable "{variable.name}" cannot be stored as bfloat16: it {variable.ineligible}')
    if chosen:
        _Storage(model, index, chosen, bfloat16_scopes).change()
    return chosen


@dataclass(frozen=True)
class _Output:
    """An output of a node, as its scope spells it and by its number."""

    scope: Scope
    node: NodeDef
    ref: str
    number: int


@dataclass(frozen=True)
class _Input:
    """A data input of a node."""

    scope: Scope
    node: NodeDef
    position: int

    @property
    def ref(self) -> str:
        return graph_edit.canonical_ref(self.node.input[self.position], self.scope)


class _Storage:
    """One change of the storage of some variables."""

    def __init__(
        self, model: Model, index: VariableIndex, chosen: Sequence[Variable], bfloat16_scopes: Collection[str]
    ) -> None:
        self._model = model
        self._index = index
        self._chosen = chosen
        self._bfloat16_scopes = set(bfloat16_scopes)
        self._classes = {index.storage_class(slot) for v in chosen for slot in slots_of(v)}
        self._keys = {key for v in chosen for key in index.keys_of(v)}
        self._given: list[_Output] = []  # bfloat16 now; what uses them expects float32
        self._taken: dict[tuple[str, str, int], _Input] = {}  # wants bfloat16 now, is given float32
        self._scopes: dict[str, _ScopeEdit] = {}
        self._calls: dict[str, int] = {}
        self._outside = outside.names(model)

    def change(self) -> None:
        """Rules 1 to 4."""
        self._retype_variables()
        self._retype_arguments()
        self._retype_uses()
        self._retype_checkpoint_ops()
        for output in self._given:
            self._connect_output(output)
        for taken in self._taken.values():
            self._edit(taken.scope).cast_input(taken)
        self._model.recasts.update(self._keys)

    def _retype_variables(self) -> None:
        handles = {name for v in self._chosen for name in v.handles}
        for node in self._model.graph_def.node:
            if node.name in handles:
                node.attr["dtype"].type = _BFLOAT16
        for variable in self._chosen:
            for node_id in variable.object_node_ids:
                saved = self._model.object_graph.nodes[node_id].variable
                for part in (saved, *saved.experimental_distributed_variable_components):
                    part.dtype = _BFLOAT16

    def _retype_arguments(self) -> None:
        for name, function in self._model.functions.items():
            signature = function.signature
            references = [(a, a.name) for a in signature.input_arg] + [
                (a, function.ret[a.name]) for a in signature.output_arg
            ]
            for argument, ref in references:
                if argument.type == DT_RESOURCE and self._holds(name, ref):
                    for data in argument.handle_data:
                        data.dtype = _BFLOAT16
            for i, argument in enumerate(signature.input_arg):
                # What MLIR exports has the type once more.
                attrs = function.arg_attr[i].attr if i in function.arg_attr else {}
                if _HANDLE_DTYPES in attrs and self._holds(name, argument.name):
                    attrs[_HANDLE_DTYPES].CopyFrom(graph_edit.type_list_attr([_BFLOAT16]))

    def _holds(self, scope_name: str, ref: str) -> bool:
        return self._index.storage_class((scope_name, ref)) in self._classes

    def _retype_uses(self) -> None:
        for slot, consumers in self._index.flow.consumers.items():
            if self._index.storage_class(slot) not in self._classes:
                continue
            for consumer in consumers:
                attr = value_attr(consumer.node)
                if attr is not None and consumer.node.attr[attr].type == _FLOAT:
                    consumer.node.attr[attr].type = _BFLOAT16
                    if consumer.scope.name not in self._bfloat16_scopes:
                        self._add_ends(consumer.scope, consumer.node, attr)

    def _add_ends(self, scope: Scope, node: NodeDef, attr: str) -> None:
        definition = ops.op_def(node.op, self._model)
        assert definition is not None  # all that read or write variables are TensorFlow's own
        for position, slot in enumerate(ops.input_slots(node, definition)):
            if slot.attr == attr:
                self._take(_Input(scope, node, position))
        for number, slot in enumerate(ops.output_slots(node, definition)):
            if slot.attr == attr:
                self._give(scope, node, slot.arg, slot.index, number)

    def _retype_checkpoint_ops(self) -> None:
        for scope in self._model.scopes():
            found = [n for n in scope.nodes if n.op in ("SaveV2", "RestoreV2")]
            nodes = {n.name: n for n in scope.nodes} if found else {}
            for node in found:
                dtypes = node.attr["dtypes"].list.type
                for i, key in enumerate(checkpoint_keys(node, scope, nodes)):
                    if key not in self._keys or dtypes[i] != _FLOAT:
                        continue
                    dtypes[i] = _BFLOAT16
                    if node.op == "SaveV2":
                        self._take(_Input(scope, node, _SAVED_TENSORS + i))
                    else:
                        self._give(scope, node, "tensors", i, i)

    def _take(self, taken: _Input) -> None:
        self._taken[(taken.scope.name, taken.node.name, taken.position)] = taken

    def _give(self, scope: Scope, node: NodeDef, arg: str, index: int, number: int) -> None:
        ref = graph_edit.canonical_ref(scope.ref(node.name, arg, index, number), scope)
        self._given.append(_Output(scope, node, ref, number))

    def _connect_output(self, output: _Output) -> None:
        """Rule 4 if all that uses the output wants bfloat16 in the end, otherwise a Cast of it."""
        way = self._way(output)
        if way is None:
            edit = self._edit(output.scope)
            edit.cast_output(output, [i for i in edit.inputs_of(output.ref) if self._key(i) not in self._taken])
            way = _Way()
            way.ends = [i for i in edit.inputs_of(output.ref) if self._key(i) in self._taken]
        for identity in way.identities:
            identity.attr["T"].type = _BFLOAT16
        for call, position, callee in way.arguments:
            call.attr["Tin"].list.type[position] = _BFLOAT16
            callee.signature.input_arg[position].type = _BFLOAT16
        for end in way.ends:
            del self._taken[self._key(end)]

    def _way(self, output: _Output) -> _Way | None:
        """The way of a value to ends that all want bfloat16; None if anything else uses it on the way."""
        way = _Way()
        stack = [(output.scope, output.ref, output.node.name, output.number)]
        while stack:
            scope, ref, name, number = stack.pop()
            edit = self._edit(scope)
            if edit.is_visible(ref, name, number):
                return None
            for user in edit.inputs_of(ref):
                node = user.node
                if self._key(user) in self._taken:
                    way.ends.append(user)
                elif node.op == "Identity":
                    way.identities.append(node)
                    copied = graph_edit.canonical_ref(scope.ref(node.name, "output", 0, 0), scope)
                    stack.append((scope, copied, node.name, 0))
                elif node.op in _CALLS and (callee := self._private_callee(node)) is not None:
                    way.arguments.append((node, user.position, callee))
                    argument = callee.signature.input_arg[user.position].name
                    stack.append((Scope.of(callee), argument, argument, 0))
                else:
                    return None
        return way

    def _private_callee(self, call: NodeDef) -> FunctionDef | None:
        """What `call` calls, if nothing else does and no one outside the model can."""
        if not self._calls:
            for scope in self._model.scopes():
                for node in scope.nodes:
                    for name in calls.called_functions(node, self._model):
                        self._calls[name] = self._calls.get(name, 0) + 1
        name = call.attr["f"].func.name
        if self._calls.get(name) != 1 or name in self._model.object_graph.concrete_functions:
            return None
        return self._model.functions[name]

    def _edit(self, scope: Scope) -> _ScopeEdit:
        if scope.name not in self._scopes:
            self._scopes[scope.name] = _ScopeEdit(scope, self._outside)
        return self._scopes[scope.name]

    @staticmethod
    def _key(taken: _Input) -> tuple[str, str, int]:
        return taken.scope.name, taken.node.name, taken.position


class _Way:
    """Nodes and arguments between a value that is bfloat16 and the inputs that want it so."""

    def __init__(self) -> None:
        self.identities: list[NodeDef] = []
        self.arguments: list[tuple[NodeDef, int, FunctionDef]] = []
        self.ends: list[_Input] = []


class _ScopeEdit:
    """Puts Casts into one scope."""

    def __init__(self, scope: Scope, outside: Mapping[tuple[str, str], Sequence[TensorInfo | CapturedTensor]]) -> None:
        self._scope = scope
        self._outside = outside
        self._names = graph_edit.UniqueNames(scope)
        self._users: dict[str, list[_Input]] = {}
        for node in scope.nodes:
            for position, ref in enumerate(graph_edit.data_inputs(node)):
                self._users.setdefault(graph_edit.canonical_ref(ref, scope), []).append(_Input(scope, node, position))
        self._input_casts: dict[str, str] = {}

    def inputs_of(self, ref: str) -> list[_Input]:
        """The inputs that were given `ref` before any Cast."""
        return self._users.get(ref, [])

    def is_visible(self, ref: str, node_name: str, number: int) -> bool:
        """Whether a tensor is a result, or named by a signature or by the object graph."""
        function = self._scope.function
        in_results = function is not None and ref in function.ret.values()
        return in_results or (self._scope.name, f"{node_name}:{number}") in self._outside

    def cast_output(self, output: _Output, users: Sequence[_Input]) -> None:
        """Gives `users`, and all who see the output from outside, a Cast of it to float32."""
        cast = self._add_cast(f"{output.node.name}/float32", output.ref, _BFLOAT16, _FLOAT, output.node, output.number)
        for user in users:
            user.node.input[user.position] = cast
        if self._scope.function is not None:
            results = self._scope.function.ret
            for result in [r for r, ref in results.items() if ref == output.ref]:
                results[result] = cast
        for named in self._outside.get((self._scope.name, f"{output.node.name}:{output.number}"), ()):
            named.name = f"{graph_edit.producer_of(cast)}:0"

    def cast_input(self, taken: _Input) -> None:
        """Puts a Cast to bfloat16 before an input."""
        ref = taken.ref
        if ref not in self._input_casts:
            self._input_casts[ref] = self._add_cast(f"{taken.node.name}/bfloat16", ref, _FLOAT, _BFLOAT16, taken.node)
        taken.node.input[taken.position] = self._input_casts[ref]

    def _add_cast(
        self, stem: str, ref: str, source: DataType, target: DataType, near: NodeDef, number: int | None = None
    ) -> str:
        """Adds a Cast and returns its output; it runs where `near` does. `number` is the output of `near` it casts."""
        spelled = ref.removesuffix(":0") if self._scope.function is None else ref
        cast = make_node(self._names(stem), "Cast", [spelled], SrcT=type_attr(source), DstT=type_attr(target))
        cast.device = near.device
        if tpu.CLUSTER_ATTR in near.attr:
            cast.attr[tpu.CLUSTER_ATTR].CopyFrom(near.attr[tpu.CLUSTER_ATTR])
        shapes = near.attr["_output_shapes"].list.shape if "_output_shapes" in near.attr else ()
        if number is not None and number < len(shapes):
            cast.attr["_output_shapes"].CopyFrom(graph_edit.shape_list_attr([shapes[number]]))
        self._scope.nodes.add().CopyFrom(cast)
        return self._scope.ref(cast.name, "y", 0, 0)
