"""Disk -> Model: what is read, and each way in which a directory is not a model that can be converted."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from converter.errors import ConversionError, ModelReadError
from converter.graph.model import Model
from converter.saved_model.reader import blaming_input, read_model
from tests.harness import write_model_text

Testdata = Callable[[str], Path]
MINIMAL = "main { x = Placeholder() {dtype: float32} }"


def refuses(directory: Path, message: str) -> None:
    with pytest.raises(ModelReadError, match=message) as caught:
        read_model(directory)
    assert "\n" not in str(caught.value)


@pytest.fixture
def model_dir(testdata: Testdata, tmp_path: Path) -> Path:
    """A model with a variable, to be damaged."""
    return Path(shutil.copytree(testdata("toy_variable"), tmp_path / "model"))


def test_a_model_is_read_as_it_is(model_dir: Path) -> None:
    data = (model_dir / "saved_model.pb").read_bytes()
    model = read_model(model_dir)
    assert model.saved_model == saved_model_pb2.SavedModel.FromString(data)
    assert model.path == model_dir
    assert list(model.signatures) == ["serving_default"]
    assert (model_dir / "saved_model.pb").read_bytes() == data


def test_a_missing_directory(tmp_path: Path) -> None:
    refuses(tmp_path / "none", r'^The input directory ".*none" does not exist\. Check --input_model_dir\.$')


def test_a_file_instead_of_a_directory(model_dir: Path) -> None:
    refuses(
        model_dir / "saved_model.pb",
        r'saved_model\.pb" is a file; expected the directory of a SavedModel, which holds saved_model\.pb\.$',
    )


def test_a_directory_without_a_model_tells_what_it_holds(tmp_path: Path) -> None:
    refuses(tmp_path, r"is not a SavedModel: it has no saved_model\.pb, but nothing\.$")
    (tmp_path / "weights.h5").touch()
    (tmp_path / "config.json").touch()
    refuses(tmp_path, r"it has no saved_model\.pb, but config\.json, weights\.h5\.$")


def test_a_directory_above_the_model_gives_a_hint(model_dir: Path) -> None:
    for version in ("1", "2"):
        shutil.copytree(model_dir, model_dir.parent / "versions" / version)
    refuses(model_dir.parent / "versions", r'but 1, 2\. Did you mean ".*versions/2"\?$')


def test_a_model_as_text_or_in_chunks_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").touch()
    refuses(tmp_path, r"holds a SavedModel as text \(saved_model\.pbtxt\); expected the binary saved_model\.pb\. Load")
    (tmp_path / "saved_model.cpb").touch()
    refuses(
        tmp_path, r"is a SavedModel in chunks \(saved_model\.cpb, a graph of over 2 GiB\), which is not supported\."
    )


def test_an_empty_file(model_dir: Path) -> None:
    (model_dir / "saved_model.pb").write_bytes(b"")
    refuses(
        model_dir, r'saved_model\.pb" holds no meta graph, expected exactly one: the file is empty or was cut off\.'
    )


def test_a_file_that_was_cut_off_at_any_length(model_dir: Path) -> None:
    proto = model_dir / "saved_model.pb"
    data = proto.read_bytes()
    for length in [*range(1, 12), len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 2, len(data) - 1]:
        proto.write_bytes(data[:length])
        refuses(
            model_dir,
            rf"\({length} bytes\) cannot be parsed as a SavedModel: the file is damaged or was cut off\. Export or copy"
            r"|the file is empty or was cut off\. Export or copy the model again",
        )


def test_any_damage_is_a_read_error_or_no_error(model_dir: Path) -> None:
    proto = model_dir / "saved_model.pb"
    data = proto.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        proto.write_bytes(damaged)
        try:
            read_model(model_dir)
        except ModelReadError:
            refused += 1
    assert 0 < refused < 200


def test_several_meta_graphs_are_told_with_their_tags(tmp_path: Path) -> None:
    proto = write_model_text(MINIMAL, tmp_path) / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(proto.read_bytes())
    saved_model.meta_graphs.add().CopyFrom(saved_model.meta_graphs[0])
    saved_model.meta_graphs[1].meta_info_def.tags.append("gpu")
    proto.write_bytes(saved_model.SerializeToString())
    refuses(tmp_path, r"holds 2 meta graphs with the tags \['serve'\], \['gpu', 'serve'\]; expected exactly one")


def test_a_tensorflow_1_model(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        v = tf.compat.v1.get_variable("v", [2], use_resource=True)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "v1"), {"x": x}, {"y": x * v})
    refuses(
        tmp_path / "v1",
        r'v1" is a TensorFlow 1 SavedModel \(its meta graph has no object graph\); only TensorFlow 2 models can be '
        r"converted\. Migrate it",
    )


def test_a_missing_index_of_the_variables(model_dir: Path) -> None:
    (model_dir / "variables" / "variables.index").unlink()
    missing = (
        r'has \d variables \("\w+" is one\), but the file "variables/variables\.index" is missing\. Copy the whole'
    )
    refuses(model_dir, missing)
    shutil.rmtree(model_dir / "variables")
    refuses(model_dir, missing)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_shard_of_the_variables(number: int, testdata: Testdata, tmp_path: Path) -> None:
    model_dir = Path(shutil.copytree(testdata("sharded_checkpoint"), tmp_path / "model"))
    shards = sorted((model_dir / "variables").glob("variables.data-*"))
    assert len(shards) == 3
    shards[number].unlink()
    refuses(model_dir, rf'holds 2 of 3 data files of the variables; "{re.escape(shards[number].name)}" is missing\.')


def test_all_shards_of_the_variables_missing(model_dir: Path) -> None:
    (model_dir / "variables" / "variables.data-00000-of-00001").unlink()
    refuses(model_dir, r'holds 0 of 1 data files of the variables; "variables\.data-00000-of-00001" is missing\.')


def test_a_model_without_variables_needs_no_checkpoint(tmp_path: Path) -> None:
    assert isinstance(read_model(write_model_text(MINIMAL, tmp_path)), Model)


def test_files_in_another_place_may_be_symbolic_links(model_dir: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in model_dir.iterdir():
        (linked / path.name).symlink_to(path)
    assert read_model(linked).saved_model == read_model(model_dir).saved_model


def test_what_fails_in_an_inconsistent_model_is_the_fault_of_the_model(tmp_path: Path) -> None:
    odd = write_model_text("main { x = Placeholder() {dtype: float32}; n = Neg(gone) {T: float32} }", tmp_path / "odd")
    message = r'holds an inconsistent graph, .*: main graph: input "gone" of node "n" does not exist\. Export or copy'
    with pytest.raises(ModelReadError, match=message), blaming_input(odd):
        raise KeyError("gone")
    with pytest.raises(ConversionError, match="as it is"), blaming_input(odd):
        raise ConversionError("as it is")
    sound = write_model_text(MINIMAL, tmp_path / "sound")
    with pytest.raises(KeyError, match="ours"), blaming_input(sound):
        raise KeyError("ours")
