"""`verify` on batched models: rows that know of each other are told, with the output's name, and no others are."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

import cli
from converter import verify_conversion
from converter.graph import calls
from converter.proofs.row_probe import batching_ops
from converter.saved_model.reader import read_model

SIZES = "max_batch_size: 4 allowed_batch_sizes: [1, 2, 4]"
WHOLE = f'batch_options {{ {SIZES} experimental {{ signature_name: "serving_default" }} }}'
ON_TPU = 'tpu_functions { function_alias: "tpu_func" } disable_default_optimizations: true'
INFLUENCE = "rows of one batch influence each other, so batching them changes answers"
WEIGHTS = np.random.default_rng(3).standard_normal((8, 6)).astype(np.float32)

Body = Callable[[tf.Tensor], tf.Tensor]


def dense(x: tf.Tensor) -> tf.Tensor:
    return tf.tanh(x @ WEIGHTS)


def save(directory: Path, body: Body, around: Callable[[Body, tf.Tensor], dict[str, tf.Tensor]] | None = None) -> Path:
    """A model whose TPU function computes `body`, in a signature that does `around` around it."""
    root = tf.Module()
    root.tpu_func = tf.function(body, input_signature=[tf.TensorSpec([None, 8], tf.float32)])

    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": root.tpu_func(x)} if around is None else around(root.tpu_func, x)

    root.serve = tf.function(serve, input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
    options = tf.saved_model.SaveOptions(function_aliases={"tpu_func": root.tpu_func})
    tf.saved_model.save(root, str(directory), root.serve, options)
    return directory


def run(*arguments: object) -> Result:
    # So wide that no line of a table is folded.
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], env={"COLUMNS": "250"})


def convert(original: Path, out: Path, batching: str = f"batch_options {{ {SIZES} }}") -> Path:
    options = f"--converter_options_string={ON_TPU} {batching}"
    flags = ["--allow_batching_violations", "--overwrite", options]
    result = run(f"--input_model_dir={original}", f"--output_model_dir={out}", *flags)
    assert result.exit_code == 0, result.output
    return out


# What the TPU function computes; each makes a row depend on the others, or on where it is among them.
MIXING: dict[str, Body] = {
    "mean": lambda x: x - tf.reduce_mean(x, 0),
    "softmax": lambda x: tf.nn.softmax(x, axis=0),
    "cumsum": lambda x: tf.cumsum(x, axis=0),
    "sort": lambda x: tf.sort(x, axis=0),
    "square": lambda x: tf.matmul(x, x, transpose_b=True),
    "integers": lambda x: tf.argsort(x, axis=0),
    "first": lambda x: x + x[:1],
    "position": lambda x: x + tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None],
    "text": lambda x: tf.strings.as_string(tf.sign(x - tf.reduce_mean(x, 0))),
}


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_influence_each_other_in_a_batch_fail_by_the_name_of_their_output(name: str, tmp_path: Path) -> None:
    original = save(tmp_path / "in", MIXING[name])
    if name == "text":
        root_options = "disable_default_optimizations: true"
        result = run(
            f"--input_model_dir={original}", f"--output_model_dir={tmp_path / 'out'}", "--allow_batching_violations",
            f"--converter_options_string={root_options} {WHOLE}",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    else:
        convert(original, tmp_path / "out", WHOLE)
    result = run("verify", original, tmp_path / "out", "--batch_sizes=1,2")
    assert result.exit_code == 1, result.output
    told = rf'^FAIL +\S+ +rows +serving_default/y  \(row \d of "y" differs .*; {INFLUENCE}\)$'
    assert re.search(told, result.output, re.MULTILINE), result.output
    assert result.output.splitlines()[-1].startswith("FAILED: relative error of 2 outputs")
    # The request itself is answered as by the original, where nothing is padded: only the probe can tell.
    assert len(re.findall(r"^ok ", result.output, re.MULTILINE)) == 2


def test_an_inner_batch_is_judged_by_requests_that_meet(tmp_path: Path) -> None:
    def around(body: Body, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": body(x * 2.0), "own": x + 1.0}

    original = save(tmp_path / "in", MIXING["mean"], around)
    result = run("verify", original, convert(original, tmp_path / "out"), "--batch_sizes=1")
    assert result.exit_code == 1, result.output
    assert re.search(r"^FAIL +\S+ +rows +serving_default/y  \(row", result.output, re.MULTILINE)
    assert re.search(r"^ok +\S+ +rows +serving_default/own$", result.output, re.MULTILINE)


def test_rows_of_their_own_pass(tmp_path: Path) -> None:
    original = save(tmp_path / "in", dense, lambda body, x: {"y": body(x), "best": tf.argmax(body(x), 1)})
    result = run("verify", original, convert(original, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    told = re.findall(r"^ok +\S+ +rows +(\S+)$", result.output, re.MULTILINE)
    assert told == ["serving_default/best", "serving_default/y"]
    assert result.output.splitlines()[-1] == "PASSED: relative error of 4 outputs, tolerance 1e-05"


def test_a_request_that_mixes_its_rows_outside_of_what_is_batched_passes(tmp_path: Path) -> None:
    def around(body: Body, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = body(x)
        return {"scores": tf.nn.softmax(y, axis=0), "all": tf.matmul(y, y, transpose_b=True), "loss": tf.reduce_mean(y)}

    original = save(tmp_path / "in", dense, around)
    result = run("verify", original, convert(original, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    outside = r"  \(rows of one request influence each other, but not inside of what is batched\)"
    assert re.search(rf"^ok +\S+ +rows +serving_default/scores{outside}$", result.output, re.MULTILINE)
    assert re.search(rf"^ok +\S+ +rows +serving_default/all{outside}$", result.output, re.MULTILINE)
    assert re.search(r"^ok +\S+ +rows +serving_default/loss$", result.output, re.MULTILINE)


def test_without_batching_rows_may_influence_each_other(tmp_path: Path) -> None:
    original = save(tmp_path / "in", MIXING["mean"])
    result = run("verify", original, convert(original, tmp_path / "out", ""))
    assert result.exit_code == 0, result.output
    assert "rows" not in result.output


def test_random_numbers_are_said_to_be_random_and_do_not_fail(tmp_path: Path) -> None:
    def around(body: Body, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = body(x)
        return {"y": y, "noisy": tf.nn.dropout(y, 0.5)}

    original = save(tmp_path / "in", dense, around)
    result = run("verify", original, convert(original, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    skipped = r"^skip +\S+ +(\S+) +serving_default/noisy  \(random: the original's own"
    told = re.findall(skipped, result.output, re.MULTILINE)
    assert told == ["1", "3", "rows"]
    assert len(re.findall(r"^ok +\S+ +\S+ +serving_default/y$", result.output, re.MULTILINE)) == 3


def test_the_rows_of_given_inputs_are_probed_if_there_are_two_that_differ(tmp_path: Path) -> None:
    original = save(tmp_path / "in", MIXING["mean"])
    out = convert(original, tmp_path / "out", WHOLE)
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    for name, x in {"two": rows, "one": rows[:1], "same": rows[[0, 0]]}.items():
        np.savez(tmp_path / f"{name}.npz", x=x)
    result = run("verify", original, out, f"--inputs={tmp_path / 'two.npz'}")
    assert result.exit_code == 1 and INFLUENCE in result.output
    for name in ("one", "same"):
        result = run("verify", original, out, f"--inputs={tmp_path / name}.npz")
        assert result.exit_code == 0, result.output
        assert (
            '      rows of "serving_default" not probed: the arrays of --inputs do not have two rows that differ; give '
            "--inputs that do\n"
        ) in result.output


def test_a_batch_of_one_row_is_not_probed(tmp_path: Path) -> None:
    original = save(tmp_path / "in", dense)
    out = convert(original, tmp_path / "out", "batch_options { max_batch_size: 1 }")
    result = verify_conversion(original, out, batch_sizes=[1])
    assert result.notes == ('rows of "serving_default" not probed: its batching op takes one row at a time',)
    assert result.passed and not result.rows


def test_a_request_larger_than_a_batch_names_the_limit(tmp_path: Path) -> None:
    original = save(tmp_path / "in", dense)
    result = run("verify", original, convert(original, tmp_path / "out"), "--batch_sizes=2,16")
    assert result.exit_code == 1
    assert result.stderr == (
        'Error: A request of 16 rows is too large for the converted model, at signature "serving_default": its '
        "batching op takes at most 4 (max_batch_size). Ask with up to 4 rows (--batch_sizes, or the rows of --inputs), "
        "or convert with a larger max_batch_size.\n"
    )


def test_waiting_for_a_full_batch_does_not_hold_up_verification(tmp_path: Path) -> None:
    """Alone, each request would wait a minute."""
    original = save(tmp_path / "in", dense)
    batching = "batch_options { num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 60000000 }"
    out = convert(original, tmp_path / "out", batching)
    assert verify_conversion(original, out).passed
    (op,) = batching_ops(read_model(out), "serving_default")
    assert op.attr["batch_timeout_micros"].i == 60_000_000
    assert calls.called_functions(op, read_model(out))
