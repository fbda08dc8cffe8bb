"""Loops that run until all rows are done: whether a row that is done stays as it is."""

import tensorflow as tf

from tests.passes.batching.rows.table import Case, count, counts, kernel, ok, unclear


def _steps(x, keep=lambda done, old, new: tf.where(done, old, new), flag=lambda done, now: done | now, result=1):  # type: ignore[no-untyped-def]
    """Halves rows until none is greater than 0.3, and counts how often."""

    def turn(i, x, n, done):  # type: ignore[no-untyped-def]
        return i + 1, keep(done, x, x * 0.5), keep(done, n, n + 1), flag(done, x * 0.5 < 0.3)

    start = (0.0, x, tf.zeros_like(x), tf.zeros_like(x, tf.bool))
    return tf.while_loop(lambda i, x, n, done: (i < 9) & ~tf.reduce_all(done), turn, start)[result]


def _any(x, mask):  # type: ignore[no-untyped-def]
    def turn(x, going):  # type: ignore[no-untyped-def]
        new = tf.where(mask(going)[:, None], x * 0.5, x)
        return new, going & (new[:, 0] > 0.3)

    start = (x, tf.ones([count(x)], tf.bool))
    return tf.while_loop(lambda x, going: tf.reduce_any(going), turn, start, maximum_iterations=9)[0]


def _rnn(
    x,
    n,
    past=lambda i, n: i >= n,
    bound=lambda n: tf.minimum(4, tf.maximum(1, tf.reduce_max(n))),
    padding=tf.zeros,
    place=lambda i: i,
    lengths=lambda n: n,
):  # type: ignore[no-untyped-def]
    """The states of each step, up to the row's length; behind it nothing."""
    end, out = bound(n), tf.TensorArray(tf.float32, 4, element_shape=[None, 3])
    items = tf.TensorArray(tf.float32, 4).unstack(tf.transpose(x, [1, 0, 2]))
    nothing, n = padding([count(x), 3]), lengths(n)

    def turn(i, state, out):  # type: ignore[no-untyped-def]
        new = tf.tanh(items.read(i) + tf.matmul(state, kernel(3, 3)))
        is_past = past(i, n)[:, None]
        return i + 1, tf.where(is_past, state, new), out.write(place(i), tf.where(is_past, nothing, new))

    _, state, out = tf.while_loop(lambda i, *_: i < end, turn, (0, tf.zeros([count(x), 3]), out))
    return state, tf.transpose(out.stack(), [1, 0, 2])


def _row(name: str, verdict, f, told: str = "") -> Case:  # type: ignore[no-untyped-def]
    return verdict(name, "?,4,3; int32 ?", f, told)


_UNTIL_ALL = (
    ok("rows that are done stay", "?", lambda x: (_steps(x), _steps(x, result=2))),
    ok("rows that are done stay, by any", "?,3", lambda x: _any(x, lambda going: going)),
    ok(
        "rows that are done stay, the other way about",
        "?",
        lambda x: _steps(x, lambda done, old, new: tf.where(tf.logical_not(done), new, old)),
    ),
    unclear(
        "rows that are done go on", "?", lambda x: _steps(x, lambda done, old, new: new), "until all rows are done"
    ),
    unclear("of those that are done one goes on", "?", lambda x: _steps(x, lambda done, old, new: old * 0 + new), ""),
    unclear("the flags are taken for their contrary", "?,3", lambda x: _any(x, lambda going: ~going), ""),
    unclear("who is done may go on", "?", lambda x: _steps(x, flag=lambda done, now: now), "until all rows are done"),
    unclear("number of turns until all are done", "?", lambda x: x * _steps(x, result=0), "until all rows are done"),
    unclear(
        "as many ones as turns",
        "?",
        lambda x: (
            x
            * tf.reduce_sum(
                tf.while_loop(
                    lambda i, y, out: tf.reduce_any(y > 0.3),
                    lambda i, y, out: (i + 1, y * 0.5, out.write(i, 1.0)),
                    (0, x, tf.TensorArray(tf.float32, 9, element_shape=[])),
                )[2].stack()
            )
        ),
        "until all rows are done",
    ),
)

_LENGTHS = (
    _row("up to the longest", ok, lambda x, n: _rnn(x, n)),
    _row("up to the longest, turned", ok, lambda x, n: _rnn(x, n, past=lambda i, n: ~(n > i))),
    _row("one step too many", unclear, lambda x, n: _rnn(x, n, past=lambda i, n: i > n)),
    _row("without a mask", unclear, lambda x, n: _rnn(x, n, past=lambda i, n: n < 0)),
    _row("with the lengths of others", unclear, lambda x, n: _rnn(x, n, lengths=lambda n: n * 2)),
    _row("up to one more than the longest", unclear, lambda x, n: _rnn(x, n, bound=lambda n: tf.reduce_max(n) + 1)),
    _row("up to the shortest", unclear, lambda x, n: _rnn(x, n, bound=lambda n: tf.maximum(1, tf.reduce_min(n)))),
    _row("ones behind the end", unclear, lambda x, n: _rnn(x, n, padding=tf.ones)[1]),
    _row("written over", unclear, lambda x, n: _rnn(x, n, place=lambda i: i // 2)[1]),
)

_LISTS = (
    ok(
        "ones in a list of fixed length",
        "?,3",
        lambda x: (
            x
            * tf.reduce_sum(
                tf.while_loop(
                    lambda i, _: i < 2,
                    lambda i, out: (i + 1, out.write(i, 1.0)),
                    (0, tf.TensorArray(tf.float32, 4, element_shape=[])),
                )[1].stack()
            )
        ),
    ),
    counts(
        "as many ones as rows",
        "?,3",
        lambda x: (
            x
            * tf.reduce_sum(
                tf.while_loop(
                    lambda i, _: i < count(x),
                    lambda i, out: (i + 1, out.write(i, 1.0)),
                    (0, tf.TensorArray(tf.float32, 16, element_shape=[])),
                )[1].stack()
            )
        ),
        "number of rows",
    ),
    unclear(
        "first rows written over",
        "?,3",
        lambda x: tf.while_loop(
            lambda i, _: i < 2,
            lambda i, out: (i + 1, out.write(i, tf.zeros([3]))),
            (0, tf.TensorArray(tf.float32, count(x), clear_after_read=False).unstack(x)),
        )[1].stack(),
        "of no row",
    ),
)

CASES = (*_UNTIL_ALL, *_LENGTHS, *_LISTS)
