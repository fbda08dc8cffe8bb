"""Inputs that are drawn, and those that a user gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converter.errors import ConversionError
from converter.proofs.sample_inputs import described, given_inputs, random_inputs, read_inputs

SPECS = {
    "f": tf.TensorSpec([None, 3, None], tf.float32),
    "c": tf.TensorSpec([2], tf.complex64),
    "i": tf.TensorSpec([None], tf.int64),
    "s": tf.TensorSpec([None, 2], tf.string),
    "b": tf.TensorSpec([], tf.bool),
    "any": tf.TensorSpec(None, tf.float32),
}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_unknown_dimensions_are_the_batch_or_1() -> None:
    drawn = random_inputs(SPECS, 5, small=False)
    assert {n: v.shape for n, v in drawn.items()} == {
        "f": (5, 3, 1), "c": (2,), "i": (5,), "s": (5, 2), "b": (), "any": (5,),
    }  # fmt: skip
    assert {n: v.dtype for n, v in drawn.items()} == {
        "f": np.float32, "c": np.complex64, "i": np.int64, "s": object, "b": bool, "any": np.float32,
    }  # fmt: skip


def test_the_same_is_drawn_every_time_unless_another_draw_is_asked_for() -> None:
    assert equal(random_inputs(SPECS, 20, small=False), random_inputs(SPECS, 20, small=False))
    again = random_inputs(SPECS, 20, small=False, draw=1)
    assert not any(np.array_equal(again[n], v) for n, v in random_inputs(SPECS, 20, small=False).items() if n != "b")


def test_what_is_drawn_can_be_an_id_where_it_must_be() -> None:
    drawn, small = (random_inputs(SPECS, 200, small=s) for s in (False, True))
    assert set(drawn["i"].tolist()) == set(small["i"].tolist()) == set(small["f"].ravel().tolist()) == {0, 1}
    assert set(small["c"].tolist()) <= {0, 1}
    for name in ("f", "any", "c"):
        assert not set(drawn[name].ravel().tolist()) & {0, 1}, name
    assert len(set(drawn["s"].ravel().tolist())) > 2


def test_given_arrays_take_the_types_of_the_signature() -> None:
    given = given_inputs({"i": np.int32([1, 2])}, {"i": SPECS["i"]}, "s")
    assert given["i"].dtype == np.int64 and given["i"].tolist() == [1, 2]
    text = given_inputs({"s": np.array([["a", "b"]])}, {"s": SPECS["s"]}, "s")
    assert text["s"].tolist() == [[b"a", b"b"]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"^The inputs file has the arrays \[\]; the signature \"k\" expects \['i'\]\. Write one array for each"),
        ({"i": np.int64([1]), "j": np.int64([1])}, r"^The inputs file has the arrays \['i', 'j'\]; "),
        ({"i": np.int64([[1]])}, r'^The array "i" of the inputs file is int64\[1, 1\]; the signature "k" expects'),
        ({"i": np.int64(1)}, r'is int64\[\]; the signature "k" expects int64\[None\]\. Write an array of that type'),
        ({"i": np.array(["a"])}, r'^The array "i" of the inputs file is <U1\[1\]; '),
        ({"i": np.float32([1.5])}, r'^The array "i" of the inputs file is float32\[1\]; '),
    ],
)
def test_arrays_that_do_not_fit_are_told_with_what_would(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        given_inputs(arrays, {"i": SPECS["i"]}, "k")


def test_files_that_hold_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "text").write_text("no arrays")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("none", "broken", "text", "one.npy"):
        with pytest.raises(ConversionError, match=r"^The inputs file .* cannot be read: .*numpy\.savez"):
            read_inputs(tmp_path / name)


def test_inputs_in_words() -> None:
    assert described({"x": SPECS["f"], "a": SPECS["any"]}) == "a: float32[...], x: float32[None, 3, None]"
    assert described({}) == "nothing"
