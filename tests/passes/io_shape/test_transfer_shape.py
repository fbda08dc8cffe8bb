"""The rule for the shape in which tensors cross, and the count of their bytes. Figures: docs/io_shapes.md."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converter.passes.io_shape.transfer_shape import (
    DEFAULT_BATCHES,
    Keep,
    RankedShape,
    Reshape,
    choose,
    crossing_bytes,
    data_bytes,
    padded_bytes,
    reshape_argument,
)

# What the compiler gave as the layout of the argument, and as its bytes.
MEASURED_BYTES = [
    # shape, dtype, bytes, layout
    ((), "float32", 512, "{:T(128)}"),
    ((10,), "float32", 512, "{0:T(128)}"),
    ((10,), "bfloat16", 512, "{0:T(256)}"),
    ((10,), "bool", 512, "{0:T(512)}"),
    ((80,), "float32", 512, "{0:T(128)}"),
    ((320,), "float32", 2048, "{0:T(512)}"),
    ((600,), "float32", 4096, "{0:T(1024)}"),
    ((8008,), "float32", 32768, "{0:T(1024)}"),
    ((1204224,), "bfloat16", 2408448, "{0:T(1024)}"),
    ((1, 10), "float32", 512, "{1,0:T(1,128)}"),
    ((8, 4), "float32", 2048, "{0,1:T(4,128)}"),
    ((8, 10), "float32", 4096, "{1,0:T(8,128)}"),
    ((32, 10), "float32", 8192, "{0,1:T(8,128)}"),
    ((8, 1001), "float32", 32768, "{1,0:T(8,128)}"),
    ((8, 128), "bool", 1024, "{1,0:T(8,128)}"),
    ((8, 64, 64), "bool", 65536, "{2,1,0:T(32,128)}"),
    ((8, 64, 64), "int32", 262144, "{2,1,0:T(8,128)}"),
    ((8, 20, 30), "float32", 81920, "{2,0,1:T(8,128)}"),
    ((1, 20, 30), "float32", 10240, "{2,0,1:T(1,128)}"),
    ((8, 48, 128), "bfloat16", 98304, "{2,1,0:T(8,128)}"),
    ((8, 96, 96, 1), "float32", 393216, "{2,3,1,0:T(1,128)}"),
    ((8, 96, 96, 1), "bfloat16", 196608, "{2,1,3,0:T(8,128)}"),
    ((8, 12, 12, 64), "bfloat16", 294912, "{3,0,2,1:T(8,128)}"),
    ((8, 224, 224, 3), "bfloat16", 2752512, "{2,1,3,0:T(8,128)}"),
    ((8, 224, 224, 3), "float32", 5505024, "{2,1,3,0:T(8,128)}"),
    ((8, 224, 672), "bfloat16", 2752512, "{2,1,0:T(8,128)}"),
    ((1, 150528), "bfloat16", 602112, "{1,0:T(2,128)}"),
    ((4, 8, 56, 56, 3), "bfloat16", 1376256, "{3,2,4,1,0:T(8,128)}"),
    ((4, 8, 56, 168), "float32", 1835008, "{3,2,1,0:T(8,128)}"),
]


@pytest.mark.parametrize(("shape", "dtype", "size", "layout"), MEASURED_BYTES)
def test_padded_bytes_are_the_compilers(shape: RankedShape, dtype: str, size: int, layout: str) -> None:
    assert padded_bytes(shape, dtype) == size, layout


def test_elements_of_64_bits_take_two_tensors_of_32() -> None:
    for shape in ((), (10,), (8, 10), (8, 20, 30)):
        assert padded_bytes(shape, "int64") == 2 * padded_bytes(shape, "int32")


def test_an_unknown_batch_takes_the_size_asked_about() -> None:
    assert padded_bytes((None, 20, 30), "float32", batch=8) == padded_bytes((8, 20, 30), "float32")
    assert data_bytes((None, 20, 30), "float32", batch=8) == 8 * 20 * 30 * 4


def test_an_empty_tensor_takes_no_bytes() -> None:
    assert padded_bytes((8, 0, 3), "float32") == data_bytes((8, 0, 3), "float32") == 0


def test_bytes_of_what_has_no_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="unknown dimension after the 0th"):
        padded_bytes((8, None), "float32")
    with pytest.raises(ValueError, match='type "string" has no known size'):
        padded_bytes((8, 4), "string")


RESHAPED = [
    # What it is, shape, dtype, shape in which it crosses
    ("image: colours join the columns", (8, 224, 224, 3), "bfloat16", (8, 224, 672)),
    ("image, any batch", (None, 224, 224, 3), "float32", (None, 224, 672)),
    ("image, one", (1, 224, 224, 3), "bfloat16", (1, 224, 672)),
    ("image, small", (None, 32, 32, 3), "float32", (None, 32, 96)),
    ("video", (4, 8, 56, 56, 3), "bfloat16", (4, 8, 56, 168)),
    ("feature map", (8, 12, 12, 64), "bfloat16", (8, 12, 768)),
    ("handwritten digit", (None, 28, 28, 1), "float32", (None, 784)),
    ("short sequence of short vectors", (8, 20, 30), "float32", (8, 600)),
    ("short sequence, any batch", (None, 20, 30), "float32", (None, 600)),
    ("mask of pairs", (8, 64, 64), "bool", (8, 4096)),
    ("mask of pairs, integers", (8, 64, 64), "int32", (8, 4096)),
    ("few features: padding dominates still, so flat", (8, 10), "float32", (80,)),
    ("few features, any batch", (None, 10), "float32", (None,)),
    ("few results", (8, 4), "float32", (32,)),
    ("one row of 16-bit elements, which come in pairs of rows", (1, 1001), "bfloat16", (1001,)),
]


@pytest.mark.parametrize(("what", "shape", "dtype", "transfer"), RESHAPED)
def test_reshaped(what: str, shape: RankedShape, dtype: str, transfer: RankedShape) -> None:
    choice = choose(shape, dtype)
    assert isinstance(choice, Reshape), f"{what}: {choice}"
    assert choice.transfer == transfer, what


KEPT = [
    # shape, dtype, part of the reason
    (None, "float32", "rank is unknown"),
    ((), "float32", "it has rank 0"),
    ((None,), "float32", "it has rank 1"),
    ((1000,), "float32", "it has rank 1"),
    ((8, None, 3), "float32", "dimension 1 is unknown"),
    ((None, None, 3), "float32", "dimension 1 is unknown"),
    ((8, 0, 3), "float32", "dimension 1 is 0"),
    ((0, 10), "float32", "dimension 0 is 0"),
    ((8, 4), "string", "tensors of type string"),
    ((8, 4), "resource", "tensors of type resource"),
    ((8, 128, 768), "bfloat16", "fast path: its last dimension, 768,"),
    ((None, 48, 128), "float32", "fast path: its last dimension, 128,"),
    ((8, 128), "int32", "fast path"),
    ((8, 128), "bool", "fast path"),
    # A multiple of 8 rows cannot be proved here, but copying it costs nothing either.
    ((None, 128), "int32", "0 % padding"),
    ((None, 1001), "float32", "2 % padding"),
    ((8, 1001), "float32", "2 % padding"),
    ((8, 96, 96, 1), "float32", "33 % padding"),
    ((8, 3, 224, 224), "float32", "14 % padding"),
    ((1, 10), "float32", "512 bytes for 40 bytes of data"),
    ((1, 128), "bool", "512 bytes for 128 bytes of data"),
]


@pytest.mark.parametrize(("shape", "dtype", "reason"), KEPT)
def test_kept(shape: RankedShape | None, dtype: str, reason: str) -> None:
    choice = choose(shape, dtype)
    assert isinstance(choice, Keep), choice
    assert reason in choice.reason


def test_the_batches_decide_about_an_unknown_dimension() -> None:
    # 16-bit elements come in pairs of rows, so that a single request would be half padding.
    assert choose((None, 1001), "bfloat16", batches=[1]) == choose_flat((1, 1001), "bfloat16")
    assert isinstance(choose((None, 1001), "bfloat16", batches=[1, 8]), Keep)


def choose_flat(shape: RankedShape, dtype: str) -> Reshape:
    """The choice for a known shape that becomes flat, as it reads with the 0th dimension unknown."""
    choice = choose(shape, dtype)
    assert isinstance(choice, Reshape) and len(choice.transfer) == 1
    return Reshape((None,), choice.reason)


def test_batches_must_be_positive() -> None:
    for batches in ([], [0, 8]):
        with pytest.raises(ValueError, match="at least one size, all of them positive"):
            choose((None, 10), "float32", batches=batches)


def test_the_constants_of_the_reshapes() -> None:
    assert reshape_argument((None, 224, 672)) == (-1, 224, 672)
    assert reshape_argument((None,)) == (-1,)
    assert reshape_argument((8, 10)) == (8, 10)


DIMENSIONS = st.one_of(st.integers(1, 40), st.sampled_from([48, 64, 96, 127, 128, 129, 224, 256, 300, 768, 1001]))
INNER = st.lists(DIMENSIONS, min_size=1, max_size=4)
SHAPES = st.builds(lambda first, inner: (first, *inner), st.one_of(st.none(), DIMENSIONS), INNER)
DTYPES = st.sampled_from(["float32", "bfloat16", "bool", "int32", "int64", "uint8"])
BATCHES = st.lists(st.integers(1, 1024), min_size=1, max_size=6)
ANY_SHAPES = st.lists(st.one_of(st.none(), st.integers(0, 3), DIMENSIONS), max_size=5).map(tuple)


@given(SHAPES, DTYPES, BATCHES)
@example((None, 128, 64), "float32", [5, 64])
def test_a_reshape_keeps_the_elements_and_costs_no_bytes(shape: RankedShape, dtype: str, batches: list[int]) -> None:
    choice = choose(shape, dtype, batches)
    if isinstance(choice, Keep):
        return
    assert len(choice.transfer) < len(shape)
    assert None not in choice.transfer[1:]
    assert (None in choice.transfer) == (None in shape)
    for batch in batches:
        assert crossing_bytes(shape, choice, dtype, batch) <= padded_bytes(shape, dtype, batch)
        elements = math.prod(d or batch for d in shape)
        # Both reshapes resolve: the constant's known dimensions divide the elements, and -1 is the rest.
        for target in (choice.transfer, shape):
            known = math.prod(d for d in reshape_argument(target) if d != -1)
            assert elements % known == 0
            assert None in target or elements == known


@given(SHAPES, DTYPES)
def test_without_batches_none_up_to_64_costs_bytes(shape: RankedShape, dtype: str) -> None:
    choice = choose(shape, dtype)
    for batch in DEFAULT_BATCHES:
        assert data_bytes(shape, dtype, batch) <= crossing_bytes(shape, choice, dtype, batch)
        assert crossing_bytes(shape, choice, dtype, batch) <= padded_bytes(shape, dtype, batch)


@given(SHAPES, DTYPES, BATCHES)
def test_what_was_chosen_is_kept(shape: RankedShape, dtype: str, batches: list[int]) -> None:
    choice = choose(shape, dtype, batches)
    if isinstance(choice, Reshape):
        assert isinstance(choose(choice.transfer, dtype, batches), Keep)


@given(ANY_SHAPES, DTYPES)
def test_only_an_unknown_batch_and_no_zeros_are_reshaped(shape: RankedShape, dtype: str) -> None:
    choice = choose(shape, dtype)
    assert choice.reason
    if isinstance(choice, Reshape):
        assert None not in shape[1:] and 0 not in shape and len(shape) > 1
