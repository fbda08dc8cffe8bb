"""Convolutions, pools, normalizations of batches, and images."""

import tensorflow as tf

from tests.passes.batching.rows.table import count, kernel, mixes, ok, unclear


def _as_height(x, size):  # type: ignore[no-untyped-def]
    """A convolution over the rows, which lie where images have their height."""
    return tf.nn.conv2d(x[None], kernel(size, 1, 3, 3), 1, "SAME")[0]


def _normalized(x, training, layout="NHWC", channels=3):  # type: ignore[no-untyped-def]
    ones, zeros = tf.ones([channels]), tf.zeros([channels])
    statistics = {} if training else {"mean": zeros + 0.5, "variance": ones}
    return tf.compat.v1.nn.fused_batch_norm(x, ones, zeros, is_training=training, data_format=layout, **statistics)[0]


def _instances(x):  # type: ignore[no-untyped-def]
    """Instance normalization, as some write it: all channels of all images as channels of one."""
    shape = tf.shape(x)
    channels = shape[0] * 3
    one = tf.reshape(x, [1, channels, 4, 4])
    normal = tf.raw_ops.FusedBatchNormV3(
        x=one,
        scale=tf.ones([channels]),
        offset=tf.zeros([channels]),
        mean=[],
        variance=[],
        data_format="NCHW",
        is_training=True,
    ).y
    return tf.reshape(normal, shape)


_BOXES = tf.constant([[0.0, 0.0, 1.0, 1.0]])

