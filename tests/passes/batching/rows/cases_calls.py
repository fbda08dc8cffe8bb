"""Functions in functions, branches, what is captured."""

import functools

import tensorflow as tf

from tests.passes.batching.rows.table import count, counts, kernel, mixes, ok, unclear, variable


def _function(body):  # type: ignore[no-untyped-def]
    return functools.wraps(body)(tf.function(body, autograph=False))


@_function
def _fold(x, rows, steps):  # type: ignore[no-untyped-def]
    return tf.reshape(x, [rows * steps, -1])


@_function
def _unfold(x, rows, steps):  # type: ignore[no-untyped-def]
    return tf.reshape(x, [rows, steps, -1])


@_function
def _layer(x, rows, steps):  # type: ignore[no-untyped-def]
    return _unfold(tf.matmul(_fold(x, rows, steps), kernel(3, 3)), rows, steps)


@_function
def _layers(x, rows, steps):  # type: ignore[no-untyped-def]
    return _layer(_layer(x, rows, steps), rows, steps)


@_function
def _centered(x, axis_of):  # type: ignore[no-untyped-def]
    return x - tf.reduce_mean(x, axis_of, keepdims=True)


@_function
def _weighted(x):  # type: ignore[no-untyped-def]
    return tf.matmul(x, variable(3, 2)) + tf.constant(kernel(2))


@_function
def _pair(x, y):  # type: ignore[no-untyped-def]
    return y, x


_CALLS = (
    ok("three deep with the number of rows", "?,4,3", lambda x: _layers(x, count(x), 4)),
    ok("three deep with unknown steps", "?,?,3", lambda x: _layers(x, tf.shape(x)[0], tf.shape(x)[1])),
    mixes(
        "sizes passed the wrong way round",
        "?,4,3",
        lambda x: tf.reshape(tf.reduce_sum(_unfold(tf.transpose(x, [1, 0, 2]), count(x), 4), 1), [-1, 3]),
        "_unfold",
    ),
    ok("one function along features", "?,3", lambda x: _centered(x, tf.constant(1))),
    mixes("the same function along rows", "?,3", lambda x: _centered(x, tf.constant(0)), "_centered"),
    mixes("both", "?,3", lambda x: _centered(_centered(x, tf.constant(1)), tf.constant(0)), "_centered"),
    ok("variables within", "?,3", lambda x: _weighted(_weighted(x) @ kernel(2, 3))),
    ok("results change places", "?,3; ?,2", lambda x, y: _pair(x, y)),
    mixes("only one result mixes", "?,3; ?,3", lambda x, y: _pair(x, tf.nn.softmax(y, 0)), 'Output "'),
    ok("what mixes is not used", "?,3", lambda x: _pair(x, tf.nn.softmax(x, 0))[1]),
    counts(
        "number of rows within",
        "?,3",
        lambda x: _pair(count(x), x)[0] * 2.0 * tf.cast(_pair(x, count(x))[0], tf.float32),
    ),
)

_BRANCHES = (
    ok("branch by a constant", "?,3", lambda x: tf.cond(variable(1)[0] > 0, lambda: x * 2, lambda: x + 1)),
    mixes(
        "one branch mixes", "?,3", lambda x: tf.cond(variable(1)[0] > -100, lambda: tf.cumsum(x), lambda: x), "(Cumsum)"
    ),
    ok("branch by a size of a row", "?,?", lambda x: tf.cond(tf.shape(x)[1] > 2, lambda: x * 2, lambda: x)),
    counts(
        "branch by the number of rows",
        "?,3",
        lambda x: tf.cond(count(x) > 2, lambda: x * 2, lambda: x),
        "number of rows",
    ),
    unclear(
        "branch by all rows",
        "?,3",
        lambda x: tf.cond(tf.reduce_sum(x) > 5, lambda: x * 2, lambda: x),
        "decide together",
    ),
    unclear(
        "branch by the first row", "?,3", lambda x: tf.cond(x[0, 0] > 0.5, lambda: x * 2, lambda: x), "decide together"
    ),
    ok(
        "switch by a constant",
        "?,3",
        lambda x: tf.switch_case(tf.cast(variable(1)[0], tf.int32) * 0 + 1, [lambda: x, lambda: x * 2, lambda: x - 1]),
    ),
    unclear(
        "switch by rows",
        "int32 ?",
        lambda x: tf.switch_case(x[0], [lambda: x, lambda: x * 2, lambda: x - 1]),
        "decide together",
    ),
    unclear(
        "rows apart in branches",
        "?,3",
        lambda x: tf.reshape(tf.cond(variable(1)[0] > 0, lambda: x[None], lambda: x[:, None]), [-1, 3]),
        "elsewhere in each of its branches",
    ),
    ok(
        "a branch of a constant",
        "?,3",
        lambda x: tf.cond(variable(1)[0] > 9, lambda: tf.zeros([count(x), 3]), lambda: x),
    ),
    ok(
        "branch of functions",
        "?,4,3",
        lambda x: tf.cond(variable(1)[0] > 0, lambda: _layer(x, count(x), 4), lambda: _layers(x, count(x), 4)),
    ),
)

CASES = (*_CALLS, *_BRANCHES)
