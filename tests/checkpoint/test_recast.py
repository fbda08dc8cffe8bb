"""Checkpoints of every kind, recast and read again with TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

from converter.checkpoint import index as tensor_bundle
from converter.checkpoint import recast as checkpoint
from converter.checkpoint.crc32c import FOLD_EXPONENTS, Crc32c, masked_crc32c
from converter.errors import ConversionError, ModelReadError, OutputError
from converter.rounding import LARGEST

MIXED: dict[str, Any] = {
    "a/kernel": np.linspace(-3, 3, 60, dtype=np.float32).reshape(5, 12),
    "b/scalar": np.float32(1.2345678),
    "c/empty": np.zeros((0, 4), np.float32),
    "d/int": np.arange(7, dtype=np.int64),
    "e/bool": np.array([True, False]),
    "f/double": np.float64(1 / 3),
    "g/text": np.array([b"one", b"", "zwölf".encode()], object),
    "h/half": np.array([1.5, 2.5], np.float16),
    "i/kept": np.full((3, 3), 0.1, np.float32),
    "j/complex": np.complex64(1 + 2j),
    "k/bias": np.full(9, 1 / 3, np.float32),
}
CHOSEN = ["a/kernel", "b/scalar", "c/empty", "k/bias"]


def save(prefix: Path, tensors: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> Path:
    """Writes a checkpoint of one data file. `slices` are specifications such as "4 10 0,2:-"."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[(slices or {}).get(key, "") for key in tensors],
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return prefix


def merge(parts: list[Path], prefix: Path) -> Path:
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=list(map(str, parts)), destination_prefix=str(prefix))
    return prefix


def restore(prefix: Path, key: str, dtype: tf.DType, spec: str = "") -> Any:
    (value,) = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=[key], shape_and_slices=[spec], dtypes=[tf.as_dtype(dtype)]
    )
    return value.numpy()


def bits(array: Any) -> Any:
    return np.asarray(array).view(np.uint16)


def assert_recast(source: Path, target: Path, keys: Collection[str]) -> None:
    """TensorFlow reads from `target` what it casts of `source`, for `keys`, and the same for all others."""
    before, after = tf.train.load_checkpoint(str(source)), tf.train.load_checkpoint(str(target))
    assert before.get_variable_to_shape_map() == after.get_variable_to_shape_map()
    for key, dtype in before.get_variable_to_dtype_map().items():
        value = before.get_tensor(key)
        if key in keys:
            assert after.get_variable_to_dtype_map()[key] == tf.bfloat16
            expected = bits(tf.cast(value, tf.bfloat16).numpy())
            np.testing.assert_array_equal(bits(after.get_tensor(key)), expected)
            np.testing.assert_array_equal(bits(restore(target, key, tf.bfloat16)), expected)
        else:
            assert after.get_variable_to_dtype_map()[key] == dtype
            np.testing.assert_array_equal(after.get_tensor(key), value)


def files(prefix: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prefix.parent.iterdir())}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return save(tmp_path / "source" / "variables", MIXED)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target" / "variables"


