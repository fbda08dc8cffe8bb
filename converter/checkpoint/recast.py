"""Variables on disk: what a checkpoint holds, and a copy of it with some tensors in bfloat16.

The copy is made in a stream, 1 MB at a time: one pass over the data files that casts the tensors asked for and
copies all others, checksums included, then a new index. Shards, slices and keys stay as they are, so strings,
variants and types that do not exist yet need no case of their own.

Why not TensorFlow's own ops (restore one tensor, cast, SaveV2, MergeV2Checkpoints)? Tried: they need a whole tensor
in both types, 768 MB for one of 512 MB, take over five times as long as `cp`, write a data file per call, and show
neither slices nor byte order. The price is the format of the index in `tensor_bundle`, unchanged since 2016, and a
fast checksum in `crc32c`; both are tested against TensorFlow. Figures: benchmarks/checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import trackable_object_graph_pb2

from converter.checkpoint.crc32c import Crc32c
from converter.checkpoint.index import (
    BundleEntry,
    Index,
    data_path,
    index_chunks,
    index_path,
    read_index,
    sliced_tensor_key,
)
from converter.errors import ConversionError, ModelReadError, OutputError, nearest
from converter.rounding import round_into

DType = Any  # tf.DType
TrackableObjectGraph = Any
Progress = Callable[[int, int], None]  # bytes done, bytes in all

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE_VALUE = "VARIABLE_VALUE"
_CHUNK_SIZE = 1 << 20  # bytes, a multiple of float32's; what fits the processor's cache is twice as fast


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint; a partitioned one counts as one tensor, its size is that of all slices."""

    dtype: DType
    shape: tuple[int, ...]
    is_sliced: bool
    size_bytes: int


@dataclass(frozen=True)
class RecastResult:
    """What `recast` did.

    Attributes:
      bytes_before, bytes_after: of all tensors of the checkpoint, recast or not, without its index.
      tensors: how many were recast; a partitioned tensor counts once.
    """

    bytes_before: int
    bytes_after: int
    tensors: int


@dataclass(frozen=True)
class SlotVariable:
    """A variable that an optimizer keeps for another; the ids are of nodes of the object graph."""

    original_variable_node_id: int
    slot_name: str
    slot_variable_node_id: int


def list_tensors(prefix: Path) -> dict[str, TensorInfo]:
    """All tensors of the checkpoint `prefix` ("…/variables/variables") by key, sorted; reads the index only.

    Raises:
      ModelReadError: the index is missing, damaged or not supported.
    """
    return _infos(read_index(prefix))


def recast(
    source_prefix: Path,
    target_prefix: Path,
    keys: Collection[str],
    dtype: DType = tf.bfloat16,
    progress: Progress | None = None,
) -> RecastResult:
    """Writes a copy of a checkpoint in which the float32 tensors `keys` are bfloat16, rounded to nearest even.

    The same input always gives the same bytes. Of a failed call no file is left. What is recast is checked
    against its checksum first; what is copied keeps its checksum, for whoever loads it.

    Args:
      source_prefix: the checkpoint to read.
      target_prefix: where to write; the directory is made if need be, files that exist are not replaced.
      keys: checkpoint keys; for a partitioned tensor that of the whole.
      dtype: tf.bfloat16, the only one there is so far.
      progress: called with the bytes read so far and in all.

    Raises:
      ConversionError: no such key, or not a float32 tensor; nothing was written.
      ModelReadError: the source is missing, damaged or not supported.
      OutputError: the target cannot be written.
    """
    if tf.as_dtype(dtype) != tf.bfloat16:
        raise ConversionError(
            f"Variables cannot be stored as {tf.as_dtype(dtype).name}; the only type to recast to is bfloat16."
        )
    index = read_index(source_prefix)
    _check_keys(source_prefix, _infos(index), keys)
    stored = {key: entry for key, entry in index.entries.items() if not entry.slices}
    chosen = {key.encode() for key in keys}
    to_cast = {key for key in stored if key in chosen or sliced_tensor_key(key) in chosen}
    by_shard: dict[int, dict[bytes, BundleEntry]] = {}
    for key, entry in stored.items():
        by_shard.setdefault(entry.shard_id, {})[key] = entry
    counter = _Counter(sum(entry.size for entry in stored.values()), progress)
    bytes_before = counter.total

    with ExitStack() as created:
        with _writing(target_prefix.parent):
            target_prefix.parent.mkdir(parents=True, exist_ok=True)
        for shard in range(index.header.num_shards):
            in_shard = by_shard.get(shard, {})
            source_path = data_path(source_prefix, shard, index.header.num_shards)
            if not in_shard and not source_path.exists():
                continue  # a host without variables of its own
            target_path = data_path(target_prefix, shard, index.header.num_shards)
            with _open_source(source_path) as source, _create(target_path, created) as target:
                _write_shard(_Reader(source, source_path), _Writer(target, target_path), in_shard, to_cast, counter)
        for key in chosen:
            index.entries[key].dtype = tf.bfloat16.as_datatype_enum
        # The index comes last: without it the data files are no checkpoint.
        target_path = index_path(target_prefix)
        with _create(target_path, created) as target:
            writer = _Writer(target, target_path)
            for chunk in index_chunks(index):
                writer.write(chunk)
        created.pop_all()  # all is written, so keep it
    return RecastResult(bytes_before, sum(entry.size for entry in stored.values()), len(chosen))


