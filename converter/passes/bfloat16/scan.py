"""Goes over the nodes of some scopes, and notes where each writes float32, takes it and gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from converter.analysis import tpu
from converter.analysis.variables.uses import value_attr
from converter.graph import calls, ops, refs
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_FLOAT, DT_RESOURCE, DT_VARIANT, DataType, NodeDef, OpDef
from converter.passes.bfloat16.filter import OpFilter
from converter.passes.bfloat16.function_ends import Ends, FunctionEnds, passed
from converter.passes.bfloat16.kinds import Kind, KindFlow
from converter.passes.bfloat16.places import Edge, NodePlaces, Places, Tensor, makes_list

_FLOAT, _VARIANT, _RESOURCE = DT_FLOAT, DT_VARIANT, DT_RESOURCE

_CONSTANT_RESULTS = {"OnesLike", "ZerosLike"}

# An edge, the vertex that its tensor's kind flows to, and the dtype of its input; until the scope's tensors are known.
_Waiting = tuple[Edge, int, DataType]


class Scan:
    """What one node after the other tells; `add_function` of all scopes first, then `add_scope` of all.

    Attributes:
      places, kinds, ends: of all that was added.
      edges: in the model's order.
      tensors: scope name -> reference -> tensor.
      unchanged: places that are not to be changed, whoever is on the other side.
      constants, cast_sources, cast_targets, variables, sinks, boundary: as of `TypeGraph`.
    """

    def __init__(
        self, model: Model, scopes: Mapping[str, bool], op_filter: OpFilter, changes_call: Callable[[NodeDef], bool]
    ) -> None:
        """
        Args:
          scopes: functions to convert -> whether they run on the TPU.
          changes_call: picks the TPU calls that change in other scopes.
        """
        self.places = Places()
        self.kinds = KindFlow(self.places.root)
        self.ends = FunctionEnds(model, self.places, self.kinds)
        self.edges: list[Edge] = []
        self.tensors: dict[str, dict[str, Tensor]] = {}
        self.unchanged: list[int] = []
        self.constants: dict[int, tuple[Scope, NodeDef]] = {}
        self.cast_sources: set[int] = set()
        self.cast_targets: dict[int, NodeDef] = {}
        self.variables: dict[int, tuple[Scope, NodeDef]] = {}
        self.sinks: dict[int, list[Edge]] = {}
        self.boundary: list[int] = []
        self._model = model
        self._scopes = scopes
        self._filter = op_filter
        self._changes_call = changes_call
        self._definitions: dict[str, OpDef | None] = {}

    def add_function(self, scope: Scope, fixed: bool) -> None:
        """Arguments and results; `fixed` if they stay as they are."""
        self.tensors[scope.name] = {t.ref: t for t in self.ends.add_function(scope)}
        if fixed:
            self.unchanged += self.ends.all_of(scope.name)

    def add_scope(self, scope: Scope) -> None:
        """Nodes, and what gives the results."""
        waiting: list[_Waiting] = []
        for node in scope.nodes:
            self._add_node(scope, node, waiting)
        if scope.function is not None:
            for i, result in enumerate(scope.function.signature.output_arg):
                place = self.ends.results[scope.name][i]
                if place is not None:
                    ref = refs.canonical_ref(scope.function.ret[result.name], scope)
                    edge = Edge(scope, None, i, result.name, ref, None, place)
                    waiting.append((edge, place, result.type))
        for edge, vertex, dtype in waiting:
            edge.tensor = self.tensors[scope.name].get(edge.ref)
            self._add_edge(edge, vertex, dtype)

    def _add_edge(self, edge: Edge, vertex: int, dtype: DataType) -> None:
        tensor = edge.tensor
        source = None if tensor is None else tensor.place
        if dtype == _VARIANT:
            self.places.join(source, edge.place, "handles a variant that the converter cannot follow")
            return
        if tensor is not None:
            self.kinds.add_flow(tensor.vertex, vertex)
        else:
            self.kinds.add_floor(vertex, self._unknown_kind(edge.scope))
        ends = (edge.node, None if tensor is None else tensor.node)
        if any(end is not None and end.op in ops.TPU_MARKERS for end in ends):
            # Nothing may stand between a marker and its neighbours.
            self.places.join(source, edge.place, "is next to a marker of the TPU cluster")
        self.edges.append(edge)
        if edge.place in self.sinks:
            self.sinks[edge.place].append(edge)

    def _definition(self, op: str) -> OpDef | None:
        if op not in self._definitions:
            self._definitions[op] = ops.op_def(op, self._model)
        return self._definitions[op]

    def _add_node(self, scope: Scope, node: NodeDef, waiting: list[_Waiting]) -> None:
        definition = self._definition(node.op)
        if definition is None:
            # Whatever a custom op takes, it goes on taking.
            for i, ref in enumerate(refs.data_inputs(node)):
                edge = Edge(scope, node, i, "", refs.canonical_ref(ref, scope), None, None)
                waiting.append((edge, self.places.new(False), _FLOAT))
            return
        taken, given = ops.input_slots(node, definition), ops.output_slots(node, definition)
        if not any(s.dtype in (_FLOAT, _VARIANT) for s in (*taken, *given)) and not makes_list(node):
            self._add_call(scope, node, [], [])
            return
        own = NodePlaces(self.places, scope, node, node.op in ops.MOVEMENT or passed(node, self._model) is not None)
        if node.op in self.ends.arguments:
            in_places, out_places = list(self.ends.arguments[node.op]), list(self.ends.results[node.op])
        else:
            in_places, out_places = [own.of(s) for s in taken], [own.of(s) for s in given]
        float_in = self._add_inputs(own, taken, in_places, waiting)
        float_out = self._add_outputs(own, given, out_places)
        if self._add_call(scope, node, in_places, out_places):
            return
        self._restrict(scope, node, definition, own, [*taken, *given])
        if node.op == tpu.BATCH_CALL:
            self.ends.flow_through(node, in_places, out_places, self._unknown_kind(scope))
        elif not own.is_list:
            self._add_computation(own, float_in, float_out)

    def _add_inputs(
        self, own: NodePlaces, slots: Sequence[ops.ArgSlot], places: Ends, waiting: list[_Waiting]
    ) -> list[int]:
        """Edges to the inputs of a node; returns the vertices of those that are float32."""
        inputs = [refs.canonical_ref(ref, own.scope) for ref in refs.data_inputs(own.node)]
        vertices = []
        for i, (slot, place) in enumerate(zip(slots, places, strict=True)):
            if slot.dtype in (_FLOAT, _VARIANT):
                vertex = own.vertex if place is None else place
                waiting.append((Edge(own.scope, own.node, i, "", inputs[i], None, place), vertex, slot.dtype))
                if slot.dtype == _FLOAT:
                    vertices.append(vertex)
        return vertices

    def _add_outputs(self, own: NodePlaces, slots: Sequence[ops.ArgSlot], places: Ends) -> list[int]:
        """Tensors that a node gives; returns the vertices of those that are float32 and tell of values."""
        # Ones and zeros tell nothing of the values whose shape they have.
        constant = own.node.op in _CONSTANT_RESULTS
        vertices = []
        for i, (slot, place) in enumerate(zip(slots, places, strict=True)):
            if slot.dtype in (_FLOAT, _VARIANT):
                vertex = own.vertex if place is None or constant else place
                ref = refs.canonical_ref(own.scope.ref(own.node.name, slot.arg, slot.index, i), own.scope)
                self.tensors[own.scope.name][ref] = Tensor(own.scope, own.node, ref, i, place, vertex)
                if slot.dtype == _FLOAT and not constant:
                    vertices.append(vertex)
        return vertices

    def _add_computation(self, own: NodePlaces, float_in: list[int], float_out: list[int]) -> None:
        """What a node that is no call makes of what it takes."""
        node = own.node
        self.kinds.add_node(own.scope, node, own.vertex, float_in, float_out, own.scope.name in self._scopes)
        takes_only = len(set(float_in)) == 1 and not float_out and float_in[0] in self.places.sites
        if takes_only and node.op != "Cast" and value_attr(node) is None:
            self.sinks[float_in[0]] = []

    def _add_call(self, scope: Scope, node: NodeDef, in_places: Ends, out_places: Ends) -> bool:
        """Whether a node is a call; then its ends are those of what it calls."""
        if not self.ends.join_call(node, in_places, out_places, self._unknown_kind(scope)):
            return False
        own = [p for p in (*in_places, *out_places) if p is not None]
        if node.op in ops.BRANCHES and in_places and in_places[0] is not None:
            self.places.pinned.append((in_places[0], "is the condition of a branch"))
        if not self._changes(scope, node):
            self.unchanged += own
        elif (listed := self._filter.listed(node.op)) is not None:
            self.places.pinned += [(p, listed) for p in own]
        if node.op == tpu.TPU_CALL and self._changes(scope, node):
            self.boundary += own
        return True

    def _unknown_kind(self, scope: Scope) -> Kind:
        return Kind.DATA if scope.name in self._scopes else Kind.GIVEN

    def _changes(self, scope: Scope, node: NodeDef) -> bool:
        return scope.name in self._scopes or (node.op == tpu.TPU_CALL and self._changes_call(node))

    def _restrict(
        self, scope: Scope, node: NodeDef, definition: OpDef, own: NodePlaces, slots: list[ops.ArgSlot]
    ) -> None:
        """Pins what the filter, or the nature of the op, keeps float32, and notes the special ops."""
        places = own.all
        if scope.name not in self._scopes:
            self.unchanged += places
            return
        reason = self._filter.reason(node, definition, own.float_attrs, self._scopes[scope.name])
        variable = value_attr(node)
        opaque = any(s.dtype in (_RESOURCE, _VARIANT) and not s.attr for s in slots)
        if reason is None and variable is None and not own.is_list and opaque:
            reason = "handles a resource or variant whose type the converter does not follow"
        if reason is None and calls.called_functions(node, self._model):
            reason = "calls functions in a way that the converter does not follow"
        if reason is not None:
            self.places.pinned += [(p, reason) for p in places]
        if variable is not None:
            self.variables.update(dict.fromkeys(places, (scope, node)))
        elif reason is None and node.op == "Const":
            self.constants.update(dict.fromkeys(places, (scope, node)))
        elif reason is None and node.op == "Cast":
            self.cast_sources.update(p for p in places if self.places.sites[p].attr == "SrcT")
            self.cast_targets.update({p: node for p in places if self.places.sites[p].attr == "DstT"})
