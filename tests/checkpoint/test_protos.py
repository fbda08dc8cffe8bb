"""Our messages are TensorFlow's on the wire, and reading checkpoints with them does without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from tensorflow.core.protobuf import tensor_bundle_pb2 as their_bundle
from tensorflow.core.protobuf import trackable_object_graph_pb2 as their_graph

from protos.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from protos.trackable_object_graph_pb2 import TrackableObjectGraph
from tests.checkpoint.checkpoints import run_python, save


def assert_same_fields(ours: Descriptor, theirs: Descriptor, *, all_of_them: bool) -> None:
    assert {f.name for f in ours.fields} <= {f.name for f in theirs.fields}
    assert not all_of_them or len(ours.fields) == len(theirs.fields)
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert _on_the_wire(field) == _on_the_wire(other), field.full_name
        if field.message_type is not None:
            assert_same_fields(field.message_type, other.message_type, all_of_them=all_of_them)


def _on_the_wire(field: FieldDescriptor) -> tuple[object, ...]:
    number = field.TYPE_INT32 if field.type == field.TYPE_ENUM else field.type
    return field.number, number, field.default_value == [], field.has_presence


@pytest.mark.parametrize(
    ("ours", "theirs", "all_of_them"),
    [
        (BundleHeaderProto, their_bundle.BundleHeaderProto, True),
        (BundleEntryProto, their_bundle.BundleEntryProto, True),
        (TrackableObjectGraph, their_graph.TrackableObjectGraph, False),
    ],
)
def test_messages_are_tensorflows(ours: type[Message], theirs: type[Message], all_of_them: bool) -> None:
    assert_same_fields(ours.DESCRIPTOR, theirs.DESCRIPTOR, all_of_them=all_of_them)


def test_byte_orders_are_tensorflows() -> None:
    assert dict(BundleHeaderProto.Endianness.items()) == dict(their_bundle.BundleHeaderProto.Endianness.items())


def test_fields_that_we_do_not_know_are_kept() -> None:
    graph = their_graph.TrackableObjectGraph()
    node = graph.nodes.add()
    node.children.add(node_id=3, local_name="kernel")
    node.attributes.add(name="VARIABLE_VALUE", full_name="a/kernel", checkpoint_key="k")
    node.slot_variables.add(slot_name="m")
    again = TrackableObjectGraph.FromString(graph.SerializeToString()).SerializeToString()
    assert their_graph.TrackableObjectGraph.FromString(again) == graph


def test_checkpoints_do_not_import_tensorflow(tmp_path: Path) -> None:
    graph = their_graph.TrackableObjectGraph()
    graph.nodes.add().attributes.add(name="VARIABLE_VALUE", checkpoint_key="v")
    source = save(
        tmp_path / "source" / "variables", {"v": [1.0], "_CHECKPOINTABLE_OBJECT_GRAPH": graph.SerializeToString()}
    )
    program = (
        "import sys; from pathlib import Path\n"
        "from converter.checkpoint.read import checkpoint_key_of_variables\n"
        "from converter.checkpoint.recast import recast\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "recast(source, target, checkpoint_key_of_variables(source).values())\n"
        "print('tensorflow' in sys.modules)\n"
    )
    result = run_python(program, str(source), str(tmp_path / "target" / "variables"))
    assert result.stdout == "False\n", result.stderr
