"""Ops that compute along dimensions: elementwise, reductions, along an axis, linear algebra, products."""

import numpy as np
import tensorflow as tf

from tests.passes.batching.rows.table import kernel, mixes, ok, unclear, variable

_ELEMENTWISE = (
    ok("elementwise", "?,3", lambda x: tf.nn.relu(x) * 2.0 + tf.exp(-x)),
    ok("scalar row", "?", lambda x: tf.sqrt(x)),
    ok("broadcast a vector", "?,3", lambda x: x + kernel(3)),
    ok("broadcast a column", "?,1; ?,3", lambda x, y: x * y),
    ok("variable", "?,3", lambda x: x * variable(3) + variable(1)),
    ok("integers", "int32 ?,3", lambda x: x // 2 + tf.bitwise.bitwise_and(x, 1)),
    ok("booleans", "bool ?,3; bool ?,3", lambda x, y: tf.logical_and(x, tf.logical_not(y))),
    ok("strings", "string ?", lambda x: tf.strings.join([tf.strings.upper(x), "!"])),
    ok("string lengths and hashes", "string ?,2", lambda x: (tf.strings.length(x), tf.strings.to_hash_bucket(x, 5))),
    ok("cast and compare", "?,3; int32 ?,3", lambda x, y: tf.cast(x * 3, tf.int32) > y),
    ok("where of three", "bool ?,3; ?,3; ?,3", lambda c, x, y: tf.where(c, x, y)),
    ok("Select by rows", "bool ?; ?,3; ?,3", lambda c, x, y: tf.compat.v1.where(c, x, y)),
    ok("clip", "?,3", lambda x: tf.clip_by_value(x, 0.2, tf.reduce_max(x, 1, keepdims=True))),
    ok("several results", "?,3; ?,2", lambda x, y: (x + 1, y - 1, tf.concat([x, y], 1))),
    ok("unknown inner size", "?,?", lambda x: tf.nn.softmax(x * 2)),
    unclear("unknown rank", "*", lambda x: x * 2 + 1, "(Mul)"),
    ok("add_n", "?,3; ?,3", lambda x, y: tf.add_n([x, y, x])),
    mixes("column times row", "?", lambda x: tf.reduce_sum(x[:, None] * x[None, :], 1), "every row with every other"),
    mixes("column minus vector", "?,1; ?", lambda x, y: x - y, "every row with every other"),
    mixes("normalized by the batch", "?,3", lambda x: x - tf.reduce_mean(x, 0), "(Mean)"),
    mixes("outer products", "?,1; ?,1", lambda x, y: tf.reduce_max(x * tf.transpose(y), 1, keepdims=True)),
    ok("fake quantization", "?,3", lambda x: tf.quantization.fake_quant_with_min_max_args(x, -1, 1)),
    mixes(
        "quantization by the range of all",
        "?,3",
        lambda x: tf.quantization.quantize_and_dequantize_v2(x, 0.0, 0.0, num_bits=3, range_given=False),
        "(QuantizeAndDequantize",
    ),
    ok(
        "quantization by a range",
        "?,3",
        lambda x: tf.quantization.quantize_and_dequantize_v2(x, 0.0, 1.0, True, 8, True),
    ),
    ok("bucketize", "?,3", lambda x: tf.raw_ops.Bucketize(input=x, boundaries=[0.3, 0.6])),
    ok("bitcast", "?,3", lambda x: tf.bitcast(x, tf.uint8)),
    ok("complex", "?,3; ?,3", lambda x, y: tf.abs(tf.complex(x, y))),
    ok("bias", "?,3", lambda x: tf.nn.bias_add(x, kernel(3))),
)

_REDUCTIONS = (
    *(ok(f"{f.__name__} inside", "?,3,2", lambda x, f=f: f(x, [1, 2])) for f in (tf.reduce_sum, tf.reduce_max)),
    *(
        mixes(f"{f.__name__} of rows", "?,3", lambda x, f=f: x + f(x, 0), "in dimension 0 of")
        for f in (
            tf.reduce_sum,
            tf.reduce_mean,
            tf.reduce_max,
            tf.reduce_min,
            tf.reduce_prod,
            tf.math.reduce_euclidean_norm,
        )
    ),
    ok("negative axis", "?,3", lambda x: tf.reduce_sum(x, -1)),
    mixes("negative axis of rows", "?,3", lambda x: x * tf.reduce_sum(x, -2, keepdims=True), "(Sum)"),
    mixes("all axes", "?,3", lambda x: x / tf.reduce_sum(x), "(Sum)"),
    ok("keepdims", "?,3", lambda x: x / tf.reduce_sum(x, 1, keepdims=True)),
    ok("any and all", "bool ?,3", lambda x: (tf.reduce_any(x, 1), tf.reduce_all(x, [-1]))),
    mixes("any of rows", "bool ?,3", lambda x: tf.math.logical_xor(x, tf.reduce_any(x, 0)), "(Any)"),
    ok("argmax inside", "?,3", lambda x: (tf.argmax(x, 1), tf.argmin(x, -1))),
    mixes("argmax of rows", "?,3", lambda x: x * tf.cast(tf.argmax(x, 0), tf.float32), "(ArgMax)"),
    ok("reduce after fold", "?,4,3", lambda x: tf.reshape(tf.reduce_sum(tf.reshape(x, [-1, 3]), 1), [-1, 4])),
    mixes("reduce the fold", "?,4,3", lambda x: x + tf.reduce_sum(tf.reshape(x, [-1, 3]), 0), "(Sum)"),
    ok("moments inside", "?,3", lambda x: tf.nn.moments(x, [1])),
    ok(
        "layer normalization",
        "?,4,3",
        lambda x: tf.nn.batch_normalization(x, *tf.nn.moments(x, [-1], keepdims=True), kernel(3), kernel(3), 1e-3),
    ),
    mixes("batch statistics", "?,3", lambda x: tf.nn.batch_normalization(x, *tf.nn.moments(x, [0]), None, None, 1e-3)),
    ok("join strings inside", "string ?,3", lambda x: tf.strings.reduce_join(x, 1)),
    mixes("join strings of rows", "string ?", lambda x: tf.strings.join([x, tf.strings.reduce_join(x)]), "ReduceJoin"),
    mixes("l2 loss", "?,3", lambda x: x * tf.nn.l2_loss(x), "(L2Loss)"),
    ok("bincount by row", "int32 ?,4", lambda x: tf.math.bincount(x, minlength=5, maxlength=5, axis=-1)),
    unclear(
        "bincount up to the greatest",
        "int32 ?,4",
        lambda x: tf.reduce_mean(tf.math.bincount(x, minlength=2, maxlength=5, axis=-1, dtype=tf.float32), 1),
        "decide together",
    ),
    unclear(
        "at least as much as the greatest",
        "int32 ?,4",
        lambda x: tf.reduce_mean(
            tf.one_hot(x, tf.maximum(tf.minimum(tf.reduce_max(x), 5), 1), dtype=tf.float32), [1, 2]
        ),
        "decide together",
    ),
)

_ALONG = (
    *(
        ok(f"{f.__name__} inside", "?,3", lambda x, f=f: f(x, axis=-1))
        for f in (tf.nn.softmax, tf.nn.log_softmax, tf.sort, tf.argsort, tf.cumsum, tf.math.cumprod)
    ),
    *(
        mixes(f"{f.__name__} of rows", "?,3", lambda x, f=f: f(x, axis=0), "mixes the rows")
        for f in (tf.nn.softmax, tf.sort, tf.cumsum, tf.math.cumprod, tf.math.cumulative_logsumexp)
    ),
    ok("roll inside", "?,3", lambda x: tf.roll(x, 1, 1)),
    mixes("roll rows", "?,3", lambda x: tf.roll(x, 1, 0), "(Roll)"),
    ok("reverse inside", "?,3", lambda x: tf.reverse(x, [1])),
    mixes("reverse rows", "?,3", lambda x: tf.reverse(x, [0]), "(ReverseV2)"),
    ok("reverse sequences", "?,3; int32 ?", lambda x, n: tf.reverse_sequence(x, n, 1, 0)),
    ok("fft inside", "?,4", lambda x: tf.signal.rfft(x)),
    mixes(
        "fft of rows",
        "?,4",
        lambda x: tf.transpose(tf.math.real(tf.signal.fft(tf.cast(tf.transpose(x), tf.complex64)))),
        "(FFT)",
    ),
    ok("fft2d", "?,4,4", lambda x: tf.math.imag(tf.signal.fft2d(tf.cast(x, tf.complex64)))),
    ok(
        "stft",
        "?,8",
        lambda x: tf.abs(tf.signal.stft(x, 4, 2)),
    ),
    ok("top k", "?,5", lambda x: tf.math.top_k(x, 2)),
    mixes("top k of rows", "?", lambda x: x + tf.math.top_k(x, 1)[0], "(TopKV2)"),
    ok("in top k", "?,5; int32 ?", lambda x, t: tf.math.in_top_k(t, x, 2)),
    ok("local response", "?,2,2,5", lambda x: tf.nn.local_response_normalization(x)),
    ok("search sorted", "?,5; ?,2", lambda s, v: tf.searchsorted(tf.sort(s), v)),
    ok("cross entropy", "?,3; int32 ?", lambda x, t: tf.nn.sparse_softmax_cross_entropy_with_logits(t, x)),
    ok("dense cross entropy", "?,3; ?,3", lambda x, t: tf.nn.softmax_cross_entropy_with_logits(t, x)),
)

_PD = np.eye(3, dtype=np.float32) * 3

_ALGEBRA = (
    ok("cholesky", "?,3", lambda x: tf.linalg.cholesky(x[:, :, None] * x[:, None, :] + _PD)),
    ok("inverse and determinant", "?,3,3", lambda x: (tf.linalg.inv(x + _PD), tf.linalg.det(x))),
    ok("solve", "?,3,3; ?,3,1", lambda x, y: tf.linalg.solve(x + _PD, y)),
    ok("triangular solve", "?,3,3; ?,3,1", lambda x, y: tf.linalg.triangular_solve(x + _PD, y)),
    ok("qr", "?,3,3", lambda x: tf.linalg.qr(x)[1]),
    ok("eigenvalues", "?,3,3", lambda x: tf.linalg.eigvalsh(x)),
    ok("band part", "?,3,3", lambda x: tf.linalg.band_part(x, 1, 0)),
    ok("diagonals", "?,3", lambda x: tf.linalg.diag_part(tf.linalg.diag(x))),
    ok("set diagonal", "?,3,3; ?,3", lambda x, y: tf.linalg.set_diag(x, y)),
    ok("tridiagonal", "?,3,3; ?,3,1", lambda x, y: tf.linalg.tridiagonal_solve(x + 1, y, partial_pivoting=False)),
    mixes(
        "inverse across rows",
        "?,3",
        lambda x: tf.matmul(tf.matmul(x, x, transpose_a=True) + _PD, x[:, :, None])[..., 0],
    ),
    mixes(
        "diagonal of rows", "?", lambda x: tf.reduce_sum(tf.linalg.diag(x), 1), "(MatrixDiag", because="zeros are added"
    ),
    ok("cross", "?,3; ?,3", lambda x, y: tf.linalg.cross(x, y)),
)

_PRODUCTS = (
    ok("dense", "?,3", lambda x: tf.matmul(x, kernel(3, 2))),
    ok("dense transposed", "?,3", lambda x: tf.matmul(x, kernel(2, 3), transpose_b=True)),
    ok("rows as columns", "?,3", lambda x: tf.transpose(tf.matmul(kernel(2, 3), x, transpose_b=True))),
    mixes("gram of rows", "?,3", lambda x: tf.matmul(x, x, transpose_b=True), "every row with every other"),
    mixes("gram of features", "?,3", lambda x: tf.matmul(x, tf.matmul(x, x, transpose_a=True)), "(MatMul)"),
    mixes("contrast of two", "?,3; ?,3", lambda x, y: tf.matmul(x, y, transpose_b=True), "every row with every other"),
    mixes("attention across rows", "?,3", lambda x: tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x)),
    ok("attention", "?,4,3", lambda x: tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x)),
    ok("batch matmul of a table", "?,4,3", lambda x: tf.matmul(x, kernel(3, 2))),
    ok("batch matmul adjoint", "?,3,4; ?,3,4", lambda x, y: tf.matmul(x, y, adjoint_a=True)),
    ok("batch matmul broadcast", "?,1,3,4; 2,4,3", lambda x, y: tf.matmul(x, kernel(2, 4, 3))),
    mixes(
        "batch matmul of rows and steps",
        "?,4,3",
        lambda x: tf.transpose(tf.matmul(tf.transpose(x, [1, 2, 0]), tf.transpose(x, [1, 0, 2])), [1, 0, 2]),
    ),
    ok(
        "batch of steps",
        "?,4,3",
        lambda x: tf.transpose(tf.matmul(tf.transpose(x, [1, 0, 2]), kernel(4, 3, 2)), [1, 0, 2]),
    ),
    ok("einsum", "?,4,3", lambda x: tf.einsum("btd,dhk->bthk", x, kernel(3, 2, 2))),
    ok("einsum ellipsis", "?,4,3", lambda x: tf.einsum("...d,de->...e", x, kernel(3, 2))),
    ok("einsum ellipsis behind", "?,4,3", lambda x: tf.einsum("b...,bcd->b...", x, x)),
    ok("einsum of rows", "?,4,3; ?,5,3", lambda x, y: tf.einsum("bqd,bkd->bqk", x, y)),
    ok("einsum rows elsewhere", "?,4,3", lambda x: tf.einsum("dbk->bkd", tf.einsum("btd,tk->dbk", x, kernel(4, 2)))),
    mixes("einsum sums rows", "?,3", lambda x: x + tf.einsum("bd->d", x), "(Einsum)"),
    mixes("einsum all pairs", "?,3", lambda x: tf.einsum("bd,cd->bc", x, x), "every row with every other"),
    mixes("einsum ellipsis sums rows", "?,4,3", lambda x: x * tf.einsum("b...->...", x), "(Einsum)"),
    mixes("einsum other ellipsis", "?,3", lambda x: tf.einsum("...d,bd->b...", x, x), "every row with every other"),
    ok("tensordot", "?,4,3", lambda x: tf.tensordot(x, kernel(3, 2), 1)),
    mixes("tensordot of rows", "?,3", lambda x: tf.matmul(x, tf.tensordot(x, x, [[0], [0]])), "(MatMul)"),
    mixes("ones times rows", "?,3", lambda x: x + tf.matmul(tf.ones([1, tf.shape(x)[0]]), x), "(MatMul)"),
    mixes(
        "eye times rows",
        "?,3",
        lambda x: tf.matmul(tf.eye(tf.shape(x)[0]), x),
        "(MatMul)",
        "the identity picks each its own",
    ),
)

CASES = (*_ELEMENTWISE, *_REDUCTIONS, *_ALONG, *_ALGEBRA, *_PRODUCTS)
