"""Lists that loops fill, and what else they change in every turn."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, ok, same, unclear, variable

_raw = tf.raw_ops


def _list(x):  # type: ignore[no-untyped-def]
    return tf.TensorArray(tf.float32, count(x), element_shape=[3])


def _rows(x, turn, *start, turns=count):  # type: ignore[no-untyped-def]
    """A loop of as many turns as rows; what begins as `start` is changed by `turn`, and the first of it stacked."""
    return tf.while_loop(lambda i, *_: i < turns(x), lambda i, *now: (i + 1, *turn(i, *now)), (0, *start))[1].stack()


def _pushed(x, before):  # type: ignore[no-untyped-def]
    """A list onto which each row is pushed, behind as many zeros as `before` says."""
    rows = _raw.EmptyTensorList(element_shape=[3], max_num_elements=-1, element_dtype=tf.float32)
    for _ in range(before):
        rows = _raw.TensorListPushBack(input_handle=rows, tensor=tf.zeros([3]))
    pushed = tf.while_loop(
        lambda i, rows: i < count(x),
        lambda i, rows: (i + 1, _raw.TensorListPushBack(input_handle=rows, tensor=x[i])),
        (0, rows),
    )[1]
    stacked = _raw.TensorListStack(input_handle=pushed, element_shape=[3], element_dtype=tf.float32)
    return tf.gather(stacked, tf.range(count(x)))


def _ones(i, out):  # type: ignore[no-untyped-def]
    return [out.write(i, tf.ones([3]))]


_FILLED = (
    ok("pushed", "?,3", lambda x: _pushed(x, 0)),
    unclear("pushed behind another", "?,3", lambda x: _pushed(x, 1), "each item of a list"),
    same("ones for each row", "?,3", lambda x: _rows(x, _ones, _list(x))),
    unclear(
        "ones for the first row",
        "?,3",
        lambda x: x * _rows(x, _ones, _list(x), turns=lambda x: 1),
        "each item of a list",
    ),
    unclear(
        "ones for the first row of zeros",
        "?,3",
        lambda x: x * _rows(x, _ones, _list(x).unstack(tf.zeros([count(x), 3])), turns=lambda x: 1),
    ),
    unclear("ones for half of the rows", "?,3", lambda x: x * _rows(x, _ones, _list(x), turns=lambda x: count(x) // 2)),
    unclear("ones without a loop", "?,3", lambda x: x * _list(x).write(0, tf.ones([3])).stack(), "a certain place"),
    unclear(
        "two lists in turns",
        "?,3",
        lambda x: _rows(x, lambda i, a, b: (b, a), _list(x).unstack(x), _list(x).unstack(x * 2)),
    ),
    unclear(
        "two lists filled in turns",
        "?,3",
        lambda x: _rows(x, lambda i, a, b: (b.write(i, x[i]), a), _list(x), _list(x)),
    ),
    unclear(
        "steps for rows",
        "?,8",
        lambda x: _rows(x, lambda i, out: [out.write(i, tf.gather(x, i, axis=1)[:3])], _list(x)),
    ),
    unclear(
        "constants of which a row has several",
        "?,2,3",
        lambda x: tf.map_fn(
            lambda each: each[0] * each[1],
            (tf.reshape(x, [-1, 3]), tf.repeat([1.0, 9.0], count(x))),
            fn_output_signature=tf.float32,
        )[::2],
    ),
)


def _carried(start, step):  # type: ignore[no-untyped-def]
    return lambda x: _rows(x, lambda i, out, c: (out.write(i, x[i] * c), step(c)), _list(x), tf.constant(start))


_CARRIED = (
    ok("a constant for each turn", "?,3", _carried(2.0, lambda c: c)),
    unclear("a constant halved in every turn", "?,3", _carried(1.0, lambda c: c * 0.5), "in every turn"),
    unclear("a constant turned in every turn", "?,3", _carried(1.0, lambda c: -c), "in every turn"),
    unclear("a constant counting from one", "?,3", _carried(1.0, lambda c: c + 1), "in every turn"),
    unclear("a constant but for the first turn", "?,3", _carried(1.0, lambda c: tf.constant(2.0)), "in every turn"),
)


_FINISHED = (
    *(
        verdict(
            name,
            "?",
            lambda x, grows=grows: tf.reduce_mean(
                tf.while_loop(
                    lambda i, x, done, out: ~tf.reduce_all(done),
                    lambda i, x, done, out: (
                        i + 1,
                        tf.where(done, x, x * 0.5),
                        done | (x * 0.5 < 0.3),
                        out.write(i, tf.where(done, tf.zeros_like(x), x)),
                    ),
                    (
                        0,
                        x,
                        tf.zeros_like(x, tf.bool),
                        tf.TensorArray(tf.float32, 1 if grows else 5, grows, element_shape=[None]),
                    ),
                )[3].stack(),
                0,
            ),
        )
        for verdict, name, grows in ((ok, "mean of steps", False), (unclear, "mean of as many steps as turns", True))
    ),
)

_STATE = (
    unclear(
        "a variable that was written",
        "?",
        lambda x: (variable(7).assign(tf.fill([7], tf.reduce_mean(x))), x - variable(7)[0])[1],
        "written before",
    ),
)

CASES = (*_FILLED, *_CARRIED, *_FINISHED, *_STATE)
