"""Sorted string tables, LevelDB's format for the indices of checkpoints: bytes -> entries, and back.

A table is data blocks, a metaindex block (always empty), an index block that says where the data blocks are, and a
footer that says where the other two are. A block is entries, each `shared, unshared, value size` (varints), key
without the prefix shared with the key before, value; then the offsets of those entries that share nothing and
their number; then one byte of compression (0 none, 1 Snappy) and a checksum. What is written here is not compressed.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import cramjam

from converter.checkpoint.checksum import masked_crc32c

_MAGIC = 0xDB4775248B80FB57
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # compression and checksum after each block
_SNAPPY = 1
_SNAPPY_EXPANSION = (64, 3)  # bytes out and in of the element that makes most of its bytes, a copy with a short offset
_BLOCK_SIZE = 256 << 10  # as TensorFlow's
_RESTART_INTERVAL = 16
_VARINT_SIZE = 10  # the most bytes that a number of 64 bits takes


class DamagedTableError(ValueError):
    """The bytes are no table; the message says how that shows."""


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a table, in its order.

    Raises:
      DamagedTableError: while iterating.
    """
    footer = content[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise DamagedTableError(f"its {len(content)} bytes do not end in the footer of an index")
    place = 0
    for _ in range(2):  # the handle of the metaindex block, which holds nothing
        _, place = varint(footer, place)
    for _, handle in _block_entries(_read_block(content, footer[place:])):
        yield from _block_entries(_read_block(content, handle))


def table_chunks(items: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
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


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place` and the place after it.

    Raises:
      DamagedTableError: `data` ends before it does, or it is too long.
    """
    value = 0
    for i, byte in enumerate(data[place : place + _VARINT_SIZE]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, place + i + 1
    raise DamagedTableError("a number runs past its end")


def _read_block(content: bytes, handle: bytes) -> bytes:
    offset, place = varint(handle, 0)
    size, _ = varint(handle, place)
    end = offset + size
    trailer = content[end : end + _TRAILER_SIZE]
    if len(trailer) < _TRAILER_SIZE:
        raise DamagedTableError(f"a block should be at bytes {offset} to {end} of {len(content)}")
    if int.from_bytes(trailer[1:], "little") != masked_crc32c(content[offset : end + 1]):
        raise DamagedTableError(f"the checksum of the block at byte {offset} does not match")
    if trailer[0] == _SNAPPY:
        try:
            return _decompress(content[offset:end])
        except cramjam.DecompressionError as error:
            raise DamagedTableError(f"the block at byte {offset} cannot be decompressed, {error}") from error
    if trailer[0] != 0:
        raise DamagedTableError(f"the block at byte {offset} is compressed in the unknown way {trailer[0]}")
    return content[offset:end]


def _decompress(data: bytes) -> bytes:
    """What Snappy made into `data`, which says its size itself: memory is only taken for one that can be true."""
    size = cramjam.snappy.decompress_raw_len(data)
    largest = len(data) * _SNAPPY_EXPANSION[0] // _SNAPPY_EXPANSION[1]
    if size > largest:
        raise DamagedTableError(
            f"a block of {len(data)} bytes claims to decompress to {size}, and none can give more than {largest}"
        )
    return bytes(cramjam.snappy.decompress_raw(data))


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise DamagedTableError(f"a block of {len(block)} bytes is too short for {restarts} restarts")
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place)
        unshared, place = varint(block, place)
        size, place = varint(block, place)
        if shared > len(key) or place + unshared + size > end:
            raise DamagedTableError("an entry does not fit into its block")
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + size]
        place += size


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
