"""The conversion as one call."""

import inspect
from pathlib import Path

import pytest

import converter
from converter import (
    ConversionError,
    ConvertSettings,
    InternalError,
    ModelReadError,
    OptionsError,
    OutputError,
    convert,
    parse_options,
)
from converter.passes.pass_result import PassResult
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import write_model_text

TEXT = """
alias "f" = @F
signature "serving_default" x=x:0 -> y=y:0
main { x = Placeholder() {dtype: float32}; y = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]} }
@F(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
"""
OPTIONS = 'tpu_functions { function_alias: "f" } disable_default_optimizations: true'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_text(TEXT, tmp_path / "in")


def test_options_are_text_or_parsed_and_directories_strings_or_paths(model: Path, tmp_path: Path) -> None:
    one = convert(str(model), str(tmp_path / "one"), OPTIONS)
    two = convert(model, tmp_path / "two", parse_options(OPTIONS))
    assert one.text() == two.text()
    assert (tmp_path / "one" / "saved_model.pb").read_bytes() == (tmp_path / "two" / "saved_model.pb").read_bytes()


def test_the_report_tells_what_was_done(model: Path, tmp_path: Path) -> None:
    report = convert(model, tmp_path / "out", OPTIONS)
    assert report.changed
    assert [p.name for p in report.passes] == ["place_on_tpu"]
    assert dict(report.cost.tpu) == {"f": 9}
    assert report.input_bytes == (model / "saved_model.pb").stat().st_size
    assert report.output_bytes == (tmp_path / "out" / "saved_model.pb").stat().st_size
    assert set(report.versions) == {"tpu_convert", "tensorflow", "model_tensorflow"}
    assert report.notes == () and report.warnings == ()


def test_a_dry_run_goes_all_the_way_but_writes_nothing(model: Path, tmp_path: Path) -> None:
    report = convert(model, tmp_path / "out", OPTIONS, ConvertSettings(dry_run=True))
    assert report.changed and report.output_bytes is None
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConversionError, match="no function alias"):
        convert(model, tmp_path / "out", OPTIONS.replace('"f"', '"g"'), ConvertSettings(dry_run=True))


def test_an_existing_model_is_overwritten_only_on_demand(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "out", OPTIONS)
    with pytest.raises(OutputError, match=r"is not empty, it holds saved_model\.pb\."):
        convert(model, tmp_path / "out", OPTIONS)
    convert(model, tmp_path / "out", OPTIONS, ConvertSettings(overwrite=True))


@pytest.mark.parametrize(
    ("source", "target", "options", "error", "message"),
    [
        ("in", "out", "tpu_function {}", OptionsError, "tpu_function"),
        ("in", "out", "", OptionsError, "Nothing to do"),
        ("none", "out", OPTIONS, ModelReadError, "does not exist"),
        ("in", "in", OPTIONS, OutputError, "is the input directory"),
        ("in", "in/out", OPTIONS, OutputError, "lie one inside the other"),
        ("in", "out", OPTIONS.replace('"f"', '"g"'), ConversionError, 'no function alias "g"'),
    ],
)
def test_errors_leave_nothing_behind(
    source: str, target: str, options: str, error: type[Exception], message: str, model: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        convert(tmp_path / source, tmp_path / target, options)
    assert sorted(tmp_path.rglob("*")) == before


def test_options_are_judged_before_directories_and_these_before_the_model(tmp_path: Path) -> None:
    with pytest.raises(OptionsError):
        convert(tmp_path / "none", tmp_path / "none", "")
    sharding = 'xla_sharding_options { num_cores_per_replica: 2 topology: "none" }'
    with pytest.raises(OptionsError, match=r"is not a serialized tensorflow\.tpu\.TopologyProto"):
        convert(tmp_path / "none", tmp_path / "none", f"{OPTIONS} {sharding}")
    with pytest.raises(OutputError):
        convert(tmp_path / "none", tmp_path / "none", OPTIONS)


def test_a_pass_that_breaks_the_model_is_our_defect_and_nothing_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(self: PlaceOnTpu, model: converter.graph.model.Model) -> PassResult:
        model.functions["F"].node_def[0].input[0] = "gone"
        return PassResult()

    monkeypatch.setattr(PlaceOnTpu, "apply", damage)
    with pytest.raises(
        InternalError, match=r'The converted graph is inconsistent: F: input "gone" of node "n" does not'
    ):
        convert(model, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_odd_before_is_converted_with_a_note(tmp_path: Path) -> None:
    text = TEXT + "@odd() -> () { n = NoOp(^gone); return }"
    report = convert(write_model_text(text, tmp_path / "in"), tmp_path / "out", OPTIONS)
    assert report.notes == (
        'The input graph is inconsistent, so the result was not checked: odd: input "^gone" of node "n" does not '
        "exist.",
    )
    assert (tmp_path / "out" / "saved_model.pb").is_file()


def test_every_public_name_exists_and_is_documented() -> None:
    for name in converter.__all__:
        value = getattr(converter, name)
        assert name == "__version__" or inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = converter.nonsense  # type: ignore[attr-defined]
