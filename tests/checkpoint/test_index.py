"""Indices of TensorFlow's checkpoints, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from converter.checkpoint.dtypes import FLOAT
from converter.checkpoint.index import Index, read_index
from converter.checkpoint.read import list_tensors
from converter.checkpoint.recast import recast
from converter.errors import ModelReadError
from protos.tensor_bundle_pb2 import BundleHeaderProto
from tests.checkpoint.checkpoints import CHOSEN, MIXED, change_index, restore, save


def test_index_of_tensorflow_is_read_in_full(mixed: Path) -> None:
    index = read_index(mixed)
    assert index.header.num_shards == 1
    assert {key.decode() for key in index.entries} == set(MIXED)
    assert index.entries[b"a/kernel"].dtype == FLOAT


@pytest.mark.parametrize("name", ["plain", "with\x00zero", "high\u00ff\u0100", "\x01first"])
def test_names_of_partitioned_tensors(tmp_path: Path, target: Path, name: str) -> None:
    source = save(tmp_path / "source" / "variables", {name: tf.ones((2, 3))}, {name: "4 3 0,2:-"})
    recast(source, target, [name])
    np.testing.assert_array_equal(restore(target, name, tf.bfloat16, "4 3 0,2:-").astype(np.float32), np.ones((2, 3)))


def big_endian(index: Index) -> None:
    index.header.endianness = BundleHeaderProto.BIG


def newer(index: Index) -> None:
    index.header.version.min_consumer = 2


def other_shard(index: Index) -> None:
    index.entries[b"a/kernel"].shard_id = 1


def negative_offset(index: Index) -> None:
    index.entries[b"a/kernel"].offset = -4


def negative_size(index: Index) -> None:
    index.entries[b"a/kernel"].size = -4


def not_text(index: Index) -> None:
    index.entries[b"\xff\xff"] = index.entries.pop(b"a/kernel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (big_endian, "big-endian; only little-endian"),
        (newer, "format version 2"),
        (other_shard, r'the tensor "a/kernel" should be 240 bytes from byte \d+ of data file 1, counted from 0, of 1'),
        (negative_offset, r'"a/kernel" should be 240 bytes from byte -4'),
        (negative_size, r'"a/kernel" should be -4 bytes'),
        (not_text, r"the name b'\\xff\\xff' of a tensor is not UTF-8"),
    ],
)
def test_what_is_refused(mixed: Path, target: Path, change: Callable[[Index], None], message: str) -> None:
    change_index(mixed, change)
    with pytest.raises(ModelReadError, match=message):
        list_tensors(mixed)
    with pytest.raises(ModelReadError, match=message):
        recast(mixed, target, CHOSEN)
    assert not target.parent.exists()


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match=r"variables\.index.*cannot be read"):
        list_tensors(tmp_path / "variables")