CASES = (
    ok("conv2d", "?,4,4,3", lambda x: tf.nn.conv2d(x, kernel(3, 3, 3, 2), 1, "SAME")),
    ok("conv1d", "?,6,3", lambda x: tf.nn.conv1d(x, kernel(3, 3, 2), 1, "VALID")),
    ok("conv3d", "?,4,4,4,1", lambda x: tf.nn.conv3d(x, kernel(2, 2, 2, 1, 2), [1] * 5, "SAME")),
    ok("depthwise", "?,4,4,3", lambda x: tf.nn.depthwise_conv2d(x, kernel(3, 3, 3, 1), [1] * 4, "SAME")),
    ok(
        "conv2d transpose",
        "?,4,4,3",
        lambda x: tf.nn.conv2d_transpose(x, kernel(3, 3, 2, 3), [count(x), 8, 8, 2], 2, "SAME"),
    ),
    ok("dilated convolution", "?,6,6,1", lambda x: tf.nn.conv2d(x, kernel(3, 3, 1, 1), 1, "SAME", dilations=2)),
    ok(
        "space to batch and back",
        "?,4,4,1",
        lambda x: tf.batch_to_space(
            tf.nn.conv2d(tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), kernel(1, 1, 1, 1), 1, "SAME"),
            [2, 2],
            [[0, 0], [0, 0]],
        ),
    ),
    unclear("space to batch alone", "?,4,4,1", lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), "one by one"),
    ok("rows as height, kernel of 1", "?,4,3", lambda x: _as_height(x, 1)),
    mixes("rows as height, kernel of 3", "?,4,3", lambda x: _as_height(x, 3), "(Conv2D)"),
    mixes("rows as time", "?,3", lambda x: tf.nn.conv1d(x[None], kernel(3, 3, 3), 1, "SAME")[0], "(Conv2D)"),
    *(
        ok(f"{f.__name__} of images", "?,4,4,3", lambda x, f=f: f(x, 2, 2, "SAME"))
        for f in (tf.nn.max_pool2d, tf.nn.avg_pool2d)
    ),
    mixes("pool across rows", "?,4,3", lambda x: tf.nn.max_pool2d(x[None], 3, 1, "SAME")[0], "(MaxPool)"),
    ok(
        "pool with rows as channels",
        "?,4,4",
        lambda x: tf.transpose(tf.nn.avg_pool2d(tf.transpose(x, [1, 2, 0])[None], 2, 2, "SAME")[0], [2, 0, 1]),
    ),
    ok("dilation", "?,4,4,1", lambda x: tf.nn.dilation2d(x, kernel(2, 2, 1), [1] * 4, "SAME", "NHWC", [1] * 4)),
    ok("batch normalization", "?,4,4,3", lambda x: _normalized(x, False)),
    mixes("batch normalization in training", "?,4,4,3", lambda x: _normalized(x, True), "(FusedBatchNorm"),
    ok(
        "instance normalization",
        "?,4,4,3",
        lambda x: tf.nn.batch_normalization(x, *tf.nn.moments(x, [1, 2], keepdims=True), None, None, 1e-3),
    ),
    ok(
        "group normalization",
        "?,4,4,6",
        lambda x: tf.reshape(
            tf.nn.batch_normalization(
                *(lambda g: (g, *tf.nn.moments(g, [1, 2, 4], keepdims=True), None, None, 1e-3))(
                    tf.reshape(x, [-1, 4, 4, 2, 3])
                )
            ),
            tf.shape(x),
        ),
    ),
    ok("depth to space", "?,4,4,4", lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 4)),
    ok("patches", "?,4,4,1", lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1] * 4, "VALID")),
    ok("resize", "?,4,4,1", lambda x: (tf.image.resize(x, [6, 6]), tf.image.resize(x, [3, 3], "nearest"))),
    ok(
        "resize bicubic and area",
        "?,4,4,1",
        lambda x: (tf.image.resize(x, [6, 6], "bicubic"), tf.image.resize(x, [2, 2], "area")),
    ),
    ok("antialiased", "?,8,8,1", lambda x: tf.image.resize(x, [4, 4], antialias=True)),
    mixes(
        "resize across rows",
        "?,4,1",
        lambda x: tf.image.resize(x[None], [tf.shape(x)[0], 4])[0] + tf.image.resize(x[None], [5, 4])[0, :1],
        "(ResizeBilinear)",
    ),
    ok("contrast and hue", "?,4,4,3", lambda x: tf.image.adjust_hue(tf.image.adjust_contrast(x, 2.0), 0.1)),
    ok("flip", "?,4,4,3", lambda x: tf.image.flip_left_right(x)),
    ok("grayscale", "?,4,4,3", lambda x: tf.image.rgb_to_grayscale(x)),
    ok("standardization", "?,4,4,3", lambda x: tf.image.per_image_standardization(x)),
    ok(
        "crops of each its own",
        "?,4,4,1",
        lambda x: tf.image.crop_and_resize(x, tf.tile(_BOXES, [count(x), 1]), tf.range(count(x)), [2, 2]),
    ),
    ok(
        "boxes of each row",
        "?,4,4,1; ?,4",
        lambda x, boxes: tf.image.crop_and_resize(x, boxes, tf.range(count(x)), [2, 2]),
    ),
    ok(
        "several boxes of each row",
        "?,4,4,1; ?,2,4",
        lambda x, boxes: tf.reshape(
            tf.image.crop_and_resize(x, tf.reshape(boxes, [-1, 4]), tf.repeat(tf.range(count(x)), 2), [2, 2]),
            [-1, 2, 2, 2, 1],
        ),
    ),
    mixes(
        "crops of the first",
        "?,4,4,1",
        lambda x: tf.image.crop_and_resize(x, tf.tile(_BOXES, [count(x), 1]), tf.zeros([count(x)], tf.int32), [2, 2]),
        "(CropAndResize)",
    ),
    unclear(
        "boxes in another order",
        "?,4,4,1; ?,2,4",
        lambda x, boxes: tf.reshape(
            tf.image.crop_and_resize(
                x, tf.reshape(tf.transpose(boxes, [1, 0, 2]), [-1, 4]), tf.repeat(tf.range(count(x)), 2), [2, 2]
            ),
            [-1, 2, 2, 2, 1],
        ),
    ),
    ok(
        "suppression for each image",
        "?,4,1,4; ?,4,2",
        lambda boxes, scores: tuple(tf.image.combined_non_max_suppression(boxes, scores, 3, 3)),
    ),
    mixes(
        "suppression among rows",
        "?,4; ?",
        lambda boxes, scores: (
            scores
            * tf.cast(
                tf.size(
                    tf.raw_ops.NonMaxSuppressionV3(
                        boxes=boxes, scores=scores, max_output_size=3, iou_threshold=0.1, score_threshold=0.3
                    )
                ),
                tf.float32,
            )
        ),
        "(NonMaxSuppressionV3)",
    ),
)
