"""Tests of passes: a graph before and after as short text, so that each test documents its rewrite.

How the text is written is told in converter/graph/text.py.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence

import pytest

from converter.graph.invariants import check_structure
from converter.graph.model import Model
from converter.graph.text import HIDDEN_ATTRS, render, render_function
from converter.passes.pass_result import AnyPass, Pass, PassResult, Plan
from tests.kept import look_ups_checked
from tests.model_parser import parse_model, write_model_text

__all__ = [
    "HIDDEN_ATTRS",
    "assert_pass",
    "assert_pass_raises",
    "assert_second_run_changes_nothing",
    "parse_model",
    "render",
    "render_function",
    "write_model_text",
]

Expected = Sequence[str | re.Pattern[str]]


def assert_pass(
    each: AnyPass,
    before: str,
    after: str,
    *,
    changes: Expected | None = None,
    skips: Expected = (),
    warnings: Expected = (),
    recasts: Collection[str] = (),
    show: Collection[str] = (),
) -> PassResult:
    """Fails unless the pass turns `before` into `after` and tells the truth of it.

    Checks besides: the models before and after are consistent; planning changes nothing, and nothing that it looks up
    is out of date; `changes` is empty exactly when nothing changed; a second run plans nothing and changes nothing.

    Args:
      changes, skips: what the pass reports, each as "where: what", in order; a compiled pattern is searched for.
        `changes` None is no check, beyond those above.
      warnings: the same with the message alone.
      recasts: `model.recasts` afterwards.
      show: attributes that are compared although they are among HIDDEN_ATTRS.
    """
    model = parse_model(before)
    check_structure(model)
    state = _state(model)
    assert_planning_changes_nothing(each, model)
    with look_ups_checked():
        result = each.apply(model)
    _assert_same_text(render(model, show, sort=True), render(parse_model(after), show, sort=True))
    check_structure(model)
    _assert_truthful(result, changed=_state(model) != state)
    if changes is not None:
        _assert_said("changes", [f"{c.where}: {c.what}" for c in result.changes], changes)
    _assert_said("skips", [f"{s.where}: {s.reason}" for s in result.skips], skips)
    _assert_said("warnings", result.warnings, warnings)
    assert model.recasts == set(recasts), f"recasts: expected {sorted(recasts)}, found {sorted(model.recasts)}"
    assert_second_run_changes_nothing(each, model)
    return result


def assert_pass_raises(each: AnyPass, before: str, error: type[Exception], message_regex: str) -> None:
    """Fails unless the pass refuses `before` with exactly this type of error and leaves the model as it was."""
    model = parse_model(before)
    check_structure(model)
    state = _state(model)
    with pytest.raises(error, match=message_regex) as caught:
        each.apply(model)
    assert type(caught.value) is error, f"expected {error.__name__}, found {type(caught.value).__name__}"
    assert _state(model) == state, "the pass changed the model before it failed"


def assert_second_run_changes_nothing(each: AnyPass, model: Model) -> None:
    """Fails unless the pass leaves `model`, to which it has been applied, as it is."""
    state = _state(model)
    if isinstance(each, Pass):
        plan = assert_planning_changes_nothing(each, model)
        assert plan.is_empty, f"a second run plans {plan}"
    result = each.apply(model)
    assert not result.changes, f"a second run reports {result.changes}"
    assert _state(model) == state, "a second run changes the model"


def assert_planning_changes_nothing(each: AnyPass, model: Model) -> Plan | None:
    """Fails unless `plan` is a frozen dataclass, the same twice, and leaves `model` as it was byte by byte."""
    if not isinstance(each, Pass):
        return None
    state = _state(model)
    with look_ups_checked(), model.unchanged():
        plan = each.plan(model)
    assert _state(model) == state, "planning changes the model"
    assert type(plan).__dataclass_params__.frozen, f"{type(plan).__name__} is not a frozen dataclass"
    # While this one is made, nothing is kept.
    assert each.plan(model) == plan, "a second plan of the same model is another"
    return plan


def _state(model: Model) -> tuple[bytes, tuple[str, ...]]:
    return model.saved_model.SerializeToString(deterministic=True), tuple(sorted(model.recasts))


def _assert_truthful(result: PassResult, changed: bool) -> None:
    assert bool(result.changes) == changed, (
        f"the pass {'changed' if changed else 'did not change'} the model and reports {result.changes or 'no changes'}"
    )
    json.dumps(result.details.to_json())
    assert all(isinstance(line, str) for line in result.details.lines())


def _assert_said(what: str, found: Sequence[str], expected: Expected) -> None:
    shown = "".join(f"\n  {text!r}" for text in found) or " none"
    assert len(found) == len(expected), f"{len(expected)} {what} expected, found {len(found)}:{shown}"
    for text, pattern in zip(found, expected, strict=True):
        fits = text == pattern if isinstance(pattern, str) else bool(pattern.search(text))
        assert fits, f"{what}: expected {pattern!r}, found:{shown}"


def _assert_same_text(found: str, expected: str) -> None:
    if found != expected:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="")
        diff = "\n".join(lines)
        pytest.fail(f"the model differs from the expected one\n{diff}\n--- found, whole\n{found}", pytrace=False)
