"""What variables are called, and what the checkpoint on disk says of them where the graph says less."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from converter.analysis.variables.index import Variable, find_variables
from converter.saved_model.reader import read_model
from tests.harness import parse_model

KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"
RESTORED = f"""
signature "serving_default" x=x:0 -> y=y:0
main {{
  x = Placeholder() {{dtype: float32}}
  v = VarHandleOp() {{dtype: float32, shape: <*>, shared_name: "v"}}
  w = VarHandleOp() {{dtype: float32, shape: <?,2>, shared_name: "w"}}
  gone = VarHandleOp() {{dtype: float32, shape: <4>, shared_name: "gone"}}
  keys = Const() {{dtype: string, value: string(["{KEY.format("v")}", "{KEY.format("w")}", "{KEY.format("gone")}"])}}
  slices = Const() {{dtype: string, value: string(["", "", ""])}}
  restore = RestoreV2(x, keys, slices) {{dtypes: [float32, float32, float32]}}
  assign_v = AssignVariableOp(v, restore) {{dtype: float32}}
  assign_w = AssignVariableOp(w, restore:1) {{dtype: float32}}
  assign_gone = AssignVariableOp(gone, restore:2) {{dtype: float32}}
  y = ReadVariableOp(v) {{dtype: float32}}
}}
"""


class Pair(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable(tf.zeros([3, 5]), name="inner_v")
        self.w = tf.Variable(tf.zeros([7, 2]), name="inner_w")


def found(path: Path | str = "model") -> dict[str, Variable]:
    return {v.name: v for v in find_variables(parse_model(RESTORED, path))}


def test_without_a_checkpoint_shapes_are_as_open_as_in_the_graph_and_keys_are_believed() -> None:
    variables = found()
    assert {n: (v.shape, v.size_bytes) for n, v in variables.items()} == {
        "v": (None, 0),
        "w": ((-1, 2), 0),
        "gone": ((4,), 16),
    }
    assert [v.checkpoint_key for v in variables.values()] == [KEY.format(n) for n in ("v", "w", "gone")]


def test_the_checkpoint_knows_shapes_and_which_keys_there_are(tmp_path: Path) -> None:
    tf.saved_model.save(Pair(), str(tmp_path))
    variables = found(tmp_path)
    assert {n: (v.shape, v.size_bytes) for n, v in variables.items()} == {
        "v": ((3, 5), 60),
        "w": ((7, 2), 56),
        "gone": ((4,), 16),
    }
    assert [v.checkpoint_key for v in variables.values()] == [KEY.format("v"), KEY.format("w"), None]
    assert variables["gone"].ineligible is not None
    assert variables["gone"].ineligible.startswith("is not saved")


@pytest.mark.parametrize(("name", "expected"), [("", "variable (object 1)"), ("kernel", "kernel (object 1)")])
def test_a_variable_without_a_handle_is_called_by_its_object(name: str, expected: str) -> None:
    model = parse_model("object v = variable float32<4>")
    model.object_graph.nodes[1].variable.name = name
    (variable,) = find_variables(model)
    assert (variable.name, variable.handles, variable.object_node_ids) == (expected, (), (1,))
    assert (variable.dtype, variable.shape, variable.size_bytes) == (types_pb2.DT_FLOAT, (4,), 16)


def test_a_saved_variable_without_a_handle_is_called_by_its_key(tmp_path: Path) -> None:
    tf.saved_model.save(Pair(), str(tmp_path))
    model = read_model(tmp_path)
    del model.graph_def.node[:]
    names = {(v.name, v.checkpoint_key) for v in find_variables(model)}
    saved = [(i, n.variable) for i, n in enumerate(model.object_graph.nodes) if n.WhichOneof("kind") == "variable"]
    ids = {variable.name.removeprefix("inner_"): i for i, variable in saved}
    assert names == {(f"{n} (object {ids[n]})", KEY.format(n)) for n in ("v", "w")}
