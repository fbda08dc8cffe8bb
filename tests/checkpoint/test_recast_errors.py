"""A clear message when a checkpoint cannot be recast, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from converter.checkpoint.index import Index
from converter.checkpoint.recast import recast
from converter.errors import ConversionError, ModelReadError, OutputError
from tests.checkpoint.checkpoints import CHOSEN, change_index, files, run_python, save

DATA_FILE = "variables.data-00000-of-00001"


def test_unknown_key(mixed: Path, target: Path) -> None:
    with pytest.raises(ConversionError, match=r'no tensor "a/kernal".*nearest names are "a/kernel"'):
        recast(mixed, target, ["a/kernel", "a/kernal"])
    assert not target.parent.exists()


@pytest.mark.parametrize(("key", "dtype"), [("d/int", "int64"), ("f/double", "float64"), ("g/text", "string")])
def test_not_float32(mixed: Path, target: Path, key: str, dtype: str) -> None:
    with pytest.raises(ConversionError, match=f'"{key}" of the checkpoint .* is {dtype}; only float32'):
        recast(mixed, target, [key])
    assert not target.parent.exists()


def test_a_type_that_does_not_exist_yet(mixed: Path, target: Path) -> None:
    def retype(index: Index) -> None:
        index.entries[b"a/kernel"].dtype = 99

    change_index(mixed, retype)
    with pytest.raises(ConversionError, match=r'"a/kernel" .* is of the unknown type 99; only float32'):
        recast(mixed, target, CHOSEN)
    recast(mixed, target, ["k/bias"])
    assert sorted(files(target)) == sorted(files(mixed))


def test_data_file_missing(mixed: Path, target: Path) -> None:
    mixed.with_name(DATA_FILE).unlink()
    with pytest.raises(ModelReadError, match=r"data-00000-of-00001.*cannot be read: No such file"):
        recast(mixed, target, CHOSEN)
    assert not list(target.parent.iterdir())


def test_data_file_cut_off(mixed: Path, target: Path) -> None:
    path = mixed.with_name(DATA_FILE)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelReadError, match="ends 10 bytes too early"):
        recast(mixed, target, CHOSEN)
    assert not list(target.parent.iterdir())


def test_data_damaged(mixed: Path, target: Path) -> None:
    path = mixed.with_name(DATA_FILE)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelReadError, match='checksum of the tensor "a/kernel"'):
        recast(mixed, target, CHOSEN)
    assert not list(target.parent.iterdir())


def test_wrong_size_in_the_index(mixed: Path, target: Path) -> None:
    def resize(index: Index) -> None:
        index.entries[b"a/kernel"].shape.dim[0].size = 6

    change_index(mixed, resize)
    with pytest.raises(ModelReadError, match=r"takes 240 bytes.*expected 288"):
        recast(mixed, target, CHOSEN)


def test_existing_files_are_kept(mixed: Path, target: Path) -> None:
    target.parent.mkdir()
    index = target.with_name("variables.index")
    index.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"variables\.index.*cannot be written: File exists"):
        recast(mixed, target, CHOSEN)
    assert list(target.parent.iterdir()) == [index]
    assert index.read_bytes() == b"precious"


def test_onto_itself(mixed: Path) -> None:
    before = files(mixed)
    with pytest.raises(OutputError, match="File exists"):
        recast(mixed, mixed, CHOSEN)
    assert files(mixed) == before


def test_target_is_no_directory(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        recast(mixed, tmp_path / "file" / "variables", CHOSEN)


def test_disk_full(tmp_path: Path) -> None:
    """The limit on the size of a file stands in for a full disk."""
    source = save(tmp_path / "large" / "variables", {"v": tf.ones(1_000_000)})
    program = (
        "import resource, signal, sys; from pathlib import Path; from converter.checkpoint.recast import recast\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "recast(Path(sys.argv[1]), Path(sys.argv[2]), ['v'])\n"
    )
    target = tmp_path / "target" / "variables"
    result = run_python(program, str(source), str(target))
    assert "OutputError: The checkpoint file" in result.stderr
    assert "cannot be written: File too large" in result.stderr
    assert not list(target.parent.iterdir())


def test_interrupted(mixed: Path, target: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recast(mixed, target, CHOSEN, progress=interrupt)
    assert not list(target.parent.iterdir())
