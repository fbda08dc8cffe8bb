"""Loops over rows, over time, and such that rows decide about."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, counts, kernel, mixes, ok, place, same, unclear


def _each(x, turn, start=(0, 0), until=count, element=(3,)):  # type: ignore[no-untyped-def]
    """A loop that writes what `turn` makes of the list's item and of its number; reading and writing start apart."""
    items = tf.TensorArray(tf.float32, count(x)).unstack(x)
    out = tf.TensorArray(tf.float32, count(x), element_shape=element)
    n = until(x)
    return tf.while_loop(
        lambda i, j, _: i < n,
        lambda i, j, out: (i + 1, j + 1, out.write(j, turn(items.read(i), i))),
        (*start, out),
    )[2].stack()


def _times(x, turns, body=lambda x: x * 1.5):  # type: ignore[no-untyped-def]
    return tf.while_loop(lambda i, _: i < turns, lambda i, x: (i + 1, body(x)), (0, x))[1]


def _over_time(x, cell):  # type: ignore[no-untyped-def]
    steps = tf.TensorArray(tf.float32, tf.shape(x)[1]).unstack(tf.transpose(x, [1, 0, 2]))
    out = tf.TensorArray(tf.float32, tf.shape(x)[1])
    state = tf.zeros([count(x), 3])
    _, _, out = tf.while_loop(
        lambda i, *_: i < tf.shape(x)[1],
        lambda i, s, out: (lambda new: (i + 1, new, out.write(i, new)))(cell(steps.read(i), s)),
        (0, state, out),
    )
    return tf.transpose(out.stack(), [1, 0, 2])


def _picked(x, row):  # type: ignore[no-untyped-def]
    """A loop that writes what `row` picks for each number."""
    return tf.while_loop(
        lambda i, _: i < count(x),
        lambda i, out: (i + 1, out.write(i, row(i) * 2)),
        (0, tf.TensorArray(tf.float32, count(x), element_shape=[3])),
    )[1].stack()


def _blocks(x, f):  # type: ignore[no-untyped-def]
    return tf.reshape(tf.map_fn(f, tf.reshape(x, [-1, 3])), [-1, 4, 3])


def _halved(x):  # type: ignore[no-untyped-def]
    return tf.while_loop(lambda y: tf.reduce_any(y > 0.3), lambda y: y * 0.5, [x])[0]


