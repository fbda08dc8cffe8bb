"""Structural invariants: each damage is found, and sound models pass."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import InternalError
from converter.graph.invariants import check_structure, problems, summary
from converter.saved_model.reader import read_model
from testdata.make_testdata import MODELS
from tests.harness import parse_model

SOUND = """
object f = function @F
object bare = bare @F
object inside = captured n:0 in @F
object argument = captured x:0 in @F
main {
  x = Placeholder() {dtype: float32}
  top = TopKV2(x, k) {T: float32, Tk: int32, index_type: int32}
  k = Const() {dtype: int32, value: int32(1)}
  call = PartitionedCall(x, top:1, ^k) {f: @F, Tin: [float32, int32], Tout: [float32]}
  op = F(x, top:1)
  custom = MysteryOp(x)
  user = Identity(custom:7) {T: float32}
}
@F(x: float32, i: int32) -> (y: float32) {
  n = Neg(x) {T: float32}
  both = IdentityN(x, n:y:0) {T: [float32, float32]}
  custom = MysteryOp(x)
  user = Identity(custom:whatever:3) {T: float32}
  return both:output:1, ^must=user
}
"""


def test_a_sound_model_has_no_problems() -> None:
    assert problems(parse_model(SOUND)) == []
    check_structure(parse_model(SOUND))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Neg(x)", "Neg(z)", 'F: input "z" of node "n" does not exist'),
        ("Neg(x)", "Neg(x, ^z)", 'F: input "^z" of node "n" does not exist'),
        ("IdentityN(x, n:y:0)", "IdentityN(x, n:z:0)", 'F: input "n:z:0" of node "both" does not exist'),
        ("IdentityN(x, n:y:0)", "IdentityN(x, n:y:1)", 'F: input "n:y:1" of node "both" does not exist'),
        ("IdentityN(x, n:y:0)", "IdentityN(x, n)", 'F: input "n" of node "both" does not exist'),
        ("IdentityN(x, n:y:0)", "IdentityN(x)", 'F: node "both" (IdentityN) has 1 inputs, its attributes say 2'),
        (
            "return both:output:1",
            "return both:output:2",
            'F: result "y" comes from "both:output:2", which does not exist',
        ),
        (
            "{T: [float32, float32]}",
            "{}",
            'F: node "both" (IdentityN) has no attribute "T"',
        ),
        (
            "call = PartitionedCall(x, top:1, ^k) {f: @F, Tin: [float32, int32], Tout: [float32]}",
            "call = StatelessWhile(x) {T: [float32], cond: @gone, body: @F}",
            'main graph: node "call" calls the missing function "gone"',
        ),
        (
            "call = PartitionedCall(x, top:1, ^k) {f: @F, ",
            "call = PartitionedCall(x, top:1, ^k) {",
            'main graph: node "call" (PartitionedCall) names no function',
        ),
        (
            "n = Neg(x) {T: float32}",
            "n = Neg(x) {T: 0}",
            'F: node "n" (Neg) has a tensor of no type that TensorFlow knows',
        ),
        ("^must=user", "^must=gone", 'F: control output "must" does not exist'),
        ("  n = Neg", "  i = Neg(x) {T: float32}; n = Neg", "F: two nodes or arguments share a name"),
        ("  k = Const", "  x = NoOp(); k = Const", "main graph: two nodes or arguments share a name"),
        (
            "call = PartitionedCall(x, top:1",
            "call = PartitionedCall(x, top:2",
            'main graph: input "top:2" of node "call"',
        ),
        (
            "call = PartitionedCall(x, top:1, ^k) {f: @F, Tin: [float32, int32]",
            "call = PartitionedCall(x, top, ^k) {f: @F, Tin: [float32, float32]",
            'main graph: call "call" passes other types than "F" takes',
        ),
        (
            "Tin: [float32, int32], Tout: [float32]",
            "Tin: [float32, int32], Tout: [float32, bool]",
            'main graph: call "call" expects other types than "F" returns',
        ),
        ("f: @F, Tin", "f: @gone, Tin", 'main graph: node "call" calls the missing function "gone"'),
        ("op = F(x, top:1)", "op = F(x)", 'main graph: node "op" (F) has 1 inputs, its attributes say 2'),
        ("function @F", "function @gone", 'object graph node 1 names the missing function "gone"'),
        ("bare @F", "bare @gone", 'object graph node 2 names the missing function "gone"'),
        ("n:0 in @F", "n:0 in @gone", 'object graph node 3 names the missing function "gone"'),
        ("captured n:0", "captured gone:0", 'captured tensor "gone" is not in function "F"'),
        ("captured n:0", "captured n:y:0", 'captured tensor "n:y:0" is not spelled as the loader looks it up'),
        ("captured n:0", "captured n:1", 'captured tensor "n:1" is not spelled as the loader looks it up'),
        ("captured n:0", "captured n", 'captured tensor "n" is not spelled as the loader looks it up'),
        ("captured x:0", "captured x:1", 'captured tensor "x:1" is not spelled as the loader looks it up'),
    ],
)
def test_each_damage_is_found_and_named(old: str, new: str, problem: str) -> None:
    assert SOUND.count(old) == 1
    found = problems(parse_model(SOUND.replace(old, new)))
    assert any(f.startswith(problem) for f in found), found
    with pytest.raises(InternalError, match=r"^The converted graph is inconsistent: .*\.$"):
        check_structure(parse_model(SOUND.replace(old, new)))


def test_a_function_that_the_index_does_not_know_is_found() -> None:
    model = parse_model(SOUND)
    model.graph_def.library.function.add().signature.name = "behind_the_back"
    assert problems(model) == ["the function index is out of step with the library"]


def test_of_many_problems_a_few_are_told() -> None:
    assert summary([str(i) for i in range(7)]) == "0; 1; 2; 3; 4; and 2 more"
    assert summary(["0", "1"]) == "0; 1"


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if not model.slow])
def test_real_models_are_sound(name: str, testdata: Callable[[str], Path]) -> None:
    assert problems(read_model(testdata(name))) == []
