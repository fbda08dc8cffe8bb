"""Gathers and scatters, lookup tables, rows that are chosen by what they hold."""

import functools

import numpy as np
import tensorflow as tf

from tests.passes.batching.rows.table import count, kernel, mixes, ok, place, unclear, variable


@functools.cache
def _table():  # type: ignore[no-untyped-def]
    with tf.init_scope():
        keys = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "bc"]), tf.constant([1.0, 2.0]))
        return tf.lookup.StaticHashTable(keys, 0.0)


def _beams(x, best, first_of, wrapped=None):  # type: ignore[no-untyped-def]
    """Picks, of the two beams of each row, those that `best` names; what is less than `wrapped` counts from the end."""
    flat = tf.reshape(x, [-1, 3])
    index = tf.reshape(first_of(count(x)) + best % 2, [-1])
    if wrapped is not None:
        index = tf.where(index < wrapped, (index + count(flat)) % count(flat), index)
    return tf.reshape(tf.gather(flat, index), [-1, 2, 3])


def _scattered(steps):  # type: ignore[no-untyped-def]
    """The two greatest of each step of each row stay."""
    values, best = tf.math.top_k(steps, 2)
    rows = tf.tile(tf.range(count(steps))[:, None], [1, 2])
    return tf.reshape(tf.scatter_nd(tf.stack([rows, best], -1), values, tf.shape(steps)), [-1, 4, 3])


