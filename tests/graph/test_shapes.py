"""Shapes as text and as protos, what they have in common, and what a function declares."""

from converter.graph.shapes import declared_shape, from_proto, join, refine, text, to_proto
from tests.harness import parse_model


def test_shapes_of_text_protos_and_joins() -> None:
    for shape in (None, (), (None, 4)):
        assert from_proto(to_proto(shape)) == shape
    assert [text(s) for s in (None, (), (None, 4))] == ["unknown rank", "[]", "[None, 4]"]
    assert join([(1, 2), (1, 3)]) == (1, None)
    assert join([(1, 2), (1,)]) is None
    assert join([None, (1,)]) is None


def test_what_is_computed_wins_over_what_is_known_besides() -> None:
    assert refine((None, 3), (2, 3)) == (2, 3)
    assert refine((9, 3), (2, 3)) == (9, 3)
    assert refine((9, None), (2,)) == (9, None)
    assert refine(None, (2,)) == (2,)
    assert refine((2,), None) == (2,)


def test_declared_shapes_come_from_either_attribute() -> None:
    model = parse_model("""
    @f(x: float32 {_output_shapes: [<1>]}, y: float32, z: float32) -> () [_input_shapes: [<9>, <2>]] { return }
    """)
    assert [declared_shape(model.functions["f"], i) for i in range(3)] == [(1,), (2,), None]
