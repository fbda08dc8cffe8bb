"""Verification: same inputs through the original and the converted model's CPU twin."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from converter import ConversionError, ModelReadError, convert, verify_conversion
from converter.proofs.row_probe import RowComparison
from converter.proofs.verify import OutputComparison, Verification, relative_error
from converter.saved_model.reader import read_model
from converter.saved_model.writer import write_model
from testdata.make_testdata import MODELS

Testdata = Callable[[str], Path]


def converted(name: str, testdata: Testdata, directory: Path) -> Path:
    options = MODELS[name].options_for(testdata(name)) + "\ndisable_default_optimizations: true"
    convert(testdata(name), directory, options)
    return directory


def test_a_conversion_without_optimizations_passes(testdata: Testdata, tmp_path: Path) -> None:
    result = verify_conversion(
        testdata("multi_signature"), converted("multi_signature", testdata, tmp_path / "out"), batch_sizes=(1, 4)
    )
    assert result.passed
    assert result.tolerance == 1e-5
    assert {(c.signature, c.batch_size, c.output) for c in result.comparisons} == {
        (signature, size, output)
        for signature, outputs in {"first": ["sigmoid"], "second": ["logits", "best"]}.items()
        for size in (1, 4)
        for output in outputs
    }


def test_strings_and_integers_are_drawn_and_compared(testdata: Testdata, tmp_path: Path) -> None:
    for name in ("string_preprocess", "int_inputs"):
        result = verify_conversion(testdata(name), converted(name, testdata, tmp_path / name), batch_sizes=[2])
        assert result.passed, result.text()


def test_inputs_can_be_given(testdata: Testdata, tmp_path: Path) -> None:
    out = converted("multi_signature", testdata, tmp_path / "out")
    np.savez(tmp_path / "inputs.npz", x=np.ones((5, 10), np.float32))
    result = verify_conversion(
        testdata("multi_signature"), out, inputs_file=tmp_path / "inputs.npz", signature="first", tolerance=0.5
    )
    assert result.passed
    assert [(c.signature, c.batch_size) for c in result.comparisons] == [("first", 5)]
    np.savez(tmp_path / "wrong.npz", y=np.ones((5, 10), np.float32))
    message = r"^The inputs file has the arrays \['y'\]; the signature \"first\" expects \['x'\]\. Write one"
    with pytest.raises(ConversionError, match=message):
        verify_conversion(testdata("multi_signature"), out, inputs_file=tmp_path / "wrong.npz")


def test_an_unknown_signature_lists_those_there_are(testdata: Testdata, tmp_path: Path) -> None:
    out = converted("multi_signature", testdata, tmp_path / "out")
    message = r'^The model has no signature "firts"\. It has: "first", "second"\.$'
    with pytest.raises(ConversionError, match=message):
        verify_conversion(testdata("multi_signature"), out, signature="firts")


def _change_one_weight(node: Any) -> None:
    node.attr["value"].tensor.ClearField("tensor_content")
    node.attr["value"].tensor.float_val[:] = [1.5]


def test_a_model_that_computes_something_else_fails(testdata: Testdata, tmp_path: Path) -> None:
    out = converted("multi_signature", testdata, tmp_path / "out")
    model = read_model(out)
    (sub,) = (n for f in model.functions.values() for n in f.node_def if n.op == "Const" and n.name == "sub/y")
    _change_one_weight(sub)
    write_model(model, tmp_path / "damaged")
    result = verify_conversion(testdata("multi_signature"), tmp_path / "damaged", batch_sizes=[3])
    assert not result.passed
    errors = {c.output: c.error for c in result.comparisons}
    assert errors["sigmoid"] == 0 and errors["logits"] > 1e-3
    assert re.search(r"^FAIL +\S+ +3 +second/logits$", result.text(), re.MULTILINE)
    assert result.text().splitlines()[-1] == "FAILED: relative error of 3 outputs, tolerance 1e-05"


def test_a_signature_that_is_gone_is_told(testdata: Testdata, tmp_path: Path) -> None:
    message = r'^The converted model lacks the signature "first" of the original\. It has: "serving_default"\. Check'
    with pytest.raises(ConversionError, match=message):
        verify_conversion(testdata("multi_signature"), testdata("toy"))


def test_both_must_be_models(testdata: Testdata, tmp_path: Path) -> None:
    for original, other in ((tmp_path, testdata("toy")), (testdata("toy"), tmp_path)):
        with pytest.raises(ModelReadError, match="is not a SavedModel"):
            verify_conversion(original, other)


def test_a_model_in_bfloat16_may_differ_more(testdata: Testdata, tmp_path: Path) -> None:
    out = converted("bfloat16_inside", testdata, tmp_path / "out")
    assert verify_conversion(testdata("bfloat16_inside"), out, batch_sizes=[1]).tolerance == 2e-2


def test_the_text_of_a_verification() -> None:
    result = Verification(
        (
            OutputComparison("serve", 1, "y", 0.0, ""),
            OutputComparison("serve", 3, "z", float("inf"), "int32[3] instead of float32[3]"),
        ),
        1e-5,
    )
    assert result.text() == (
        "      Error       Batch   Output\n"
        "ok    0.00e+00    1       serve/y\n"
        "FAIL  inf         3       serve/z  (int32[3] instead of float32[3])\n"
        "FAILED: relative error of 2 outputs, tolerance 1e-05"
    )
    assert not Verification((), 1.0).passed


def test_rows_and_what_is_random_in_the_text_of_a_verification() -> None:
    good, noisy = OutputComparison("s", 1, "y", 0.5, ""), OutputComparison("s", 1, "z", 9.0, "random", random=True)
    result = Verification((good, noisy), 0.5, (RowComparison("s", "y", 0.5, ""),), ("not probed",))
    assert result.passed
    assert result.text() == (
        "      Error       Batch   Output\n"
        "ok    5.00e-01    1       s/y\n"
        "skip  9.00e+00    1       s/z  (random)\n"
        "ok    5.00e-01    rows    s/y\n"
        "      not probed\n"
        "PASSED: relative error of 2 outputs, tolerance 0.5"
    )
    assert not Verification((good,), 0.5, (RowComparison("s", "y", 0.6, ""),)).passed
    assert not Verification((good, dataclasses.replace(noisy, random=False)), 0.5).passed


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        (np.float32([3, 4]), np.float32([3, 4]), 0.0),
        (np.float32([3, 4]), np.float32([3, 4.5]), 0.1),
        (np.float32([0]), np.float32([0.25]), 0.25),
        (np.float32([np.nan, 1]), np.float32([np.nan, 1]), 0.0),
        (np.float32([1, 1]), np.float32([np.nan, 1]), np.inf),
        (np.float32([np.inf, 1]), np.float32([-np.inf, 1]), np.inf),
        (np.array([b"a"], object), np.array([b"a"], object), 0.0),
        (np.array([b"a"], object), np.array([b"b"], object), 1.0),
        (np.complex64([3 + 4j]), np.complex64([3 + 4.5j]), 0.1),
        (np.array([2], ml_dtypes.bfloat16), np.array([1], ml_dtypes.bfloat16), 0.5),
        (np.array([True]), np.array([False]), 1.0),
        (np.int64([1000, 7, 7, 7]), np.int64([1001, 7, 7, 7]), 0.25),
        (np.int64([]), np.int64([]), 0.0),
    ],
)
def test_the_error_of_one_output(expected: np.ndarray, found: np.ndarray, error: float) -> None:
    assert relative_error(expected, found) == pytest.approx(error)


# --- what cannot be run -----------------------------------------------------------------------------------------


class Lookup(tf.Module):
    """Ids come as floats, as in a Keras Sequential model that begins with an Embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(np.arange(20, dtype=np.float32).reshape(5, 4))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="ids")])
    def serve(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.table, tf.cast(ids, tf.int32))


