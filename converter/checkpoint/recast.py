"""Variables on disk, rewritten: a copy of a checkpoint with some tensors in bfloat16.

The copy is made in a stream, 1 MB at a time: one pass over the data files that casts the tensors asked for and
copies all others, checksums included, then a new index. Shards, slices and keys stay as they are, so strings,
variants and types that do not exist yet need no case of their own.

Why not TensorFlow's own ops (restore one tensor, cast, SaveV2, MergeV2Checkpoints)? Tried: they need a whole tensor
in both types, 768 MB for one of 512 MB, take over five times as long as `cp`, write a data file per call, and show
neither slices nor byte order. The price is the format of the index, unchanged since 2016 and tested against
TensorFlow. Figures: benchmarks/checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from crc32c import crc32c

from converter.checkpoint.checksum import masked
from converter.checkpoint.dtypes import BFLOAT16, FLOAT, dtype_name
from converter.checkpoint.index import data_path, index_chunks, index_path, read_index, sliced_tensor_key
from converter.checkpoint.read import StoredTensor, tensors_of
from converter.checkpoint.streams import Reader, Writer, create, open_source, writing
from converter.errors import ConversionError, ModelReadError, nearest
from converter.rounding import rounded
from protos.tensor_bundle_pb2 import BundleEntryProto

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def recast(source_prefix: Path, target_prefix: Path, keys: Collection[str], progress: Progress | None = None) -> None:
    """Writes a copy of a checkpoint in which the float32 tensors `keys` are bfloat16, rounded to nearest even.

    The same input always gives the same bytes. Of a failed call no file is left. What is recast is checked
    against its checksum first; what is copied keeps its checksum, for whoever loads it.

    Args:
      source_prefix: the checkpoint to read.
      target_prefix: where to write; the directory is made if need be, files that exist are not replaced.
      keys: checkpoint keys; for a partitioned tensor that of the whole.
      progress: called with the bytes read so far and in all.

    Raises:
      ConversionError: no such key, or not a float32 tensor; nothing was written.
      ModelReadError: the source is missing, damaged or not supported.
      OutputError: the target cannot be written.
    """
    index = read_index(source_prefix)
    _check_keys(source_prefix, tensors_of(index), keys)
    stored = {key: entry for key, entry in index.entries.items() if not entry.slices}
    chosen = {key.encode() for key in keys}
    to_cast = {key for key in stored if key in chosen or sliced_tensor_key(key) in chosen}
    by_shard: dict[int, dict[bytes, BundleEntryProto]] = {}
    for key, entry in stored.items():
        by_shard.setdefault(entry.shard_id, {})[key] = entry
    counter = _Counter(sum(entry.size for entry in stored.values()), progress)

    with ExitStack() as created:
        with writing(target_prefix.parent):
            target_prefix.parent.mkdir(parents=True, exist_ok=True)
        for shard in range(index.header.num_shards):
            in_shard = by_shard.get(shard, {})
            source_path = data_path(source_prefix, shard, index.header.num_shards)
            if not in_shard and not source_path.exists():
                continue  # a host without variables of its own
            target_path = data_path(target_prefix, shard, index.header.num_shards)
            with open_source(source_path) as source, create(target_path, created) as target:
                _write_shard(source, target, in_shard, to_cast, counter)
        for key in chosen:
            index.entries[key].dtype = BFLOAT16
        # The index comes last: without it the data files are no checkpoint.
        with create(index_path(target_prefix), created) as target:
            for chunk in index_chunks(index):
                target.write(chunk)
        created.pop_all()  # all is written, so keep it


def _check_keys(prefix: Path, tensors: dict[str, StoredTensor], keys: Collection[str]) -> None:
    for key in sorted(keys):
        if key not in tensors:
            raise ConversionError(
                f'The checkpoint "{prefix}" has no tensor "{key}" to store as bfloat16; the tensors with the nearest '
                f"names are {nearest(key, tensors)}."
            )
        if tensors[key].dtype != FLOAT:
            raise ConversionError(
                f'The tensor "{key}" of the checkpoint "{prefix}" is {dtype_name(tensors[key].dtype)}; only float32 '
                "tensors can be stored as bfloat16."
            )


def _write_shard(
    source: Reader, target: Writer, entries: dict[bytes, BundleEntryProto], to_cast: set[bytes], counter: _Counter
) -> None:
    """Writes one data file and brings `entries`, all of that file, up to date."""
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[0])):
        start = target.position
        if key in to_cast:
            _cast_tensor(source, target, key, entry, counter)
        else:
            for chunk in source.chunks(entry.offset, entry.size):
                target.write(chunk)
                counter.add(len(chunk))
        entry.offset = start


def _cast_tensor(source: Reader, target: Writer, key: bytes, entry: BundleEntryProto, counter: _Counter) -> None:
    elements = int(np.prod([d.size for d in entry.shape.dim], dtype=np.int64))
    if entry.size != 4 * elements:
        raise ModelReadError(
            f'The tensor "{_readable(key)}" takes {entry.size} bytes of "{source.path}"; expected {4 * elements} for '
            f"{elements} float32 numbers. Copy or export the model again."
        )
    crc_before = crc_after = 0
    for chunk in source.chunks(entry.offset, entry.size):
        crc_before = crc32c(chunk, crc_before)
        cast = rounded(np.frombuffer(chunk, "<f4")).view(np.uint8).data
        crc_after = crc32c(cast, crc_after)
        target.write(cast)
        counter.add(len(chunk))
    if masked(crc_before) != entry.crc32c:
        raise ModelReadError(
            f'The checksum of the tensor "{_readable(key)}" in "{source.path}" does not match: the file is damaged. '
            "Copy or export the model again."
        )
    entry.dtype = BFLOAT16
    entry.size //= 2
    entry.crc32c = masked(crc_after)


def _readable(key: bytes) -> str:
    return (sliced_tensor_key(key) or key).decode()


class _Counter:
    """Counts bytes for whoever watches."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)
