"""The ops that random models are made of: each row of a result depends on the same row of the operands only.

A table: an op's name, how it is applied, and to what. Tensors have the batch in dimension 0 and known sizes elsewhere.
`n`, a number of the spec, becomes whatever the op needs: an axis, a size, the choice of a weight.

Some models are exact: their floats hold small integers, and so does every intermediate result, whatever the order of
additions and even in bfloat16. An op whose results may be larger than its operands says that it `grows`; its result is
folded back to -3..3. What rounds is for the other models only (`SMOOTH`); what jumps where its operand hardly changes,
such as a comparison, is for exact models only (`EXACT`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
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


def _last(row: tuple[int, ...]) -> int:
    return row[-1]


def _square_of_last(row: tuple[int, ...]) -> int:
    return 2 * row[-1]  # both factors may be 3


def _window(row: tuple[int, ...]) -> int:
    return 4 * row[-1]


# --- weights ----------------------------------------------------------------------------------------------------


def matmul(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, c.weight([x.shape[-1], 1 + n % 5], n, x.dtype))


def einsum(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.einsum("...i,ij->...j", x, c.weight([x.shape[-1], 1 + n % 5], n, x.dtype))


def einsum_heads(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.einsum("bti,ihd->bhtd", x, c.weight([x.shape[-1], 2, 1 + n % 2], n, x.dtype))


def tensordot(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(x, c.weight([x.shape[-1], 1 + n % 4], n, x.dtype), 1)


def folded_matmul(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """The batch takes in the next dimension, as Keras' Dense does it, and gives it back."""
    steps, width = x.shape[1:]
    made = tf.matmul(tf.reshape(x, [-1, width]), c.weight([width, 1 + n % 5], n, x.dtype))
    return tf.reshape(made, [-1, steps, 1 + n % 5])


