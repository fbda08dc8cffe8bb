"""Snappy's raw format, as some builds of TensorFlow compress the index of a checkpoint: reading only.

The length of the whole as a varint, then elements: literal bytes, or copies of what has come out before. The low two
bits of an element's first byte tell which.
"""

from __future__ import annotations


class SnappyError(ValueError):
    """The bytes are no Snappy data."""


def decompress(data: bytes) -> bytes:
    """The bytes that were compressed.

    Raises:
      SnappyError: `data` is damaged.
    """
    try:
        length, place = varint(data, 0)
        out = bytearray()
        while place < len(data):
            tag = data[place]
            kind, place = tag & 3, place + 1
            if kind == 0:
                size, place = _literal_size(data, tag >> 2, place)
                if place + size > len(data):
                    raise SnappyError("a literal runs past the end")
                out += data[place : place + size]
                place += size
                continue
            if kind == 1:
                size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[place]
                place += 1
            else:
                width = 2 if kind == 2 else 4
                size, offset = (tag >> 2) + 1, int.from_bytes(data[place : place + width], "little")
                place += width
            if not 0 < offset <= len(out):
                raise SnappyError(f"a copy starts {offset} bytes back, after {len(out)} bytes")
            # What is copied may reach into what the copy itself makes.
            for _ in range(size):
                out.append(out[-offset])
    except IndexError:
        raise SnappyError("it was cut off") from None
    if len(out) != length:
        raise SnappyError(f"{len(out)} bytes came out, {length} expected")
    return bytes(out)


def _literal_size(data: bytes, code: int, place: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, place
    width = code - 59
    return int.from_bytes(data[place : place + width], "little") + 1, place + width


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place` and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
