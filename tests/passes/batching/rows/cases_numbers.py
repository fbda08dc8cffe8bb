"""The number of rows, the places of rows, and chance."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, counts, kernel, mixes, ok, place, same, unclear

_NUMBERS = (
    place(
        "range times rows", "?,3", lambda x: x * tf.cast(tf.range(count(x)), tf.float32)[:, None], "numbers the rows"
    ),
    place("the range itself", "?,3", lambda x: tf.range(count(x)), "numbers the rows"),
    place("linspace", "?", lambda x: x + tf.linspace(0.0, 1.0, count(x)), "numbers the rows"),
    ok("range of steps", "?,4", lambda x: x * tf.range(4.0)),
    ok("range of unknown steps", "?,?", lambda x: x * tf.cast(tf.range(tf.shape(x)[1]), tf.float32)),
    counts("rows of eye", "?,3", lambda x: x + tf.reduce_sum(tf.eye(count(x))[:, :1] + 0.0, 1, keepdims=True)),
    counts("divided by the number", "?,3", lambda x: x / tf.cast(count(x), tf.float32), "gives the number of rows"),
    counts("the number itself", "?", lambda x: tf.fill([count(x)], count(x)), "gives the number of rows"),
    counts("size", "?,3", lambda x: x * tf.cast(tf.size(x), tf.float32), "(Size)"),
    ok("size of a row", "?,3", lambda x: x * tf.cast(tf.size(x) // count(x), tf.float32)),
    ok("number divided out", "?,3", lambda x: x * tf.cast(count(x) * 3 // count(x), tf.float32)),
    counts("sum of as many ones", "?,3", lambda x: x * tf.reduce_sum(tf.ones([count(x)])), "works along the number"),
    counts("cumsum of as many ones", "?", lambda x: x * tf.cumsum(tf.ones([count(x)])), "works along the number"),
    counts("mean by hand", "?,3", lambda x: x - 1.0 / tf.cast(count(x), tf.float32)),
    ok("zeros beside the rows", "?,3", lambda x: tf.concat([x, tf.zeros([count(x), 2])], 1)),
    ok("zeros like", "?,3", lambda x: x + tf.zeros_like(x) + tf.ones_like(x)),
    same("zeros", "?,3", lambda x: tf.zeros([count(x), 2])),
    same("constant for each row", "?,3", lambda x: tf.tile([[1.0, 2.0]], [count(x), 1])),
    ok(
        "state that begins at zero",
        "?,3",
        lambda x: tf.matmul(tf.concat([x, tf.fill([count(x), 2], 0.5)], 1), kernel(5, 2)),
    ),
    counts("fewer rows, another model", "?,3", lambda x: tf.where(count(x) > 2, x, x * 2), "gives the number of rows"),
    counts(
        "one hot as deep as there are rows",
        "int32 ?",
        lambda i: tf.reduce_sum(tf.one_hot(i, count(i)), 1),
        "number of rows",
    ),
    counts(
        "best of as many as rows", "?,9", lambda x: tf.reduce_sum(tf.math.top_k(x, count(x))[0], 1), "number of rows"
    ),
    counts(
        "resized by the number",
        "?,4,4,1",
        lambda x: tf.reduce_sum(tf.image.resize(x, [count(x), 4], "nearest"), [1, 2, 3]),
        "number of rows",
    ),
    ok("noise", "?,3", lambda x: x + 0 * tf.random.uniform(tf.shape(x))),
    ok("multinomial", "?,3", lambda x: 0 * tf.random.categorical(x, 2)),
    counts(
        "noise by seed",
        "?,3",
        lambda x: x + tf.random.stateless_uniform(tf.shape(x), [1, 2]),
        "gives the number of rows",
    ),
    mixes("shuffled", "?,3", lambda x: tf.random.shuffle(x, seed=1), "(RandomShuffle)"),
    unclear(
        "op that nobody knows", "string ?", lambda x: tf.strings.unicode_split_with_offsets(x, "UTF-8")[0].to_tensor("")
    ),
    ok("rows are there at all", "?,3", lambda x: tf.where(count(x) > 0, x, x * 2)),
    counts("at most two", "?,3", lambda x: x * tf.cast(tf.minimum(count(x), 2), tf.float32), "number of rows"),
    ok("at least one", "?,3", lambda x: x * tf.cast(tf.minimum(count(x), 1), tf.float32)),
    counts(
        "exactly as many", "?,3", lambda x: tf.cond(tf.equal(count(x), 2), lambda: x, lambda: x * 2), "number of rows"
    ),
    ok("as many of both", "?,3; ?,3", lambda x, y: tf.cond(tf.equal(count(x), count(y)), lambda: x, lambda: y)),
    ok("rank", "?,3", lambda x: x * tf.cast(tf.rank(x), tf.float32)),
    ok("shapes of several", "?,3; ?,4", lambda x, y: tf.reshape(y, [tf.shape_n([x, y])[0][0], 2, 2])),
    mixes(
        "mean over rows as sum by number",
        "?,3",
        lambda x: x - tf.reduce_sum(x, 0) / tf.cast(count(x), tf.float32),
        "(Sum)",
    ),
    unclear(
        "only the size of rows that are summed",
        "?,3",
        lambda x: x * tf.cast(tf.shape(tf.concat([x, tf.ones([2, 3])], 0))[0], tf.float32),
        "(ConcatV2)",
    ),
    ok("the number in a name only", "?,3", lambda x: tf.ensure_shape(tf.reshape(x, [count(x), 3]), [None, 3])),
)

_CONSTANTS = (
    unclear(
        "sum along as many zeros",
        "?",
        lambda x: tf.reduce_sum(x[:, None] + tf.zeros([1, count(x)]), 1),
        "number of rows",
    ),
    ok("one of as many zeros", "?", lambda x: (x[:, None] + tf.zeros([1, count(x)]))[:, 0]),
    unclear(
        "sum along as many copies",
        "?",
        lambda x: tf.reduce_sum(tf.tile(x[:, None], [1, count(x)]), 1),
        "number of rows",
    ),
    unclear(
        "product with as many ones",
        "?,3",
        lambda x: tf.reduce_sum(tf.matmul(x, tf.ones([3, count(x)])), 1),
        "number of rows",
    ),
    unclear("one more one than rows", "?", lambda x: x * tf.reduce_sum(tf.ones([count(x) + 1])), "no multiple"),
    unclear("ones by rows squared", "?", lambda x: x * tf.reduce_sum(tf.ones([count(x) * count(x)])), "no multiple"),
    unclear(
        "places of as many ones",
        "?",
        lambda x: x * tf.cast(tf.where(tf.ones([count(x)]) > 0)[:, 0], tf.float32),
        "(Where)",
    ),
    unclear(
        "constants as blocks",
        "?,2",
        lambda x: tf.reshape(tf.reshape(x, [-1]) * tf.repeat([1.0, 9.0], count(x)), [-1, 2]),
        "in another order",
    ),
    ok(
        "constants as blocks of rows",
        "?,2",
        lambda x: tf.reshape(tf.reshape(x, [-1]) * tf.tile([1.0, 9.0], [count(x)]), [-1, 2]),
    ),
    ok("ones as many as both", "?,2", lambda x: tf.reshape(tf.reshape(x, [-1]) * tf.ones([2 * count(x)]), [-1, 2])),
    counts("number by eight", "?", lambda x: x * tf.cast((count(x) + 4) // 8, tf.float32), "number of rows"),
    ok("number by eight, upwards", "?", lambda x: x * tf.cast((count(x) + 7) // 8, tf.float32)),
    counts("number by number", "?", lambda x: x * tf.cast(12 // (count(x) + 4), tf.float32), "number of rows"),
    counts(
        "from a table by number",
        "?",
        lambda x: x * tf.gather([0.0, 5, 5, 5, 7, 5, 5, 5, 7], count(x)),
        "number of rows",
    ),
    ok("never as many", "?", lambda x: x * tf.cast(count(x) > 8, tf.float32)),
    unclear(
        "chance by seed",
        "?,4",
        lambda x: tf.raw_ops.StatelessMultinomial(logits=x * 0.0, num_samples=8, seed=[1, 2], output_dtype=tf.int32),
        "(StatelessMultinomial)",
    ),
)

CASES = (*_NUMBERS, *_CONSTANTS)
