"""FLOPs and bytes of single ops."""

import pytest
from tensorflow.core.framework import types_pb2

from converter.analysis.op_work import TypedShape, Work, op_work
from converter.graph.nodes import make_node
from converter.graph.shapes import Shape

FLOAT, BFLOAT16, INT, STRING = types_pb2.DT_FLOAT, types_pb2.DT_BFLOAT16, types_pb2.DT_INT32, types_pb2.DT_STRING


def floats(*shapes: Shape) -> list[TypedShape]:
    return [TypedShape(FLOAT, shape) for shape in shapes]


@pytest.mark.parametrize(
    ("op", "attrs", "taken", "given", "flops"),
    [
        ("MatMul", {}, [(3, 4), (4, 5)], (3, 5), 2 * 3 * 4 * 5),
        ("MatMul", {"transpose_a": True}, [(4, 3), (4, 5)], (3, 5), 2 * 3 * 4 * 5),
        ("MatMul", {"transpose_a": False}, [(3, 4), (4, 5)], (3, 5), 2 * 3 * 4 * 5),
        ("MatMul", {}, [None, (4, 5)], (3, 5), 2 * 3 * 5),
        ("MatMul", {}, [(3, None), (None, 5)], (3, 5), 2 * 3 * 5),
        ("BatchMatMulV2", {}, [(7, 3, 4), (4, 5)], (7, 3, 5), 2 * 7 * 3 * 4 * 5),
        ("BatchMatMulV3", {"adj_x": True}, [(7, 4, 3), (7, 4, 5)], (7, 3, 5), 2 * 7 * 3 * 4 * 5),
        ("Einsum", {"equation": "abc,cd->abd"}, [(2, 3, 4), (4, 5)], (2, 3, 5), 2 * 2 * 3 * 4 * 5),
        ("Einsum", {"equation": "...c,cd->...d"}, [(2, 3, 4), (4, 5)], (2, 3, 5), 2 * 2 * 3 * 4 * 5),
        ("Einsum", {"equation": "...ab,...bc->...ac"}, [(1, 3, 4), (6, 4, 5)], (6, 3, 5), 2 * 6 * 3 * 4 * 5),
        ("Einsum", {"equation": "abc,cd->abd"}, [None, (4, 5)], (2, 3, 5), 2 * 4 * 5),
        ("Einsum", {"equation": "ab,b->a"}, [(None, 4), (4,)], (None,), 2 * 4),
        ("Einsum", {"equation": "ab->a"}, [(2, 3)], (2,), 2 * 3),
        ("Conv2D", {}, [(1, 8, 8, 3), (3, 3, 3, 16)], (1, 4, 4, 16), 2 * 4 * 4 * 16 * 3 * 3 * 3),
        ("Conv2D", {}, [(1, 8, 8, 6), (3, 3, 3, 16)], (1, 8, 8, 16), 2 * 8 * 8 * 16 * 3 * 3 * 3),
        ("Conv2D", {}, [(1, 8, 8, 6), None], (1, 8, 8, 16), 2 * 8 * 8 * 16),
        ("Conv2D", {}, [(1, 8, 8, 6), (None, 3, 3, 16)], (1, 8, 8, 16), 2 * 8 * 8 * 16 * 3 * 3),
        ("Conv3D", {}, [(1, 4, 4, 4, 2), (2, 2, 2, 2, 5)], (1, 3, 3, 3, 5), 2 * 27 * 5 * 8 * 2),
        ("DepthwiseConv2dNative", {}, [(1, 8, 8, 3), (3, 3, 3, 2)], (1, 8, 8, 6), 2 * 8 * 8 * 6 * 3 * 3),
        ("Conv2DBackpropInput", {}, [(4,), (3, 3, 8, 16), (1, 4, 4, 16)], (1, 8, 8, 8), 2 * 4 * 4 * 16 * 9 * 8),
        ("AddV2", {}, [(8, 100), (100,)], (8, 100), 800),
        ("Mean", {}, [(8, 100)], (8,), 800),
        ("Relu", {}, [(None, 100)], (None, 100), 100),
        ("Relu", {}, [None], None, 1),
        ("Cast", {}, [(8,)], (8,), 0),
        ("Transpose", {}, [(8, 9)], (9, 8), 0),
        ("XlaCallModule", {}, [(8, 9)], (9, 8), 0),
    ],
)  # fmt: skip
def test_flops(op: str, attrs: dict[str, object], taken: list[Shape], given: Shape, flops: int) -> None:
    assert op_work(make_node("n", op, **attrs), floats(*taken), floats(given)).flops == flops


def test_ops_on_integers_are_no_floating_point_operations() -> None:
    three = TypedShape(INT, (3,))
    assert op_work(make_node("n", "AddV2"), [three, three], [three]) == Work(flops=0, bytes=36)


def test_bytes_are_those_of_all_tensors_in_their_types() -> None:
    taken = [TypedShape(BFLOAT16, (2, 3)), TypedShape(INT, ())]
    assert op_work(make_node("n", "Sum"), taken, [TypedShape(BFLOAT16, (2,))]).bytes == 12 + 4 + 4


def test_what_is_passed_on_as_it_is_touches_no_bytes() -> None:
    for op in ("Identity", "Reshape", "ReadVariableOp", "Const"):
        assert op_work(make_node("n", op), floats((2, 3)), floats((6,))) == Work()


def test_a_lookup_reads_what_it_gives_and_not_the_whole_table() -> None:
    ids = TypedShape(INT, (4,))
    table = TypedShape(FLOAT, (1000, 8))
    work = op_work(make_node("n", "GatherV2"), [table, ids, TypedShape(INT, ())], floats((4, 8)))
    assert work == Work(flops=0, bytes=2 * 4 * 8 * 4 + 4 * 4 + 4)
    variable = TypedShape(types_pb2.DT_RESOURCE, ())
    assert op_work(make_node("n", "ResourceGather"), [variable, ids], floats((4, 8))).bytes == 2 * 4 * 8 * 4 + 4 * 4


def test_strings_have_no_size() -> None:
    assert TypedShape(STRING, (5,)).bytes == 0
