"""How the ops of random models are applied: each row of a result depends on the same row of the operands only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tests.properties.row_op import Apply, Context, axis_of, fit, fold, rows_of

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
