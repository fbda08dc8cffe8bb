"""Indices that stay in their own row, and what they tell of its place and of the number of rows."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, counts, ok, place, unclear


def _at(x, *others):  # type: ignore[no-untyped-def]
    """One of the numbers of each row."""
    return tf.gather_nd(x, tf.stack([tf.range(count(x)), *others], 1))


def _flat(x, index):  # type: ignore[no-untyped-def]
    return tf.gather(tf.reshape(x, [-1]), index)


_GATHERS = (
    ok("the same of each row", "?,4", lambda x: _at(x, tf.fill([count(x)], 2))),
    place("of each row what its place says", "?,4", lambda x: _at(x, tf.range(count(x)) % 4), "its place says"),
    counts(
        "of each row what the number says",
        "?,4",
        lambda x: _at(x, tf.fill([count(x)], count(x) // 8)),
        "number of rows says",
    ),
    place(
        "of each row, flat, what its place says",
        "?,4",
        lambda x: _flat(x, tf.range(count(x)) * 4 + tf.range(count(x)) % 4),
    ),
    counts(
        "of each row, flat, what the number says", "?,4", lambda x: _flat(x, tf.range(count(x)) * 4 + count(x) // 4)
    ),
    ok("of each row what it says", "?,4; int32 ?", lambda x, n: _at(x, n % 4)),
    unclear("what row and place say", "?,4; int32 ?", lambda x, n: _at(x, (n + tf.range(count(x))) % 4)),
    unclear("what row and number say", "?,4; int32 ?", lambda x, n: _at(x, (n + count(x)) % 4)),
    unclear(
        "what row and number say, flat",
        "?,4; int32 ?",
        lambda x, n: _flat(x, tf.range(count(x)) * 4 + (n % 2 + count(x) // 4)),
    ),
    ok("what row and row say", "?,4,4; int32 ?", lambda x, n: _at(x, n, n)),
    unclear("what place and row say", "?,4,4; int32 ?", lambda x, n: _at(x, tf.minimum(tf.range(count(x)), 3), n)),
    unclear(
        "what each row says of all",
        "?,4; int32 ?",
        lambda x, n: tf.reduce_sum(_flat(x, tf.range(count(x))[None, :] * 4 + n[:, None]), 1),
    ),
)

_SCATTERS = (
    ok(
        "to the same of each row",
        "?",
        lambda x: tf.scatter_nd(tf.stack([tf.range(count(x)), tf.fill([count(x)], 2)], 1), x, [count(x), 4]),
    ),
    place(
        "to what its place says",
        "?",
        lambda x: tf.scatter_nd(tf.stack([tf.range(count(x)), tf.range(count(x)) % 4], 1), x, [count(x), 4]),
    ),
    unclear(
        "to the first of zeros",
        "?,3",
        lambda x: x + tf.tensor_scatter_nd_update(tf.zeros([count(x), 3]), [[0]], [[1.0, 2, 3]]),
    ),
    unclear("to the first of none", "?", lambda x: x + tf.scatter_nd([[0]], [1.0], [count(x)])),
    place(
        "segments by place",
        "?",
        lambda x: tf.reshape(
            tf.math.unsorted_segment_sum(x, tf.range(count(x)) * 2 + tf.range(count(x)) % 2, count(x) * 2), [-1, 2]
        ),
    ),
    unclear(
        "segments of constants in another order",
        "?,2",
        lambda x: (
            x[:, 0]
            + tf.math.unsorted_segment_max(tf.repeat([1.0, 5.0], count(x)), tf.repeat(tf.range(count(x)), 2), count(x))
        ),
    ),
)

CASES = (*_GATHERS, *_SCATTERS)
