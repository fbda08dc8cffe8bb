"""CRC-32C (Castagnoli) at several GB/s with numpy only.

Every tensor and every block of an index in a TensorFlow checkpoint carries this checksum and TensorFlow refuses
to read without a right one. Nothing in TensorFlow's Python API computes it on a buffer, Python's zlib has another
polynomial, and a loop over a table does 15 MB/s.

How it gets fast: a CRC is the remainder of the message, read as a polynomial over GF(2), by the generator P. P
divides x^6777 + x^484 + x^100 + 1, and, because squaring is linear over GF(2), also that polynomial with all exponents
times any power of two. So with a unit of 1, 4, 16... bytes (8, 32, 128... bits) the bits at one place may be replaced
by themselves at three places further to the end, and a whole block goes away with three XORs of slices. What is
left in the end, at most 13 KB, goes through the table. The first byte of a message is its highest power, and
the lowest bit of a byte its highest, hence "further to the end" is "lower power".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Data = bytes | memoryview | npt.NDArray[np.uint8]

REFLECTED_POLYNOMIAL = 0x82F63B78
FOLD_EXPONENTS = (6777, 484, 100)  # found by search; few terms and a large distance between the first two

_HIGH, _MIDDLE, _LOW = FOLD_EXPONENTS
_STREAM_UNIT = 16  # bytes; a power of two. Blocks of 100 KB: large beside numpy's overhead, small beside a cache
_END_UNITS = (4, 1)
_MASK_DELTA = 0xA282EAD8


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (REFLECTED_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


def _initial() -> npt.NDArray[np.uint8]:
    """The four bytes that take a register of zeros to the all ones that a CRC-32C starts with."""
    register = 0xFFFFFFFF
    for _ in range(32):  # one bit backwards
        odd = register >> 31
        register = ((register ^ (REFLECTED_POLYNOMIAL if odd else 0)) << 1 | odd) & 0xFFFFFFFF
    return np.frombuffer(register.to_bytes(4, "little"), np.uint8)


_TABLE = _table()
_INITIAL = _initial()


class Crc32c:
    """The checksum of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = _INITIAL  # a message with the remainder of all that was seen
        self._buffer = np.empty(0, np.uint8)  # holds it; kept since fresh memory costs as much as the checksum

    def update(self, data: Data) -> None:
        """Takes the next bytes; pieces of about 1 MB are fastest."""
        new = np.frombuffer(data, np.uint8)
        rest, size = self._rest, self._rest.size + new.size
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        self._buffer[: rest.size] = rest
        self._buffer[rest.size : size] = new
        self._rest = _fold(self._buffer[:size], _STREAM_UNIT)

    def value(self) -> int:
        """The checksum of the bytes so far."""
        rest = self._rest.copy()
        for unit in _END_UNITS:
            rest = _fold(rest, unit)
        register = 0
        for byte in rest.tobytes():
            register = _TABLE[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register ^ 0xFFFFFFFF

    def masked(self) -> int:
        """The value as TensorFlow stores it, changed so that a checksum of data that holds checksums stays sound."""
        crc = self.value()
        return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c(data: Data) -> int:
    """The checksum of `data` as TensorFlow stores it."""
    crc = Crc32c()
    crc.update(data)
    return crc.masked()


def _fold(message: npt.NDArray[np.uint8], unit: int) -> npt.NDArray[np.uint8]:
    """A shorter message of the same remainder: the end of `message`, which is overwritten."""
    block = (_HIGH - _MIDDLE) * unit
    start = 0
    while message.size - start >= _HIGH * unit + block:
        front = message[start : start + block]
        for distance in (_HIGH - _MIDDLE, _HIGH - _LOW, _HIGH):
            place = start + distance * unit
            message[place : place + block] ^= front
        start += block
    return message[start:]
