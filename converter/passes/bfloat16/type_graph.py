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

from converter.graph.model import Model
from converter.graph.protos import NodeDef
from converter.passes.bfloat16.filter import USER_REASON, OpFilter, needs_exact_values
from converter.passes.bfloat16.kinds import Kind
from converter.passes.bfloat16.normalization import NORMALIZATION, normalization_nodes
from converter.passes.bfloat16.places import Edge, NodeKey, Site, Tensor
from converter.passes.bfloat16.scan import Scan


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
        self._model = model
        self.pins: dict[int, str] = {}
        self._scopes = scopes
        scan = Scan(model, scopes, op_filter, changes_call)
        all_scopes = [model.scope(name) for name in (*scopes, *observed)]
        for scope in all_scopes:
            scan.add_function(scope, fixed=scope.name not in scopes or scope.name in fixed_functions)
        for scope in all_scopes:
            scan.add_scope(scope)
        for scope in all_scopes:
            scan.ends.add_free_arguments(scope, scan.tensors)
        self._places, self._kinds = scan.places, scan.kinds
        self.edges, self.tensors = scan.edges, scan.tensors
        self.constants, self.cast_sources, self.cast_targets = scan.constants, scan.cast_sources, scan.cast_targets
        self.variables, self.sinks, self.boundary = scan.variables, scan.sinks, scan.boundary
        self._kinds.propagate(model)
        self._pin_normalizations()
        for place, reason in self._places.pinned:
            self.pins.setdefault(self.root(place), reason)
        self.outside = {self.root(p) for p in scan.unchanged}
        for root in self.outside:
            self.pins.setdefault(root, "is outside of what is converted")
        self._pin_what_must_be_exact()
        self.movement = self._places.movement()
        self._pinned_variables = {
            (scope.name, node.name) for p, (scope, node) in self.variables.items() if self.root(p) in self.pins
        }

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

    def _pin_normalizations(self) -> None:
        nodes: set[NodeKey] = set()
        for name in self._scopes:
            scope, tensors = self._model.scope(name), self.tensors[name]
            constant = {a for a, t in tensors.items() if t.node is None and self.kind(t.vertex) is Kind.CONSTANT}
            nodes |= {(name, node) for node in normalization_nodes(scope, constant.__contains__)}
        for place, site in self.sites.items():
            if site.node is not None and (site.scope.name, site.node.name) in nodes:
                self._places.pinned.append((place, NORMALIZATION))

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
