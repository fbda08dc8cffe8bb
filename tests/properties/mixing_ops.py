"""Ops through which the rows of a batch influence each other: what is batched must not hold any.

A branch that all rows choose together is not among them: there the converter can only say that it cannot tell.
"""

import tensorflow as tf

from tests.properties.row_functions import turned
from tests.properties.row_op import EXACT, Apply, Context, Op
from tests.properties.row_ops import ANY_ROW


def minus_mean(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return x - tf.reduce_mean(x, 0, keepdims=True)


def batch_statistics(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, 0)
    return (x - mean) * tf.math.rsqrt(variance + 0.1)


def fused_batch_statistics(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    ones = tf.ones(x.shape[-1:])
    return tf.compat.v1.nn.fused_batch_norm(x, ones, ones, is_training=True)[0]


def gram(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """[b, b] on the way, [b, d] in the end."""
    return tf.matmul(tf.matmul(x, x, transpose_b=True), x)


def interleaved(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """[b, t, ...] read as [t, b, ...]: the shape in the end says nothing of it."""
    row = tuple(x.shape[1:])
    split = tf.reshape(x, [row[0], -1, *row[1:]])
    return tf.transpose(split, [1, 0, *range(2, len(row) + 1)])


def gathered(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.gather(x, tf.range(tf.shape(x)[0])[::-1])


def until_all(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    """How often the loop runs depends on the largest row."""
    return tf.while_loop(lambda x: tf.reduce_max(x) > 0.0, lambda x: (x - 1.0,), (x,), maximum_iterations=8)[0]


def scanned(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    return tf.scan(tf.maximum, x)


def transposed_sort(c: Context, n: int, x: tf.Tensor) -> tf.Tensor:
    order = [*range(1, x.shape.rank), 0]
    return tf.transpose(tf.sort(tf.transpose(x, order)), [int(x.shape.rank) - 1, *order[:-1]])


def along_batch(f: Apply) -> Apply:
    return lambda c, n, x: f(x, axis=0)


MIXING: dict[str, Op] = {
    "minus_mean": Op(minus_mean, "float32"),
    "plus_sum": Op(lambda c, n, x: x + tf.reduce_sum(x, 0, keepdims=True), grows=True),
    "minus_first": Op(lambda c, n, x: x - x[:1], grows=True),
    "reverse_batch": Op(lambda c, n, x: tf.reverse(x, [0])),
    "backwards": Op(lambda c, n, x: x[::-1]),
    "roll_batch": Op(lambda c, n, x: tf.roll(x, 1, 0)),
    "softmax_batch": Op(along_batch(tf.nn.softmax), "float32"),
    "cumsum_batch": Op(along_batch(tf.cumsum), grows=True),
    "sort_batch": Op(along_batch(tf.sort)),
    "transposed_sort": Op(transposed_sort, ranks=ANY_ROW),
    "equal_max": Op(lambda c, n, x: tf.equal(x, tf.reduce_max(x, 0, keepdims=True)), when=EXACT),
    "share": Op(lambda c, n, x: x / (1.0 + tf.reduce_sum(tf.abs(x))), "float32"),
    "batch_statistics": Op(batch_statistics, "float32"),
    "fused_batch_statistics": Op(fused_batch_statistics, "float32", (4, 4)),
    "gram": Op(gram, "float32", (2, 2), grows=True),
    "interleaved": Op(interleaved, ranks=ANY_ROW),
    "gathered": Op(gathered),
    "until_all": Op(until_all, "float32"),
    "scanned": Op(scanned, "float32"),
    "turned_reverse": Op(turned(lambda x: tf.reverse(x, [1])), ranks=ANY_ROW),
}
