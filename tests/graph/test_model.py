"""The model in memory: its index of functions, signatures and aliases, and how scopes spell tensors."""

import pytest
from tensorflow.core.framework import function_pb2

from converter.graph.model import MAIN_GRAPH, Model
from tests.harness import parse_model

TEXT = """
alias "b" = @G
alias "a" = @F, @H
signature "serving_default" x=x:0 -> y=y:0, z=z:0
signature "__saved_model_init_op" -> __saved_model_init_op=init:0
object signatures.serving_default = bare @F
main {
  x = Placeholder() {dtype: float32}
  y = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
  z = Neg(x) {T: float32}
}
@F(x: float32) -> (y: float32) { return x }
@G() -> () { return }
@H() -> () { return }
"""


@pytest.fixture
def model() -> Model:
    return parse_model(TEXT)


def test_scopes_are_the_main_graph_and_every_function(model: Model) -> None:
    assert [s.name for s in model.scopes()] == [MAIN_GRAPH, "F", "G", "H"]
    assert model.main_scope().function is None
    assert model.scope("F").function is model.functions["F"]
    assert model.scope(MAIN_GRAPH) == model.main_scope()


def test_a_copy_has_the_same_content_and_is_edited_alone(model: Model) -> None:
    model.recasts.add("v")
    copied = model.copy()
    assert copied.saved_model == model.saved_model
    assert (copied.path, copied.recasts, list(copied.functions)) == (model.path, {"v"}, list(model.functions))
    before = model.saved_model.SerializeToString(deterministic=True)
    copied.functions["F"].signature.is_stateful = True
    copied.graph_def.node[0].name = "other"
    copied.recasts.add("w")
    assert model.saved_model.SerializeToString(deterministic=True) == before and model.recasts == {"v"}


def test_functions_may_be_added_while_scopes_are_gone_over(model: Model) -> None:
    seen = []
    for scope in model.scopes():
        seen.append(scope.name)
        if scope.name == "F":
            model.add_function(function_pb2.FunctionDef(signature={"name": "new"}))
    assert seen == [MAIN_GRAPH, "F", "G", "H"]
    assert "new" in model.functions


def test_scopes_spell_the_outputs_of_a_node_in_their_own_way(model: Model) -> None:
    assert model.main_scope().ref("n", "output", 0, 0) == "n"
    assert model.main_scope().ref("n", "output", 1, 3) == "n:3"
    assert model.scope("F").ref("n", "output", 1, 3) == "n:output:1"


def test_an_added_function_is_a_copy_in_the_library(model: Model) -> None:
    mine = function_pb2.FunctionDef(signature={"name": "new"})
    added = model.add_function(mine)
    assert added is not mine
    added.signature.is_stateful = True
    assert not mine.signature.is_stateful
    assert model.graph_def.library.function[-1].signature.is_stateful
    with pytest.raises(ValueError, match='function "new" exists already'):
        model.add_function(mine)


def test_removed_functions_are_gone_and_the_others_can_still_be_edited(model: Model) -> None:
    model.remove_functions(["F", "H"])
    assert list(model.functions) == ["G"]
    model.functions["G"].signature.is_stateful = True
    assert [f.signature.is_stateful for f in model.graph_def.library.function] == [True]


def test_aliases_name_the_functions_that_exist(model: Model) -> None:
    assert model.aliases == {"a": ("F", "H"), "b": ("G",)}
    model.remove_functions(["G", "H"])
    assert model.aliases == {"a": ("F",)}


def test_the_init_op_is_no_signature(model: Model) -> None:
    assert list(model.signatures) == ["serving_default"]


def test_a_scope_is_found_by_its_name(model: Model) -> None:
    assert model.scope(MAIN_GRAPH) == model.main_scope()
    assert model.scope("G").nodes == model.functions["G"].node_def


def test_what_is_made_of_a_model_is_kept_while_nothing_changes_it(model: Model) -> None:
    def count() -> list[str]:
        return model.kept("functions", lambda: list(model.functions))

    with model.unchanged():
        first = count()
        with model.unchanged():
            assert count() is first
        assert count() is first
        assert model.kept("other", list) == []


def test_nothing_is_kept_of_a_model_that_may_change(model: Model) -> None:
    assert model.kept("functions", lambda: list(model.functions)) == ["F", "G", "H"]
    with model.unchanged():
        model.kept("functions", lambda: list(model.functions))
    model.remove_functions(["F"])
    assert model.kept("functions", lambda: list(model.functions)) == ["G", "H"]
    with model.unchanged():
        assert model.kept("functions", lambda: list(model.functions)) == ["G", "H"]


def test_an_error_ends_the_keeping(model: Model) -> None:
    def fail() -> None:
        with model.unchanged():
            model.kept("functions", lambda: list(model.functions))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.kept("functions", list) == []
