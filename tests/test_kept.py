"""What is looked up in a model is never out of date, whatever the passes do: on models of the tests, by all options."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter import parse_options
from converter.graph import calls
from converter.graph.model import Model
from converter.graph.nodes import make_node
from converter.graph.scope_index import scope_index
from converter.options.settings import ConvertSettings
from converter.pipeline import build_passes, run_passes
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.harness import parse_model
from tests.kept import look_ups_checked

BATCHED = "batch_options { num_batch_threads: 2 max_batch_size: 8 allowed_batch_sizes: [2, 4, 8] }"
TEXT = "main { a = F() } @F() -> () { n = NoOp(); return } @G() -> () { return }"


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    with look_ups_checked():
        yield


@pytest.mark.parametrize("name", ["two_functions", "shared_helper", "while_in_if", "captured_constants", "keras_dense"])
def test_passes_look_up_what_is_there(name: str, testdata: Callable[[str], Path]) -> None:
    directory = testdata(name)
    model = read_model(directory)
    options = parse_options(f"{MODELS[name].options_for(directory)} {BATCHED}")
    passes = build_passes(options, ConvertSettings(allow_batching_violations=True))
    assert any(report.result.changes for report in run_passes(model, passes, [look_up_everything]))
    assert not any(report.result.changes for report in run_passes(model, passes, [look_up_everything]))


def look_up_everything(model: Model, after: str = "") -> None:
    with model.unchanged():
        for _ in range(2):
            calls.call_graph(model)
            calls.call_sites(model)
            for scope in model.scopes():
                scope_index(model, scope.name)


EDITS: dict[str, Callable[[Model], object]] = {
    "a call": lambda model: calls.rename_callees(model.graph_def.node[0], {"F": "G"}),
    "a node": lambda model: model.functions["F"].node_def.append(make_node("m", "NoOp")),
    "an input": lambda model: model.functions["F"].node_def[0].input.append("n:y:0"),
    "a function": lambda model: model.remove_functions(["G"]),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_a_model_that_is_said_not_to_change_is_noticed(what: str) -> None:
    model = parse_model(TEXT)
    with model.unchanged():
        look_up_everything(model)
        EDITS[what](model)
        with pytest.raises(AssertionError, match="is out of date"):
            look_up_everything(model)
    look_up_everything(model)


@pytest.mark.parametrize("what", EDITS)
def test_between_edits_look_ups_are_made_anew(what: str) -> None:
    model = parse_model(TEXT)
    look_up_everything(model)
    EDITS[what](model)
    look_up_everything(model)
    assert set(calls.call_graph(model).callees) == {s.name for s in model.scopes()}