def object_graph(prefix: Path) -> TrackableObjectGraph:
    """The checkpoint's object graph.

    Its node ids are those of the SavedModel's object graph it was saved with, which may have further nodes at the
    end: constants that functions captured.

    Raises:
      ModelReadError: the checkpoint is missing or damaged, or has no object graph.
    """
    if OBJECT_GRAPH_KEY.encode() not in read_index(prefix).entries:
        raise ModelReadError(
            f'The checkpoint "{prefix}" has no object graph (no tensor "{OBJECT_GRAPH_KEY}"), so it was not written '
            "by TensorFlow 2. Save the model again with tf.saved_model.save or model.export."
        )
    try:
        content = tf.train.load_checkpoint(str(prefix)).get_tensor(OBJECT_GRAPH_KEY)
        return trackable_object_graph_pb2.TrackableObjectGraph.FromString(content)
    except (tf.errors.OpError, DecodeError) as error:
        raise ModelReadError(
            f'The object graph in the checkpoint "{prefix}" cannot be read: {error}. Copy or export the model again.'
        ) from error


def checkpoint_key_of_variables(prefix: Path) -> dict[int, str]:
    """The checkpoint key of every variable by the id of its node in the object graph.

    Raises:
      ModelReadError: as `object_graph`.
    """
    return {
        node_id: attribute.checkpoint_key
        for node_id, node in enumerate(object_graph(prefix).nodes)
        for attribute in node.attributes
        if attribute.name == _VARIABLE_VALUE
    }


def slot_variables(prefix: Path) -> list[SlotVariable]:
    """All slot variables of all optimizers in the checkpoint's object graph.

    Raises:
      ModelReadError: as `object_graph`.
    """
    return [
        SlotVariable(slot.original_variable_node_id, slot.slot_name, slot.slot_variable_node_id)
        for node in object_graph(prefix).nodes
        for slot in node.slot_variables
    ]


def _infos(index: Index) -> dict[str, TensorInfo]:
    slice_bytes: dict[bytes, int] = {}
    for key, entry in index.entries.items():
        whole = sliced_tensor_key(key)
        if whole is not None:
            slice_bytes[whole] = slice_bytes.get(whole, 0) + entry.size
    return {
        key.decode(): TensorInfo(
            tf.as_dtype(entry.dtype),
            tuple(d.size for d in entry.shape.dim),
            bool(entry.slices),
            slice_bytes.get(key, 0) if entry.slices else entry.size,
        )
        for key, entry in index.entries.items()
        if sliced_tensor_key(key) is None
    }


