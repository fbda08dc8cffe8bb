"""Indices byte for byte: as TensorFlow writes them, compressed, and damaged."""

from __future__ import annotations

from pathlib import Path

import cramjam
import numpy as np
import pytest
import tensorflow as tf

from converter.checkpoint.checksum import masked_crc32c
from converter.checkpoint.index import index_path, read_index
from converter.checkpoint.read import list_tensors
from converter.checkpoint.recast import recast
from converter.checkpoint.table import DamagedTableError, read_table, table_chunks
from converter.errors import ModelReadError
from tests.checkpoint.checkpoints import change_blocks, files, restore, save

NONE, SNAPPY = 0, 1


def snappy(size: int, *elements: bytes) -> bytes:
    """A block in Snappy's format: the size that it claims, a varint, then literals and copies."""
    length = bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*length, size]) + b"".join(elements)


def literal(data: bytes) -> bytes:
    return bytes([63 << 2]) + (len(data) - 1).to_bytes(4, "little") + data


@pytest.mark.parametrize("name", ["z", "\u00ff", "\x01"])
def test_index_is_the_one_that_tensorflow_writes(tmp_path: Path, target: Path, name: str) -> None:
    names = [f"{name}{'/a' * (i % 5)}/{'long_name_' * (i % 17)}{i}" for i in range(4000)]
    source = save(tmp_path / "source" / "variables", {key: i for i, key in enumerate(names)})
    recast(source, target, [])
    assert files(target) == files(source)


def test_thousands_of_tensors(tmp_path: Path, target: Path) -> None:
    """The index takes several blocks."""
    tensors = {f"layer_{i}/{'long_name_' * 12}/kernel": np.full(3, i, np.float32) for i in range(3000)}
    source = save(tmp_path / "source" / "variables", tensors)
    keys = list(tensors)[::2]
    recast(source, target, keys)
    assert list(read_index(target).entries) == sorted(key.encode() for key in tensors)
    reader = tf.train.load_checkpoint(str(target))
    assert len(reader.get_variable_to_shape_map()) == 3000
    for key in [*keys[::100], *list(tensors)[1::200]]:
        value = restore(target, key, tf.bfloat16 if key in keys else tf.float32)
        np.testing.assert_array_equal(reader.get_tensor(key).astype(np.float32), value)
    assert index_path(target).stat().st_size <= index_path(source).stat().st_size * 1.01


class TestCompressed:
    """Some builds of TensorFlow compress the blocks with Snappy."""

    @pytest.mark.parametrize(
        "compress", [lambda block: bytes(cramjam.snappy.compress_raw(block)), lambda b: snappy(len(b), literal(b))]
    )
    def test_what_tensorflow_reads_is_read(self, mixed: Path, compress) -> None:
        expected = list_tensors(mixed)
        change_blocks(mixed, compress, SNAPPY)
        assert list_tensors(mixed) == expected
        assert tf.train.list_variables(str(mixed)) == [(key, list(t.shape)) for key, t in expected.items()]

    def test_a_block_may_shrink_as_far_as_snappy_can(self, tmp_path: Path) -> None:
        """Copies of 64 bytes, three bytes each, are the most that Snappy can do."""
        source = save(tmp_path / "variables", {"k" * 10_000: 1})
        change_blocks(source, lambda b: bytes(cramjam.snappy.compress_raw(b)), SNAPPY)
        assert index_path(source).stat().st_size < 1000
        assert list(list_tensors(source)) == ["k" * 10_000]

    @pytest.mark.parametrize(
        "block",
        [
            b"",
            b"\x80",
            snappy(5, literal(b"abcd")[:-1]),
            snappy(4, literal(b"abc")),
            snappy(2, literal(b"abc")),
            snappy(8, literal(b"abcd"), bytes([1])),
            snappy(8, literal(b"abcd"), bytes([1, 5])),
            snappy(8, literal(b"abcd"), bytes([1, 0])),
        ],
        ids=["empty", "no size", "cut off", "too short", "too long", "copy cut off", "copy too far", "copy of nothing"],
    )
    def test_damage_is_told(self, mixed: Path, block: bytes) -> None:
        change_blocks(mixed, lambda _: block, SNAPPY)
        with pytest.raises(ModelReadError, match=r"variables\.index.* is damaged: the block at byte 0 cannot be decom"):
            list_tensors(mixed)

    @pytest.mark.parametrize(("size", "most"), [(1 << 31, 213), (214, 213)])
    def test_no_memory_is_taken_for_a_size_that_cannot_be(self, mixed: Path, size: int, most: int) -> None:
        head = snappy(size)
        change_blocks(mixed, lambda _: head + bytes(10 - len(head)), SNAPPY)
        with pytest.raises(ModelReadError, match=f"10 bytes claims to decompress to {size}, .* more than {most}"):
            list_tensors(mixed)

    @pytest.mark.parametrize(
        ("compression", "message"), [(SNAPPY, "cannot be decompressed"), (2, "compressed in the unknown way 2")]
    )
    def test_not_compressed_as_it_says(self, mixed: Path, compression: int, message: str) -> None:
        change_blocks(mixed, lambda block: b"\x80" + block, compression)
        with pytest.raises(ModelReadError, match=message):
            list_tensors(mixed)


