"""The ops that random models are made of: each row of a result depends on the same row of the operands only.

A table: an op's name, how it is applied, and to what. Tensors have the batch in dimension 0 and known sizes elsewhere.
`n`, a number of the spec, becomes whatever the op needs: an axis, a size, the choice of a weight.

Some models are exact: their floats hold small integers, and so does every intermediate result, whatever the order of
additions and even in bfloat16. An op whose results may be larger than its operands says that it `grows`; its result is
folded back to -3..3. What rounds is for the other models only (`SMOOTH`); what jumps where its operand hardly changes,
such as a comparison, is for exact models only (`EXACT`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tests.properties.row_functions import (
    affine,
    along,
    attention,
    batch_gather,
    batch_norm,
    bias_add,
    call,
    call_in_branch,
    call_in_loop,
    call_twice,
    class_token,
    cond,
    conv1d,
    conv2d,
    depthwise,
    einsum,
    einsum_heads,
    embedding,
    filled,
    fold_and_sum,
    folded_matmul,
    gather,
    inline,
    inner_range,
    last_to_front,
    layer_norm,
    map_rows,
    matmul,
    one_hot,
    pad,
    positions,
    reshape,
    select,
    sliced,
    split,
    stack,
    steps_loop,
    switch,
    tensordot,
    tile,
    to_other,
    transpose,
    turned,
    unstack,
    while_loop,
    with_zeros,
)
from tests.properties.row_op import EXACT, SMOOTH, Context, Op, axis_of, fold


def _last(row: tuple[int, ...]) -> int:
    return row[-1]


def _square_of_last(row: tuple[int, ...]) -> int:
    return 2 * row[-1]  # both factors may be 3


def _window(row: tuple[int, ...]) -> int:
    return 4 * row[-1]


ANY_ROW, ROW = (2, 5), (2, 4)
OPS: dict[str, Op] = {
    # elementwise
    "neg": Op(inline(tf.negative)),
    "abs": Op(inline(tf.abs)),
    "sign": Op(inline(tf.sign), when=EXACT),
    "relu": Op(inline(tf.nn.relu)),
    "relu6": Op(inline(tf.nn.relu6), "float"),
    "leaky": Op(inline(tf.nn.leaky_relu), "float", when=SMOOTH),
    "clip": Op(lambda c, n, x: tf.clip_by_value(x, tf.cast(-1, x.dtype), tf.cast(2, x.dtype))),
    "double": Op(lambda c, n, x: x * 2 + 1, grows=True),
    "square": Op(lambda c, n, x: tf.square(x if c.exact else tf.tanh(x)), "float", grows=True),
    "tanh": Op(inline(tf.tanh), "float", when=SMOOTH),
    "sigmoid": Op(inline(tf.sigmoid), "float", when=SMOOTH),
    "gelu": Op(inline(tf.nn.gelu), "float", when=SMOOTH),
    "exp": Op(lambda c, n, x: tf.exp(tf.tanh(x)), "float", when=SMOOTH),
    "softsign": Op(inline(tf.nn.softsign), "float", when=SMOOTH),
    "add": Op(inline(tf.add), binary=True, grows=True),
    "sub": Op(inline(tf.subtract), binary=True, grows=True),
    "mul": Op(lambda c, n, x, y: x * y if c.exact else x * tf.tanh(y), "float", binary=True, grows=True),
    "maximum": Op(inline(tf.maximum), binary=True),
    "minimum": Op(inline(tf.minimum), binary=True),
    "divide": Op(lambda c, n, x, y: x / (1.0 + tf.abs(y)), "float32", binary=True, when=SMOOTH),
    "select": Op(select, binary=True, when=EXACT),
    "greater": Op(inline(tf.greater), binary=True, when=EXACT),
    "equal": Op(inline(tf.equal), "any", binary=True, when=EXACT),
    "not": Op(inline(tf.logical_not), "bool"),
    "and": Op(inline(tf.logical_and), "bool", binary=True),
    "from_bool": Op(lambda c, n, x: tf.cast(x, tf.float32), "bool"),
    "to_bool": Op(lambda c, n, x: x > tf.cast(n % 3, x.dtype), when=EXACT),
    "cast": Op(to_other, when=EXACT),
    "from_int": Op(lambda c, n, x: tf.cast(x, tf.float32), "int"),
    "identity": Op(inline(tf.identity), "any"),
    "stop_gradient": Op(inline(tf.stop_gradient), "float"),
    "zeros_like": Op(lambda c, n, x: x + tf.ones_like(x), grows=True),
    # weights
    "matmul": Op(matmul, "float", (2, 2), grows=True, product=_last),
    # Not of rank 4: multiplied by a matrix, oneDNN writes outside of its result (TensorFlow 2.21).
    "batch_matmul": Op(matmul, "float", (3, 3), grows=True, product=_last),
    "einsum": Op(einsum, "float", ANY_ROW, grows=True, product=_last),
    "einsum_heads": Op(einsum_heads, "float", (3, 3), grows=True, product=_last, bigger=True),
    "tensordot": Op(tensordot, "float", (3, 4), grows=True, product=_last),
    "folded_matmul": Op(folded_matmul, "float", (3, 3), grows=True, product=_last),
    "affine": Op(affine, "float", ANY_ROW, grows=True),
    "bias_add": Op(bias_add, "float", ANY_ROW, grows=True),
    "conv1d": Op(conv1d, "float32", (3, 3), grows=True, product=_window),
    "conv2d": Op(conv2d, "float32", (4, 4), grows=True, product=_window),
    "depthwise": Op(depthwise, "float32", (4, 4), grows=True),
    "embedding": Op(embedding, "int", (1, 4), bigger=True),
    "positions": Op(positions, "float32", ANY_ROW, grows=True, when=EXACT),
    "class_token": Op(class_token, "float", (3, 3), bigger=True),
    "batch_norm": Op(batch_norm, "float32", (4, 4), when=SMOOTH),
    # within a row
    "reduce_sum": Op(along(tf.reduce_sum), ranks=ANY_ROW, grows=True),
    "reduce_max": Op(along(tf.reduce_max), ranks=ANY_ROW),
    "reduce_min": Op(lambda c, n, x: tf.reduce_min(x, axis_of(n, x), keepdims=True), ranks=ANY_ROW),
    "reduce_all_inner": Op(lambda c, n, x: tf.reduce_sum(x, list(range(1, x.shape.rank))), ranks=ANY_ROW, grows=True),
    "reduce_mean": Op(along(tf.reduce_mean), "float", ANY_ROW, SMOOTH),
    "reduce_any": Op(along(tf.reduce_any), "bool", ANY_ROW),
    "norm": Op(lambda c, n, x: tf.nn.l2_normalize(x, axis_of(n, x), 0.1), "float", ANY_ROW, SMOOTH),
    "softmax": Op(inline(tf.nn.softmax), "float", ANY_ROW, SMOOTH),
    "softmax_along": Op(along(tf.nn.softmax), "float", ANY_ROW, SMOOTH),
    "log_softmax": Op(inline(tf.nn.log_softmax), "float", ANY_ROW, SMOOTH),
    "layer_norm": Op(layer_norm, "float32", ANY_ROW, SMOOTH),
    "argmax": Op(along(tf.argmax), ranks=ANY_ROW, when=EXACT, grows=True),
    "sort": Op(inline(tf.sort), ranks=ANY_ROW),
    "argsort": Op(lambda c, n, x: tf.argsort(x, stable=True), ranks=ANY_ROW, when=EXACT, grows=True),
    "top_k": Op(lambda c, n, x: tf.math.top_k(x, 1)[0], ranks=ANY_ROW),
    "top_k_at": Op(lambda c, n, x: tf.math.top_k(x, 1)[1], ranks=ANY_ROW, when=EXACT, grows=True),
    "cumsum": Op(lambda c, n, x: tf.cumsum(x, axis_of(n, x), bool(n % 2), bool(n % 3)), "number", ANY_ROW, grows=True),
    "attention": Op(attention, "float", (3, 4), grows=True, product=_square_of_last, bigger=True, when=EXACT),
    "max_pool": Op(lambda c, n, x: tf.nn.max_pool2d(x, 2, 1, "SAME"), "float32", (4, 4)),
    "avg_pool": Op(lambda c, n, x: tf.nn.avg_pool2d(x, 2, 2, "SAME"), "float32", (4, 4), SMOOTH),
    "resize": Op(lambda c, n, x: tf.image.resize(x, [2, 3]), "float32", (4, 4), SMOOTH),
    "turned_sum": Op(turned(lambda x: tf.reduce_sum(x, 0, keepdims=True)), ranks=ANY_ROW, grows=True),
    "turned_cumsum": Op(turned(tf.cumsum), ranks=ANY_ROW, grows=True),
    "last_to_front": Op(last_to_front, "any", ANY_ROW),
    "transpose": Op(transpose, "any", (3, 5)),
    "reshape": Op(reshape, "any"),
    "fold_and_sum": Op(fold_and_sum, ranks=(3, 5), grows=True),
    "expand": Op(lambda c, n, x: tf.expand_dims(x, 1 + n % int(x.shape.rank)), "any", (1, 4)),
    "squeeze": Op(lambda c, n, x: tf.squeeze(x[:, :1], 1), "any", (3, 5)),
    "one_hot": Op(one_hot, "int", (1, 4), bigger=True),
    "concat": Op(lambda c, n, x, y: tf.concat([x, y], axis_of(n, x)), "any", ANY_ROW, binary=True, bigger=True),
    "stack": Op(stack, "any", (1, 4), binary=True, bigger=True),
    "split": Op(split, "any", ANY_ROW),
    "unstack": Op(unstack, ranks=ANY_ROW, grows=True),
    "slice": Op(sliced, "any", ANY_ROW),
    "reverse": Op(lambda c, n, x: tf.reverse(x, [axis_of(n, x)]), "any", ANY_ROW),
    "roll": Op(lambda c, n, x: tf.roll(x, 1 + n, axis_of(n, x)), "any", ANY_ROW),
    "pad": Op(pad, "any", ANY_ROW, bigger=True),
    "tile": Op(tile, "any", ANY_ROW, bigger=True),
    "gather": Op(gather, "any", ANY_ROW, bigger=True),
    "batch_gather": Op(batch_gather, "number", ROW, EXACT),
    "band": Op(lambda c, n, x: tf.linalg.band_part(x, n % 2, 1), "number", (3, 4)),
    "with_zeros": Op(with_zeros, "number", ANY_ROW, bigger=True),
    "filled": Op(filled, grows=True),
    "inner_range": Op(inner_range, ranks=ANY_ROW, grows=True),
    "hash": Op(lambda c, n, x: fold(tf.strings.to_hash_bucket_fast(x, 50 + n)), "string"),
    "length": Op(lambda c, n, x: fold(tf.strings.length(x)), "string"),
    # control flow and calls
    "while": Op(while_loop, "float", ANY_ROW),
    "steps": Op(steps_loop, "float", (3, 3)),
    "map_rows": Op(map_rows, "number", ANY_ROW, grows=True),
    "cond": Op(cond, "number", ANY_ROW, grows=True),
    "switch": Op(switch, "number", ANY_ROW, grows=True),
    "call": Op(call, "any", calls=True),
    "call_twice": Op(call_twice, "any", calls=True),
    "call_in_loop": Op(call_in_loop, "float32", calls=True),
    "call_in_branch": Op(call_in_branch, "float32", calls=True),
}


def apply(c: Context, op: Op, n: int, operands: Sequence[tf.Tensor]) -> tf.Tensor:
    """The result of one op; in exact models one of small integers."""
    result = op.apply(c, n, *operands)
    return fold(result) if op.grows and c.exact else result


def draw_weight(shape: Sequence[int], n: int, exact: bool) -> np.ndarray:
    rng = np.random.default_rng([n, *shape])
    if tuple(shape) == (400,):
        return np.arange(400, dtype=np.float32)
    if exact:
        return rng.integers(-2, 3, shape).astype(np.float32)
    return (rng.uniform(-1, 1, shape) / math.sqrt(max(1, shape[0]))).astype(np.float32)
