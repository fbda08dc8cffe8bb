"""The SavedModel in memory: one meta graph, its functions by name, signatures, aliases and object graph.

A `Model` is a thin index over TensorFlow's own protos. Passes edit the protos in place; the index only has to
be told about functions that come and go (`add_function`, `remove_functions`). What is made of the model besides is
kept only while it is `unchanged`, so that no edit can leave it behind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from converter.graph.protos import (
    FunctionDef,
    GraphDef,
    MetaGraphDef,
    Nodes,
    SavedModel,
    SavedObjectGraph,
    SignatureDef,
)

MAIN_GRAPH = "main graph"
VARIABLES_PREFIX = Path("variables") / "variables"  # of the checkpoint, in the directory of the model
INIT_OP_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Scope:
    """A place that holds nodes: the main graph (`function` is None) or one function of the library."""

    name: str
    nodes: Nodes
    function: FunctionDef | None

    @classmethod
    def of(cls, function: FunctionDef) -> Scope:
        """The scope of a function, in the library or not yet."""
        return cls(function.signature.name, function.node_def, function)

    def ref(self, node_name: str, output_arg: str, index: int, flat_index: int) -> str:
        """How this scope spells an output of a node: functions name the output arg, the main graph counts."""
        if self.function is not None:
            return f"{node_name}:{output_arg}:{index}"
        return node_name if flat_index == 0 else f"{node_name}:{flat_index}"


class Model:
    """A SavedModel with exactly one meta graph and an object graph.

    Attributes:
      path: directory that the model was read from; variables and assets are still there.
      saved_model: the proto, edited in place.
      functions: the function library by name; kept in step by `add_function` and `remove_functions`.
      recasts: checkpoint keys of float32 tensors to store as bfloat16; carried out by the writer.
    """

    def __init__(self, saved_model: SavedModel, path: Path) -> None:
        self.saved_model = saved_model
        self.path = path
        self._kept: dict[Hashable, object] | None = None
        self.functions: dict[str, FunctionDef] = {f.signature.name: f for f in self.graph_def.library.function}
        self.recasts: set[str] = set()

    def copy(self) -> Model:
        """A model of the same content; what is done to one leaves the other alone."""
        saved_model = SavedModel()
        saved_model.CopyFrom(self.saved_model)
        copied = Model(saved_model, self.path)
        copied.recasts = set(self.recasts)
        return copied

    @property
    def meta_graph(self) -> MetaGraphDef:
        return self.saved_model.meta_graphs[0]

    @property
    def graph_def(self) -> GraphDef:
        return self.meta_graph.graph_def

    @property
    def object_graph(self) -> SavedObjectGraph:
        return self.meta_graph.object_graph_def

    def scopes(self) -> Iterator[Scope]:
        """The main graph first, then every function: the one way in which passes go over the whole model."""
        yield self.main_scope()
        for name in list(self.functions):
            yield self.scope(name)

    def main_scope(self) -> Scope:
        return Scope(MAIN_GRAPH, self.graph_def.node, None)

    def scope(self, name: str) -> Scope:
        """The scope of that name: of a function, or, as MAIN_GRAPH, the main graph."""
        return self.main_scope() if name == MAIN_GRAPH else Scope.of(self.functions[name])

    def add_function(self, function: FunctionDef) -> FunctionDef:
        """Adds a copy of `function` to the library and returns the copy; the name must be new."""
        name = function.signature.name
        if name in self.functions:
            raise ValueError(f'function "{name}" exists already')
        added = self.graph_def.library.function.add()
        added.CopyFrom(function)
        self.functions[name] = added
        return added

    def remove_functions(self, names: Iterable[str]) -> None:
        """Removes functions from the library; the caller has made sure that nothing refers to them."""
        doomed = set(names)
        library = self.graph_def.library.function
        kept = [f for f in library if f.signature.name not in doomed]
        copies = [type(f).FromString(f.SerializeToString()) for f in kept]
        del library[:]
        library.extend(copies)
        self.functions = {f.signature.name: f for f in library}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, nobody edits the model: what is made of it (`kept`) is made once."""
        before = self._kept
        if before is None:
            self._kept = {}
        try:
            yield
        finally:
            self._kept = before

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` makes of the model: once for each key while the model is `unchanged`, anew otherwise."""
        if self._kept is None:
            return make()
        if key not in self._kept:
            self._kept[key] = make()
        return cast(_T, self._kept[key])

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Function alias -> names of the concrete functions that carry it and exist in the library."""
        found: dict[str, list[str]] = {}
        for function, alias in sorted(self.meta_graph.meta_info_def.function_aliases.items()):
            if function in self.functions:
                found.setdefault(alias, []).append(function)
        return {alias: tuple(names) for alias, names in found.items()}

    @property
    def signatures(self) -> dict[str, SignatureDef]:
        """Signature key -> SignatureDef, without the init op's pseudo signatures."""
        return {k: s for k, s in self.meta_graph.signature_def.items() if k not in INIT_OP_SIGNATURES}
