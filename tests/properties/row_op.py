"""What an op of random models is, and what the ops have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

LARGEST = 3
"""No value of an exact model is larger, between ops."""
MAX_SIZE = 64
"""Elements in a row of any tensor."""
MAX_PRODUCT = 40
"""Factors in one element of a product with weights of at most 2: 3 * 2 * 40 is an integer in bfloat16, too."""

BOTH, EXACT, SMOOTH = "both", "exact", "smooth"
KINDS = {
    "float": ("float32", "float64"),
    "float32": ("float32",),
    "int": ("int32", "int64"),
    "number": ("float32", "float64", "int32", "int64"),
    "bool": ("bool",),
    "string": ("string",),
    "any": ("float32", "float64", "int32", "int64", "bool"),
}


class Context(Protocol):
    """What an op finds in the model around it."""

    exact: bool

    def weight(self, shape: Sequence[int], n: int, dtype: tf.DType = ...) -> tf.Tensor:
        """Integers of at most 2 (exact) or floats: a variable, a captured constant or one of the graph, as n says."""

    def flag(self, n: int, x: tf.Tensor) -> tf.Tensor:
        """A scalar bool that no row decides."""

    def call(self, n: int, x: tf.Tensor) -> list[tf.Tensor]:
        """The results of a function of the model, given x in the shape that it takes."""


Apply = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Op:
    """How an op is applied, and to what.

    Attributes:
      apply: (context, n, operand) or, if `binary`, (context, n, operand, another of the same shape) -> result.
      takes: a key of KINDS.
      ranks: ranks that the operand may have, the batch included.
      when: in which models.
      grows: whether the result has to be folded back in exact models.
      bigger: whether a row of the result may have more elements; such an op takes only operands that leave room.
      product: how many factors an element of the result has, for ops that multiply.
      calls: whether it calls a function of the model, and so needs that there is one.
    """

    apply: Apply
    takes: str = "number"
    ranks: tuple[int, int] = (1, 5)
    when: str = BOTH
    grows: bool = False
    binary: bool = False
    bigger: bool = False
    product: Callable[[tuple[int, ...]], int] | None = None
    calls: bool = False

    def accepts(self, x: tf.Tensor, exact: bool) -> bool:
        row = tuple(x.shape[1:])
        return (
            x.dtype.name in KINDS[self.takes]
            and self.ranks[0] <= x.shape.rank <= self.ranks[1]
            and self.when in (BOTH, EXACT if exact else SMOOTH)
            and (not self.bigger or 4 * math.prod(row) <= MAX_SIZE)
            and (self.product is None or self.product(row) <= MAX_PRODUCT)
        )


def fold(x: tf.Tensor) -> tf.Tensor:
    """Integers to integers between -3 and 3."""
    span = 2 * LARGEST + 1
    return tf.math.floormod(x, tf.constant(span, x.dtype)) - tf.constant(LARGEST, x.dtype)


def fit(x: tf.Tensor, row: Sequence[int], dtype: tf.DType, exact: bool) -> tf.Tensor:
    """Each row of x in another shape, its elements repeated or left out."""
    size, wanted = math.prod(x.shape[1:]), math.prod(row)
    flat = tf.reshape(x, [-1, size])
    if size != wanted:
        flat = tf.gather(flat, [i % size for i in range(wanted)], axis=1)
    shaped = tf.reshape(flat, [-1, *row])
    if x.dtype.is_floating and not dtype.is_floating and not exact:
        shaped = tf.zeros_like(shaped)  # an integer made of an inexact number may jump
    return tf.cast(shaped, dtype)


def axis_of(n: int, x: tf.Tensor) -> int:
    """One of the dimensions of x that are not the batch."""
    return 1 + n % (int(x.shape.rank) - 1)


def rows_of(x: tf.Tensor) -> tf.Tensor:
    return tf.shape(x)[0]
