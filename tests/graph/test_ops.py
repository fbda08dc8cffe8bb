"""What is known of an op: its definition, the tensors of a node, its TPU kernels."""

from tensorflow.core.framework import types_pb2

from converter.graph import ops
from converter.graph.model import Model
from converter.graph.ops import ArgSlot
from tests.harness import parse_model

FLOAT, INT32, INT64, BOOL = types_pb2.DT_FLOAT, types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_BOOL


def slots(node: str, rest: str = "") -> tuple[list[ArgSlot], list[ArgSlot]]:
    """The inputs and outputs of the only node of a main graph."""
    model = parse_model(f"main {{ n = {node} }} {rest}")
    definition = ops.op_def(model.graph_def.node[0].op, model)
    assert definition is not None
    return ops.input_slots(model.graph_def.node[0], definition), ops.output_slots(model.graph_def.node[0], definition)


def test_a_type_attribute_types_each_of_its_args() -> None:
    inputs, outputs = slots("AddV2(a, b) {T: int64}")
    assert inputs == [ArgSlot("x", 0, INT64, "T", None), ArgSlot("y", 0, INT64, "T", None)]
    assert outputs == [ArgSlot("z", 0, INT64, "T", None)]


def test_a_number_attribute_counts() -> None:
    inputs, _ = slots("ConcatV2(a, b, c, d) {N: 3, T: float32, Tidx: int32}")
    assert inputs == [
        *(ArgSlot("values", i, FLOAT, "T", None) for i in range(3)),
        ArgSlot("axis", 0, INT32, "Tidx", None),
    ]


def test_a_list_of_types_gives_a_tensor_each() -> None:
    inputs, outputs = slots("PartitionedCall(a, b) {Tin: [float32, bool], Tout: [], f: @F}")
    assert inputs == [ArgSlot("args", 0, FLOAT, "Tin", 0), ArgSlot("args", 1, BOOL, "Tin", 1)]
    assert outputs == []


def test_an_op_may_fix_the_type() -> None:
    _, outputs = slots("Shape(a) {T: float32}")
    assert outputs == [ArgSlot("output", 0, INT32, "out_type", None)]
    inputs, outputs = slots("StringLength(a)")
    assert inputs == [ArgSlot("input", 0, types_pb2.DT_STRING, "", None)]
    assert outputs == [ArgSlot("output", 0, INT32, "", None)]


def test_an_attribute_that_is_not_there_has_its_default_and_is_not_created() -> None:
    model = parse_model("main { n = ArgMax(a, b) {T: float32} }")
    node = model.graph_def.node[0]
    definition = ops.op_def("ArgMax", model)
    assert [s.dtype for s in ops.output_slots(node, definition)] == [INT64]
    assert set(node.attr) == {"T"}


def test_a_function_called_by_its_name_is_an_op() -> None:
    inputs, outputs = slots("F(a, b)", "@F(x: float32, y: bool) -> (z: int32) { return q:r:0 }")
    assert [(s.arg, s.dtype) for s in (*inputs, *outputs)] == [("x", FLOAT), ("y", BOOL), ("z", INT32)]


def custom(name: str) -> Model:
    model = parse_model("main { n = MyCustomOp(a) }")
    model.meta_graph.meta_info_def.stripped_op_list.op.add(name=name).input_arg.add(name="x", type=FLOAT)
    return model


def test_a_custom_op_is_known_if_the_model_describes_it() -> None:
    definition = ops.op_def("MyCustomOp", custom("MyCustomOp"))
    assert definition is not None
    assert [a.name for a in definition.input_arg] == ["x"]
    assert ops.op_def("MyCustomOp", custom("Another")) is None


def test_the_ops_of_the_tpu_runtime_are_known_without_a_tpu() -> None:
    for op in ("TPUPartitionedCall", "TPUReplicateMetadata", "TPUReplicatedInput", "TPUOrdinalSelector"):
        assert ops.op_def(op, parse_model("")) is not None