def _pooled(flat, segments):  # type: ignore[no-untyped-def]
    return tf.math.unsorted_segment_sum(flat, segments, count(flat) // 4)


def _messages(x, edges, size):  # type: ignore[no-untyped-def]
    """Sums up, for each of the four nodes of a row, what edges bring to it."""
    flat = tf.reshape(x, [-1, 3])
    edges = tf.reshape(edges + tf.range(count(x))[:, None] * size, [-1])
    return tf.reshape(tf.math.unsorted_segment_sum(tf.gather(flat, edges), edges, count(flat)), [-1, 4, 3])


_GATHERS = (
    ok("embedding", "int32 ?,4", lambda i: tf.gather(kernel(8, 3), i)),
    ok("embedding variable", "int32 ?", lambda i: tf.nn.embedding_lookup(variable(8, 3), i)),
    ok("embedding from columns", "int32 ?", lambda i: tf.gather(kernel(3, 8), i, axis=1, batch_dims=0)[0]),
    ok("one hot", "int32 ?,4", lambda i: tf.one_hot(i, 5)),
    mixes("one hot in front", "int32 ?", lambda i: tf.one_hot(i, 5, axis=0), "dimension 1 grows"),
    ok("gather features", "?,5", lambda x: tf.gather(x, [0, 3], axis=1)),
    ok("gather steps of each row", "?,4,3; int32 ?,2", lambda x, i: tf.gather(x, i, batch_dims=1)),
    ok("gather features of each row", "?,4,5; int32 ?,4", lambda x, i: tf.gather(x, i, axis=2, batch_dims=2)),
    mixes("first row by gather", "?,3", lambda x: x + tf.gather(x, 0), "the same row to all"),
    mixes("some rows by gather", "?,3", lambda x: x + tf.gather(x, [0]), "the same row to all"),
    mixes("rows by data", "?,3; int32 ?", lambda x, i: tf.gather(x, i), "by what a row holds"),
    ok("rows by their number", "?,3", lambda x: tf.gather(x, tf.range(count(x)))),
    mixes("rows in reverse", "?,3", lambda x: tf.gather(x, tf.range(count(x))[::-1]), "(GatherV2)"),
    mixes("the next row", "?,3", lambda x: tf.gather(x, (tf.range(count(x)) + 1) % count(x)), "looks up other rows"),
    mixes(
        "the row before", "?,3", lambda x: tf.gather(x, tf.maximum(tf.range(count(x)) - 1, 0)), "looks up other rows"
    ),
    unclear(
        "a row before by data",
        "?,3; int32 ?",
        lambda x, i: tf.gather(x, tf.maximum(tf.range(count(x)) - i, 0)),
        "(GatherV2)",
    ),
    unclear(
        "a row behind by data",
        "?,3; int32 ?",
        lambda x, i: tf.gather(x, (tf.range(count(x)) + i) % count(x)),
        "(GatherV2)",
    ),
    ok("beams", "?,2,3; int32 ?,2", lambda x, i: _beams(x, i, lambda n: 2 * tf.range(n)[:, None])),
    unclear(
        "beams of half a row",
        "?,2,3; int32 ?,2",
        lambda x, i: _beams(x, i, lambda n: tf.range(n)[:, None]),
        "(GatherV2)",
    ),
    ok("repeat by gather", "?,3", lambda x: tf.reshape(tf.gather(x, tf.repeat(tf.range(count(x)), 2)), [-1, 2, 3])),
    mixes(
        "repeat by gather, folded wrongly",
        "?,3",
        lambda x: tf.reduce_sum(tf.reshape(tf.gather(x, tf.repeat(tf.range(count(x)), 2)), [2, -1, 3]), 0),
        "mix",
    ),
    ok("gather_nd of a table", "int32 ?,2", lambda i: tf.gather_nd(kernel(4, 4), i)),
    ok("gather_nd of each row", "?,4,3; int32 ?,1", lambda x, i: tf.gather_nd(x, i, batch_dims=1)),
    ok(
        "gather_nd by number and data",
        "?,4,3; int32 ?",
        lambda x, i: tf.gather_nd(x, tf.stack([tf.range(count(x)), i], 1)),
    ),
    unclear(
        "gather_nd by data and number",
        "?,4,3; int32 ?",
        lambda x, i: tf.gather_nd(x, tf.stack([i, tf.minimum(tf.range(count(x)), 3)], 1)),
        "(GatherNd)",
    ),
    mixes("gather_nd of rows by data", "?,3; int32 ?", lambda x, i: tf.gather_nd(x, i[:, None]), "by what a row holds"),
    ok(
        "gather_nd of ends",
        "?,4,3; int32 ?,1",
        lambda x, i: tf.gather_nd(x, tf.concat([tf.range(count(x))[:, None], i], 1)),
    ),
    place(
        "gather of a table by number",
        "?,3",
        lambda x: x + tf.gather(kernel(16, 3), tf.range(count(x))),
        "numbers the rows",
    ),
    unclear("sorted rows", "?,3", lambda x: tf.gather(x, tf.argsort(x[:, 0])), "(TopKV2)"),
    unclear(
        "rows sorted and back",
        "?,3",
        lambda x: (lambda order: tf.gather(tf.gather(x, order) * 2, tf.argsort(order)))(tf.argsort(x[:, 0])),
        "(TopKV2)",
    ),
)

_WRAPPED = (
    ok(
        "beams, or such from the end",
        "?,2,3; int32 ?,2",
        lambda x, i: _beams(x, i, lambda n: 2 * tf.range(n)[:, None], 0),
    ),
    unclear(
        "beams, wrapped where they are not",
        "?,2,3; int32 ?,2",
        lambda x, i: _beams(x, i, lambda n: 2 * tf.range(n)[:, None], 1),
        "(GatherV2)",
    ),
)

_SCATTERS = (
    ok(
        "scatter in each row",
        "?,4; int32 ?; ?",
        lambda x, i, y: tf.tensor_scatter_nd_update(x, tf.stack([tf.range(count(x)), i], 1), y),
    ),
    ok("scatter to each its own", "?,3", lambda x: tf.scatter_nd(tf.range(count(x))[:, None], x, tf.shape(x))),
    mixes(
        "scatter to others",
        "?,3",
        lambda x: tf.scatter_nd(tf.range(count(x))[::-1][:, None], x, tf.shape(x)),
        "(ScatterNd)",
    ),
    ok(
        "bags of words",
        "int32 ?,3; ?,3",
        lambda i, y: tf.scatter_nd(
            tf.reshape(tf.stack([tf.repeat(tf.range(count(i))[:, None], 3, 1), i], -1), [-1, 2]),
            tf.reshape(y, [-1]),
            [count(i), 4],
        ),
    ),
    ok("weights of experts, scattered", "?,4,3", lambda x: _scattered(tf.reshape(x, [-1, 3]))),
    mixes(
        "scatter to the first row",
        "?,3",
        lambda x: tf.tensor_scatter_nd_update(x, [[0]], [[1.0, 2.0, 3.0]]),
        "certain rows",
    ),
    unclear(
        "scatter by data",
        "?,3; int32 ?,1",
        lambda x, i: tf.tensor_scatter_nd_add(tf.pad(x, [[0, 0], [0, 0]]), i, x),
        "(TensorScatterAdd)",
    ),
    unclear(
        "scatter by data and number",
        "?,4; int32 ?; ?",
        lambda x, i, y: tf.tensor_scatter_nd_update(x, tf.stack([i, tf.minimum(tf.range(count(x)), 3)], 1), y),
    ),
    unclear(
        "scatter of repeated rows in another order",
        "?,2; ?,2",
        lambda x, y: tf.tensor_scatter_nd_update(
            x,
            tf.stack([tf.repeat(tf.range(count(x)), 2), tf.tile(tf.range(2), [count(x)])], 1),
            tf.reshape(tf.transpose(y), [-1]),
        ),
        "(TensorScatterUpdate)",
    ),
    unclear(
        "segments by data",
        "?,3; int32 ?",
        lambda x, i: x + tf.math.unsorted_segment_sum(x, i, 3)[0],
        "(UnsortedSegmentSum)",
    ),
    ok("segments of each row", "?,4,3", lambda x: _pooled(tf.reshape(x, [-1, 3]), tf.repeat(tf.range(count(x)), 4))),
    unclear(
        "segments of other rows", "?,4,3", lambda x: _pooled(tf.reshape(x, [-1, 3]), tf.tile(tf.range(count(x)), [4]))
    ),
    ok("segments within each row", "?,4,3; int32 ?,4", lambda x, i: _messages(x, i % 4, 4)),
    unclear("segments of half a row", "?,4,3; int32 ?,4", lambda x, i: _messages(x, i % 4, 2)),
    ok(
        "segments of features",
        "?,4",
        lambda x: tf.transpose(tf.math.unsorted_segment_max(tf.transpose(x), [0, 1, 1, 0], 2)),
    ),
    mixes(
        "rows as features of segments", "?,4", lambda x: x + tf.math.unsorted_segment_sum(x[:4], [0, 0, 0, 0], 1), ""
    ),
    ok(
        "scatter in features",
        "?,3",
        lambda x: tf.transpose(tf.tensor_scatter_nd_update(tf.transpose(x), [[0]], tf.transpose(x[:, 1:2]))),
    ),
)

_BY_WHAT_THEY_HOLD = (
    ok("lookup table", "string ?,2", lambda x: _table().lookup(x)),
    unclear("unique", "int32 ?", lambda x: tf.unique(x)[1], "(Unique)"),
    unclear("where", "?,3", lambda x: x + tf.cast(tf.where(x > 0.5)[0, 0], tf.float32), "(Where)"),
    ok("mask of features", "?,4,3", lambda x: tf.reshape(tf.boolean_mask(x, kernel(4) > -9, axis=1), [count(x), -1])),
    ok("triangle", "?,3,3", lambda x: tf.reshape(tf.boolean_mask(x, np.tri(3, dtype=bool), axis=1), [-1, 6])),
    unclear("mask of rows", "?,3", lambda x: tf.boolean_mask(x, x[:, 0] > 0.5), ""),
    unclear("sparse and back", "?,3", lambda x: tf.sparse.to_dense(tf.sparse.from_dense(x)), ""),
    unclear(
        "ragged and back", "int32 ?,4; int32 ?", lambda x, n: tf.RaggedTensor.from_tensor(x, lengths=n).to_tensor(), ""
    ),
    unclear(
        "sequence mask of the longest",
        "int32 ?; ?,5",
        lambda n, x: x[:, :1] * tf.reduce_sum(tf.sequence_mask(n, dtype=tf.float32), 1, keepdims=True),
        "",
        "the mask is summed",
    ),
    ok("sequence mask", "int32 ?; ?,5", lambda n, x: x * tf.sequence_mask(n, 5, tf.float32)),
    ok(
        "mixture of experts",
        "?,3",
        lambda x: tf.einsum(
            "be,bed->bd", tf.nn.softmax(tf.matmul(x, kernel(3, 4))), tf.einsum("bd,edf->bef", x, kernel(4, 3, 2))
        ),
    ),
    mixes(
        "experts of limited room",
        "?,3",
        lambda x: (
            lambda chosen: (
                x * tf.reduce_sum(tf.cast(tf.cumsum(chosen, 0) * chosen <= 1, tf.float32) * chosen, 1, keepdims=True)
            )
        )(tf.one_hot(tf.argmax(tf.matmul(x, kernel(3, 2)), 1), 2)),
        "(Cumsum)",
    ),
)

CASES = (*_GATHERS, *_WRAPPED, *_SCATTERS, *_BY_WHAT_THEY_HOLD)
