"""Structural invariants: all that is said of one damage, and nothing besides."""

import pytest

from converter.graph.invariants import problems
from tests.harness import parse_model

SOUND = """
main {
  x = Placeholder() {dtype: float32}
  two = IdentityN(x, x) {T: [float32, float32]}
  plain = Identity(two) {T: float32}
  second = Identity(two:1) {T: float32}
  batched = BatchFunction(x, second) {f: @F, Tin: [float32], Tcaptured: [float32], Tout: [float32, float32]}
}
@F(x: float32, w: float32) -> (y: float32, z: float32) {
  cast = Cast(x) {SrcT: float32, DstT: float32}
  two = IdentityN(x, w) {T: [float32, float32]}
  custom = MysteryOp(x)
  return cast:y:0, two:output:1, ^cast
}
@G(x: float32) -> () { n = NoOp(^x); return ^n }
"""


def test_the_model_that_is_damaged_is_sound() -> None:
    assert problems(parse_model(SOUND)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "IdentityN(x, w) {T: [float32, float32]}",
            "IdentityN(x, w, x) {T: [float32, float32]}",
            ['F: node "two" (IdentityN) has 3 inputs, its attributes say 2'],
        ),
        (
            "Cast(x) {SrcT: float32",
            "Cast() {SrcT: float32",
            ['F: node "cast" (Cast) has 0 inputs, its attributes say 1'],
        ),
        (
            "SrcT: float32, DstT: float32",
            "SrcT: 0, DstT: float32",
            ['F: node "cast" (Cast) has a tensor of no type that TensorFlow knows'],
        ),
        (
            "SrcT: float32, DstT: float32",
            "SrcT: float32, DstT: 0",
            ['F: node "cast" (Cast) has a tensor of no type that TensorFlow knows'],
        ),
        # In a function the number alone says nothing, and an op's own name is no reference to its output.
        ("cast:y:0, two", "cast, two", ['F: result "y" comes from "cast", which does not exist']),
        ("two:output:1,", "two:output:2,", ['F: result "z" comes from "two:output:2", which does not exist']),
        ("Identity(two:1)", "Identity(two:2)", ['main graph: input "two:2" of node "second" does not exist']),
        ("Cast(x)", "Cast(x:0)", ['F: input "x:0" of node "cast" does not exist']),
        ("MysteryOp(x)", "MysteryOp(x, ^gone)", ['F: input "^gone" of node "custom" does not exist']),
        ("NoOp(^x)", "NoOp(^y)", ['G: input "^y" of node "n" does not exist']),
        (", ^cast", ", ^gone=two2", ['F: control output "gone" does not exist']),
        (
            "Tcaptured: [float32]",
            "Tcaptured: [int32]",
            [
                'main graph: call "batched" passes other types than "F" takes',
                'main graph: node "batched" takes "second" as a tensor of another type',
            ],
        ),
        (
            "@F(x: float32, w",
            "@F(x: int32, w",
            [
                'main graph: call "batched" passes other types than "F" takes',
                'F: node "cast" takes "x" as a tensor of another type',
                'F: node "two" takes "x" as a tensor of another type',
            ],
        ),
        (
            "z: float32) {",
            "z: int32) {",
            [
                'main graph: call "batched" expects other types than "F" returns',
                'F: result "z" comes from "two:output:1", a tensor of another type',
            ],
        ),
        (
            "(x, second) {f: @F, Tin: [float32], Tcaptured: [float32]",
            "(x) {f: @F, Tin: [float32]",
            [
                'main graph: node "batched" (BatchFunction) has no attribute "Tcaptured"',
            ],
        ),
        (
            "Tout: [float32, float32]}\n}",
            "Tout: [float32]}\n}",
            ['main graph: call "batched" expects other types than "F" returns'],
        ),
        (
            "f: @F, Tin: [float32], Tc",
            "Tin: [float32], Tc",
            ['main graph: node "batched" (BatchFunction) names no function'],
        ),
        ("f: @F", "f: @gone", ['main graph: node "batched" calls the missing function "gone"']),
        ("plain = ", "second = ", ["main graph: two nodes or arguments share a name"]),
        ("two = IdentityN(x, w)", "two = NoOp(); two = IdentityN(x, w)", ["F: two nodes or arguments share a name"]),
        ("(x: float32) -> ()", "(x: float32, x: float32) -> ()", ["G: two nodes or arguments share a name"]),
    ],
)
def test_a_damage_is_told_alone(old: str, new: str, expected: list[str]) -> None:
    assert SOUND.count(old) == 1
    assert problems(parse_model(SOUND.replace(old, new))) == expected


def test_a_result_that_comes_from_nothing_and_a_control_output_of_nothing_are_told() -> None:
    model = parse_model(SOUND)
    del model.functions["F"].ret["y"]
    model.functions["F"].control_ret.clear()
    assert problems(model) == [
        'F: result "y" comes from "None", which does not exist',
        'F: control output "cast" does not exist',
    ]


def test_every_scope_and_every_problem_is_told() -> None:
    text = (
        SOUND.replace("Identity(two)", "Identity(a)").replace("NoOp(^x)", "NoOp(^x, ^b)").replace("Cast(x)", "Cast(c)")
    )
    assert problems(parse_model(text)) == [
        'main graph: input "a" of node "plain" does not exist',
        'F: input "c" of node "cast" does not exist',
        'G: input "^b" of node "n" does not exist',
    ]


def test_what_an_unknown_op_gives_is_let_be() -> None:
    text = SOUND.replace("custom = MysteryOp(x)", "custom = MysteryOp(x); user = Identity(custom:what:9) {T: float32}")
    assert problems(parse_model(text)) == []
    assert problems(parse_model(text.replace("custom:what:9", "unknown:what:9"))) == [
        'F: input "unknown:what:9" of node "user" does not exist'
    ]
