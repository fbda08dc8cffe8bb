"""The index of a TensorFlow checkpoint (TensorBundle format): which tensor lies where in which data file.

The index file is a sorted string table as LevelDB's: the key "" holds a BundleHeaderProto, every other key is a
tensor's name and holds its BundleEntryProto. A partitioned tensor has one entry that lists its slices and one
more per slice, under a key that encodes name and slice; only the latter have data.

A table is data blocks, a metaindex block (always empty), an index block that says where the data blocks are, and a
footer that says where the other two are. A block is entries, each `shared, unshared, value size` (varints), key
without the prefix shared with the key before, value; then the offsets of those entries that share nothing and
their number; then one byte of compression (0 none, 1 Snappy) and a checksum. What is written here is not compressed.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2

from converter.checkpoint import snappy
from converter.checkpoint.crc32c import masked_crc32c
from converter.checkpoint.snappy import varint
from converter.errors import ModelReadError

BundleEntry = Any
BundleHeader = Any

_FORMAT_VERSION = 1
_MAGIC = 0xDB4775248B80FB57
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # compression and checksum after each block
_SNAPPY = 1
_BLOCK_SIZE = 256 << 10  # as TensorFlow's
_RESTART_INTERVAL = 16


@dataclass(frozen=True)
class Index:
    """Header and entries of a checkpoint, entries sorted by key. Keys are bytes since those of slices are binary."""

    header: BundleHeader
    entries: dict[bytes, BundleEntry]


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
        table = dict(_read_table(content, path))
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(table.pop(b""))
        entries = {key: tensor_bundle_pb2.BundleEntryProto.FromString(value) for key, value in table.items()}
    except KeyError:
        raise _damaged(path, "it has no header") from None
    except IndexError:
        raise _damaged(path, "a number runs past its end") from None
    except DecodeError as error:
        raise _damaged(path, f"an entry is not readable, {error}") from error
    if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
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
    return Index(header, entries)


def index_chunks(index: Index) -> Iterator[bytes]:
    """The content of an index file; the same index always gives the same bytes."""
    items = [(b"", index.header.SerializeToString(deterministic=True))]
    items += [(key, index.entries[key].SerializeToString(deterministic=True)) for key in sorted(index.entries)]
    return _table_chunks(items)


def sliced_tensor_key(key: bytes) -> bytes | None:
    """The key of the partitioned tensor of which `key` holds a slice; None if it is an ordinary tensor's key."""
    # An encoded slice is an ordered code: the number 0, the escaped name with its terminator, then the slice.
    if not key.startswith(b"\x00"):
        return None
    name, terminator, _ = key[1:].partition(b"\x00\x01")
    return name.replace(b"\x00\xff", b"\x00").replace(b"\xff\x00", b"\xff") if terminator else None


def _damaged(path: Path, how: str) -> ModelReadError:
    return ModelReadError(f'The checkpoint index "{path}" is damaged: {how}. Copy or export the model again.')


def _read_table(content: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise _damaged(path, f"its {len(content)} bytes do not end in the footer of an index")
    place = 0
    for _ in range(2):  # the handle of the metaindex block, which holds nothing
        _, place = varint(footer, place)
    for _, handle in _block_entries(_read_block(content, footer[place:], path)):
        yield from _block_entries(_read_block(content, handle, path))


def _read_block(content: bytes, handle: bytes, path: Path) -> bytes:
    offset, place = varint(handle, 0)
    size, _ = varint(handle, place)
    end = offset + size
    trailer = content[end : end + _TRAILER_SIZE]
    if len(trailer) < _TRAILER_SIZE:
        raise _damaged(path, f"a block should be at bytes {offset} to {end} of {len(content)}")
    if int.from_bytes(trailer[1:], "little") != masked_crc32c(content[offset : end + 1]):
        raise _damaged(path, f"the checksum of the block at byte {offset} does not match")
    if trailer[0] == _SNAPPY:
        try:
            return snappy.decompress(content[offset:end])
        except snappy.SnappyError as error:
            raise _damaged(path, f"the block at byte {offset} cannot be decompressed, {error}") from error
    if trailer[0] != 0:
        raise _damaged(path, f"the block at byte {offset} is compressed in the unknown way {trailer[0]}")
    return content[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place)
        unshared, place = varint(block, place)
        size, place = varint(block, place)
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + size]
        place += size


def _table_chunks(items: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The bytes of a table of `items`, which are sorted by key: the same ones that TensorFlow would write."""
    offset = 0
    index = _BlockBuilder(1)
    block = _BlockBuilder(_RESTART_INTERVAL)
    following = [*(key for key, _ in items[1:]), None]
    for (key, value), next_key in zip(items, following, strict=True):
        block.add(key, value)
        if next_key is None or block.size >= _BLOCK_SIZE:
            chunk = block.finish()
            index.add(_separator(key, next_key), _handle(offset, chunk))
            yield chunk
            offset += len(chunk)
            block = _BlockBuilder(_RESTART_INTERVAL)
    metaindex = _BlockBuilder(_RESTART_INTERVAL).finish()
    yield metaindex
    chunk = index.finish()
    yield chunk
    footer = _handle(offset, metaindex) + _handle(offset + len(metaindex), chunk)
    yield footer.ljust(_FOOTER_SIZE - 8, b"\x00") + struct.pack("<Q", _MAGIC)


def _separator(key: bytes, next_key: bytes | None) -> bytes:
    """A short key not before `key` and before `next_key`, if there is one."""
    if next_key is None:
        place = next((i for i, byte in enumerate(key) if byte < 0xFF), None)
    else:
        place = _shared_prefix(key, next_key)
        if place == len(key) or key[place] + 1 >= next_key[place]:
            place = None
    return key if place is None else key[:place] + bytes([key[place] + 1])


class _BlockBuilder:
    """One block of a table, put together entry by entry."""

    def __init__(self, restart_interval: int) -> None:
        self._last_key = b""
        self._entries_size = 0
        self._interval = restart_interval
        self._parts: list[bytes] = []
        self._restarts = [0]

    @property
    def size(self) -> int:
        """Bytes so far, without the trailer."""
        return self._entries_size + 4 * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        shared = _shared_prefix(self._last_key, key)
        if self._parts and len(self._parts) % self._interval == 0:
            self._restarts.append(self._entries_size)
            shared = 0
        head = _encode_varint(shared) + _encode_varint(len(key) - shared) + _encode_varint(len(value))
        self._parts.append(head + key[shared:] + value)
        self._entries_size += len(self._parts[-1])
        self._last_key = key

    def finish(self) -> bytes:
        """The block with its trailer."""
        numbers = [*self._restarts, len(self._restarts)]
        body = b"".join(itertools.chain(self._parts, (struct.pack(f"<{len(numbers)}I", *numbers), b"\x00")))
        return body + struct.pack("<I", masked_crc32c(body))


def _shared_prefix(one: bytes, other: bytes) -> int:
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _handle(offset: int, chunk: bytes) -> bytes:
    return _encode_varint(offset) + _encode_varint(len(chunk) - _TRAILER_SIZE)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
