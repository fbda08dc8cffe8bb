"""The command line: flags, exit codes, what goes to which stream, and what is imported when."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cli
import converter
from converter.graph.model import Model
from converter.passes.pass_result import PassResult
from converter.passes.place_on_tpu.place import PlaceOnTpu
from tests.harness import write_model_text

ROOT = Path(__file__).parents[1]
TEXT = """
alias "tpu_func" = @F
signature "serving_default" x=x:0 -> y=y:0
main {
  x = Placeholder() {dtype: float32, shape: <?,4>}
  n = Neg(x) {T: float32}
  y = PartitionedCall(n) {f: @F, Tin: [float32], Tout: [float32]}
}
@F(x: float32) -> (y: float32) { m = MatMul(x, x) {T: float32}; return m:product:0 }
"""
OPTIONS = 'tpu_functions { function_alias: "tpu_func" } disable_default_optimizations: true'
# The body costs 1000, the cluster around it 8; on the CPU are x, n and the TPU's ordinal.
REPORT = """\
-------- Conversion Report --------
TPU cost of the model: 99.70% (1008/1011)
CPU cost of the model:  0.30% (3/1011)

Cost breakdown
================================
%         Cost    Name
--------------------------------
0.30      3       [CPU cost]
99.70     1008    tpu_func
--------------------------------
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model_text(TEXT, tmp_path / "in")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


def convert(model: Path, out: Path, *more: object, options: str = OPTIONS) -> Result:
    return run(
        f"--input_model_dir={model}", f"--output_model_dir={out}", f"--converter_options_string={options}", *more
    )


# --- converting -------------------------------------------------------------------------------------------------


