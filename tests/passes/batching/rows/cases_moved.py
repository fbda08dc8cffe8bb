"""Rows that stand in the place of others: what comes behind may bring them back, and then nothing happened."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, kernel, mixes, unclear


def _half(x):  # type: ignore[no-untyped-def]
    return count(x) // 2


_BACK = (
    unclear("reverse twice", "?,3", lambda x: tf.reverse(tf.reverse(x, [0]), [0]), "to their places again"),
    unclear("reverse, compute, reverse", "?,3", lambda x: tf.matmul(x[::-1], kernel(3, 3))[::-1], "to their places"),
    unclear("roll and back", "?,3", lambda x: tf.roll(tf.roll(x, 1, 0) * 2, -1, 0), "to their places again"),
    unclear("reverse by index, twice", "?,3", lambda x: (lambda i: tf.gather(tf.gather(x, i), i))(_backwards(x)), ""),
    unclear(
        "scatter in reverse, twice",
        "?,3",
        lambda x: (lambda i: tf.scatter_nd(i, tf.scatter_nd(i, x, tf.shape(x)), tf.shape(x)))(_backwards(x)[:, None]),
        "(ScatterNd)",
    ),
    unclear(
        "sort and back",
        "?",
        lambda x: tf.gather(tf.sort(x) * 2, tf.argsort(tf.argsort(x))),
        "(GatherV2)",
    ),
    unclear("reverse in a branch, twice", "?,3", lambda x: _turned(_turned(x)), "to their places again"),
    unclear(
        "read as columns and back", "?,4", lambda x: tf.reshape(tf.nn.relu(_columns(x)) * 2.0, tf.shape(x)), "(Resh"
    ),
    unclear("halves joined", "?,3", lambda x: tf.concat([x[: _half(x)], x[_half(x) :]], 0), "may join all rows again"),
    unclear("split and joined", "?,3", lambda x: tf.concat(tf.split(x, 2), 0), "may join all rows again"),
    unclear("halves joined the other way", "?,3", lambda x: tf.concat(tf.split(x, 2, 0)[::-1], 0), "may join"),
    unclear(
        "halves added up",
        "?,3",
        lambda x: (
            tf.pad(x[: _half(x)], [[0, _half(x)], [0, 0]])
            + tf.pad(x[_half(x) :], [[count(x) - _half(x), count(x) - 2 * _half(x)], [0, 0]])
        ),
        "",
    ),
)


def _backwards(x):  # type: ignore[no-untyped-def]
    return tf.range(count(x))[::-1]


def _turned(x):  # type: ignore[no-untyped-def]
    return tf.cond(kernel(1)[0] > 5, lambda: x * 2, lambda: x[::-1])


def _columns(x):  # type: ignore[no-untyped-def]
    return tf.reshape(x, [4, count(x)])


_ELSEWHERE = (
    mixes("reverse and compute", "?,3", lambda x: tf.nn.relu(tf.matmul(x[::-1], kernel(3, 2)))[:, :1], "another order"),
    mixes("reverse, fold and unfold", "?,4,3", lambda x: tf.reshape(tf.reshape(x[::-1], [-1, 3]) * 2, [-1, 4, 3]), ""),
    mixes("row and its mirror", "?,3", lambda x: (x + x[::-1])[::-1], "different rows"),
    mixes("products with mirrors", "?,4,4", lambda x: tf.matmul(x, x[::-1]), "different rows"),
    mixes("rows beside their mirrors", "?,3", lambda x: tf.concat([x, x[::-1]], 1), "another order"),
    mixes("mirror of a mean", "?,3", lambda x: tf.reverse(x - tf.reduce_mean(x, 0), [0]), "(Mean)"),
    mixes("mirrors row by row", "?,3", lambda x: tf.map_fn(lambda p: p[0] * p[1], (x, x[::-1]), tf.float32), ""),
    mixes("the order as such", "?", lambda x: tf.cast(tf.argsort(x), tf.float32) + x, "different rows"),
    mixes("reverse in a branch", "?,3", lambda x: _turned(x) + 1, "another order"),
    mixes("columns with a bias", "?,4", lambda x: tf.reshape(_columns(x) * tf.range(4.0)[:, None], tf.shape(x)), "mix"),
    mixes("half and half", "?,3", lambda x: x + tf.tile(x[:1], [count(x), 1]), "(AddV2)"),
    mixes("compared with the first half", "?,3", lambda x: x - tf.reduce_sum(x[: _half(x)], 0), "different rows"),
)

CASES = (*_BACK, *_ELSEWHERE)