class TestDamaged:
    @pytest.mark.parametrize("keep", [0, 47, 48, 100])
    def test_cut_off(self, mixed: Path, keep: int) -> None:
        path = index_path(mixed)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ModelReadError, match="damaged"):
            list_tensors(mixed)

    def test_any_changed_byte_is_noticed(self, mixed: Path) -> None:
        path = index_path(mixed)
        content = path.read_bytes()
        tensors = list_tensors(mixed)
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :])
            try:
                assert list_tensors(mixed) == tensors, place  # padding, or where the empty block is
            except ModelReadError as error:
                assert "damaged" in str(error)

    @pytest.mark.parametrize("bit", [0x01, 0x10, 0x80])
    def test_any_changed_byte_with_a_right_checksum_is_read_or_refused(self, mixed: Path, bit: int) -> None:
        path = index_path(mixed)
        content = path.read_bytes()
        end = data_block_size(content)
        refused = 0
        for place in range(end):
            block = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 : end + 1]
            path.write_bytes(block + masked_crc32c(block).to_bytes(4, "little") + content[end + 5 :])
            try:
                list_tensors(mixed)
            except ModelReadError:
                refused += 1
        assert refused > end // 5

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (b"", "0 bytes is too short for 0 restarts"),
            (bytes([9, 0, 0, 0]), "4 bytes is too short for 9 restarts"),
            (b"\xff" * 11, "a number runs past its end"),
            (b"\x01\x01\x00k", "an entry does not fit"),
            (b"\x00\x01\x09kv", "an entry does not fit"),
            (b"\x00\x09\x00kv", "an entry does not fit"),
        ],
    )
    def test_blocks_that_are_none(self, block: bytes, message: str) -> None:
        body = block if "restarts" in message else block + bytes(4) + bytes([1, 0, 0, 0])
        with pytest.raises(DamagedTableError, match=message):
            list(read_table(table_of(body)))

    def test_a_block_outside_the_file(self) -> None:
        content = table_of(bytes(100))
        with pytest.raises(DamagedTableError, match="a block should be at bytes 0 to 100 of 48"):
            list(read_table(content[-48:]))


def table_of(body: bytes) -> bytes:
    """A table whose index block is `body`."""
    block = body + bytes([NONE])
    handle = bytes([0, 0, 0, len(body)])
    magic = b"".join(table_chunks([(b"", b"")]))[-8:]
    return block + masked_crc32c(block).to_bytes(4, "little") + handle.ljust(40, b"\x00") + magic


def data_block_size(content: bytes) -> int:
    """Without the trailer."""
    places = range(len(content))
    return next(i for i in places if masked_crc32c(content[: i + 1]).to_bytes(4, "little") == content[i + 1 : i + 5])