def test_the_report_is_all_that_goes_to_standard_output(model: Path, tmp_path: Path) -> None:
    result = convert(model, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == REPORT
    assert re.fullmatch(r"Wrote .*out \([\d,]+ bytes in, [\d,]+ out\)\.\n", result.stderr)
    assert (tmp_path / "out" / "saved_model.pb").is_file()


def test_a_process_of_its_own_behaves_the_same(model: Path, tmp_path: Path) -> None:
    # TensorFlow logs from C++, past Python's streams.
    command = [sys.executable, "cli.py", "--input_model_dir", model, "--output_model_dir", tmp_path / "out"]
    done = subprocess.run(
        [*command, "--converter_options_string", OPTIONS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, REPORT)
    assert re.fullmatch(r"Wrote .*\n", done.stderr)


def test_flags_are_given_with_a_blank_or_an_equals_sign(model: Path, tmp_path: Path) -> None:
    (tmp_path / "options.txt").write_text(OPTIONS)
    values = {
        "--input_model_dir": model,
        "--output_model_dir": tmp_path / "out",
        "--converter_options_file": tmp_path / "options.txt",
        "--report_json": tmp_path / "report.json",
    }
    assert run(*(part for pair in values.items() for part in pair)).exit_code == 0
    assert run(*(f"{flag}={value}" for flag, value in values.items()), "--overwrite").exit_code == 0


def test_lines_of_the_options_may_end_in_a_backslash(model: Path, tmp_path: Path) -> None:
    options = (
        ' \\\n  tpu_functions { \\\n    function_alias: "tpu_func" \\\n  } \\\n  disable_default_optimizations=True'
    )
    assert convert(model, tmp_path / "out", options=options).stdout == REPORT


def test_the_report_as_json(model: Path, tmp_path: Path) -> None:
    result = convert(model, tmp_path / "out", "--report_json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(report) == [
        "breakdown", "cost", "input_bytes", "notes", "output_bytes", "passes", "seconds", "versions", "warnings",
    ]  # fmt: skip
    assert report["cost"] == {"total": 1011, "cpu": 3, "tpu": {"tpu_func": 1008}}
    assert [list(row) for row in report["breakdown"]] == 2 * [["name", "percent", "cost", "flops", "bytes"]]
    (placed,) = report["passes"]
    assert placed["name"] == "place_on_tpu"
    assert placed["changes"] == [{"where": "F", "what": "runs on the TPU as F_on_tpu"}]
    assert placed["seconds"] >= 0
    assert report["input_bytes"] == (model / "saved_model.pb").stat().st_size
    assert report["output_bytes"] == (tmp_path / "out" / "saved_model.pb").stat().st_size
    assert {"read", "verify", "write"} <= set(report["seconds"])
    assert report["versions"]["tpu_convert"] == converter.__version__


def test_a_dry_run_reports_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    result = convert(model, tmp_path / "out", "--dry_run")
    assert (result.exit_code, result.stdout) == (0, REPORT)
    assert re.fullmatch(r"Dry run: nothing was written \([\d,]+ bytes in\)\.\n", result.stderr)
    assert not (tmp_path / "out").exists()


def test_the_model_between_passes_is_dumped_on_demand(model: Path, tmp_path: Path) -> None:
    result = convert(model, tmp_path / "out", f"--dump_dir={tmp_path / 'dumps'}", "--dry_run")
    assert (result.exit_code, result.stdout) == (0, REPORT)
    names = {p.name for p in (tmp_path / "dumps").iterdir()}
    assert names == {"0-input.txt", "1-place_on_tpu.txt", "1-place_on_tpu.diff"}
    again = convert(model, tmp_path / "out", f"--dump_dir={tmp_path / 'dumps'}", "--dry_run")
    assert again.exit_code == 1 and "is not empty, it holds 0-input.txt, " in again.stderr


@pytest.mark.parametrize(("flags", "told"), [([], "The converted graph"), (["--verbose"], 'The pass "place_on_tpu"')])
def test_verbose_names_the_pass_that_broke_the_model(
    flags: list[str], told: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(self: PlaceOnTpu, model: Model) -> PassResult:
        model.functions["F"].node_def[0].input[0] = "gone"
        return PassResult()

    monkeypatch.setattr(PlaceOnTpu, "apply", damage)
    result = convert(model, tmp_path / "out", *flags)
    assert result.exit_code == 1
    assert f"Error: {told}" in result.stderr


def test_a_second_conversion_changes_nothing_and_reports_the_same(model: Path, tmp_path: Path) -> None:
    assert convert(model, tmp_path / "out").exit_code == 0
    result = convert(tmp_path / "out", tmp_path / "again")
    assert result.stdout == REPORT
    told = "Nothing was left to do:\n  place_on_tpu: F: is on the TPU already\n"
    copied = rf"Wrote {tmp_path}/again, an unchanged copy of {tmp_path}/out \([\d,]+ bytes in, [\d,]+ out\)\.\n"
    assert re.fullmatch(told + copied, result.stderr), result.stderr
    first, again = ((tmp_path / name / "saved_model.pb").read_bytes() for name in ("out", "again"))
    assert again == first


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    text = TEXT.replace("m = MatMul(x, x) {T: float32}", "s = AsString(x) {T: float32}; m = MatMul(x, x) {T: float32}")
    result = convert(write_model_text(text, tmp_path / "in"), tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert 'Warning: "tpu_func" (F) holds ops that have no TPU kernel: AsString.' in result.stderr
    assert "Warning" not in result.stdout


def test_incompatible_arguments_are_an_error_or_with_a_flag_a_warning(tmp_path: Path) -> None:
    text = 'alias "tpu_func" = @F @F(s: string, x: int32) -> (y: int32) { return x }'
    model = write_model_text(text, tmp_path / "in")
    refused = convert(model, tmp_path / "out")
    assert refused.exit_code == 1
    assert 'argument "s" is a string tensor' in refused.stderr
    allowed = convert(model, tmp_path / "out", "--allow_incompatible")
    assert allowed.exit_code == 0, allowed.output
    assert 'argument "s" is a string tensor' in allowed.stderr


# --- errors and exit codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "No such option.*--nonsense"),
        (["--output_model_dir=out", "--converter_options_string=x"], r"Missing option '--input_model_dir'\."),
        (["--input_model_dir=in", "--converter_options_string=x"], r"Missing option '--output_model_dir'\."),
        (["--input_model_dir=in", "--output_model_dir=out"], "Give the converter options either by"),
        (
            [
                "--input_model_dir=in",
                "--output_model_dir=out",
                "--converter_options_string=x",
                "--converter_options_file=y",
            ],
            "Give the converter options either by",
        ),
        (
            ["--input_model_dir=in", "--output_model_dir=out", "--converter_options_file=none.txt"],
            'Cannot read the converter options file "none.txt": No such file or directory',
        ),
        (
            ["--input_model_dir=in", "--output_model_dir=out", "--converter_options_string=tpu_function {}"],
            "tpu_function.*line 1.*tpu_functions",
        ),
        (["--input_model_dir=in", "--output_model_dir=out", "--converter_options_string="], "Nothing to do"),
        (
            [
                "--input_model_dir=in",
                "--output_model_dir=out",
                f"--converter_options_string={OPTIONS}",
                "--report_json=none/report.json",
            ],
            "The directory of --report_json does not exist: 'none'",
        ),
        (["unknown_command"], "No such command 'unknown_command'"),
        (["verify", "one"], "Missing argument 'CONVERTED'"),
        (["verify", "one", "two", "--batch_sizes=1,x"], "--batch_sizes is '1,x'; expected whole numbers of at least 1"),
        (
            ["verify", "one", "two", "--batch_sizes=3,0"],
            "--batch_sizes is '3,0'; expected whole numbers of at least 1",
        ),
    ],
)
def test_bad_usage_and_bad_options_exit_with_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    assert result.stdout == ""


def test_a_conversion_error_exits_with_1_in_one_paragraph_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    result = convert(model, tmp_path / "out", options='tpu_functions { function_alias: "tpu_fnc" }')
    assert result.exit_code == 1
    assert result.stderr == 'Error: The model has no function alias "tpu_fnc". It has: "tpu_func".\n'
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["in", "in/out", "occupied"])
def test_an_output_directory_that_cannot_be_taken_exits_with_1(out: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "file").touch()
    result = convert(model, tmp_path / out)
    assert result.exit_code == 1
    assert re.match(r"Error: The (output|input) directory", result.stderr)
    assert "Traceback" not in result.output


def test_no_model_at_all_exits_with_1(tmp_path: Path) -> None:
    result = convert(tmp_path / "none", tmp_path / "out")
    assert result.exit_code == 1
    assert re.fullmatch(
        r'Error: The input directory ".*none" does not exist\. Check --input_model_dir\.\n', result.stderr
    )


def test_a_traceback_is_shown_with_verbose_alone(tmp_path: Path) -> None:
    quiet = convert(tmp_path / "none", tmp_path / "out")
    verbose = convert(tmp_path / "none", tmp_path / "out", "--verbose")
    assert verbose.exit_code == quiet.exit_code == 1
    assert "Traceback" not in quiet.output
    assert "Traceback (most recent call last)" in verbose.stderr


def test_a_defect_asks_for_a_report(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlaceOnTpu, "apply", lambda self, model: 1 / 0)
    result = convert(model, tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        'Error: The pass "place_on_tpu" failed with ZeroDivisionError: division by zero (passes before it: none).\n'
        "This is a defect of tpu-convert. Please report it, with the output of --verbose.\n"
    )
    assert not (tmp_path / "out").exists()


# --- help, and what is imported when ----------------------------------------------------------------------------


def test_help_shows_the_flags_the_commands_and_an_example_that_works(model: Path, tmp_path: Path) -> None:
    result = run("--help")
    assert result.exit_code == 0
    flags = [p for p in cli.main.params if isinstance(p, click.Option)]
    assert len(flags) > 8
    for flag in flags:
        assert flag.opts[0] in result.stdout
    for command in ("inspect", "verify"):
        assert re.search(rf"^  {command} +\w", result.stdout, re.MULTILINE)
    example = result.stdout.split("--converter_options_string='")[1].split("'")[0]
    converted = convert(model, tmp_path / "out", options=example + " bfloat16_optimization: DISABLED")
    assert converted.exit_code == 0, converted.output
    assert converter.parse_options(example).tpu_functions[0].name == "tpu_func"


def test_the_version(model: Path) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"tpu-convert, version {converter.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["inspect", "--help"], 0),
        (["--nonsense"], 2),
        (["--input_model_dir=in", "--output_model_dir=out", "--converter_options_string=tpu_function {}"], 2),
        (["--input_model_dir=in", "--output_model_dir=out", "--converter_options_file=none.txt"], 2),
    ],
)
def test_tensorflow_is_not_imported_before_a_model_is_read(arguments: list[str], exit_code: int) -> None:
    script = """
import sys
import cli
try:
    cli.main(sys.argv[1:])
finally:
    print("tensorflow" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == exit_code, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


def test_the_command_line_uses_the_public_api_alone() -> None:
    tree = ast.parse((ROOT / "cli.py").read_text())
    imported = {
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("converter", "protos", "testdata")
        for name in node.names
    }
    assert imported
    assert {module for module, _ in imported} == {"converter"}
    assert {name for _, name in imported} <= set(converter.__all__)
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not any(name.split(".")[0] in ("converter", "protos", "tensorflow") for name in modules)


# --- the other commands -----------------------------------------------------------------------------------------


def test_inspect_lists_what_can_be_named(model: Path) -> None:
    result = run("inspect", model)
    assert result.exit_code == 0, result.output
    assert 'function_alias: "tpu_func"' in result.stdout
    listed = json.loads(run("inspect", model, "--json").stdout)
    assert listed["functions"][0]["name"] == "F"


def test_inspecting_no_model_exits_with_1(tmp_path: Path) -> None:
    result = run("inspect", tmp_path)
    assert result.exit_code == 1
    assert "is not a SavedModel" in result.stderr


def test_verifying_no_model_exits_with_1(model: Path, tmp_path: Path) -> None:
    result = run("verify", model, tmp_path / "none")
    assert result.exit_code == 1
    expected = r'Error: The directory ".*none", given as CONVERTED, does not exist\. Check CONVERTED\.\n'
    assert re.fullmatch(expected, result.stderr)
    assert "given as ORIGINAL" in run("verify", tmp_path / "none", model).stderr
    assert "given as MODEL" in run("inspect", tmp_path / "none").stderr
