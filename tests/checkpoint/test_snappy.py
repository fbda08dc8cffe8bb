"""Snappy's raw format: every kind of element, and each way to be damaged."""

import pytest

from converter.checkpoint.snappy import SnappyError, decompress


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x00", b""),
        (b"\x03" + bytes([2 << 2]) + b"abc", b"abc"),
        # A literal whose size takes a byte, or two, of its own.
        (b"\x64" + bytes([60 << 2, 99]) + bytes(100), bytes(100)),
        (b"\xac\x02" + bytes([61 << 2]) + (299).to_bytes(2, "little") + b"z" * 300, b"z" * 300),
        # Copies with offsets of one byte (and three bits), two and four bytes.
        (b"\x08" + bytes([3 << 2]) + b"abcd" + bytes([1, 4]), b"abcdabcd"),
        (b"\x06" + bytes([3 << 2]) + b"abcd" + bytes([1 << 2 | 2, 3, 0]), b"abcdbc"),
        (b"\x06" + bytes([3 << 2]) + b"abcd" + bytes([1 << 2 | 3, 3, 0, 0, 0]), b"abcdbc"),
        # A copy that reaches into what it makes, as runs are written.
        (b"\x09" + bytes([0 << 2]) + b"a" + bytes([7 << 2 | 2, 1, 0]), b"a" * 9),
    ],
)  # fmt: skip
def test_what_was_compressed(data: bytes, expected: bytes) -> None:
    assert decompress(data) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"\x80", "cut off"),
        (b"\x05" + bytes([4 << 2]) + b"abc", "a literal runs past the end"),
        (b"\x08" + bytes([3 << 2]) + b"abcd" + bytes([1]), "cut off"),
        (b"\x08" + bytes([3 << 2]) + b"abcd" + bytes([1, 5]), "a copy starts 5 bytes back, after 4 bytes"),
        (b"\x08" + bytes([3 << 2]) + b"abcd" + bytes([1, 0]), "a copy starts 0 bytes back"),
        (b"\x04" + bytes([2 << 2]) + b"abc", "3 bytes came out, 4 expected"),
    ],
)
def test_damage_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(SnappyError, match=reason):
        decompress(data)