class Parser(tf.Module):
    """Strings that must be whole numbers, which no random word but one is."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(self, text: tf.Tensor) -> tf.Tensor:
        return tf.strings.to_number(text, tf.int32) + 1


def saved(module: tf.Module, directory: Path) -> Path:
    tf.saved_model.save(module, str(directory), signatures=module.serve)
    return directory


def test_floats_that_are_ids_are_drawn_so_that_the_original_can_answer(tmp_path: Path) -> None:
    original = saved(Lookup(), tmp_path / "in")
    convert(original, tmp_path / "out", 'tpu_functions { signature_name: "serving_default" }')
    result = verify_conversion(original, tmp_path / "out", batch_sizes=[4])
    assert result.passed, result.text()


def test_an_original_that_cannot_answer_random_inputs_asks_for_some(tmp_path: Path) -> None:
    original = saved(Parser(), tmp_path / "in")
    message = (
        r'^TensorFlow fails on the original, at signature "serving_default" with random inputs of 8 rows: '
        r"InvalidArgumentError: .*StringToNumberOp could not correctly convert string.*give --inputs with some"
    )
    with pytest.raises(ConversionError, match=message):
        verify_conversion(original, original, batch_sizes=[8])
    np.savez(tmp_path / "inputs.npz", text=np.array(["1", "22"]))
    assert verify_conversion(original, original, inputs_file=tmp_path / "inputs.npz").passed


def test_a_model_with_the_slots_of_an_optimizer_that_cannot_be_revived_is_verified(
    testdata: Testdata, tmp_path: Path
) -> None:
    original = Path(shutil.copytree(testdata("optimizer_slots"), tmp_path / "in"))
    model = read_model(original)
    for node in model.object_graph.nodes:
        if node.slot_variables:
            node.user_object.identifier = "optimizer"  # of Keras 2; nothing in a Keras 3 process knows it
    (original / "saved_model.pb").write_bytes(model.saved_model.SerializeToString())
    convert(original, tmp_path / "out", MODELS["optimizer_slots"].options_for(original))
    result = verify_conversion(original, tmp_path / "out")
    assert result.passed, result.text()


@pytest.mark.parametrize("content", [None, b"no arrays", b"PK\x03\x04 broken"])
def test_inputs_that_cannot_be_read_are_an_error(content: bytes | None, testdata: Testdata, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match=r"^The inputs file .* cannot be read: .*numpy\.savez"):
        verify_conversion(testdata("toy"), testdata("toy"), inputs_file=path)


def test_inputs_of_another_type_or_shape_are_an_error(testdata: Testdata, tmp_path: Path) -> None:
    np.savez(tmp_path / "type.npz", x=np.array(["a"]))
    with pytest.raises(
        ConversionError, match=r'^The array "x" of the inputs file is <U1\[1\]; the signature .*float32'
    ):
        verify_conversion(testdata("toy"), testdata("toy"), inputs_file=tmp_path / "type.npz")
    np.savez(tmp_path / "shape.npz", x=np.ones((2, 3), np.float32))
    model = testdata("multi_signature")
    expected = r'^The array "x" of the inputs file is float32\[2, 3\]; .* "first" expects float32\[None, 10\]\. Write'
    with pytest.raises(ConversionError, match=expected):
        verify_conversion(model, model, signature="first", inputs_file=tmp_path / "shape.npz")
