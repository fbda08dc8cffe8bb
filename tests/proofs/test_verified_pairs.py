"""`verify` on two models that are not one and its conversion: each difference has a sentence of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import cli
from converter import ConversionError, verify_conversion
from converter.passes.batching.requirements import REQUIREMENTS
from converter.proofs.running import BATCHING_REFUSES, run

Body = Callable[..., dict[str, tf.Tensor]]
X = tf.TensorSpec([None, 4], tf.float32, "x")


def save(directory: Path, body: Body, *specs: tf.TensorSpec, key: str = "serving_default") -> Path:
    root = tf.Module()
    root.serve = tf.function(body, input_signature=list(specs or [X]))
    tf.saved_model.save(root, str(directory), {key: root.serve})
    return directory


def original(tmp_path: Path) -> Path:
    return save(tmp_path / "one", lambda x: {"y": tf.round(x), "n": tf.cast(x, tf.int32)})


@pytest.mark.parametrize(
    ("body", "output", "detail"),
    [
        (lambda x: {"y": tf.round(x), "n": tf.cast(x, tf.int64)}, "n", "int64[3, 4] instead of int32[3, 4]"),
        (lambda x: {"y": tf.cast(tf.round(x), tf.float64), "n": tf.cast(x, tf.int32)}, "y", "float64[3, 4] instead of"),
        (lambda x: {"y": tf.round(x)[None], "n": tf.cast(x, tf.int32)}, "y", "float32[1, 3, 4] instead of"),
        (lambda x: {"y": tf.round(x)}, "n", "the converted model lacks this output"),
        (lambda x: {"y": tf.round(x), "n": tf.cast(x, tf.int32), "z": x}, "z", "the original lacks this output"),
        (lambda x: {"y": tf.round(x), "n": tf.cast(x + 1, tf.int32)}, "n", "of 12 differ"),
    ],
)
def test_outputs_that_are_others_than_the_originals_fail(body: Body, output: str, detail: str, tmp_path: Path) -> None:
    result = verify_conversion(original(tmp_path), save(tmp_path / "two", body), batch_sizes=[3], tolerance=0.5)
    assert not result.passed
    failed = [c for c in result.comparisons if c.error > 0.5]
    assert [c.output for c in failed] == [output] and detail in failed[0].detail
    assert f"FAIL  {'inf' if np.isinf(failed[0].error) else ''}" in result.text()


@pytest.mark.parametrize(
    ("specs", "found"),
    [
        ([tf.TensorSpec([None, 4], tf.float32, "z")], "z: float32[None, 4]"),
        ([tf.TensorSpec([None, 5], tf.float32, "x")], "x: float32[None, 5]"),
        ([tf.TensorSpec([None, 4], tf.int32, "x")], "x: int32[None, 4]"),
        ([X, tf.TensorSpec(None, tf.float32, "z")], "x: float32[None, 4], z: float32[...]"),
    ],
)
def test_models_that_take_other_inputs_are_unrelated(specs: list[Any], found: str, tmp_path: Path) -> None:
    other = save(tmp_path / "two", lambda *given: {"y": given[0]}, *specs)
    result = CliRunner().invoke(cli.main, ["verify", str(original(tmp_path)), str(other)])
    assert result.exit_code == 1
    assert result.stderr == (
        f'Error: The signature "serving_default" of the converted model takes {found}; expected what the original\'s '
        "takes, x: float32[None, 4]. These models are unrelated: check that CONVERTED was made of ORIGINAL.\n"
    )


def test_a_signature_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    other = save(tmp_path / "two", lambda x: {"y": x}, key="other")
    message = r'^The converted model lacks the signature "serving_default" of the original\. It has: "other"\. Check'
    with pytest.raises(ConversionError, match=message):
        verify_conversion(original(tmp_path), other)


@pytest.mark.parametrize("sizes", [(), (1, 0), (-1,)])
def test_batch_sizes_are_positive(sizes: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"^The batch sizes are \[.*\]; expected one or more, each at least 1\.$"):
        verify_conversion(tmp_path, tmp_path, batch_sizes=sizes)


def test_an_answer_that_the_converted_model_cannot_give_is_no_fault_of_the_inputs(tmp_path: Path) -> None:
    def failing(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.assert_greater(tf.shape(x)[0], 5, "too few")
        return {"y": x}

    message = r'^TensorFlow fails on the converted model, at signature "serving_default": .*The original answers these'
    with pytest.raises(ConversionError, match=message):
        verify_conversion(original(tmp_path), save(tmp_path / "two", failing))


def test_a_random_original_is_no_excuse_for_what_differs_more(tmp_path: Path) -> None:
    def noisy(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.random.uniform(tf.shape(x))}

    one = save(tmp_path / "one", noisy)
    same = verify_conversion(one, save(tmp_path / "two", noisy), batch_sizes=[2])
    assert same.passed and [c.random for c in same.comparisons] == [True]
    assert same.text().splitlines()[1].startswith("skip  ")
    other = save(tmp_path / "three", lambda x: {"y": x + tf.random.uniform(tf.shape(x)) + 1000.0})
    assert not verify_conversion(one, other, batch_sizes=[2]).passed
    shape = save(tmp_path / "four", lambda x: {"y": (x + tf.random.uniform([]))[0]})
    assert not verify_conversion(one, shape, batch_sizes=[2]).passed


def test_models_with_no_signature_do_not_pass(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "one"))
    assert not verify_conversion(tmp_path / "one", tmp_path / "one").passed


# --- what TensorFlow raises -------------------------------------------------------------------------------------


def refused(message: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("not registered"), "TensorFlow fails on M: RuntimeError: not registered. Mend it."),
        (
            refused("Graph execution error:\n\nDetected at node\n[[x]]\n  bad id.\n"),
            "TensorFlow fails on M: InvalidArgumentError: bad id. Mend it.",
        ),
        (ValueError(), "TensorFlow fails on M: ValueError: ValueError(). Mend it."),
        (
            refused("Task size 9 is larger than maximum input batch size 8"),
            "A request of 9 rows is too large for M: its batching op takes at most 8 (max_batch_size). Ask with up to "
            "8 rows (--batch_sizes, or the rows of --inputs), or convert with a larger max_batch_size.",
        ),
        (
            refused("Dimensions of inputs should match: shape[0] = [1,3] vs."),
            'The batching op refuses the request to M: "Dimensions of inputs should match". Expected that across '
            "requests, an input has the same size in each dimension but the 0th. If requests of this kind are to be "
            "served, convert without batching this; else give --inputs that fit.",
        ),
    ],
)
def test_what_tensorflow_raises_is_a_conversion_error_with_the_reason(error: Exception, message: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(ConversionError) as caught:
        run(fail, "M", "Mend it.")
    assert str(caught.value) == message
    assert caught.value.__cause__ is error


def test_what_the_batching_op_says_is_explained_by_the_rules_of_batching() -> None:
    assert {rule.runtime_error: rule.text for rule in REQUIREMENTS.values()} == BATCHING_REFUSES
