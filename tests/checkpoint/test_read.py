"""What checkpoints hold: tensors, and the object graph as TensorFlow wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from converter.checkpoint.dtypes import BFLOAT16, FLOAT, STRING
from converter.checkpoint.index import Index
from converter.checkpoint.read import (
    OBJECT_GRAPH_KEY,
    StoredTensor,
    checkpoint_key_of_variables,
    list_tensors,
    object_graph,
)
from converter.checkpoint.recast import recast
from converter.errors import ModelReadError
from tests.checkpoint.checkpoints import MIXED, assert_recast, change_index, files, save, sliced

INT32 = 3


def test_list_tensors(mixed: Path) -> None:
    tensors = list_tensors(mixed)
    assert list(tensors) == sorted(MIXED)
    assert tensors["a/kernel"] == StoredTensor(FLOAT, (5, 12), 240)
    assert tensors["b/scalar"] == StoredTensor(FLOAT, (), 4)
    assert tensors["c/empty"] == StoredTensor(FLOAT, (0, 4), 0)
    assert tensors["g/text"].dtype == STRING


def test_a_partitioned_tensor_counts_once(tmp_path: Path, target: Path) -> None:
    source = sliced(tmp_path)
    assert list_tensors(source) == {
        "v": StoredTensor(FLOAT, (4, 10), 160),
        "w": StoredTensor(INT32, (4, 10), 160),
        "x": StoredTensor(FLOAT, (4, 10), 160),
    }
    recast(source, target, ["v"])
    assert list_tensors(target)["v"] == StoredTensor(BFLOAT16, (4, 10), 80)


@pytest.mark.parametrize(
    "name", ["sharded_checkpoint", "odd_variables", "optimizer_slots", "embedding", "keras_dense", "keras_saved_whole"]
)
def test_exports(testdata: Callable[[str], Path], target: Path, name: str) -> None:
    """Real exports: node ids of variables are those of the SavedModel's object graph, and all their tensors recast."""
    directory = testdata(name)
    source = directory / "variables" / "variables"
    saved_model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    nodes = saved_model.meta_graphs[0].object_graph_def.nodes
    serialized = tf.train.load_checkpoint(str(source)).get_tensor(OBJECT_GRAPH_KEY)
    in_checkpoint = trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized)
    read = object_graph(source).SerializeToString()
    assert trackable_object_graph_pb2.TrackableObjectGraph.FromString(read) == in_checkpoint
    # A SavedModel may have more nodes, constants that functions captured; they come last.
    for saved, restored in zip(nodes, in_checkpoint.nodes, strict=False):
        assert {(c.local_name, c.node_id) for c in saved.children} == {
            (c.local_name, c.node_id) for c in restored.children
        }
    keys = checkpoint_key_of_variables(source)
    tensors = list_tensors(source)
    assert set(keys) == {i for i, node in enumerate(nodes) if node.WhichOneof("kind") == "variable"}
    for node_id, key in keys.items():
        variable = nodes[node_id].variable
        assert tensors[key].dtype == variable.dtype
        assert tensors[key].shape == tuple(d.size for d in variable.shape.dim)

    chosen = {key for key in keys.values() if tensors[key].dtype == FLOAT}
    recast(source, target, chosen)
    assert_recast(source, target, chosen)
    assert sorted(files(target)) == sorted(files(source))


def graph_of(size: int) -> bytes:
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    for i in range(size):
        graph.nodes.add().attributes.add(name="VARIABLE_VALUE", checkpoint_key=f"key_{i}")
    return graph.SerializeToString()


@pytest.mark.parametrize("size", [0, 3, 100_000])
def test_object_graph_of_any_size(tmp_path: Path, size: int) -> None:
    """The last one is larger than what is read at once."""
    source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: graph_of(size), "text": [b"a", b"b"]})
    assert checkpoint_key_of_variables(source) == {i: f"key_{i}" for i in range(size)}


class TestObjectGraphRefused:
    def test_none(self, mixed: Path) -> None:
        with pytest.raises(ModelReadError, match="has no object graph"):
            object_graph(mixed)

    @pytest.mark.parametrize("value", [3.0, [b"a", b"b"]])
    def test_not_one_string(self, tmp_path: Path, value: object) -> None:
        source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: value})
        with pytest.raises(ModelReadError, match=r"it is (float32 in 0|string in 1) dimensions; expected one string"):
            object_graph(source)

    def test_not_an_object_graph(self, tmp_path: Path) -> None:
        source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: b"\xff\xff"})
        with pytest.raises(ModelReadError, match=r"object graph in the checkpoint .* cannot be read: .*parsing"):
            object_graph(source)

    def test_any_changed_byte(self, tmp_path: Path) -> None:
        source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: graph_of(3)})
        (path,) = tmp_path.glob("*.data-*")
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ModelReadError, match=r"object graph .* cannot be read: its checksum does not match"):
                object_graph(source)

    def test_data_file_missing_or_cut_off(self, tmp_path: Path) -> None:
        source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: graph_of(3)})
        (path,) = tmp_path.glob("*.data-*")
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(ModelReadError, match="ends 2 bytes too early"):
            object_graph(source)
        path.unlink()
        with pytest.raises(ModelReadError, match=r"data-00000-of-00001.*cannot be read: No such file"):
            object_graph(source)

    def test_no_bytes(self, tmp_path: Path) -> None:
        def empty(index: Index) -> None:
            index.entries[OBJECT_GRAPH_KEY.encode()].size = 0

        source = save(tmp_path / "variables", {OBJECT_GRAPH_KEY: graph_of(3)})
        change_index(source, empty)
        with pytest.raises(ModelReadError, match="cannot be read: a number runs past its end"):
            object_graph(source)
