"""The command line: argv, printing, exit codes. Everything else is converter's public API.

Exit codes: 0 success, 1 a conversion error, 2 bad usage or bad options.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from converter import (
    ConversionError,
    ConverterOptions,
    ConvertSettings,
    InternalError,
    OptionsError,
    __version__,
    parse_options,
    read_options_file,
)

if TYPE_CHECKING:
    from converter import ConversionReport

_EXAMPLE = """\b
Example: put the function with the alias "tpu_func" on the TPU and batch its requests.
  tpu-convert --input_model_dir=model --output_model_dir=converted \\
    --converter_options_string='
      tpu_functions { function_alias: "tpu_func" }
      batch_options {
        max_batch_size: 8
        allowed_batch_sizes: [2, 4, 8]
      }'
  tpu-convert verify model converted
"""


_import_option = click.option(
    "--import",
    "import_modules",
    metavar="MODULE",
    multiple=True,
    help="Import this module first, for the ops that it registers, such as tensorflow_text. May be repeated.",
)


@click.group(
    invoke_without_command=True,
    epilog=_EXAMPLE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="tpu-convert")
@click.option("--input_model_dir", type=click.Path(path_type=Path), help="Directory of the SavedModel to convert.")
@click.option("--output_model_dir", type=click.Path(path_type=Path), help="Where to write the converted SavedModel.")
@click.option("--converter_options_string", help="Converter options as a text proto.")
@click.option("--converter_options_file", type=click.Path(path_type=Path), help="File that holds the text proto.")
@click.option("--overwrite", is_flag=True, help="Replace what the output directory holds.")
@click.option("--report_json", type=click.Path(path_type=Path), help="Also write the report to this file, as JSON.")
@click.option("--dry_run", is_flag=True, help="Do everything but write the model.")
@click.option("--allow_incompatible", is_flag=True, help="Warn only of string, variant or table arguments on the TPU.")
@click.option("--allow_batching_violations", is_flag=True, help="Warn only of violated rules of batching.")
@_import_option
@click.option("--dump_dir", type=click.Path(path_type=Path), help="Write the model after each pass to it, as text.")
@click.option("--verbose", is_flag=True, help="Log what happens, TensorFlow's own messages included; show tracebacks.")
@click.pass_context
def main(
    context: click.Context,
    input_model_dir: Path | None,
    output_model_dir: Path | None,
    converter_options_string: str | None,
    converter_options_file: Path | None,
    overwrite: bool,
    report_json: Path | None,
    dry_run: bool,
    allow_incompatible: bool,
    allow_batching_violations: bool,
    import_modules: tuple[str, ...],
    dump_dir: Path | None,
    verbose: bool,
) -> None:
    """Convert a TensorFlow 2 SavedModel into one that a Cloud TPU can serve.

    Without a COMMAND, converts --input_model_dir and writes --output_model_dir. The report goes to standard output,
    everything else to standard error.
    """
    if context.invoked_subcommand is not None:
        return
    if len(sys.argv) == 1 and not any(context.params.values()):
        click.echo(context.get_help())
        context.exit(2)
    if input_model_dir is None:
        raise click.UsageError("Missing option '--input_model_dir'.")
    if output_model_dir is None:
        raise click.UsageError("Missing option '--output_model_dir'.")
    settings = ConvertSettings(
        overwrite=overwrite,
        dry_run=dry_run,
        allow_incompatible=allow_incompatible,
        allow_batching_violations=allow_batching_violations,
        count_flops=report_json is not None,
        import_modules=import_modules,
        dump_dir=dump_dir,
        check_each_pass=verbose,
    )
    with _errors_as_exit_codes(verbose):
        options = _read_options(converter_options_string, converter_options_file)
        if report_json is not None and not report_json.absolute().parent.is_dir():
            raise click.UsageError(f"The directory of --report_json does not exist: '{report_json.parent}'.")
        _start_tensorflow(verbose)
        from converter import convert

        with _progress_bar() as progress:
            report = convert(input_model_dir, output_model_dir, options, settings, progress=progress)
        _print_report(report, input_model_dir, output_model_dir)
        if report_json is not None:
            report_json.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")


def _read_options(text: str | None, file: Path | None) -> ConverterOptions:
    if text is not None and file is None:
        return parse_options(text)
    if file is not None and text is None:
        return read_options_file(file)
    raise click.UsageError(
        "Give the converter options either by '--converter_options_string' or by '--converter_options_file'."
    )


@main.command()
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("converted", type=click.Path(path_type=Path))
@click.option("--batch_sizes", default="1,3", show_default=True, help="Requests of these sizes are tried.")
@click.option("--inputs", type=click.Path(path_type=Path), help=".npz file with one array for each signature input.")
@click.option("--signature", help="Only this signature; all of them if not given.")
@click.option("--tolerance", type=float, help="Largest relative error; by default 1e-5, or 0.02 with bfloat16.")
@_import_option
@click.option("--verbose", is_flag=True, help="Show TensorFlow's own messages and tracebacks.")
def verify(
    original: Path,
    converted: Path,
    batch_sizes: str,
    inputs: Path | None,
    signature: str | None,
    tolerance: float | None,
    import_modules: tuple[str, ...],
    verbose: bool,
) -> None:
    """Compare the outputs of CONVERTED, run on the CPU, with those of ORIGINAL.

    Both get the same inputs: random ones, or those of --inputs. Of a batched model, rows are also asked for alone, in
    another order and by several callers at once.
    """
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in batch_sizes.split(",")]
    if min(sizes) < 1:
        raise click.UsageError(f"--batch_sizes is '{batch_sizes}'; expected whole numbers of at least 1, such as 1,3.")
    with _errors_as_exit_codes(verbose):
        _start_tensorflow(verbose)
        from converter import verify_conversion

        result = verify_conversion(
            original,
            converted,
            batch_sizes=sizes,
            inputs_file=inputs,
            signature=signature,
            tolerance=tolerance,
            import_modules=import_modules,
        )
        _print(result)
        if not result.passed:
            sys.exit(1)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@_import_option
@click.option("--verbose", is_flag=True, help="Show TensorFlow's own messages and tracebacks.")
def inspect(model: Path, as_json: bool, import_modules: tuple[str, ...], verbose: bool) -> None:
    """List the signatures and functions of MODEL: what can be put on the TPU, and by which name."""
    with _errors_as_exit_codes(verbose):
        _start_tensorflow(verbose)
        from converter import inspect_model

        inspection = inspect_model(model, import_modules=import_modules)
        if as_json:
            click.echo(json.dumps(inspection.to_json(), indent=2))
        else:
            _print(inspection)


class _Printable(Protocol):
    """A result that rich can print, too."""

    def text(self, width: int) -> str: ...


def _print(shown: _Printable, err: bool = False) -> None:
    """In the width and the colours of the terminal; elsewhere as plain text, 80 columns wide or as COLUMNS says."""
    if (sys.stderr if err else sys.stdout).isatty():
        from rich.console import Console

        Console(stderr=err).print(shown)
        return
    columns = os.environ.get("COLUMNS", "")
    click.echo(shown.text(int(columns) if columns.isdecimal() and int(columns) else 80), err=err)


def _print_report(report: ConversionReport, source: Path, target: Path) -> None:
    summary = report.summary()
    if summary.lines:
        _print(summary, err=True)
    for warning in report.warnings:
        click.echo(f"Warning: {warning}", err=True)
    heading, _, rest = report.text().partition("\n")
    click.secho(heading, bold=True)
    click.echo(rest)
    for note in report.notes:
        click.echo(note)
    copy = "" if report.changed else f", an unchanged copy of {source}"
    done = "Dry run: nothing was written" if report.output_bytes is None else f"Wrote {target}{copy}"
    sizes = f"{report.input_bytes:,} bytes in" + (f", {report.output_bytes:,} out" if report.output_bytes else "")
    click.echo(f"{done} ({sizes}).", err=True)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A callback (bytes done, bytes in all) that draws a bar on a terminal and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Rewriting variables"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("variables", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def _errors_as_exit_codes(verbose: bool) -> Iterator[None]:
    try:
        yield
    except (ConversionError, InternalError) as error:
        if verbose:
            traceback.print_exc()
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        if isinstance(error, InternalError):
            click.echo("This is a defect of tpu-convert. Please report it, with the output of --verbose.", err=True)
        sys.exit(2 if isinstance(error, OptionsError) else 1)


def _start_tensorflow(verbose: bool) -> None:
    """Imports TensorFlow, whose C++ writes to the process's standard error before any setting could tell it not to.

    Unless `verbose`, what it writes is held back, and shown only if the import fails.
    """
    _set_up_logging(verbose)
    if verbose:
        importlib.import_module("tensorflow")
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _set_up_logging(verbose: bool) -> None:
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from absl import logging

    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO if verbose else logging.ERROR)
    logging.set_stderrthreshold(logging.INFO if verbose else logging.ERROR)


if __name__ == "__main__":
    main()
