"""The base of all passes: plan, carry out, and no result that lies."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from converter.errors import InternalError
from converter.graph.model import Model
from converter.passes.pass_result import Change, NoDetails, Pass, PassResult
from tests.harness import parse_model

TEXT = "main { x = Placeholder() {dtype: float32}; y = Identity(x) {T: float32} }"


@dataclass(frozen=True)
class Renames:
    """The nodes that get a new name."""

    nodes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.nodes


@dataclass(frozen=True)
class Rename(Pass[Renames]):
    """Renames the nodes called y; `looking` and `editing` are what it does besides."""

    looking: Callable[[Model], object] = id
    editing: Callable[[Model], object] = id
    tells: bool = True

    name = "rename"

    def plan(self, model: Model) -> Renames:
        self.looking(model)
        return Renames(tuple(n.name for n in model.graph_def.node if n.name == "y"))

    def carry_out(self, model: Model, plan: Renames) -> PassResult:
        result = PassResult()
        for node in model.graph_def.node:
            if node.name in plan.nodes:
                node.name = "z"
        self.editing(model)
        if self.tells:
            result.changes.extend(Change(name, "renamed") for name in plan.nodes)
        return result


def test_a_pass_plans_and_carries_out() -> None:
    model = parse_model(TEXT)
    plan = Rename().plan(model)
    assert plan == Renames(("y",)) and not plan.is_empty
    assert [n.name for n in model.graph_def.node] == ["x", "y"]
    assert Rename().apply(model).changes == [Change("y", "renamed")]
    assert [n.name for n in model.graph_def.node] == ["x", "z"]
    assert Rename().plan(model).is_empty


@pytest.mark.parametrize(
    "looking",
    [
        lambda model: model.recasts.add("v"),
        lambda model: model.graph_def.node[0].ClearField("name"),
        # Reading a key that a map of a proto lacks makes it.
        lambda model: model.graph_def.node[0].attr["absent"].type,
    ],
    ids=["recasts", "edits", "reads"],
)
def test_a_plan_that_edits_is_a_defect(looking: Callable[[Model], object]) -> None:
    with pytest.raises(InternalError, match=r'^The pass "rename" changed the model while it planned\.$'):
        Rename(looking=looking).apply(parse_model(TEXT))


@pytest.mark.parametrize(
    ("silent", "text"),
    [
        (Rename(tells=False), TEXT),
        (Rename(editing=lambda model: model.recasts.add("v")), TEXT.replace("y =", "w =")),
    ],
    ids=["renamed", "recasts"],
)
def test_a_change_that_is_not_told_is_a_defect(silent: Rename, text: str) -> None:
    with pytest.raises(InternalError, match=r'^The pass "rename" changed the model and reports no change\.$'):
        silent.apply(parse_model(text))


def test_a_pass_that_finds_nothing_to_do_tells_nothing() -> None:
    result = Rename(tells=False).apply(parse_model(TEXT.replace("y =", "w =")))
    assert result == PassResult() and result.details == NoDetails()
    assert result.details.lines() == [] and result.details.to_json() == {}
