"""The harness itself: a pass that lies or leaves damage is caught."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.errors import ConversionError, InternalError
from converter.graph.model import Model
from converter.passes.pass_result import Pass, PassResult, Plan
from converter.saved_model.reader import read_model
from tests.harness import assert_pass, assert_pass_raises, write_model_text

COPY = """
main { x = Placeholder() {dtype: float32, shape: <>}; y = Identity(x) {T: float32} }
"""


@dataclass(frozen=True)
class Do:
    """A pass that does to the model what its test says."""

    action: Callable[[Model, PassResult], None]
    name = "do"

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        self.action(model, result)
        return result


def rename_y(model: Model, result: PassResult) -> None:
    for node in model.graph_def.node:
        if node.name == "y":
            node.name = "z"
            result.changed("main graph", "renamed y")


def test_a_pass_that_does_what_it_says_passes() -> None:
    after = "main { x = Placeholder() {dtype: float32, shape: <>}; z = Identity(x) {T: float32} }"
    assert_pass(Do(rename_y), COPY, after, changes=["main graph: renamed y"])
    assert_pass(Do(rename_y), COPY, after, changes=[re.compile("^main graph.*y$")])
    assert_pass(Do(lambda model, result: None), COPY, COPY, changes=[])


def _lie(model: Model, result: PassResult) -> None:
    result.changed("main graph", "nothing really")


def _hide(model: Model, result: PassResult) -> None:
    for node in model.graph_def.node:
        node.attr["_output_shapes"].list.SetInParent()


def _break(model: Model, result: PassResult) -> None:
    del model.graph_def.node[0]
    result.changed("main graph", "removed x")


def _never_done(model: Model, result: PassResult) -> None:
    model.graph_def.versions.producer += 1
    result.changed("main graph", "counted")


def _skip_and_warn(model: Model, result: PassResult) -> None:
    result.skipped("y", "is fine")
    result.warnings.append("careful")


def _recast(model: Model, result: PassResult) -> None:
    if "v" not in model.recasts:
        model.recasts.add("v")
        result.changed("v", "is bfloat16")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (_lie, "did not change the model and reports"),
        (_hide, "changed the model and reports no changes"),
        (_never_done, "a second run reports"),
        (_skip_and_warn, "0 skips expected, found 1:\n  'y: is fine'"),
        (_recast, r"recasts: expected \[\], found \['v'\]"),
    ],
)
def test_a_pass_that_does_otherwise_is_caught(action: Callable[[Model, PassResult], None], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_pass(Do(action), COPY, COPY)


def test_skips_warnings_and_recasts_are_compared() -> None:
    assert_pass(Do(_skip_and_warn), COPY, COPY, skips=["y: is fine"], warnings=[re.compile("car")])
    assert_pass(Do(_recast), COPY, COPY, recasts=["v"])
    with pytest.raises(AssertionError, match="skips: expected 'y: is good', found:\n  'y: is fine'"):
        assert_pass(Do(_skip_and_warn), COPY, COPY, skips=["y: is good"], warnings=["careful"])
    with pytest.raises(AssertionError, match="warnings: expected"):
        assert_pass(Do(_skip_and_warn), COPY, COPY, skips=["y: is fine"], warnings=["care"])


def test_another_result_than_expected_is_shown_as_a_difference() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-  y = Identity\(x\).*\+  z = Identity\(x\).*found, whole"):
        assert_pass(Do(rename_y), COPY, COPY)


def test_a_broken_model_is_caught() -> None:
    with pytest.raises(InternalError, match='input "x" of node "y" does not exist'):
        assert_pass(Do(_break), COPY, "main { y = Identity(x) {T: float32} }")
    with pytest.raises(InternalError, match='input "w" of node "y" does not exist'):
        assert_pass(Do(rename_y), "main { y = Identity(w) {T: float32} }", COPY)


def test_errors_are_compared_with_their_type_and_the_model_must_be_untouched() -> None:
    def refuse(model: Model, result: PassResult) -> None:
        raise ConversionError("no such thing")

    def change_and_refuse(model: Model, result: PassResult) -> None:
        rename_y(model, result)
        refuse(model, result)

    assert_pass_raises(Do(refuse), COPY, ConversionError, "such")
    with pytest.raises(AssertionError, match="before it failed"):
        assert_pass_raises(Do(change_and_refuse), COPY, ConversionError, "such")
    with pytest.raises(AssertionError, match="expected Exception, found ConversionError"):
        assert_pass_raises(Do(refuse), COPY, Exception, "such")


COUNT = itertools.count()


@dataclass(frozen=True)
class Frozen:
    wanted: int = 0
    is_empty: bool = True


@dataclass
class Loose:
    is_empty = True


@dataclass(frozen=True)
class PlanOf(Pass[Plan]):
    """A pass that plans what its test says and carries out nothing."""

    action: Callable[[Model], Plan]
    name = "plan"

    def plan(self, model: Model) -> Plan:
        return self.action(model)

    def carry_out(self, model: Model, plan: Plan) -> PassResult:
        return PassResult()


def _look_by_creating(model: Model) -> Plan:
    return Frozen(model.graph_def.node[0].attr["absent"].i)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (_look_by_creating, "planning changes the model"),
        (lambda model: Loose(), "Loose is not a frozen dataclass"),
        (lambda model: Frozen(next(COUNT)), "a second plan of the same model is another"),
        (lambda model: Frozen(is_empty=False), r"a second run plans Frozen\(wanted=0, is_empty=False\)"),
    ],
)
def test_a_plan_that_is_none_is_caught(action: Callable[[Model], Plan], message: str) -> None:
    assert_pass(PlanOf(lambda model: Frozen()), COPY, COPY)
    with pytest.raises(AssertionError, match=message):
        assert_pass(PlanOf(action), COPY, COPY)


def test_a_model_of_text_can_be_read_from_disk(tmp_path: Path) -> None:
    directory = write_model_text('alias "f" = @F\n@F() -> () { return }', tmp_path / "model")
    assert read_model(directory).aliases == {"f": ("F",)}
