"""What --dump_dir writes: the model between passes as text, and what each pass changed."""

import re
from pathlib import Path

import pytest

from converter import ConversionError, ConvertSettings, InternalError, OutputError, convert
from converter.graph.model import Model
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.pass_result import PassResult
from converter.reports.dumps import Dumps, check_dump_dir
from tests.harness import parse_model, write_model_text

TEXT = """
alias "f" = @F
signature "serving_default" x=x:0 -> y=y:0
main { x = Placeholder() {dtype: float32}; y = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]} }
@F(x: float32) -> (y: float32) {
  c = Const() {dtype: float32, value: float32([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17])}
  n = AddV2(x, c:output:0) {T: float32, _output_shapes: [<17>]}
  return n:z:0
}
"""
OPTIONS = 'tpu_functions { function_alias: "f" } io_shape_optimization: DISABLED '


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_text(TEXT, tmp_path / "in")


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_the_model_is_written_before_and_after_each_pass(model: Path, tmp_path: Path) -> None:
    dumps = tmp_path / "made" / "dumps"
    convert(model, tmp_path / "out", OPTIONS, ConvertSettings(dump_dir=dumps))
    assert names(dumps) == [
        "0-input.txt", "1-place_on_tpu.diff", "1-place_on_tpu.txt", "2-bfloat16.diff", "2-bfloat16.txt",
    ]  # fmt: skip
    before = (dumps / "0-input.txt").read_text()
    assert re.search(r"  c = Const\(\) {dtype: float32, value: float32<17>#[0-9a-f]{8}}\n", before)
    assert "  n = AddV2(x, c:output:0) {T: float32, _output_shapes: [<17>]}\n" in before
    assert "@F_on_tpu(" in (dumps / "1-place_on_tpu.txt").read_text()
    changed = (dumps / "2-bfloat16.diff").read_text().splitlines()
    assert changed[:2] == ["--- 1-place_on_tpu.txt", "+++ 2-bfloat16.txt"]
    assert "-  n = AddV2(x, c:output:0) {T: float32, _output_shapes: [<17>]}" in changed
    assert any(line.startswith("+  n = AddV2(") and "T: bfloat16" in line for line in changed)


def test_a_pass_that_changes_nothing_has_an_empty_diff(tmp_path: Path) -> None:
    model, dumps = parse_model(TEXT), Dumps(tmp_path)
    dumps(model, "input")
    dumps(model, "idle")
    assert (tmp_path / "1-idle.txt").read_text() == (tmp_path / "0-input.txt").read_text()
    assert (tmp_path / "1-idle.diff").read_text() == ""


def test_a_failing_pass_leaves_the_dumps_of_those_before(model: Path, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    options = OPTIONS + "batch_options { max_batch_size: 2 }"
    with pytest.raises(ConversionError):
        convert(model, tmp_path / "out", options, ConvertSettings(dump_dir=dumps))
    assert names(dumps) == ["0-input.txt", "1-place_on_tpu.diff", "1-place_on_tpu.txt"]


def test_what_a_pass_broke_is_dumped_and_the_pass_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(self: BFloat16, model: Model) -> PassResult:
        model.functions["F"].node_def[0].input.append("gone")
        return PassResult()

    monkeypatch.setattr(BFloat16, "apply", damage)
    with pytest.raises(InternalError, match=r'^The pass "bfloat16" left an inconsistent graph: F: '):
        convert(model, tmp_path / "out", OPTIONS, ConvertSettings(dump_dir=tmp_path / "dumps"))
    assert "(gone)" in (tmp_path / "dumps" / "2-bfloat16.txt").read_text()


def test_a_dump_directory_must_be_new_or_empty_and_outside_of_models(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("file", r'The dump directory ".*file" is a file; expected a directory'),
        ("full", r'The dump directory ".*full" is not empty, it holds notes\. Name an empty or new directory\.'),
        ("in/dumps", r'The dump directory ".*" is, or lies in, the directory ".*in" of a model; name another\.'),
        ("out", r'The dump directory ".*" is, or lies in, the directory ".*out" of a model; name another\.'),
    ):
        with pytest.raises(OutputError, match=message):
            convert(model, tmp_path / "out", OPTIONS, ConvertSettings(dump_dir=tmp_path / name))
    assert not (tmp_path / "out").exists()
    check_dump_dir(tmp_path / "empty", model)


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r'".*file/dumps/0-input\.txt" of --dump_dir cannot be written: Not a'):
        Dumps(tmp_path / "file" / "dumps")(parse_model(TEXT), "input")
