"""The index of a TensorFlow checkpoint (TensorBundle format): which tensor lies where in which data file.

The index file is a table: the key "" holds a BundleHeaderProto, every other key is a tensor's name and holds its
BundleEntryProto. A partitioned tensor has one entry that lists its slices and one more per slice, under a key that
encodes name and slice; only the latter have data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from converter.checkpoint.table import DamagedTableError, read_table, table_chunks
from converter.errors import ModelReadError
from protos.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Index:
    """Header and entries of a checkpoint, entries sorted by key. Keys are bytes since those of slices are binary."""

    header: BundleHeaderProto
    entries: dict[bytes, BundleEntryProto]


def index_path(prefix: Path) -> Path:
    return prefix.parent / f"{prefix.name}.index"


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.parent / f"{prefix.name}.data-{shard:05d}-of-{shards:05d}"


def read_index(prefix: Path) -> Index:
    """Reads and checks the index of the checkpoint `prefix`.

    Raises:
      ModelReadError: there is none, or it is damaged, big-endian, or of a newer format.
    """
    path = index_path(prefix)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelReadError(
            f'The checkpoint index "{path}" cannot be read: {error.strerror}. Expected a TensorFlow 2 checkpoint, an '
            "index and data files that belong together; copy the model again, all of its files."
        ) from error
    try:
        table = dict(read_table(content))
        header = BundleHeaderProto.FromString(table.pop(b""))
        entries = {key: BundleEntryProto.FromString(value) for key, value in table.items()}
    except KeyError:
        raise _damaged(path, "it has no header") from None
    except DamagedTableError as error:
        raise _damaged(path, str(error)) from error
    except DecodeError as error:
        raise _damaged(path, f"an entry is not readable, {error}") from error
    if header.endianness != BundleHeaderProto.LITTLE:
        raise ModelReadError(
            f'The checkpoint index "{path}" says that the checkpoint is big-endian; only little-endian ones, as '
            "written on x86 and ARM machines, can be converted. Load the model there with tf.saved_model.load and "
            "save it again."
        )
    if header.version.min_consumer > _FORMAT_VERSION:
        raise ModelReadError(
            f'The checkpoint index "{path}" asks for a reader of format version {header.version.min_consumer}; this '
            f"one reads up to version {_FORMAT_VERSION}. Save the model again with TensorFlow 2.21 or older."
        )
    for key, entry in entries.items():
        _check_entry(path, key, entry, header.num_shards)
    return Index(header, entries)


def index_chunks(index: Index) -> Iterator[bytes]:
    """The content of an index file; the same index always gives the same bytes."""
    items = [(b"", index.header.SerializeToString(deterministic=True))]
    items += [(key, index.entries[key].SerializeToString(deterministic=True)) for key in sorted(index.entries)]
    return table_chunks(items)


def sliced_tensor_key(key: bytes) -> bytes | None:
    """The key of the partitioned tensor of which `key` holds a slice; None if it is an ordinary tensor's key."""
    # An encoded slice is an ordered code: the number 0, the escaped name with its terminator, then the slice.
    if not key.startswith(b"\x00"):
        return None
    name, terminator, _ = key[1:].partition(b"\x00\x01")
    return name.replace(b"\x00\xff", b"\x00").replace(b"\xff\x00", b"\xff") if terminator else None


def _check_entry(path: Path, key: bytes, entry: BundleEntryProto, shards: int) -> None:
    try:
        name = (sliced_tensor_key(key) or key).decode()
    except UnicodeDecodeError:
        raise _damaged(path, f"the name {key!r} of a tensor is not UTF-8") from None
    if not 0 <= entry.shard_id < shards or min(entry.offset, entry.size) < 0:
        raise _damaged(
            path,
            f'the tensor "{name}" should be {entry.size} bytes from byte {entry.offset} of data file {entry.shard_id}, '
            f"counted from 0, of {shards}",
        )


def _damaged(path: Path, how: str) -> ModelReadError:
    return ModelReadError(f'The checkpoint index "{path}" is damaged: {how}. Copy or export the model again.')
