"""Checksums are those that TensorFlow writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from crc32c import crc32c

from converter.checkpoint.checksum import masked, masked_crc32c


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 100, 300_001, 5_000_000])
def test_checksum_is_tensorflows(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    with tf.io.TFRecordWriter(str(tmp_path / "record")) as writer:
        writer.write(data)
    expected = (tmp_path / "record").read_bytes()[-4:]
    assert masked_crc32c(data).to_bytes(4, "little") == expected
    crc = 0
    for start in range(0, size, max(1, size // 7)):
        crc = crc32c(memoryview(data)[start : start + max(1, size // 7)], crc)
    assert masked(crc).to_bytes(4, "little") == expected
