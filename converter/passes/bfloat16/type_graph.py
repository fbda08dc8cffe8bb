"""Where float32 is written in a model, and which of these places have to agree.

A *place* is a type attribute of a node, an element of its list(type) attribute, or an argument or result of a
function; `ops` knows from the OpDef which places give the types of a node's inputs and outputs. Places that must have
one type are joined into a class: the argument of a function and what every call of it passes there, all four ends of a
loop's value, everything that handles one TensorList. An *edge* is an input that takes a float32 tensor; its two ends
may come to differ, and then need a Cast between them.

Every tensor also has a `Kind`, which says what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from converter.analysis import tpu
from converter.analysis.variables.uses import value_attr
from converter.graph import calls, edit, ops
from converter.graph.model import MAIN_GRAPH, Model, Scope
from converter.graph.protos import (
    DT_FLOAT,
    DT_RESOURCE,
    DT_VARIANT,
    CapturedTensor,
    DataType,
    FunctionDef,
    NodeDef,
    OpDef,
)
from converter.passes.bfloat16.filter import USER_REASON, OpFilter, needs_exact_values
from converter.passes.bfloat16.kinds import Kind, KindFlow
from converter.passes.bfloat16.normalization import NORMALIZATION, normalization_nodes
from converter.passes.bfloat16.places import Edge, NodePlaces, Places, Site, Tensor, makes_list, named_tensor

_FLOAT, _VARIANT, _RESOURCE = DT_FLOAT, DT_VARIANT, DT_RESOURCE

_CONSTANT_RESULTS = {"OnesLike", "ZerosLike"}

# An edge, the vertex that its tensor's kind flows to, and the dtype of its input; until the scope's tensors are known.
_Waiting = tuple[Edge, int, DataType]


class TypeGraph:
    """Places, classes, edges and kinds of some scopes of a model.

    Attributes:
      edges: all edges, in the model's order.
      sites: place -> where it is written.
      pins: class -> why it stays float32.
      outside: classes that have a place which is not to be changed, whoever is on the other side.
      movement: classes of which every place belongs to an op, or call, that moves values and does not compute.
      constants, cast_sources, cast_targets: places of Const nodes, and of Casts from and to float32.
      variables: place -> the node that reads or writes a variable.
      sinks: places of nodes that take float32 and give none.
      boundary: places of the TPU calls that change.
    """

    def __init__(
        self,
        model: Model,
        scopes: Mapping[str, bool],
        observed: Collection[str],
        op_filter: OpFilter,
        changes_call: Callable[[NodeDef], bool],
        fixed_functions: Collection[str] = (),
    ) -> None:
        """
        Args:
          scopes: functions to convert -> whether they run on the TPU.
          observed: scopes around these; nothing changes there but the calls that `changes_call` picks.
          fixed_functions: of `scopes`, those whose arguments and results stay as they are.
        """
        self.model = model
        self.edges: list[Edge] = []
        self.constants: dict[int, NodeDef] = {}
        self.cast_sources: set[int] = set()
        self.cast_targets: dict[int, NodeDef] = {}
        self.variables: dict[int, tuple[Scope, NodeDef]] = {}
        self.sinks: dict[int, list[Edge]] = {}
        self.boundary: list[int] = []
        self.pins: dict[int, str] = {}
        self.outside: set[int] = set()
        self.movement: set[int] = set()
        self._scopes = scopes
        self._filter = op_filter
        self._changes_call = changes_call
        self._fixed_functions = set(fixed_functions)
        self._places = Places()
        self._kinds = KindFlow(self._places.root)
        self._arguments: dict[str, list[int | None]] = {}
        self._results: dict[str, list[int | None]] = {}
        self._called: set[str] = set()
        self._pinned: list[tuple[int, str]] = []
        self._unchanged: list[int] = []
        self._definitions: dict[str, OpDef | None] = {}
        all_scopes = [model.main_scope() if n == MAIN_GRAPH else model.scope(n) for n in (*scopes, *observed)]
        self.tensors: dict[str, dict[str, Tensor]] = {s.name: {} for s in all_scopes}
        for scope in all_scopes:
            self._add_function(scope)
        for scope in all_scopes:
            self._add_scope(scope)
        self._finish(all_scopes)

    # --- answers ------------------------------------------------------------------------------------------------

    @property
    def sites(self) -> dict[int, Site]:
        return self._places.sites

    def root(self, place: int) -> int:
        """The class of a place."""
        return self._places.root(place)

    def kind(self, place: int) -> Kind:
        return self._kinds.of(place)

    def is_data(self, place: int) -> bool:
        """Whether a place is made of more than constants, integers and random numbers."""
        return self.kind(place) >= Kind.GIVEN

    def is_exact(self, edge: Edge) -> bool:
        """Whether what takes the values of an edge must not be given rounded ones."""
        if edge.node is None or not self.converts(edge.scope.name):
            return False
        listed = edge.place is not None and self.pins.get(self.root(edge.place)) == USER_REASON
        return listed or needs_exact_values(edge.node)

    def origins(self, tensors: Iterable[Tensor]) -> set[int]:
        """Classes, and vertices, of all that these tensors are made of."""
        return self._kinds.origins(tensor.vertex for tensor in tensors)

    def converts(self, scope_name: str) -> bool:
        """Whether this is a scope to convert, and not one around these."""
        return scope_name in self._scopes

    def is_pinned_variable(self, scope_name: str, node_name: str) -> bool:
        """Whether a node that reads or writes a variable has to do so as float32."""
        return (scope_name, node_name) in self._pinned_variables

    # --- building -----------------------------------------------------------------------------------------------

    def _join(self, a: int | None, b: int | None, reason: str) -> None:
        """Joins two places; what has no place always is float32 and keeps the other so."""
        if a is not None and b is not None:
            self._places.join(a, b)
            return
        for place in (a, b):
            if place is not None:
                self._pinned.append((place, reason))

    def _add_function(self, scope: Scope) -> None:
        """Places of arguments and results."""
        if scope.function is None:
            return
        signature = scope.function.signature
        fixed = scope.name not in self._scopes or scope.name in self._fixed_functions
        for attr, arguments, places in (
            ("argument", signature.input_arg, self._arguments),
            ("result", signature.output_arg, self._results),
        ):
            own = places[scope.name] = []
            for i, argument in enumerate(arguments):
                if argument.type not in (_FLOAT, _VARIANT):
                    own.append(None)
                    continue
                holds_float = argument.type == _FLOAT or any(d.dtype == _FLOAT for d in argument.handle_data)
                place = self._places.new(True, Site(scope, None, attr, i) if holds_float else None)
                own.append(place)
                if fixed:
                    self._unchanged.append(place)
                if attr == "argument":
                    self.tensors[scope.name][argument.name] = Tensor(scope, None, argument.name, 0, place, place)

    def _add_scope(self, scope: Scope) -> None:
        waiting: list[_Waiting] = []
        for node in scope.nodes:
            self._add_node(scope, node, waiting)
        if scope.function is not None:
            for i, result in enumerate(scope.function.signature.output_arg):
                place = self._results[scope.name][i]
                if place is not None:
                    ref = edit.canonical_ref(scope.function.ret[result.name], scope)
                    edge = Edge(scope, None, i, result.name, ref, None, place)
                    waiting.append((edge, place, result.type))
        for edge, vertex, dtype in waiting:
            edge.tensor = self.tensors[scope.name].get(edge.ref)
            self._add_edge(edge, vertex, dtype)

    def _add_edge(self, edge: Edge, vertex: int, dtype: DataType) -> None:
        tensor = edge.tensor
        source = None if tensor is None else tensor.place
        if dtype == _VARIANT:
            self._join(source, edge.place, "handles a variant that the converter cannot follow")
            return
        if tensor is not None:
            self._kinds.add_flow(tensor.vertex, vertex)
        else:
            self._kinds.add_floor(vertex, self._unknown_kind(edge.scope))
        ends = (edge.node, None if tensor is None else tensor.node)
        if any(end is not None and end.op in ops.TPU_MARKERS for end in ends):
            # Nothing may stand between a marker and its neighbours.
            self._join(source, edge.place, "is next to a marker of the TPU cluster")
        self.edges.append(edge)
        if edge.place in self.sinks:
            self.sinks[edge.place].append(edge)

    def _definition(self, op: str) -> OpDef | None:
        if op not in self._definitions:
            self._definitions[op] = ops.op_def(op, self.model)
        return self._definitions[op]

    def _add_node(self, scope: Scope, node: NodeDef, waiting: list[_Waiting]) -> None:
        definition = self._definition(node.op)
        inputs = [edit.canonical_ref(ref, scope) for ref in edit.data_inputs(node)]
        if definition is None:
            # Whatever a custom op takes, it goes on taking.
            for i, ref in enumerate(inputs):
                waiting.append((Edge(scope, node, i, "", ref, None, None), self._places.new(False), _FLOAT))
            return
        taken, given = ops.input_slots(node, definition), ops.output_slots(node, definition)
        if not any(s.dtype in (_FLOAT, _VARIANT) for s in (*taken, *given)) and not makes_list(node):
            self._call(scope, node, [], [])
            return
        own = NodePlaces(self._places, scope, node, node.op in ops.MOVEMENT or _passed(node, self.model) is not None)
        if node.op in self._arguments:
            in_places, out_places = list(self._arguments[node.op]), list(self._results[node.op])
        else:
            in_places, out_places = [own.of(s) for s in taken], [own.of(s) for s in given]
        float_in, float_out = [], []
        for i, (slot, place) in enumerate(zip(taken, in_places, strict=True)):
            if slot.dtype in (_FLOAT, _VARIANT):
                vertex = own.vertex if place is None else place
                waiting.append((Edge(scope, node, i, "", inputs[i], None, place), vertex, slot.dtype))
                if slot.dtype == _FLOAT:
                    float_in.append(vertex)
        for i, (slot, place) in enumerate(zip(given, out_places, strict=True)):
            if slot.dtype in (_FLOAT, _VARIANT):
                # Ones and zeros tell nothing of the values whose shape they have.
                vertex = own.vertex if place is None or node.op in _CONSTANT_RESULTS else place
                ref = edit.canonical_ref(scope.ref(node.name, slot.arg, slot.index, i), scope)
                self.tensors[scope.name][ref] = Tensor(scope, node, ref, i, place, vertex)
                if slot.dtype == _FLOAT and node.op not in _CONSTANT_RESULTS:
                    float_out.append(vertex)
        if self._call(scope, node, in_places, out_places):
            return
        self._restrict(scope, node, definition, own, [*taken, *given])
        if own.is_list:
            return
        if node.op == tpu.BATCH_CALL:
            self._flow_through(scope, node, in_places, out_places)
            return
        self._kinds.add_node(scope, node, own.vertex, float_in, float_out, scope.name in self._scopes)
        takes_only = len(set(float_in)) == 1 and not float_out and float_in[0] in self.sites
        if takes_only and node.op != "Cast" and value_attr(node) is None:
            self.sinks[float_in[0]] = []

    def _call(self, scope: Scope, node: NodeDef, in_places: list[int | None], out_places: list[int | None]) -> bool:
        """Joins what a call passes and gets with the ends of what it calls; False for any other node."""
        called = _passed(node, self.model)
        if called is None:
            return False
        offset, names = called
        for name in names:
            self._called.add(name)
            self._join_all(in_places[offset:], self._arguments.get(name), name)
            # A loop's condition takes what its body takes, but gives something else.
            if node.op not in ops.LOOPS or name == node.attr["body"].func.name:
                self._join_all(out_places, self._results.get(name), name)
                self._receive(scope, name, out_places)
        if node.op in ops.LOOPS and names[0] in self._arguments:
            self._join_all(self._arguments[names[0]], self._results[names[0]], names[0])
        own = [p for p in (*in_places, *out_places) if p is not None]
        if node.op in ops.BRANCHES and in_places and in_places[0] is not None:
            self._pinned.append((in_places[0], "is the condition of a branch"))
        if not self._changes(scope, node):
            self._unchanged += own
        elif (listed := self._filter.listed(node.op)) is not None:
            self._pinned += [(p, listed) for p in own]
        if node.op == tpu.TPU_CALL and self._changes(scope, node):
            self.boundary += own
        return True

    def _join_all(self, own: list[int | None], theirs: list[int | None] | None, function: str) -> None:
        reason = f'is passed to or from "{function}", which stays as it is'
        for a, b in zip(own, theirs if theirs is not None else [None] * len(own), strict=False):
            self._join(a, b, reason)

    def _receive(self, scope: Scope, function: str, out_places: list[int | None]) -> None:
        """What a call gets from a function that is not looked into may be made of anything."""
        if function not in self._results:
            for place in out_places:
                if place is not None:
                    self._kinds.add_floor(place, self._unknown_kind(scope))

    def _flow_through(
        self, scope: Scope, node: NodeDef, in_places: list[int | None], out_places: list[int | None]
    ) -> None:
        """Values pass a BatchFunction as they do any call, though its types and those of its function stay."""
        for name in calls.called_functions(node, self.model):
            self._called.add(name)
            self._kinds.add_flows(in_places, self._arguments.get(name, ()))
            self._kinds.add_flows(self._results.get(name, ()), out_places)
            self._receive(scope, name, out_places)

    def _unknown_kind(self, scope: Scope) -> Kind:
        return Kind.DATA if self.converts(scope.name) else Kind.GIVEN

    def _changes(self, scope: Scope, node: NodeDef) -> bool:
        return scope.name in self._scopes or (node.op == tpu.TPU_CALL and self._changes_call(node))

    def _restrict(
        self, scope: Scope, node: NodeDef, definition: OpDef, own: NodePlaces, slots: list[ops.ArgSlot]
    ) -> None:
        """Pins what the filter, or the nature of the op, keeps float32, and notes the special ops."""
        places = own.all
        if scope.name not in self._scopes:
            self._unchanged += places
            return
        reason = self._filter.reason(node, definition, own.float_attrs, self._scopes[scope.name])
        variable = value_attr(node)
        opaque = any(s.dtype in (_RESOURCE, _VARIANT) and not s.attr for s in slots)
        if reason is None and variable is None and not own.is_list and opaque:
            reason = "handles a resource or variant whose type the converter does not follow"
        if reason is None and calls.called_functions(node, self.model):
            reason = "calls functions in a way that the converter does not follow"
        if reason is not None:
            self._pinned += [(p, reason) for p in places]
        if variable is not None:
            self.variables.update(dict.fromkeys(places, (scope, node)))
        elif reason is None and node.op == "Const":
            self.constants.update(dict.fromkeys(places, node))
        elif reason is None and node.op == "Cast":
            self.cast_sources.update(p for p in places if self.sites[p].attr == "SrcT")
            self.cast_targets.update({p: node for p in places if self.sites[p].attr == "DstT"})

    # --- finishing ----------------------------------------------------------------------------------------------

    def _finish(self, scopes: Iterable[Scope]) -> None:
        for scope in scopes:
            if scope.function is not None:
                self._add_argument_kinds(scope.function)
        self._kinds.propagate(self.model)
        self._pin_normalizations()
        for place, reason in self._pinned:
            self.pins.setdefault(self.root(place), reason)
        self.outside = {self.root(p) for p in self._unchanged}
        for root in self.outside:
            self.pins.setdefault(root, "is outside of what is converted")
        self._pin_what_must_be_exact()
        self.movement = self._places.movement()
        self._pinned_variables = {
            (scope.name, node.name) for p, (scope, node) in self.variables.items() if self.root(p) in self.pins
        }

    def _pin_normalizations(self) -> None:
        nodes: set[tuple[str, str]] = set()
        for name in self._scopes:
            scope, tensors = self.model.scope(name), self.tensors[name]
            constant = {a for a, t in tensors.items() if t.node is None and self.kind(t.vertex) is Kind.CONSTANT}
            nodes |= {(name, node) for node in normalization_nodes(scope, constant.__contains__)}
        for place, site in self.sites.items():
            if site.node is not None and (site.scope.name, site.node.name) in nodes:
                self._pinned.append((place, NORMALIZATION))

    def _pin_what_must_be_exact(self) -> None:
        """Ops on values that nothing has rounded yet, if these become indices, lengths, times, or a spectrum."""
        ends = [
            edge.tensor
            for edge in self.edges
            if edge.node is not None and edge.tensor is not None and needs_exact_values(edge.node)
            if self.converts(edge.scope.name) and self.kind(edge.tensor.vertex) is Kind.GIVEN
        ]
        for root in self.origins(ends):
            self.pins.setdefault(root, "becomes whole numbers or a spectrum in the end")

    def _add_argument_kinds(self, function: FunctionDef) -> None:
        """Arguments that callers outside of these scopes may set can be anything, but for what is bound to them."""
        name = function.signature.name
        objects = self.model.object_graph
        if name in self._called and name not in objects.concrete_functions:
            return
        captures = self.model.captures_of(name)
        for i, place in enumerate(self._arguments[name]):
            if place is None:
                continue
            bound = objects.nodes[captures[i]] if i in captures else None
            if bound is not None and bound.WhichOneof("kind") == "captured_tensor":
                self._add_captured(bound.captured_tensor, place)
            elif bound is None or bound.WhichOneof("kind") != "constant":
                self._kinds.add_floor(place, Kind.GIVEN)

    def _add_captured(self, captured: CapturedTensor, place: int) -> None:
        """An argument that is bound to a tensor inside of a function."""
        tensor = named_tensor(self.tensors.get(captured.concrete_function, {}).values(), captured.name)
        function = self.model.functions.get(captured.concrete_function)
        nodes = () if function is None else function.node_def
        if tensor is not None:
            self._kinds.add_flow(tensor.vertex, place)
        elif not any(n.op == "Const" and n.name == edit.producer_of(captured.name) for n in nodes):
            self._kinds.add_floor(place, Kind.GIVEN)


def follows_calls(node: NodeDef, model: Model) -> bool:
    """Whether the types that `node` passes to the functions it refers to can be changed along with these."""
    called = _passed(node, model)
    return called is not None and set(called[1]) == set(calls.called_functions(node, model))


def _passed(node: NodeDef, model: Model) -> tuple[int, list[str]] | None:
    # The batching thread feeds the function of a BatchFunction with what requests hold, whose types stay.
    return None if node.op == tpu.BATCH_CALL else calls.passes_to(node, model)
