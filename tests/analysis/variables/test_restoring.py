"""What the functions that save and restore call their tensors: constants through Identities, and nothing else."""

import pytest

from converter.analysis.variables.restoring import checkpoint_keys, restored_tensors
from tests.harness import parse_model

MODEL = """
main {
  prefix = Placeholder() {dtype: string}
  keys = Const() {dtype: string, value: string(["a", "b"])}
  same = Identity(keys) {T: string}
  again = Identity(same, ^prefix) {T: string}
  slices = Const() {dtype: string, value: string(["", ""])}
  restore = RestoreV2(prefix, again, slices) {dtypes: [float32, float32]}
  value = Identity(restore:1) {T: float32}
  twice = AddV2(value, value) {T: float32}
}
@inside(prefix: string, given: string) -> () {
  key = Const() {dtype: string, value: string(["c"])}
  slice = Const() {dtype: string, value: string([""])}
  restore = RestoreV2(prefix, key:output:0, slice:output:0) {dtypes: [float32]}
  unknown = RestoreV2(prefix, given, slice:output:0) {dtypes: [float32]}
  copy = Identity(given) {T: string}
  copied = RestoreV2(prefix, copy:output:0, slice:output:0) {dtypes: [float32]}
  made = Identity(joined:output:0) {T: string}
  joined = StringJoin(key:output:0, given) {N: 2}
  computed = RestoreV2(prefix, made:output:0, slice:output:0) {dtypes: [float32]}
  return
}
@nothing(x: float32) -> () { return }
"""


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("main", {"restore:0": "a", "restore:1": "b"}),
        # Keys that are an argument, or that an op makes, are not known.
        ("inside", {"restore:tensors:0": "c"}),
        ("nothing", {}),
    ],
)
def test_tensors_are_told_by_constant_keys(scope: str, expected: dict[str, str]) -> None:
    model = parse_model(MODEL)
    found = model.main_scope() if scope == "main" else model.scope(scope)
    assert restored_tensors(model, found) == expected


def test_keys_come_in_order_and_a_damaged_one_is_still_a_name() -> None:
    model = parse_model(MODEL)
    nodes = {n.name: n for n in model.graph_def.node}
    assert checkpoint_keys(nodes["restore"], model.main_scope(), nodes) == ["a", "b"]
    nodes["keys"].attr["value"].tensor.string_val[:] = [b"a", b"\xff"]
    assert checkpoint_keys(nodes["restore"], model.main_scope(), nodes) == ["a", "\ufffd"]
