"""What a checkpoint holds: its tensors, and which of them are the values of which variables."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from crc32c import crc32c
from google.protobuf.message import DecodeError

from converter.checkpoint.checksum import masked
from converter.checkpoint.dtypes import STRING, dtype_name
from converter.checkpoint.index import Index, data_path, read_index, sliced_tensor_key
from converter.checkpoint.streams import open_source
from converter.checkpoint.table import DamagedTableError, varint
from converter.errors import ModelReadError
from protos.tensor_bundle_pb2 import BundleEntryProto
from protos.trackable_object_graph_pb2 import TrackableObjectGraph

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE_VALUE = "VARIABLE_VALUE"
_LENGTH_CHECKSUM_SIZE = 4


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint; a partitioned one counts as one tensor, its size is that of all slices.

    Attributes:
      dtype: as an enum of TensorFlow's DataType.
    """

    dtype: int
    shape: tuple[int, ...]
    size_bytes: int


def list_tensors(prefix: Path) -> dict[str, StoredTensor]:
    """All tensors of the checkpoint `prefix` ("…/variables/variables") by key, sorted; reads the index only.

    Raises:
      ModelReadError: the index is missing, damaged or not supported.
    """
    return tensors_of(read_index(prefix))


def tensors_of(index: Index) -> dict[str, StoredTensor]:
    """All tensors by key, sorted."""
    slice_bytes: dict[bytes, int] = {}
    for key, entry in index.entries.items():
        whole = sliced_tensor_key(key)
        if whole is not None:
            slice_bytes[whole] = slice_bytes.get(whole, 0) + entry.size
    return {
        key.decode(): StoredTensor(
            entry.dtype,
            tuple(d.size for d in entry.shape.dim),
            slice_bytes.get(key, 0) if entry.slices else entry.size,
        )
        for key, entry in index.entries.items()
        if sliced_tensor_key(key) is None
    }


def object_graph(prefix: Path) -> TrackableObjectGraph:
    """The checkpoint's object graph.

    Its node ids are those of the SavedModel's object graph it was saved with, which may have further nodes at the
    end: constants that functions captured.

    Raises:
      ModelReadError: the checkpoint is missing or damaged, or has no object graph.
    """
    index = read_index(prefix)
    entry = index.entries.get(OBJECT_GRAPH_KEY.encode())
    if entry is None:
        raise ModelReadError(
            f'The checkpoint "{prefix}" has no object graph (no tensor "{OBJECT_GRAPH_KEY}"), so it was not written '
            "by TensorFlow 2. Save the model again with tf.saved_model.save or model.export."
        )
    if entry.dtype != STRING or entry.shape.dim or entry.slices:
        raise _unreadable(
            prefix, f"it is {dtype_name(entry.dtype)} in {len(entry.shape.dim)} dimensions; expected one string"
        )
    with open_source(data_path(prefix, entry.shard_id, index.header.num_shards)) as source:
        stored = b"".join(map(bytes, source.chunks(entry.offset, entry.size)))
    try:
        return TrackableObjectGraph.FromString(_string(stored, entry))
    except (DamagedTableError, DecodeError) as error:
        raise _unreadable(prefix, str(error)) from error


def checkpoint_key_of_variables(prefix: Path) -> dict[int, str]:
    """The checkpoint key of every variable by the id of its node in the object graph.

    Raises:
      ModelReadError: as `object_graph`.
    """
    return {
        node_id: attribute.checkpoint_key
        for node_id, node in enumerate(object_graph(prefix).nodes)
        for attribute in node.attributes
        if attribute.name == _VARIABLE_VALUE
    }


def _string(stored: bytes, entry: BundleEntryProto) -> bytes:
    """The only element of a tensor of strings: its length (varint), the length's checksum, then its bytes.

    The tensor's own checksum is of the same, only with the length as a number of fixed width.
    """
    size, place = varint(stored, 0)
    length = struct.pack("<I" if size < 1 << 32 else "<Q", size)
    if masked(crc32c(stored[place:], crc32c(length))) != entry.crc32c:
        raise DamagedTableError("its checksum does not match")
    return stored[place + _LENGTH_CHECKSUM_SIZE :]


def _unreadable(prefix: Path, why: str) -> ModelReadError:
    return ModelReadError(
        f'The object graph in the checkpoint "{prefix}" cannot be read: {why}. Copy or export the model again.'
    )