def _check_keys(prefix: Path, tensors: dict[str, TensorInfo], keys: Collection[str]) -> None:
    for key in sorted(keys):
        if key not in tensors:
            raise ConversionError(
                f'The checkpoint "{prefix}" has no tensor "{key}" to store as bfloat16; the tensors with the nearest '
                f"names are {nearest(key, tensors)}."
            )
        if tensors[key].dtype != tf.float32:
            raise ConversionError(
                f'The tensor "{key}" of the checkpoint "{prefix}" is {tensors[key].dtype.name}; only float32 tensors '
                "can be stored as bfloat16."
            )


def _write_shard(
    source: _Reader, target: _Writer, entries: dict[bytes, BundleEntry], to_cast: set[bytes], counter: _Counter
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


def _cast_tensor(source: _Reader, target: _Writer, key: bytes, entry: BundleEntry, counter: _Counter) -> None:
    elements = int(np.prod([d.size for d in entry.shape.dim], dtype=np.int64))
    if entry.size != 4 * elements:
        raise ModelReadError(
            f'The tensor "{_readable(key)}" takes {entry.size} bytes of "{source.path}"; expected {4 * elements} for '
            f"{elements} float32 numbers. Copy or export the model again."
        )
    crc_before, crc_after = Crc32c(), Crc32c()
    for chunk in source.chunks(entry.offset, entry.size):
        crc_before.update(chunk)
        round_into(target.cast_buffer[: len(chunk) // 4], np.frombuffer(chunk, "<f4"))
        cast = target.cast_buffer[: len(chunk) // 4].view(np.uint8)
        crc_after.update(cast)
        target.write(cast.data)
        counter.add(len(chunk))
    if crc_before.masked() != entry.crc32c:
        raise ModelReadError(
            f'The checksum of the tensor "{_readable(key)}" in "{source.path}" does not match: the file is damaged. '
            "Copy or export the model again."
        )
    entry.dtype = tf.bfloat16.as_datatype_enum
    entry.size //= 2
    entry.crc32c = crc_after.masked()


def _readable(key: bytes) -> str:
    return (sliced_tensor_key(key) or key).decode()


class _Counter:
    """Counts bytes for whoever watches."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self._done = 0
        self._progress = progress

    def add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self.total)


class _Reader:
    """A data file to read in chunks, each into the same buffer."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.path = path
        self._file = file
        self._buffer = memoryview(bytearray(_CHUNK_SIZE))

    def chunks(self, offset: int, size: int) -> Iterator[memoryview]:
        """The bytes from `offset` on; each chunk is valid until the next one."""
        with _reading(self.path):
            self._file.seek(offset)
        while size > 0:
            wanted = min(size, _CHUNK_SIZE)
            filled = 0
            while filled < wanted:
                with _reading(self.path):
                    count = self._file.readinto(self._buffer[filled:wanted])
                if not count:
                    raise ModelReadError(
                        f'The data file "{self.path}" ends {size - filled} bytes too early for a tensor that the '
                        "checkpoint's index lists: it was cut off. Copy or export the model again."
                    )
                filled += count
            yield self._buffer[:wanted]
            size -= wanted


class _Writer:
    """A data file to write from start to end."""

    def __init__(self, file: BufferedWriter, path: Path) -> None:
        self.position = 0
        self.cast_buffer = np.empty(_CHUNK_SIZE // 4, ml_dtypes.bfloat16)  # for what is to be written next
        self._file = file
        self._path = path

    def write(self, chunk: memoryview | bytes) -> None:
        with _writing(self._path):
            self._file.write(chunk)
        self.position += len(chunk)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelReadError(
            f'The data file "{path}" of the checkpoint cannot be read: {error.strerror}. Copy the model again, all '
            "of its files."
        ) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f'The checkpoint file "{path}" cannot be written: {error.strerror}.') from error


def _open_source(path: Path) -> BufferedReader:
    with _reading(path):
        return path.open("rb")


@contextmanager
def _create(path: Path, created: ExitStack) -> Iterator[BufferedWriter]:
    """A new file, which goes away with `created`."""
    with _writing(path):
        file = path.open("xb")
    created.callback(path.unlink)
    try:
        yield file
    finally:
        # What is still in the buffer may find the disk full.
        with _writing(path):
            file.close()
