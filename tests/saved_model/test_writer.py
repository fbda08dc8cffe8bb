"""Model -> disk, all or nothing."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import OutputError
from converter.saved_model import writer
from converter.saved_model.reader import read_model
from converter.saved_model.writer import check_output_dir, write_model
from tests.harness import write_model_text

TEXT = """
alias "f" = @F
signature "serving_default" x=x:0 -> y=y:0
main { x = Placeholder() {dtype: float32}; y = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]} }
@F(x: float32) -> (y: float32) { return x }
"""


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A SavedModel with everything around the graph that a SavedModel may have, and more."""
    directory = write_model_text(TEXT, tmp_path / "in")
    for name, content in {
        "fingerprint.pb": b"\x01fingerprint",
        "variables/variables.index": b"\0index\xff",
        "variables/variables.data-00000-of-00001": bytes(range(256)) * 50,
        "assets/vocabulary.txt": "wörter\n".encode(),
        "assets/deeper/second.txt": b"",
        "assets.extra/tf_serving_warmup_requests": b"\x0arequests",
        "keras_metadata.pb": b"keras",
        "notes/README": b"unknown to SavedModel",
        ".hidden": b"hidden",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    (directory / "assets" / "empty").mkdir()
    return directory


# --- what is written --------------------------------------------------------------------------------------------


def test_everything_around_the_graph_survives_byte_for_byte(source: Path, tmp_path: Path) -> None:
    write_model(read_model(source), tmp_path / "out")
    before, after = files(source), files(tmp_path / "out")
    assert "fingerprint.pb" not in after
    del before["fingerprint.pb"], before["saved_model.pb"], after["saved_model.pb"]
    assert after == before
    assert (tmp_path / "out" / "assets" / "empty").is_dir()
    assert read_model(tmp_path / "out").saved_model == read_model(source).saved_model


def test_an_unchanged_model_is_copied_byte_for_byte(source: Path, tmp_path: Path) -> None:
    # The same model in another order of fields, as other writers make it.
    proto = (source / "saved_model.pb").read_bytes()
    (source / "saved_model.pb").write_bytes(proto[2:] + proto[:2])
    write_model(read_model(source), tmp_path / "out", unchanged=True)
    assert files(tmp_path / "out") == files(source)


def test_two_runs_write_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name, order in {"one": range(50), "two": reversed(range(50))}.items():
        model = read_model(source)
        # Maps have no order of their own; filled in another order, they would be written in another one.
        for number in order:
            model.functions["F"].attr[f"attr_{number}"].i = number
        write_model(model, tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_links_in_the_input_become_files(source: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in source.iterdir():
        (linked / path.name).symlink_to(path)
    write_model(read_model(linked), tmp_path / "out", unchanged=True)
    assert files(tmp_path / "out") == files(source)
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))


def test_a_new_directory_is_made_with_those_above_it(source: Path, tmp_path: Path) -> None:
    write_model(read_model(source), tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "saved_model.pb").is_file()


def test_an_existing_empty_directory_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mount = out.stat().st_ino
    check_output_dir(source, out, overwrite=False)
    write_model(read_model(source), out)
    assert out.stat().st_ino == mount, "a mount point cannot be replaced"
    assert sorted(p.name for p in out.iterdir()) == sorted(
        p.name for p in source.iterdir() if p.name != "fingerprint.pb"
    )


def test_overwriting_replaces_everything(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "variables").mkdir(parents=True)
    (out / "variables" / "stale").touch()
    (out / "saved_model.pb").write_bytes(b"old")
    (out / "link").symlink_to(source)
    check_output_dir(source, out, overwrite=True)
    before = files(source)
    write_model(read_model(source), out, unchanged=True)
    assert files(out) == before == files(source)


def test_a_graph_too_large_for_one_proto_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PROTO_LIMIT", 100)
    with pytest.raises(
        OutputError, match=r"^The converted graph takes \d+ bytes, more than the 100 that one saved_mod"
    ):
        write_model(read_model(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- where it may be written ------------------------------------------------------------------------------------


def test_a_directory_that_holds_something_is_refused_without_overwrite(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for number in range(7):
        (out / f"file{number}").touch()
    message = (
        r'out" is not empty, it holds file0, file1, file2, file3, file4 and 2 more\. Name an empty or new directory'
    )
    with pytest.raises(OutputError, match=message):
        check_output_dir(source, out, overwrite=False)
    check_output_dir(source, out, overwrite=True)


def test_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(
        OutputError, match=r'The output ".*out" is a file; expected a directory, or a path that does not'
    ):
        check_output_dir(source, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_input_directory_is_refused_by_whatever_path(overwrite: bool, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "deep").mkdir()
    for out in (source, tmp_path / "deep" / ".." / "in", tmp_path / "link", tmp_path / "link" / "."):
        with pytest.raises(OutputError, match="is the input directory; name another one"):
            check_output_dir(source, out, overwrite)
    with pytest.raises(OutputError, match="is the input directory"):
        check_output_dir(tmp_path / "link", source, overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_directories_one_inside_the_other_are_refused(overwrite: bool, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for out in (source / "converted", tmp_path, source / "a" / "b", tmp_path / "link" / "converted"):
        with pytest.raises(OutputError, match="lie one inside the other; name an output directory elsewhere"):
            check_output_dir(source, out, overwrite)


def test_a_sibling_whose_name_starts_alike_is_fine(source: Path, tmp_path: Path) -> None:
    check_output_dir(source, tmp_path / "in2", overwrite=False)


# --- failures ---------------------------------------------------------------------------------------------------


def full_disk(*arguments: object, **keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "variables.data-00000-of-00001")


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing(
    exists: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out"
    if exists:
        out.mkdir(parents=True)
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(
        OutputError, match=r'out" failed: No space left on device \(variables\.data-00000-of-00001\)\.$'
    ):
        write_model(read_model(source), out)
    assert list((tmp_path / "new").rglob("*")) == [out] if exists else not (tmp_path / "new").exists()


def test_a_failure_leaves_what_was_to_be_overwritten(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_model_text(TEXT, tmp_path / "out")
    (out / "variables").mkdir()
    (out / "variables" / "old").write_bytes(b"old")
    before = files(out)
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OutputError):
        write_model(read_model(source), out)
    assert files(out) == before


@pytest.mark.parametrize("moves", range(7))
def test_a_failure_while_the_model_is_moved_into_place_leaves_no_model(
    moves: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven things are moved; whichever fails, saved_model.pb is not there, so nothing takes the rest for a model."""
    rename, done = Path.rename, []

    def fail_later(path: Path, target: Path) -> Path:
        if len(done) == moves:
            full_disk()
        done.append(target)
        return rename(path, target)

    out = tmp_path / "out"
    monkeypatch.setattr(Path, "rename", fail_later)
    with pytest.raises(OutputError):
        write_model(read_model(source), out, unchanged=False)
    assert len(done) == moves
    assert not (out / "saved_model.pb").exists()
    monkeypatch.undo()
    write_model(read_model(source), out)
    assert read_model(out).saved_model == read_model(source).saved_model


def test_what_is_half_removed_is_no_model_either(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_model_text(TEXT, tmp_path / "out")
    (out / "variables").mkdir()
    rmtree = shutil.rmtree

    def fail_for_variables(path: Path, *arguments: object, **keywords: object) -> None:
        if path == out / "variables":
            full_disk()
        rmtree(path, ignore_errors=True)

    # A directory lists its children in no certain order: let the model's graph come last.
    children = writer._children
    monkeypatch.setattr(writer, "_children", lambda directory: sorted(children(directory), reverse=True))
    monkeypatch.setattr(shutil, "rmtree", fail_for_variables)
    with pytest.raises(OutputError):
        write_model(read_model(source), out)
    assert [p.name for p in out.iterdir()] == ["variables"]


def test_an_interrupted_run_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_model(read_model(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r'The output directory ".*file/out" cannot be written: Not a directory\.'):
        write_model(read_model(source), tmp_path / "file" / "out")


KILLED = """
import sys, time
from pathlib import Path
from converter.saved_model import reader, writer
copy = writer._copy

def slow_copy(source, target, skip_checkpoint):
    copy(source, target, skip_checkpoint)
    if source.name == "variables":
        print("staged", flush=True)
        time.sleep(60)

writer._copy = slow_copy
writer.write_model(reader.read_model(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_run_leaves_no_model_and_the_next_one_works(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout is not None
    with run.stdout:
        assert run.stdout.readline() == "staged\n"
        run.send_signal(signal.SIGKILL)
        assert run.wait(timeout=30) == -signal.SIGKILL
    assert [p.name.startswith(".tpu-convert-staging-") for p in out.iterdir()] == [True]
    check_output_dir(source, out, overwrite=False)
    write_model(read_model(source), out, unchanged=True)
    assert files(out) == files(source)
