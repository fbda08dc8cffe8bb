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

from collections.abc import Collection, Sequence

from converter.analysis.variables.index import Variable, VariableIndex, slots_of
from converter.analysis.variables.restoring import checkpoint_keys
from converter.analysis.variables.uses import value_attr
from converter.graph import ops, outside, refs
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import DT_BFLOAT16, DT_FLOAT, DT_RESOURCE, NodeDef
from converter.graph.scope_index import scope_index
from converter.passes.bfloat16.edits import Draft, Surroundings, cluster_of, recorded_shape
from converter.passes.bfloat16.ways import Input, Output, Uses

_FLOAT, _BFLOAT16 = DT_FLOAT, DT_BFLOAT16
_SAVED_TENSORS = 3  # SaveV2's first input that is a tensor to save


def plan_storage(
    model: Model, variables: Sequence[Variable], bfloat16_scopes: Collection[str], index: VariableIndex, draft: Draft
) -> list[Variable]:
    """Plans to make these variables and their companions bfloat16, in the graph and in the checkpoint.

    Args:
      variables: of `index`; none of them may be ineligible.
      bfloat16_scopes: names of the scopes that will compute in bfloat16: there what a variable's readers give and its
        writers take becomes bfloat16 without a Cast, and the caller retypes the nodes around.
      index: of the model as it is now.
      draft: the edits go here.

    Returns:
      What will be stored as bfloat16: `variables` and their companions.

    Raises:
      ValueError: one of them is ineligible.
    """
    chosen = index.with_companions(variables)
    for variable in chosen:
        if variable.ineligible is not None:
            raise ValueError(f'the variable "{variable.name}" cannot be stored as bfloat16: it {variable.ineligible}')
    if chosen:
        _Storage(model, index, chosen, bfloat16_scopes, draft).plan()
    return chosen


