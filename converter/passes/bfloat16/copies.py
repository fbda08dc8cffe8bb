"""Copies of functions that TPU code shares with other code, since only the TPU's is to compute in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass, replace

from converter.graph import calls
from converter.graph.functions import copy_function, function_name
from converter.graph.model import Model
from converter.passes.bfloat16.places import NodeKey, nodes_at
from converter.passes.bfloat16.region import Region, is_entry
from converter.passes.pass_result import Change


@dataclass(frozen=True)
class Copies:
    """The functions that get a copy.

    Attributes:
      names: function -> its copy, in the order in which they are made.
      callers: functions that call the copies instead, by the names that they have then.
      entries: TPU calls that call the copies instead.
    """

    names: tuple[tuple[str, str], ...] = ()
    callers: tuple[str, ...] = ()
    entries: tuple[NodeKey, ...] = ()

    def make(self, model: Model) -> None:
        for original, copy in self.names:
            copy_function(model, original, copy)
        renamed = dict(self.names)
        for name in self.callers:
            for node in model.functions[name].node_def:
                calls.rename_callees(node, renamed)
        for node in nodes_at(model, self.entries):
            calls.rename_callees(node, renamed)

    def preview(self, model: Model) -> Model:
        """The model as it will be with the copies: what is decided for each of them can be looked up by its name."""
        if not self.names:
            return model
        model = model.copy()
        self.make(model)
        return model

    def changes(self) -> list[Change]:
        why = "because other code uses it as well"
        return [Change(name, f"copied to {copy}, {why}") for name, copy in self.names]


def find_copies(model: Model, region: Region) -> tuple[Copies, Region]:
    """Gives converted TPU code its own copy of every function that anything else refers to.

    Returns:
      The copies, and the region as it is with them.
    """
    on_tpu = {name for name, is_tpu in region.scopes.items() if is_tpu}
    elsewhere: dict[str, None] = {}
    for scope in model.scopes():
        if scope.name in on_tpu:
            continue
        for node in scope.nodes:
            if not is_entry(node):
                elsewhere.update(dict.fromkeys(calls.called_functions(node, model)))
    elsewhere.update(dict.fromkeys(model.object_graph.concrete_functions))
    graph = calls.call_graph(model)
    shared = [n for n in graph.reachable([n for n in elsewhere if n in on_tpu]) if n in on_tpu]
    if not shared:
        return Copies(), region
    names: dict[str, str] = {}
    for name in shared:
        names[name] = function_name(model, name, "bfloat16", taken=names.values())
    scopes = {names.get(name, name): is_tpu for name, is_tpu in region.scopes.items()}
    scopes |= dict.fromkeys(region.on_both, False)  # all of these are shared: the CPU refers to them
    callers = tuple(name for name, is_tpu in scopes.items() if is_tpu)
    return Copies(tuple(names.items()), callers, region.tpu_entries), replace(region, scopes=scopes, on_both=())