def test_the_fold_is_a_multiple_of_the_polynomial() -> None:
    def power(exponent: int) -> int:
        register = 0x80000000  # x^0, highest power in the lowest bit
        for _ in range(exponent):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
        return register

    high, middle, low = FOLD_EXPONENTS
    assert power(high) ^ power(middle) ^ power(low) ^ power(0) == 0


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 100, 13_069, 13_070, 13_071, 52_281, 300_001, 5_000_000])
def test_checksum_is_tensorflows(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    with tf.io.TFRecordWriter(str(tmp_path / "record")) as writer:
        writer.write(data)
    expected = (tmp_path / "record").read_bytes()[-4:]
    assert masked_crc32c(data).to_bytes(4, "little") == expected
    pieces = Crc32c()
    for start in range(0, size, max(1, size // 7)):
        pieces.update(data[start : start + max(1, size // 7)])
    assert pieces.masked() == masked_crc32c(data)


def test_checksum_check_value() -> None:
    crc = Crc32c()
    crc.update(b"123456789")
    assert crc.value() == 0xE3069283
    assert crc.value() != zlib.crc32(b"123456789")


def test_list_tensors(mixed: Path) -> None:
    infos = checkpoint.list_tensors(mixed)
    assert list(infos) == sorted(MIXED)
    assert infos["a/kernel"] == checkpoint.TensorInfo(tf.float32, (5, 12), False, 240)
    assert infos["b/scalar"] == checkpoint.TensorInfo(tf.float32, (), False, 4)
    assert infos["c/empty"] == checkpoint.TensorInfo(tf.float32, (0, 4), False, 0)
    assert infos["g/text"].dtype == tf.string


def test_recast(mixed: Path, target: Path) -> None:
    result = checkpoint.recast(mixed, target, CHOSEN, tf.bfloat16)
    assert_recast(mixed, target, CHOSEN)
    before, after = (p.with_name("variables.data-00000-of-00001").stat().st_size for p in (mixed, target))
    assert result == checkpoint.RecastResult(bytes_before=before, bytes_after=after, tensors=4)
    assert before - after == (60 + 1 + 9) * 2
    assert sorted(files(target)) == ["variables.data-00000-of-00001", "variables.index"]
    assert len(files(target)["variables.index"]) <= len(files(mixed)["variables.index"])


def test_nothing_to_recast_gives_the_same_bytes(mixed: Path, target: Path) -> None:
    assert checkpoint.recast(mixed, target, []).tensors == 0
    assert files(target) == files(mixed)


def test_same_input_gives_the_same_bytes(mixed: Path, target: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "variables"
    checkpoint.recast(mixed, target, CHOSEN)
    checkpoint.recast(mixed, again, set(CHOSEN))
    assert files(again) == files(target)


def test_a_recast_tensor_cannot_be_recast_again(mixed: Path, target: Path, tmp_path: Path) -> None:
    checkpoint.recast(mixed, target, CHOSEN)
    with pytest.raises(ConversionError, match=r'"a/kernel" of the checkpoint .* is bfloat16'):
        checkpoint.recast(target, tmp_path / "again" / "variables", ["a/kernel"])


def test_rounding_is_tensorflows_but_nothing_finite_becomes_infinite(tmp_path: Path, target: Path) -> None:
    random = np.random.default_rng(0).integers(0, 2**32, 700_000, dtype=np.uint32)  # several chunks
    ties = np.uint32(0x3F800000) + np.arange(1 << 17, dtype=np.uint32) * np.uint32(0x4000)
    extreme = [0, 1 << 31, 1, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x00800000]
    values = np.concatenate([np.array(extreme, np.uint32), ties, random]).view(np.float32)
    source = save(tmp_path / "source" / "variables", {"v": values})
    checkpoint.recast(source, target, ["v"])
    actual = tf.train.load_checkpoint(str(target)).get_tensor("v")
    with np.errstate(invalid="ignore"):
        expected = tf.cast(values, tf.bfloat16).numpy()
    beyond = np.isfinite(values) & np.isinf(expected.astype(np.float32))
    assert beyond.any()
    expected[beyond] = np.copysign(LARGEST, values[beyond])
    nan = np.isnan(values)
    assert nan.any() and np.isinf(values).any()
    np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
    # The bits of a NaN are free; TensorFlow drops its sign.
    np.testing.assert_array_equal(bits(actual)[~nan], bits(expected)[~nan])


def test_several_data_files(tmp_path: Path, target: Path) -> None:
    items = list(MIXED.items())
    parts = [save(tmp_path / f"part{i}" / "x", dict(items[i::3])) for i in range(3)]
    source = merge(parts, tmp_path / "source" / "variables")
    assert len(files(source)) == 4
    checkpoint.recast(source, target, CHOSEN)
    assert sorted(files(target)) == sorted(files(source))
    assert_recast(source, target, CHOSEN)


def sliced(directory: Path) -> Path:
    """A checkpoint whose tensors "v" (float32), "w" (int32) are in slices over three files, "x" is whole."""
    whole = np.arange(40, dtype=np.float32).reshape(4, 10) / 7
    specs = ["4 10 0,1:-", "4 10 1,2:-", "4 10 3,1:-"]
    parts = []
    for i, (spec, rows) in enumerate(zip(specs, (whole[:1], whole[1:3], whole[3:]), strict=True)):
        tensors = {"v": rows, "w": rows.astype(np.int32)} | ({"x": whole} if i == 0 else {})
        parts.append(save(directory / f"part{i}" / "x", tensors, {"v": spec, "w": spec}))
    return merge(parts, directory / "source" / "variables")


def test_partitioned_tensors(tmp_path: Path, target: Path) -> None:
    source = sliced(tmp_path)
    assert checkpoint.list_tensors(source) == {
        "v": checkpoint.TensorInfo(tf.float32, (4, 10), True, 160),
        "w": checkpoint.TensorInfo(tf.int32, (4, 10), True, 160),
        "x": checkpoint.TensorInfo(tf.float32, (4, 10), False, 160),
    }
    result = checkpoint.recast(source, target, ["v", "x"])
    assert result == checkpoint.RecastResult(480, 320, 2)
    assert_recast(source, target, ["v", "x"])
    assert checkpoint.list_tensors(target)["v"] == checkpoint.TensorInfo(tf.bfloat16, (4, 10), True, 80)
    for key in ("v", "x"):  # as they were saved, and across what was saved
        for spec, rows in (("4 10 1,2:-", slice(1, 3)), ("4 10 0,2:-", slice(0, 2))):
            expected = restore(source, key, tf.float32)[rows].astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(bits(restore(target, key, tf.bfloat16, spec)), bits(expected))


@pytest.mark.parametrize("name", ["plain", "with\x00zero", "high\u00ff\u0100", "\x01first"])
def test_names_of_partitioned_tensors(tmp_path: Path, target: Path, name: str) -> None:
    source = save(tmp_path / "source" / "variables", {name: tf.ones((2, 3))}, {name: "4 3 0,2:-"})
    checkpoint.recast(source, target, [name])
    np.testing.assert_array_equal(restore(target, name, tf.bfloat16, "4 3 0,2:-").astype(np.float32), np.ones((2, 3)))


def test_thousands_of_tensors(tmp_path: Path, target: Path) -> None:
    """The index takes several blocks."""
    tensors = {f"layer_{i}/{'long_name_' * 12}/kernel": np.full(3, i, np.float32) for i in range(3000)}
    source = save(tmp_path / "source" / "variables", tensors)
    keys = list(tensors)[::2]
    checkpoint.recast(source, target, keys)
    index = tensor_bundle.read_index(target)
    assert list(index.entries) == sorted(key.encode() for key in tensors)
    reader = tf.train.load_checkpoint(str(target))
    assert len(reader.get_variable_to_shape_map()) == 3000
    for key in [*keys[::100], *list(tensors)[1::200]]:
        np.testing.assert_array_equal(
            reader.get_tensor(key).astype(np.float32), restore(target, key, reader_dtype(key, keys))
        )
    assert (target.parent / "variables.index").stat().st_size <= (
        source.parent / "variables.index"
    ).stat().st_size * 1.01


def reader_dtype(key: str, recast: Collection[str]) -> tf.DType:
    return tf.bfloat16 if key in recast else tf.float32


@pytest.mark.parametrize("name", ["z", "\u00ff", "\x01"])
def test_index_is_the_one_that_tensorflow_writes(tmp_path: Path, target: Path, name: str) -> None:
    names = [f"{name}{'/a' * (i % 5)}/{'long_name_' * (i % 17)}{i}" for i in range(4000)]
    source = save(tmp_path / "source" / "variables", {key: i for i, key in enumerate(names)})
    checkpoint.recast(source, target, [])
    assert files(target) == files(source)


def test_progress(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "source" / "variables", {"v": tf.ones(1_000_000), "w": tf.ones(10), "z": tf.ones(0)})
    calls: list[tuple[int, int]] = []
    checkpoint.recast(source, target, ["v"], progress=lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [4_000_040] * len(calls)
    done = [done for done, _ in calls]
    assert done == sorted(done) and done[-1] == 4_000_040 and len(done) >= 4


class TestErrors:
    """A clear message, and nothing left behind."""

    def test_unknown_key(self, mixed: Path, target: Path) -> None:
        with pytest.raises(ConversionError, match=r'no tensor "a/kernal".*nearest names are "a/kernel"'):
            checkpoint.recast(mixed, target, ["a/kernel", "a/kernal"])
        assert not target.parent.exists()

    @pytest.mark.parametrize(("key", "dtype"), [("d/int", "int64"), ("f/double", "float64"), ("g/text", "string")])
    def test_not_float32(self, mixed: Path, target: Path, key: str, dtype: str) -> None:
        with pytest.raises(ConversionError, match=f'"{key}" of the checkpoint .* is {dtype}; only float32'):
            checkpoint.recast(mixed, target, [key])
        assert not target.parent.exists()

    def test_other_type(self, mixed: Path, target: Path) -> None:
        with pytest.raises(ConversionError, match="float16; the only type"):
            checkpoint.recast(mixed, target, CHOSEN, tf.float16)

    def test_big_endian(self, mixed: Path, target: Path) -> None:
        index = tensor_bundle.read_index(mixed)
        index.header.endianness = tensor_bundle_pb2.BundleHeaderProto.BIG
        tensor_bundle.index_path(mixed).write_bytes(b"".join(tensor_bundle.index_chunks(index)))
        with pytest.raises(ModelReadError, match="big-endian; only little-endian"):
            checkpoint.recast(mixed, target, CHOSEN)
        with pytest.raises(ModelReadError, match="big-endian"):
            checkpoint.list_tensors(mixed)

    def test_newer_format(self, mixed: Path) -> None:
        index = tensor_bundle.read_index(mixed)
        index.header.version.min_consumer = 2
        tensor_bundle.index_path(mixed).write_bytes(b"".join(tensor_bundle.index_chunks(index)))
        with pytest.raises(ModelReadError, match="format version 2"):
            checkpoint.list_tensors(mixed)

    @pytest.mark.parametrize("keep", [0, 47, 48, 100])
    def test_index_cut_off(self, mixed: Path, keep: int) -> None:
        path = tensor_bundle.index_path(mixed)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ModelReadError, match="damaged"):
            checkpoint.list_tensors(mixed)

    def test_any_changed_byte_of_the_index_is_noticed(self, mixed: Path) -> None:
        path = tensor_bundle.index_path(mixed)
        content = path.read_bytes()
        infos = checkpoint.list_tensors(mixed)
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :])
            try:
                assert checkpoint.list_tensors(mixed) == infos, place  # padding, or where the empty block is
            except ModelReadError as error:
                assert "damaged" in str(error)

    @pytest.mark.parametrize(
        ("compression", "message"), [(1, "cannot be decompressed"), (2, "compressed in the unknown way 2")]
    )
    def test_index_that_is_not_compressed_as_it_says(self, mixed: Path, compression: int, message: str) -> None:
        path = tensor_bundle.index_path(mixed)
        content = bytearray(path.read_bytes())
        place = next(i for i in range(len(content)) if masked_crc32c(bytes(content[: i + 1])) == at(content, i + 1))
        content[place] = compression
        content[place + 1 : place + 5] = masked_crc32c(bytes(content[: place + 1])).to_bytes(4, "little")
        path.write_bytes(content)
        with pytest.raises(ModelReadError, match=message):
            checkpoint.list_tensors(mixed)

    def test_index_compressed_with_snappy(self, mixed: Path) -> None:
        # Some builds of TensorFlow write it so; a literal is the simplest compression.
        expected = checkpoint.list_tensors(mixed)
        index = tensor_bundle.read_index(mixed)
        data, metaindex, _, _ = tensor_bundle.index_chunks(index)
        blocks, handles = b"", []
        for chunk in (data, metaindex):
            body = chunk[:-5]
            length = bytes([0x80 | len(body) & 0x7F, 0x80 | len(body) >> 7 & 0x7F, len(body) >> 14])
            compressed = length + bytes([63 << 2]) + (len(body) - 1).to_bytes(4, "little") + body
            trailer = b"\x01" + masked_crc32c(compressed + b"\x01").to_bytes(4, "little")
            handles.append(tensor_bundle._handle(len(blocks), compressed + trailer))
            blocks += compressed + trailer
        builder = tensor_bundle._BlockBuilder(1)
        builder.add(b"\xff", handles[0])
        last = builder.finish()
        footer = handles[1] + tensor_bundle._handle(len(blocks), last)
        magic = tensor_bundle._MAGIC.to_bytes(8, "little")
        tensor_bundle.index_path(mixed).write_bytes(blocks + last + footer.ljust(40, b"\x00") + magic)
        assert checkpoint.list_tensors(mixed) == expected
        assert tf.train.list_variables(str(mixed)) == [(key, list(t.shape)) for key, t in expected.items()]

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ModelReadError, match=r"variables\.index.*cannot be read"):
            checkpoint.list_tensors(tmp_path / "variables")

    def test_data_file_missing(self, mixed: Path, target: Path) -> None:
        mixed.with_name("variables.data-00000-of-00001").unlink()
        with pytest.raises(ModelReadError, match=r"data-00000-of-00001.*cannot be read: No such file"):
            checkpoint.recast(mixed, target, CHOSEN)
        assert not list(target.parent.iterdir())

    def test_data_file_cut_off(self, mixed: Path, target: Path) -> None:
        path = mixed.with_name("variables.data-00000-of-00001")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ModelReadError, match="ends 10 bytes too early"):
            checkpoint.recast(mixed, target, CHOSEN)
        assert not list(target.parent.iterdir())

    def test_data_damaged(self, mixed: Path, target: Path) -> None:
        path = mixed.with_name("variables.data-00000-of-00001")
        content = bytearray(path.read_bytes())
        content[3] ^= 1
        path.write_bytes(content)
        with pytest.raises(ModelReadError, match='checksum of the tensor "a/kernel"'):
            checkpoint.recast(mixed, target, CHOSEN)
        assert not list(target.parent.iterdir())

    def test_wrong_size_in_the_index(self, mixed: Path, target: Path) -> None:
        index = tensor_bundle.read_index(mixed)
        index.entries[b"a/kernel"].shape.dim[0].size = 6
        tensor_bundle.index_path(mixed).write_bytes(b"".join(tensor_bundle.index_chunks(index)))
        with pytest.raises(ModelReadError, match=r"takes 240 bytes.*expected 288"):
            checkpoint.recast(mixed, target, CHOSEN)

    def test_existing_files_are_kept(self, mixed: Path, target: Path) -> None:
        target.parent.mkdir()
        index = target.with_name("variables.index")
        index.write_bytes(b"precious")
        with pytest.raises(OutputError, match=r"variables\.index.*cannot be written: File exists"):
            checkpoint.recast(mixed, target, CHOSEN)
        assert list(target.parent.iterdir()) == [index]
        assert index.read_bytes() == b"precious"

    def test_onto_itself(self, mixed: Path) -> None:
        before = files(mixed)
        with pytest.raises(OutputError, match="File exists"):
            checkpoint.recast(mixed, mixed, CHOSEN)
        assert files(mixed) == before

    def test_target_is_no_directory(self, mixed: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OutputError, match="cannot be written"):
            checkpoint.recast(mixed, tmp_path / "file" / "variables", CHOSEN)

    def test_disk_full(self, tmp_path: Path) -> None:
        """The limit on the size of a file stands in for a full disk."""
        source = save(tmp_path / "large" / "variables", {"v": tf.ones(1_000_000)})
        program = (
            "import resource, signal, sys; from pathlib import Path; from converter.checkpoint import recast\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
            "recast.recast(Path(sys.argv[1]), Path(sys.argv[2]), ['v'])\n"
        )
        target = tmp_path / "target" / "variables"
        result = run_python(program, str(source), str(target))
        assert "OutputError: The checkpoint file" in result.stderr
        assert "cannot be written: File too large" in result.stderr
        assert not list(target.parent.iterdir())

    def test_interrupted(self, mixed: Path, target: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            checkpoint.recast(mixed, target, CHOSEN, progress=interrupt)
        assert not list(target.parent.iterdir())

    def test_no_object_graph(self, mixed: Path) -> None:
        with pytest.raises(ModelReadError, match="has no object graph"):
            checkpoint.object_graph(mixed)

    def test_damaged_object_graph(self, tmp_path: Path) -> None:
        source = save(tmp_path / "variables", {checkpoint.OBJECT_GRAPH_KEY: b"\xff\xff"})
        with pytest.raises(ModelReadError, match=r"object graph in the checkpoint .* cannot be read"):
            checkpoint.object_graph(source)


def at(content: bytes | bytearray, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "little")


class Affine(tf.Module):
    def __init__(self, dtype: tf.DType, value: float) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.cast(tf.fill((4, 3), value), dtype), name="kernel")
        self.steps = tf.Variable(7, name="steps")

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(self, x: Any) -> Any:
        return {"y": tf.matmul(x, tf.cast(self.kernel, tf.float32))}


def test_both_loaders_restore_it(tmp_path: Path) -> None:
    """A model of bfloat16 variables takes the recast checkpoint of the same model in float32."""
    root = Affine(tf.float32, 0.3)
    tf.saved_model.save(root, str(tmp_path / "float32"), signatures=root.serve)
    root = Affine(tf.bfloat16, 0.0)
    directory = tmp_path / "bfloat16"
    tf.saved_model.save(root, str(directory), signatures=root.serve)
    shutil.rmtree(directory / "variables")
    source = tmp_path / "float32" / "variables" / "variables"
    keys = [key for key, info in checkpoint.list_tensors(source).items() if info.dtype == tf.float32]
    checkpoint.recast(source, directory / "variables" / "variables", keys)

    x = np.ones((2, 4), np.float32)
    expected = np.full((2, 3), 4 * np.float32(ml_dtypes.bfloat16(0.3)))
    loaded = tf.saved_model.load(str(directory))
    np.testing.assert_allclose(loaded.signatures["serving_default"](x=tf.constant(x))["y"], expected, rtol=1e-6)
    assert loaded.steps.numpy() == 7
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
        signature = meta_graph.signature_def["serving_default"]
        result = session.run(signature.outputs["y"].name, {signature.inputs["x"].name: x})
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["sharded_checkpoint", "odd_variables", "optimizer_slots", "embedding", "keras_dense", "keras_saved_whole"]
)
def test_exports(testdata: Callable[[str], Path], target: Path, name: str) -> None:
    """Real exports: node ids of variables are those of the SavedModel's object graph, and all their tensors recast."""
    directory = testdata(name)
    source = directory / "variables" / "variables"
    saved_model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    nodes = saved_model.meta_graphs[0].object_graph_def.nodes
    in_checkpoint = checkpoint.object_graph(source).nodes
    # A SavedModel may have more nodes, constants that functions captured; they come last.
    for saved, restored in zip(nodes, in_checkpoint, strict=False):
        assert {(c.local_name, c.node_id) for c in saved.children} == {
            (c.local_name, c.node_id) for c in restored.children
        }
    keys = checkpoint.checkpoint_key_of_variables(source)
    infos = checkpoint.list_tensors(source)
    assert set(keys) == {i for i, node in enumerate(nodes) if node.WhichOneof("kind") == "variable"}
    for node_id, key in keys.items():
        variable = nodes[node_id].variable
        assert infos[key].dtype == tf.as_dtype(variable.dtype)
        assert infos[key].shape == tuple(d.size for d in variable.shape.dim)
    assert checkpoint.slot_variables(source) == [
        checkpoint.SlotVariable(s.original_variable_node_id, s.slot_name, s.slot_variable_node_id)
        for node in nodes
        for s in node.slot_variables
    ]
    assert bool(checkpoint.slot_variables(source)) == (name == "optimizer_slots")

    chosen = {key for key in keys.values() if infos[key].dtype == tf.float32}
    checkpoint.recast(source, target, chosen)
    assert_recast(source, target, chosen)
    assert sorted(files(target)) == sorted(files(source))


def test_index_of_tensorflow_is_read_in_full(mixed: Path) -> None:
    index = tensor_bundle.read_index(mixed)
    assert index.header.num_shards == 1
    assert {key.decode() for key in index.entries} == set(MIXED)
    assert index.entries[b"a/kernel"].dtype == types_pb2.DT_FLOAT


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=root)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(("megabytes", "tensor_megabytes"), [(400, 50), (512, 512)])
def test_memory(tmp_path: Path, megabytes: int, tensor_megabytes: int) -> None:
    """Far below the bound of the largest tensor and 64 MB."""
    source = tmp_path / "source" / "variables"
    rows = tensor_megabytes << 8  # of 1024 float32 numbers
    save(source, {f"v{i}": tf.ones((rows, 1024)) for i in range(megabytes // tensor_megabytes)})
    program = (
        "import sys; from pathlib import Path; from converter.checkpoint import recast\n"
        "from benchmarks.checkpoint import memory\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "keys = list(recast.list_tensors(source))\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = memory('VmRSS')\n"
        "result = recast.recast(source, target, keys)\n"
        "print(result.bytes_after, memory('VmHWM') - before)\n"
    )
    result = run_python(program, str(source), str(tmp_path / "target" / "variables"))
    assert result.returncode == 0, result.stderr
    bytes_after, added = result.stdout.split()
    assert int(bytes_after) == megabytes << 19
    assert float(added) < 32