_ROWS = (
    ok("map_fn", "?,3", lambda x: tf.map_fn(lambda row: row / tf.reduce_sum(row), x)),
    ok(
        "map_fn of two",
        "?,3; int32 ?",
        lambda x, i: tf.map_fn(lambda pair: pair[0][pair[1]], (x, i), fn_output_signature=tf.float32),
    ),
    ok("map_fn of images", "?,4,4,1", lambda x: tf.map_fn(lambda image: tf.image.rot90(image), x)),
    ok("nested map_fn", "?,4,3", lambda x: tf.map_fn(lambda row: tf.map_fn(tf.nn.softmax, row), x)),
    ok("vectorized map", "?,3", lambda x: tf.vectorized_map(lambda row: row * 2, x)),
    mixes(
        "map_fn with all rows",
        "?,3",
        lambda x: tf.map_fn(lambda row: row + tf.reduce_sum(x * row, 0), x),
        "a loop's turn",
    ),
    mixes(
        "map_fn with their mean",
        "?,3",
        lambda x: (lambda mean: tf.map_fn(lambda row: row - mean, x))(tf.reduce_mean(x, 0)),
        "(Mean)",
    ),
    counts(
        "map_fn with their number",
        "?,3",
        lambda x: tf.map_fn(lambda row: row / tf.cast(count(x), tf.float32), x),
        "number of rows",
    ),
    place(
        "map_fn with row numbers",
        "?,3",
        lambda x: tf.map_fn(
            lambda pair: pair[0] * tf.cast(pair[1], tf.float32), (x, tf.range(count(x))), fn_output_signature=tf.float32
        ),
        "numbers the rows",
    ),
    same("map_fn of a constant", "?,3", lambda x: tf.map_fn(lambda row: tf.constant([1.0, 2.0]), x)),
    mixes(
        "scan over rows", "?,3", lambda x: tf.scan(lambda s, row: s + row, x, tf.zeros([3])), "from one row to the next"
    ),
    mixes(
        "foldl over rows",
        "?,3",
        lambda x: x + tf.foldl(lambda s, row: s + row, x, tf.zeros([3])),
        "from one row to the next",
    ),
    mixes(
        "the last row of a loop",
        "?,3",
        lambda x: (
            lambda items: (
                x
                + tf.while_loop(lambda i, _: i < count(x), lambda i, row: (i + 1, items.read(i)), (0, tf.zeros([3])))[1]
            )
        )(tf.TensorArray(tf.float32, count(x)).unstack(x)),
        "",
    ),
    mixes(
        "fold that begins with the first row",
        "?,3",
        lambda x: x + tf.foldl(lambda s, row: s + row, x),
        "the same row to all",
    ),
    ok("loop over rows by hand", "?,3", lambda x: _each(x, lambda row, _: row * 2)),
    place("loop with its counter", "?,3", lambda x: _each(x, lambda row, i: row * tf.cast(i, tf.float32)), ""),
    unclear(
        "read and written apart", "?,3", lambda x: _each(x, lambda row, _: row, (0, 1), lambda x: count(x) - 1), ""
    ),
    unclear("from the second row", "?,3", lambda x: _each(x, lambda row, _: row, (1, 1)), ""),
    unclear(
        "two rows only", "?,3", lambda x: _each(x, lambda row, _: row, until=lambda x: tf.minimum(count(x), 2)), ""
    ),
    unclear(
        "loop in reverse",
        "?,3",
        lambda x: tf.while_loop(
            lambda i, _: i < count(x),
            lambda i, out: (i + 1, out.write(count(x) - 1 - i, x[i])),
            (0, tf.TensorArray(tf.float32, count(x), element_shape=[3])),
        )[1].stack(),
        "",
    ),
    ok("rows by slice in a loop", "?,3", lambda x: _picked(x, lambda i: x[i])),
    ok("parts of rows by slice in a loop", "?,4,3", lambda x: _picked(x, lambda i: x[i, 1])),
    ok("rows by gather in a loop", "?,3", lambda x: _picked(x, lambda i: tf.gather(x, i))),
    unclear("the next row by slice", "?,3", lambda x: _picked(x, lambda i: x[(i + 1) % count(x)])),
    unclear("the next row by gather", "?,3", lambda x: _picked(x, lambda i: tf.gather(x, (i + 1) % count(x)))),
    mixes("the first row by slice", "?,3", lambda x: _picked(x, lambda i: x[i] + x[0]), ""),
    unclear("rows up to this one", "?,3", lambda x: _picked(x, lambda i: tf.reduce_sum(x[: i + 1], 0)), ""),
    ok(
        "map_fn with a branch",
        "?,3",
        lambda x: tf.map_fn(lambda row: tf.cond(row[0] > 0.5, lambda: row, lambda: row * 2), x),
    ),
    ok("map_fn with a loop", "?,3", lambda x: tf.map_fn(lambda row: _times(row, 3), x)),
    ok("map_fn with a loop until the row is done", "?,3", lambda x: tf.map_fn(_halved, x)),
    ok(
        "map_fn with a loop that looks at all rows",
        "?,3",
        lambda x: tf.map_fn(
            lambda row: tf.while_loop(lambda y: tf.reduce_any(y > 0.3), lambda y: y / 2 + row / 9, [row])[0], x
        ),
    ),
    unclear(
        "map_fn with a loop that halves all rows",
        "?,3",
        lambda x: tf.map_fn(
            lambda row: tf.reduce_sum(
                tf.while_loop(lambda y, z: tf.reduce_any(y > 0.3), lambda y, z: (y * 0.5, z * 0.5), [row, x])[1], 0
            ),
            x,
        ),
        "outer loop's turn",
    ),
    ok("map_fn in blocks", "?,4,3", lambda x: _blocks(x, tf.nn.softmax)),
    ok(
        "map_fn in blocks of two kinds",
        "?,4,3; ?,4",
        lambda x, y: tf.reshape(
            tf.map_fn(lambda p: p[0] * p[1], (tf.reshape(x, [-1, 3]), tf.reshape(y, [-1])), tf.float32), [-1, 4, 3]
        ),
    ),
    mixes(
        "map_fn of blocks beside repeated rows",
        "?,4,3; ?,3",
        lambda x, y: tf.reshape(
            tf.map_fn(lambda p: p[0] * p[1], (tf.reshape(x, [-1, 3]), tf.tile(y, [4, 1])), tf.float32), [-1, 4, 3]
        ),
        "",
    ),
    mixes("scan over blocks", "?,4,3", lambda x: tf.scan(tf.add, tf.reshape(x, [-1, 3]))[: count(x)], ""),
    unclear(
        "half of the blocks",
        "?,2,3",
        lambda x: tf.reshape(
            _each(tf.reshape(x, [-1, 3]), lambda row, _: row, until=lambda x: count(x) // 2), [-1, 2, 3]
        ),
        "",
    ),
)

_TIME = (
    ok("recurrent cell", "?,4,3", lambda x: _over_time(x, lambda step, s: tf.tanh(step + tf.matmul(s, kernel(3, 3))))),
    mixes(
        "recurrent cell across rows",
        "?,4,3",
        lambda x: _over_time(x, lambda step, s: step + tf.nn.softmax(s + step, 0)),
        "(Softmax)",
    ),
    ok(
        "scan over time",
        "?,4,3",
        lambda x: tf.transpose(tf.scan(lambda s, step: s * 0.5 + step, tf.transpose(x, [1, 0, 2])), [1, 0, 2]),
    ),
    ok("foldl over time", "?,4,3", lambda x: tf.foldl(lambda s, step: s * 0.5 + step, tf.transpose(x, [1, 0, 2]))),
    ok("loop of fixed turns", "?,3", lambda x: _times(x, 3)),
    ok("loop of as many turns as steps", "?,?", lambda x: _times(x, tf.shape(x)[1])),
    mixes("loop that mixes", "?,3", lambda x: _times(x, 3, lambda y: y - tf.reduce_mean(y, 0)), "(Mean)"),
    counts("as many turns as rows", "?,3", lambda x: _times(x, count(x)), "number of rows"),
    counts(
        "counter behind a loop over rows",
        "?,3",
        lambda x: x * tf.cast(tf.while_loop(lambda i: i < count(x), lambda i: [i + 1], [0])[0], tf.float32),
        "number of rows",
    ),
    unclear("until all rows are done", "?,3", _halved, "until all rows are done"),
    ok(
        "greedy decoding",
        "int32 ?,1",
        lambda x: tf.while_loop(
            lambda i, ids: i < 3,
            lambda i, ids: (i + 1, tf.concat([ids, tf.argmax(tf.gather(kernel(8, 8), ids[:, -1:]), -1, tf.int32)], 1)),
            (0, x),
            (tf.TensorShape([]), tf.TensorShape([None, None])),
        )[1],
    ),
)

CASES = (*_ROWS, *_TIME)