class _Storage:
    """One change of the storage of some variables."""

    def __init__(
        self,
        model: Model,
        index: VariableIndex,
        chosen: Sequence[Variable],
        bfloat16_scopes: Collection[str],
        draft: Draft,
    ) -> None:
        self._model = model
        self._index = index
        self._chosen = chosen
        self._bfloat16_scopes = set(bfloat16_scopes)
        self._draft = draft
        self._classes = {index.storage_class(slot) for v in chosen for slot in slots_of(v)}
        self._keys = {key for v in chosen for key in index.keys_of(v)}
        self._uses = Uses(model)
        self._given: list[Output] = []  # bfloat16 now; what uses them expects float32
        self._taken: dict[tuple[str, str, int], Input] = {}  # wants bfloat16 now, is given float32

    def plan(self) -> None:
        """Rules 1 to 4."""
        self._retype_variables()
        self._retype_arguments()
        self._retype_uses()
        self._retype_checkpoint_ops()
        for output in self._given:
            self._connect_output(output)
        self._connect_inputs()
        self._draft.recasts |= self._keys

    def _retype_variables(self) -> None:
        handles = {name for v in self._chosen for name in v.handles}
        for node in self._model.graph_def.node:
            if node.name in handles:
                self._draft.retype(MAIN_GRAPH, node.name, "dtype")
        self._draft.saved_variables += [node_id for v in self._chosen for node_id in v.object_node_ids]

    def _retype_arguments(self) -> None:
        for name, function in self._model.functions.items():
            for i, argument in enumerate(function.signature.input_arg):
                if argument.type == DT_RESOURCE and self._holds(name, argument.name):
                    self._draft.retype(name, None, "argument", i)
            for i, result in enumerate(function.signature.output_arg):
                if result.type == DT_RESOURCE and self._holds(name, function.ret[result.name]):
                    self._draft.retype(name, None, "result", i)

    def _holds(self, scope_name: str, ref: str) -> bool:
        return self._index.storage_class((scope_name, ref)) in self._classes

    def _retype_uses(self) -> None:
        for slot, consumers in self._index.flow.consumers.items():
            if self._index.storage_class(slot) not in self._classes:
                continue
            for scope, node in ((c.scope, c.node) for c in consumers):
                attr = value_attr(node)
                if attr is None or attr not in node.attr or node.attr[attr].type != _FLOAT:
                    continue
                if self._draft.is_retyped(scope.name, node.name, attr):
                    continue  # It uses two of the variables.
                self._draft.retype(scope.name, node.name, attr)
                if scope.name not in self._bfloat16_scopes:
                    self._add_ends(scope, node, attr)

    def _add_ends(self, scope: Scope, node: NodeDef, attr: str) -> None:
        definition = ops.op_def(node.op, self._model)
        assert definition is not None  # all that read or write variables are TensorFlow's own
        for position, slot in enumerate(ops.input_slots(node, definition)):
            if slot.attr == attr:
                self._take(scope, node, position)
        for number, slot in enumerate(ops.output_slots(node, definition)):
            if slot.attr == attr:
                self._give(scope, node, slot.arg, slot.index, number)

    def _retype_checkpoint_ops(self) -> None:
        for scope in self._model.scopes():
            found = [n for n in scope.nodes if n.op in ("SaveV2", "RestoreV2")]
            nodes = scope_index(self._model, scope.name).nodes if found else {}
            for node in found:
                dtypes = node.attr["dtypes"].list.type
                for i, key in enumerate(checkpoint_keys(node, scope, nodes)):
                    if key not in self._keys or dtypes[i] != _FLOAT:
                        continue
                    self._draft.retype(scope.name, node.name, "dtypes", i)
                    if node.op == "SaveV2":
                        self._take(scope, node, _SAVED_TENSORS + i)
                    else:
                        self._give(scope, node, "tensors", i, i)

    def _take(self, scope: Scope, node: NodeDef, position: int) -> None:
        taken = Input(scope, node, position)
        self._taken[taken.key] = taken

    def _give(self, scope: Scope, node: NodeDef, arg: str, index: int, number: int) -> None:
        ref = refs.canonical_ref(scope.ref(node.name, arg, index, number), scope)
        self._given.append(Output(scope, node, ref, number))

    def _connect_output(self, output: Output) -> None:
        """Rule 4 if all that uses the output wants bfloat16 in the end, otherwise a Cast of it."""
        way = self._uses.way(output, self._taken)
        if way is not None:
            self._draft.retyped.update(dict.fromkeys(way.retyped))
            ends = way.ends
        else:
            users = self._uses.inputs_of(output.scope, output.ref)
            ends = [user for user in users if user.key in self._taken]
            self._cast_output(output, [user for user in users if user.key not in self._taken])
        for end in ends:
            del self._taken[end.key]

    def _cast_output(self, output: Output, users: Sequence[Input]) -> None:
        """Gives `users`, and all who see the output from outside, a Cast of it to float32."""
        scope, node = output.scope, output.node
        around = Surroundings(node.device, cluster_of(node), recorded_shape(node.attr, output.number))
        cast = self._draft.cast(scope, f"{node.name}/float32", output.ref, _BFLOAT16, _FLOAT, around)
        for user in users:
            self._draft.give(scope, user.node, user.position, cast)
        for result in self._uses.results_of(scope, output.ref):
            self._draft.give_result(scope, result, cast)
        if self._uses.is_named(scope, output.outside_name):
            self._draft.rename(scope, output.outside_name, outside.name_for(refs.producer_of(cast), 0))

    def _connect_inputs(self) -> None:
        """A Cast to bfloat16 before every input that is left, one for each tensor."""
        casts: dict[tuple[str, str], str] = {}
        for taken in self._taken.values():
            key = (taken.scope.name, taken.ref)
            if key not in casts:
                node = taken.node
                around = Surroundings(node.device, cluster_of(node))
                stem = f"{node.name}/bfloat16"
                casts[key] = self._draft.cast(taken.scope, stem, taken.ref, _FLOAT, _BFLOAT16, around)
            self._draft.give(taken.scope, taken.node, taken.position, casts[key])
