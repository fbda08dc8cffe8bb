"""References: which node and output they name, and how one tensor is spelled one way."""

import pytest

from converter.graph import refs
from converter.graph.model import Scope
from converter.graph.nodes import make_node
from converter.graph.protos import FunctionDef
from tests.harness import parse_model

FUNCTION = Scope.of(FunctionDef())
MAIN = parse_model("main { }").main_scope()


@pytest.mark.parametrize("ref", ["a", "a:1", "a:y:0", "^a"])
def test_the_producer_of_a_reference(ref: str) -> None:
    assert refs.producer_of(ref) == "a"


def test_data_inputs_are_without_control_inputs() -> None:
    assert refs.data_inputs(make_node("n", "Op", ["a", "b:1", "^c"])) == ["a", "b:1"]


def test_control_inputs_are_without_data_inputs() -> None:
    assert refs.control_inputs(make_node("n", "Op", ["^a", "b:1", "^c"])) == ["^a", "^c"]


@pytest.mark.parametrize(
    ("ref", "split", "number"),
    [("a", ("a", ""), 0), ("a:1", ("a", "1"), 1), ("a:y:2", ("a", "y:2"), 2), ("b/c:y:0", ("b/c", "y:0"), 0)],
)
def test_a_tensor_is_a_node_and_one_of_its_outputs(ref: str, split: tuple[str, str], number: int) -> None:
    assert refs.split_ref(ref) == split
    assert refs.output_number(ref) == number


@pytest.mark.parametrize(
    ("ref", "in_main", "in_function"),
    [("a", "a:0", "a"), ("a:0", "a:0", "a:0"), ("a:1", "a:1", "a:1"), ("^a", "^a", "^a"), ("a:y:0", "a:y:0", "a:y:0")],
)
def test_a_first_output_of_the_main_graph_has_one_canonical_spelling(ref: str, in_main: str, in_function: str) -> None:
    assert refs.canonical_ref(ref, MAIN) == in_main
    assert refs.canonical_ref(ref, FUNCTION) == in_function


def test_inputs_in_the_main_graph_leave_out_the_number_of_a_first_output() -> None:
    assert [refs.input_ref(ref, MAIN) for ref in ("a:0", "a", "a:1", "^a")] == ["a", "a", "a:1", "^a"]
    assert refs.input_ref("a:y:0", FUNCTION) == "a:y:0"


COPIES = """
main {
  keys = Const() {dtype: string, value: string(["a", "b"])}
  same = Identity(keys) {T: string}
  again = Identity(same, ^keys) {T: string}
  restore = RestoreV2(keys, again, keys) {dtypes: [float32, float32]}
  value = Identity(restore:1) {T: float32}
  twice = AddV2(value, value) {T: float32}
}
@inside(given: string) -> () {
  copy = Identity(given) {T: string}
  made = Identity(joined:output:0) {T: string}
  joined = StringJoin(given, given) {N: 2}
  return
}
"""


@pytest.mark.parametrize(
    ("scope", "ref", "expected"),
    [
        ("main", "again", "keys:0"),
        ("main", "value", "restore:1"),
        ("main", "twice", "twice:0"),
        ("inside", "copy:output:0", "given"),
        ("inside", "given", "given"),
        ("inside", "made:output:0", "joined:output:0"),
    ],
)
def test_identities_are_looked_through_up_to_an_argument_or_another_op(scope: str, ref: str, expected: str) -> None:
    model = parse_model(COPIES)
    found = model.main_scope() if scope == "main" else model.scope(scope)
    original = refs.before_identities(ref, {n.name: n for n in found.nodes})
    assert refs.canonical_ref(original, found) == expected
