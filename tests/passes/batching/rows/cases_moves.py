"""Ops that move rows: transposes, reshapes, blocks, slices, pads."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, counts, kernel, mixes, ok, place, unclear

_SHAPES = (
    ok("transpose and back", "?,4,3", lambda x: tf.transpose(tf.transpose(x, [1, 0, 2]) + 1, [1, 0, 2])),
    mixes("rows behind features", "?,3", lambda x: tf.transpose(x), "dimension 1 grows with the batch"),
    ok("expand and squeeze", "?,3", lambda x: tf.squeeze(tf.expand_dims(x, 1) * 2, 1)),
    ok(
        "squeeze all of one",
        "?,1,3,1",
        lambda x: tf.squeeze(x),
        because="a single row loses its dimension, which the shape rules tell",
    ),
    ok("expand in front", "?,3", lambda x: tf.expand_dims(x, 0)[0]),
    ok(
        "fold time into rows",
        "?,4,3",
        lambda x: tf.reshape(tf.matmul(tf.reshape(x, [-1, 3]), kernel(3, 2)), [-1, 4, 2]),
    ),
    ok(
        "fold time of unknown length",
        "?,?,3",
        lambda x: tf.reshape(tf.matmul(tf.reshape(x, [-1, 3]), kernel(3, 2)), [count(x), -1, 2]),
    ),
    ok("flatten", "?,4,3", lambda x: tf.reshape(x, [count(x), -1])),
    ok("flatten by product", "?,4,3", lambda x: tf.reshape(x, [-1, 12])),
    ok(
        "heads into the batch",
        "?,4,6",
        lambda x: tf.reshape(
            tf.transpose(
                tf.reshape(
                    tf.nn.softmax(tf.reshape(tf.transpose(tf.reshape(x, [-1, 4, 2, 3]), [0, 2, 1, 3]), [-1, 4, 3]), 1),
                    [-1, 2, 4, 3],
                ),
                [0, 2, 1, 3],
            ),
            [-1, 4, 6],
        ),
    ),
    ok(
        "heads in front of the batch",
        "?,4,6",
        lambda x: tf.concat(tf.split(tf.nn.softmax(tf.concat(tf.split(x, 2, 2), 0), 1), 2, 0), 2),
    ),
    ok(
        "windows",
        "?,4,4,3",
        lambda x: tf.reshape(
            tf.transpose(
                tf.reshape(
                    tf.nn.softmax(
                        tf.reshape(tf.transpose(tf.reshape(x, [-1, 2, 2, 2, 2, 3]), [0, 1, 3, 2, 4, 5]), [-1, 4, 3]), 1
                    ),
                    [-1, 2, 2, 2, 2, 3],
                ),
                [0, 1, 3, 2, 4, 5],
            ),
            [-1, 4, 4, 3],
        ),
    ),
    ok("patches of rows", "?,8", lambda x: tf.reshape(tf.reshape(x, [-1, 2]) * [1.0, 2.0], [-1, 8])),
    mixes(
        "rows read as columns",
        "?,4",
        lambda x: tf.reshape(tf.reshape(x, [4, count(x)]) * tf.range(1.0, 5.0)[:, None], tf.shape(x)),
        "in which they mix",
    ),
    mixes(
        "time folded the wrong way",
        "?,4,3",
        lambda x: tf.reshape(tf.reduce_sum(tf.reshape(tf.transpose(x, [1, 0, 2]), [count(x), 4, 3]), 1), [-1, 3]),
        "in which they mix",
    ),
    unclear(
        "deviations in groups",
        "?,3",
        lambda x: x + tf.reduce_mean(tf.math.reduce_std(tf.reshape(x, [2, -1, 3]), 0)),
        "(Reshape)",
    ),
    unclear("pairs of rows", "?,3", lambda x: tf.reshape(tf.reshape(x, [-1, 6]) + tf.range(6.0), [-1, 3]), "(Reshape)"),
    mixes("all rows as one", "?,3", lambda x: tf.reshape(tf.nn.softmax(tf.reshape(x, [1, -1])), [-1, 3]), "(Softmax)"),
    ok("one row in front", "?,3", lambda x: tf.reshape(tf.reshape(x, [1, -1, 3]) * 2, [-1, 3])),
    ok("shape of another", "?,4,3; ?,12", lambda x, y: tf.reshape(y, tf.shape(x)) + x),
    ok("broadcast to", "?,1", lambda x: tf.broadcast_to(x, [count(x), 3])),
    mixes("rows broadcast to all", "?", lambda x: tf.reduce_sum(tf.broadcast_to(x, [count(x), count(x)]), 1), "(Sum)"),
    ok("meshgrid of features", "?,3", lambda x: x[:, None, :] - x[:, :, None]),
)

_PARTS = (
    ok("concat inside", "?,3; ?,2", lambda x, y: tf.concat([x, y], -1)),
    ok("concat a constant inside", "?,3", lambda x: tf.concat([x, tf.ones([count(x), 2])], 1)),
    unclear("concat of rows", "?,3; ?,3", lambda x, y: tf.concat([x, y], 0), "one by one"),
    ok("two towers in one", "?,3; ?,3", lambda x, y: tf.subtract(*tf.split(tf.nn.relu(tf.concat([x, y], 0)), 2, 0))),
    unclear("halves of one", "?,3", lambda x: tf.concat([x, x], 0)[::2], "(StridedSlice)"),
    ok("twice as many, cut", "?,3", lambda x: tf.concat([x, x * 2], 0)[: count(x)]),
    ok("second half of two", "?,3", lambda x: tf.concat([x, x * 2], 0)[count(x) :]),
    unclear("a constant row behind", "?,3", lambda x: tf.concat([x, tf.ones([1, 3])], 0)[: count(x)], "(ConcatV2)"),
    ok("split inside", "?,4", lambda x: tuple(tf.split(x, 2, 1))),
    ok("split inside by sizes", "?,4", lambda x: tuple(tf.split(x, [1, 3], 1))),
    ok("stack", "?,3; ?,3", lambda x, y: tf.stack([x, y], 1)),
    mixes("stack in front", "?,3; ?,3", lambda x, y: tf.stack([x, y]), "dimension 1 grows"),
    ok("stack in front and sum", "?,3; ?,3", lambda x, y: tf.reduce_sum(tf.stack([x, y]), 0)),
    ok("unstack inside", "?,3", lambda x: tuple(tf.unstack(x, axis=1))),
    ok("tile inside", "?,3", lambda x: tf.tile(x, [1, 2])),
    unclear("tile of rows", "?,3", lambda x: tf.tile(x, [2, 1]), "one by one"),
    ok("tile of rows and back", "?,3", lambda x: tf.reduce_sum(tf.reshape(tf.tile(x, [2, 1]), [2, -1, 3]), 0)),
    mixes(
        "tile of rows, folded wrongly",
        "?,3",
        lambda x: tf.reduce_sum(tf.reshape(tf.tile(x, [2, 1]), [-1, 2, 3]), 1),
        "mix",
    ),
    ok("repeat and fold", "?,3", lambda x: tf.reduce_sum(tf.reshape(tf.repeat(x, 2, 0) * 2, [-1, 2, 3]), 1)),
    mixes(
        "repeat, folded wrongly", "?,3", lambda x: tf.reduce_sum(tf.reshape(tf.repeat(x, 2, 0), [2, -1, 3]), 0), "mix"
    ),
    mixes(
        "tiled meets repeated",
        "?,3",
        lambda x: tf.reduce_sum(tf.reshape(tf.tile(x, [2, 1]) * tf.repeat(x, 2, 0), [-1, 2, 3]), 1),
        "different rows",
    ),
    ok("batch of one class token", "?,4,3", lambda x: tf.concat([tf.tile(kernel(1, 1, 3), [count(x), 1, 1]), x], 1)),
)

_SLICES = (
    mixes("first rows", "?,3", lambda x: x + x[:1], "picks some of the rows"),
    mixes("first row", "?,3", lambda x: x + x[0], "picks some of the rows"),
    mixes("last row", "?,3", lambda x: x + x[-1], "picks some of the rows"),
    mixes("reversed rows", "?,3", lambda x: x[::-1], "another order"),
    unclear("all rows but the last", "?,3", lambda x: x - tf.concat([x[:1], x[:-1]], 0), "may join all rows again"),
    mixes("every other row", "?,3", lambda x: tf.repeat(x[::2], 2, 0)[: count(x)], "picks some of the rows"),
    ok("reversed features", "?,3", lambda x: x[:, ::-1]),
    ok("features", "?,3", lambda x: x[:, 1:] + x[..., :-1]),
    ok("one feature", "?,3", lambda x: x[:, 0]),
    ok("new axis", "?,3", lambda x: x[:, tf.newaxis, ..., 0]),
    ok("whole slice", "?,3", lambda x: x[: count(x)]),
    ok("whole slice by size", "?,3", lambda x: tf.slice(x, [0, 1], [count(x), 2])),
    ok("whole slice by -1", "?,3", lambda x: tf.slice(x, [0, 1], [-1, 2])),
    mixes("slice by size", "?,3", lambda x: x + tf.slice(x, [0, 0], [1, 3]), "(Slice)"),
    ok("features from a place of the request's", "?,5; int32 ?", lambda x, n: tf.gather(x, n, axis=1, batch_dims=1)),
    unclear(
        "features up to a place of all",
        "?,5; int32 ?",
        lambda x, n: tf.pad(x[:, : tf.reduce_max(n) + 1], [[0, 0], [0, 5]])[:, :5],
        "decide together",
    ),
    mixes("slice of rows behind a transpose", "?,3", lambda x: x + tf.transpose(tf.transpose(x)[:, :1]), "picks some"),
    ok("pad inside", "?,3", lambda x: tf.pad(x, [[0, 0], [1, 1]])),
    ok("mirror inside", "?,3", lambda x: tf.pad(x, [[0, 0], [1, 1]], "REFLECT")),
    unclear("pad rows", "?,3", lambda x: tf.pad(x, [[1, 0], [0, 0]])[:-1], "(Pad)"),
    unclear("pad rows and cut", "?,3", lambda x: tf.pad(x, [[0, 1], [0, 0]])[:-1], "(Pad"),
    counts("features up to the number of rows", "?,9", lambda x: tf.reduce_sum(x[:, : count(x)], 1), "number of rows"),
    counts("features from the number of rows", "?,9", lambda x: tf.reduce_sum(x[:, count(x) :], 1), "number of rows"),
    counts("roll by the number of rows", "?,9", lambda x: tf.roll(x, count(x), 1), "number of rows"),
    counts(
        "pad by the number of rows",
        "?,3",
        lambda x: tf.reduce_mean(tf.pad(x, [[0, 0], [0, count(x)]]), 1),
        "number of rows",
    ),
    place("table cut to the rows", "?,3", lambda x: x + tf.constant(kernel(16, 3))[: count(x)], "stands at its place"),
    ok("table cut to the steps", "?,?,3", lambda x: x + tf.constant(kernel(16, 3))[: tf.shape(x)[1]]),
)

CASES = (*_SHAPES, *_PARTS, *_SLICES)
