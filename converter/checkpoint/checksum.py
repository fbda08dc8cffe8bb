"""The checksums of checkpoints. TensorFlow refuses to read what has none or a wrong one."""

from __future__ import annotations

from crc32c import crc32c

_MASK_DELTA = 0xA282EAD8


def masked(crc: int) -> int:
    """A CRC-32C as TensorFlow stores it, changed so that a checksum of data that holds checksums stays sound."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data` as TensorFlow stores it."""
    return masked(crc32c(data))