def affine(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return x * c.weight(x.shape[-1:], n, x.dtype) + c.weight(x.shape[-1:], n + 1, x.dtype)


def bias_add(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.bias_add(x, c.weight(x.shape[-1:], n, x.dtype))


def conv1d(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv1d(x, c.weight([2, x.shape[-1], 1 + n % 3], n, x.dtype), 1 + n % 2, "SAME")


def conv2d(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, c.weight([2, 2, x.shape[-1], 1 + n % 3], n, x.dtype), 1 + n % 2, "SAME")


def depthwise(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.depthwise_conv2d(x, c.weight([2, 2, x.shape[-1], 1], n, x.dtype), [1, 1, 1, 1], "SAME")


def embedding(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.gather(c.weight([7, 1 + n % 4], n), tf.math.floormod(x, tf.constant(7, x.dtype)))


def positions(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """Integers that bfloat16 does not hold, from a constant; they become small before they are used."""
    table = c.weight([400], 3 * n + 2 * (n % 2), x.dtype)
    return x + tf.math.floormod(table[-x.shape[-1] :] + 300.0, 7.0)


def class_token(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    width = x.shape[-1]
    token = tf.broadcast_to(c.weight([1, width], n, x.dtype), [rows_of(x), 1, width])
    return tf.concat([token, x], 1)


def batch_norm(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """With statistics of its own, not the batch's."""
    made = tf.compat.v1.nn.fused_batch_norm(
        x,
        *(c.weight(x.shape[-1:], n + i, tf.float32) for i in range(3)),
        tf.abs(c.weight(x.shape[-1:], n + 3, tf.float32)) + 1.0,
        is_training=False,
    )
    return made[0]


# --- within a row -----------------------------------------------------------------------------------------------


def attention(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, x, transpose_b=True)


def layer_norm(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 0.1)


def turned(reduce: Callable[[tf.Tensor], tf.Tensor]) -> Apply:
    """Moves the batch to dimension 1, works along dimension 0 and moves it back."""

    def apply(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
        order = [1, 0, *range(2, x.shape.rank)]
        return tf.transpose(reduce(tf.transpose(x, order)), order)

    return apply


def last_to_front(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    rank = int(x.shape.rank)
    turned_ = tf.transpose(x, [*range(1, rank), 0])
    return tf.transpose(tf.reverse(turned_, [0]), [rank - 1, *range(rank - 1)])


def transpose(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [0, *reversed(range(1, x.shape.rank))])


def reshape(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    size = math.prod(x.shape[1:])
    factor = next(f for f in (2, 3, 5, 1) if size % f == 0)
    shapes = ([-1, size], [-1, factor, size // factor], [rows_of(x), size // factor, factor])
    return tf.reshape(x, shapes[n % 3])


def fold_and_sum(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """[b, t, ...] -> [b * t, ...], something for each, and back."""
    row = tuple(x.shape[1:])
    made = tf.reduce_sum(tf.reshape(x, [-1, *row[1:]]), axis=-1)
    return tf.reshape(made, [-1, *row[:-1]])


def one_hot(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.one_hot(tf.math.floormod(x, tf.constant(4, x.dtype)), 4)


def stack(c: Context, n: int, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.stack([x, y], 1 + n % int(x.shape.rank))


def split(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    axis = axis_of(n, x)
    parts = tf.split(x, [1, x.shape[axis] - 1], axis) if x.shape[axis] > 1 else [x, x]
    return tf.concat(parts[::-1], axis)


def unstack(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.add_n(tf.unstack(x, axis=axis_of(n, x)))


def sliced(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return (x[:, 1:] if x.shape[1] > 1 else x, x[..., ::-1], x[:, -1:], x[..., :1], x[:, 0])[n % 5]


def pad(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    paddings = [[0, 0]] * int(x.shape.rank)
    paddings[axis_of(n, x)] = [1, n % 2]
    return tf.pad(x, paddings)


def tile(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    multiples = [1] * int(x.shape.rank)
    multiples[axis_of(n, x)] = 2
    return tf.tile(x, multiples)


def gather(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    axis = axis_of(n, x)
    return tf.gather(x, [x.shape[axis] - 1, 0], axis=axis)


def batch_gather(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """Each row picks from itself by its own index."""
    index = tf.argmax(x, axis=-1)
    return tf.gather(x, index[..., None], batch_dims=x.shape.rank - 1, axis=-1)


def with_zeros(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.concat([x, tf.zeros([rows_of(x), *x.shape[1:-1], 1], x.dtype)], -1)


def filled(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return x + tf.reshape(tf.fill([rows_of(x)], tf.constant(1 + n % 2, x.dtype)), [-1] + [1] * (x.shape.rank - 1))


def inner_range(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return x + tf.cast(tf.range(tf.shape(x)[-1]), x.dtype)


def select(c: Context, n: int, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.where(x > y, x, -y)


def to_other(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, (tf.int32, tf.int64, tf.float32, tf.float32)[n % 4])


# --- control flow and calls -------------------------------------------------------------------------------------


def small(c: Context, x: tf.Tensor) -> tf.Tensor:
    return fold(x) if c.exact else tf.tanh(x) if x.dtype.is_floating else fold(x)


def while_loop(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    weight = c.weight([x.shape[-1]], n, x.dtype)
    limit = (tf.constant(2), tf.shape(x)[-1])[n % 2]
    found = tf.while_loop(
        lambda i, _: i < limit,
        lambda i, state: (i + 1, small(c, state * weight + tf.cast(i, x.dtype))),
        (0, x),
        maximum_iterations=5 if n % 3 else None,
    )
    return found[1]


def steps_loop(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """A recurrence over dimension 1, kept in a TensorArray, as an RNN is."""
    steps = tf.transpose(x, [1, 0, 2])
    array = tf.TensorArray(x.dtype, size=x.shape[1], element_shape=[None, x.shape[2]])

    def body(i: tf.Tensor, state: tf.Tensor, kept: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        state = small(c, state + steps[i])
        return i + 1, state, kept.write(i, state)

    start = tf.zeros([rows_of(x), x.shape[2]], x.dtype)
    _, _, kept = tf.while_loop(lambda i, *_: i < x.shape[1], body, (0, start, array))
    return tf.ensure_shape(tf.transpose(kept.stack(), [1, 0, 2]), [None, *x.shape[1:]])


def map_rows(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda row: row * 2 - tf.reduce_max(row), x)


def cond(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    weight = c.weight([x.shape[-1]], n, x.dtype)
    return tf.cond(c.flag(n, x), lambda: x + weight, lambda: -x)


def switch(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    branches = [lambda: x, lambda: x + c.weight([x.shape[-1]], n, x.dtype), lambda: -x]
    return tf.switch_case(tf.cast(c.flag(n, x), tf.int32) + 1, branches)


def call(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return c.call(n, x)[-1]


def call_twice(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    first = c.call(n, x)[0]
    second = c.call(n, first)[0]
    return second if not second.dtype.is_bool else tf.math.logical_xor(first, second)


def call_in_loop(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    def body(i: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return i + 1, small(c, state + fit(c.call(n, state)[0], x.shape[1:], x.dtype, c.exact))

    return tf.while_loop(lambda i, _: i < 2, body, (0, x))[1]


def call_in_branch(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.cond(c.flag(n, x), lambda: fit(c.call(n, x)[0], x.shape[1:], x.dtype, c.exact), lambda: -x)


def inline(f: Callable[..., Any]) -> Apply:
    """An op that needs nothing but its operands."""
    return lambda c, n, *operands: f(*operands)


def along(f: Callable[..., Any]) -> Apply:
    """An op along one dimension that is not the batch."""
    return lambda c, n, x: f(x, axis=axis_of(n, x))


ANY_ROW, ROW = (2, 5), (2, 4)
OPS: dict[str, Op] = {
    # elementwise
    "neg": Op(inline(tf.negative)),
    "abs": Op(inline(tf.abs)),
    "sign": Op(inline(tf.sign), when=EXACT),
    "relu": Op(inline(tf.nn.relu)),
    "relu6": Op(inline(tf.nn.relu6), "float"),
    "leaky": Op(inline(tf.nn.leaky_relu), "float", when=SMOOTH),
    "clip": Op(lambda c, n, x: tf.clip_by_value(x, tf.cast(-1, x.dtype), tf.cast(2, x.dtype))),
    "double": Op(lambda c, n, x: x * 2 + 1, grows=True),
    "square": Op(lambda c, n, x: tf.square(x if c.exact else tf.tanh(x)), "float", grows=True),
    "tanh": Op(inline(tf.tanh), "float", when=SMOOTH),
    "sigmoid": Op(inline(tf.sigmoid), "float", when=SMOOTH),
    "gelu": Op(inline(tf.nn.gelu), "float", when=SMOOTH),
    "exp": Op(lambda c, n, x: tf.exp(tf.tanh(x)), "float", when=SMOOTH),
    "softsign": Op(inline(tf.nn.softsign), "float", when=SMOOTH),
    "add": Op(inline(tf.add), binary=True, grows=True),
    "sub": Op(inline(tf.subtract), binary=True, grows=True),
    "mul": Op(lambda c, n, x, y: x * y if c.exact else x * tf.tanh(y), "float", binary=True, grows=True),
    "maximum": Op(inline(tf.maximum), binary=True),
    "minimum": Op(inline(tf.minimum), binary=True),
    "divide": Op(lambda c, n, x, y: x / (1.0 + tf.abs(y)), "float32", binary=True, when=SMOOTH),
    "select": Op(select, binary=True, when=EXACT),
    "greater": Op(inline(tf.greater), binary=True, when=EXACT),
    "equal": Op(inline(tf.equal), "any", binary=True, when=EXACT),
    "not": Op(inline(tf.logical_not), "bool"),
    "and": Op(inline(tf.logical_and), "bool", binary=True),
    "from_bool": Op(lambda c, n, x: tf.cast(x, tf.float32), "bool"),
    "to_bool": Op(lambda c, n, x: x > tf.cast(n % 3, x.dtype), when=EXACT),
    "cast": Op(to_other, when=EXACT),
    "from_int": Op(lambda c, n, x: tf.cast(x, tf.float32), "int"),
    "identity": Op(inline(tf.identity), "any"),
    "stop_gradient": Op(inline(tf.stop_gradient), "float"),
    "zeros_like": Op(lambda c, n, x: x + tf.ones_like(x), grows=True),
    # weights
    "matmul": Op(matmul, "float", (2, 2), grows=True, product=_last),
    # Not of rank 4: multiplied by a matrix, oneDNN writes outside of its result (TensorFlow 2.21).
    "batch_matmul": Op(matmul, "float", (3, 3), grows=True, product=_last),
    "einsum": Op(einsum, "float", ANY_ROW, grows=True, product=_last),
    "einsum_heads": Op(einsum_heads, "float", (3, 3), grows=True, product=_last, bigger=True),
    "tensordot": Op(tensordot, "float", (3, 4), grows=True, product=_last),
    "folded_matmul": Op(folded_matmul, "float", (3, 3), grows=True, product=_last),
    "affine": Op(affine, "float", ANY_ROW, grows=True),
    "bias_add": Op(bias_add, "float", ANY_ROW, grows=True),
    "conv1d": Op(conv1d, "float32", (3, 3), grows=True, product=_window),
    "conv2d": Op(conv2d, "float32", (4, 4), grows=True, product=_window),
    "depthwise": Op(depthwise, "float32", (4, 4), grows=True),
    "embedding": Op(embedding, "int", (1, 4), bigger=True),
    "positions": Op(positions, "float32", ANY_ROW, grows=True, when=EXACT),
    "class_token": Op(class_token, "float", (3, 3), bigger=True),
    "batch_norm": Op(batch_norm, "float32", (4, 4), when=SMOOTH),
    # within a row
    "reduce_sum": Op(along(tf.reduce_sum), ranks=ANY_ROW, grows=True),
    "reduce_max": Op(along(tf.reduce_max), ranks=ANY_ROW),
    "reduce_min": Op(lambda c, n, x: tf.reduce_min(x, axis_of(n, x), keepdims=True), ranks=ANY_ROW),
    "reduce_all_inner": Op(lambda c, n, x: tf.reduce_sum(x, list(range(1, x.shape.rank))), ranks=ANY_ROW, grows=True),
    "reduce_mean": Op(along(tf.reduce_mean), "float", ANY_ROW, SMOOTH),
    "reduce_any": Op(along(tf.reduce_any), "bool", ANY_ROW),
    "norm": Op(lambda c, n, x: tf.nn.l2_normalize(x, axis_of(n, x), 0.1), "float", ANY_ROW, SMOOTH),
    "softmax": Op(inline(tf.nn.softmax), "float", ANY_ROW, SMOOTH),
    "softmax_along": Op(along(tf.nn.softmax), "float", ANY_ROW, SMOOTH),
    "log_softmax": Op(inline(tf.nn.log_softmax), "float", ANY_ROW, SMOOTH),
    "layer_norm": Op(layer_norm, "float32", ANY_ROW, SMOOTH),
    "argmax": Op(along(tf.argmax), ranks=ANY_ROW, when=EXACT, grows=True),
    "sort": Op(inline(tf.sort), ranks=ANY_ROW),
    "argsort": Op(lambda c, n, x: tf.argsort(x, stable=True), ranks=ANY_ROW, when=EXACT, grows=True),
    "top_k": Op(lambda c, n, x: tf.math.top_k(x, 1)[0], ranks=ANY_ROW),
    "top_k_at": Op(lambda c, n, x: tf.math.top_k(x, 1)[1], ranks=ANY_ROW, when=EXACT, grows=True),
    "cumsum": Op(lambda c, n, x: tf.cumsum(x, axis_of(n, x), bool(n % 2), bool(n % 3)), "number", ANY_ROW, grows=True),
    "attention": Op(attention, "float", (3, 4), grows=True, product=_square_of_last, bigger=True, when=EXACT),
    "max_pool": Op(lambda c, n, x: tf.nn.max_pool2d(x, 2, 1, "SAME"), "float32", (4, 4)),
    "avg_pool": Op(lambda c, n, x: tf.nn.avg_pool2d(x, 2, 2, "SAME"), "float32", (4, 4), SMOOTH),
    "resize": Op(lambda c, n, x: tf.image.resize(x, [2, 3]), "float32", (4, 4), SMOOTH),
    "turned_sum": Op(turned(lambda x: tf.reduce_sum(x, 0, keepdims=True)), ranks=ANY_ROW, grows=True),
    "turned_cumsum": Op(turned(tf.cumsum), ranks=ANY_ROW, grows=True),
    "last_to_front": Op(last_to_front, "any", ANY_ROW),
    "transpose": Op(transpose, "any", (3, 5)),
    "reshape": Op(reshape, "any"),
    "fold_and_sum": Op(fold_and_sum, ranks=(3, 5), grows=True),
    "expand": Op(lambda c, n, x: tf.expand_dims(x, 1 + n % int(x.shape.rank)), "any", (1, 4)),
    "squeeze": Op(lambda c, n, x: tf.squeeze(x[:, :1], 1), "any", (3, 5)),
    "one_hot": Op(one_hot, "int", (1, 4), bigger=True),
    "concat": Op(lambda c, n, x, y: tf.concat([x, y], axis_of(n, x)), "any", ANY_ROW, binary=True, bigger=True),
    "stack": Op(stack, "any", (1, 4), binary=True, bigger=True),
    "split": Op(split, "any", ANY_ROW),
    "unstack": Op(unstack, ranks=ANY_ROW, grows=True),
    "slice": Op(sliced, "any", ANY_ROW),
    "reverse": Op(lambda c, n, x: tf.reverse(x, [axis_of(n, x)]), "any", ANY_ROW),
    "roll": Op(lambda c, n, x: tf.roll(x, 1 + n, axis_of(n, x)), "any", ANY_ROW),
    "pad": Op(pad, "any", ANY_ROW, bigger=True),
    "tile": Op(tile, "any", ANY_ROW, bigger=True),
    "gather": Op(gather, "any", ANY_ROW, bigger=True),
    "batch_gather": Op(batch_gather, "number", ROW, EXACT),
    "band": Op(lambda c, n, x: tf.linalg.band_part(x, n % 2, 1), "number", (3, 4)),
    "with_zeros": Op(with_zeros, "number", ANY_ROW, bigger=True),
    "filled": Op(filled, grows=True),
    "inner_range": Op(inner_range, ranks=ANY_ROW, grows=True),
    "hash": Op(lambda c, n, x: fold(tf.strings.to_hash_bucket_fast(x, 50 + n)), "string"),
    "length": Op(lambda c, n, x: fold(tf.strings.length(x)), "string"),
    # control flow and calls
    "while": Op(while_loop, "float", ANY_ROW),
    "steps": Op(steps_loop, "float", (3, 3)),
    "map_rows": Op(map_rows, "number", ANY_ROW, grows=True),
    "cond": Op(cond, "number", ANY_ROW, grows=True),
    "switch": Op(switch, "number", ANY_ROW, grows=True),
    "call": Op(call, "any", calls=True),
    "call_twice": Op(call_twice, "any", calls=True),
    "call_in_loop": Op(call_in_loop, "float32", calls=True),
    "call_in_branch": Op(call_in_branch, "float32", calls=True),
}


def apply(c: Context, op: Op, n: int, operands: Sequence[tf.Tensor]) -> tf.Tensor:
    """The result of one op; in exact models one of small integers."""
    result = op.apply(c, n, *operands)
    return fold(result) if op.grows and c.exact else result


def draw_weight(shape: Sequence[int], n: int, exact: bool) -> np.ndarray:
    rng = np.random.default_rng([n, *shape])
    if tuple(shape) == (400,):
        return np.arange(400, dtype=np.float32)
    if exact:
        return rng.integers(-2, 3, shape).astype(np.float32)
    return (rng.uniform(-1, 1, shape) / math.sqrt(max(1, shape[0]))).astype(np.float32)
