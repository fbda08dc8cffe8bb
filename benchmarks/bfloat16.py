"""What bfloat16 costs trained networks: their outputs and their accuracy, before and after conversion.

    python benchmarks/bfloat16.py [--epochs N] [--filterlist OP ...] [NAME ...]

Trains networks on scikit-learn's handwritten digits, scaled up to 32x32; then converts them and compares the CPU twin
with the original on the digits held back. Random weights would not do: such networks may pass on any rounding enlarged.
The column "weights" tells how much: it is the error of the float32 network after nothing but its weights has been
rounded to bfloat16. Names: residual (batch norm, seconds to train), attention (layer norm), and of keras.applications
mobilenet_v2, resnet50, efficientnet_b0 (minutes to hours on a CPU, and far from trained to the end).
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import converter

SIZE = 32
OPTIONS = 'tpu_functions { function_alias: "tpu_func" }'


def residual() -> keras.Model:
    """A small residual network: three stages, convolutions with batch normalisation."""
    layers = keras.layers

    def convolution(x: Any, channels: int, stride: int) -> Any:
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    image = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(convolution(image, 16, 2))
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        inner = convolution(layers.ReLU()(convolution(x, channels, stride)), channels, 1)
        x = layers.ReLU()(inner + (x if stride == 1 else convolution(x, channels, stride)))
    return keras.Model(image, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def attention() -> keras.Model:
    """A small transformer over patches of 4x4."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((64, 64))(layers.Conv2D(64, 4, 4)(image))
    x = x + layers.Embedding(64, 64)(keras.ops.arange(64))
    for _ in range(3):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16)(normal, normal)
        x = x + layers.Dense(64)(layers.Dense(128, activation="gelu")(layers.LayerNormalization()(x)))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def network(name: str) -> keras.Model:
    """An untrained network for digits in three equal channels, values from -1 to 1, or for EfficientNet 0 to 255."""
    own = {"residual": residual, "attention": attention}
    if name in own:
        return own[name]()
    applications = {
        "resnet50": keras.applications.ResNet50,
        "mobilenet_v2": keras.applications.MobileNetV2,
        "efficientnet_b0": keras.applications.EfficientNetB0,
    }
    return applications[name](weights=None, input_shape=(SIZE, SIZE, 3), classes=10)


def digits(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images to train with and to test with, and the digits on them, both in this order."""
    data = load_digits()
    images = tf.image.resize(data.images[..., np.newaxis] / 8.0 - 1.0, (SIZE, SIZE)).numpy().repeat(3, axis=-1)
    if name == "efficientnet_b0":
        images = (images + 1.0) * 127.5
    found = train_test_split(images.astype(np.float32), data.target, test_size=0.25, random_state=0)
    return found[0], found[1], found[2], found[3]


def export(model: keras.Model, directory: Path) -> None:
    module = tf.Module()
    module.weights = [v.value for v in model.variables]
    spec = tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, "x")

    @tf.function(input_signature=[spec])
    def tpu_func(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)

    @tf.function(input_signature=[spec])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tpu_func(x)}

    module.tpu_func, module.serve = tpu_func, serve
    options = tf.saved_model.SaveOptions(function_aliases={"tpu_func": module.tpu_func})
    tf.saved_model.save(module, str(directory), signatures=module.serve, options=options)


def answers(directory: Path, images: np.ndarray) -> np.ndarray:
    loaded = tf.saved_model.load(str(directory))
    return np.asarray(loaded.signatures["serving_default"](x=tf.constant(images))["y"].numpy())


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def round_weights(model: keras.Model) -> None:
    for variable in model.weights:
        variable.assign(tf.cast(tf.cast(variable.value, tf.bfloat16), tf.float32))


def measure(name: str, epochs: int, filterlist: list[str], directory: Path) -> str:
    keras.utils.set_random_seed(0)
    train, test, train_digits, test_digits = digits(name)
    model = network(name)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    start = time.monotonic()
    model.fit(train, train_digits, batch_size=64, epochs=epochs, verbose=0)
    print(f"{name}: trained for {time.monotonic() - start:.0f} s", file=sys.stderr)
    source, target, twin = (directory / part for part in ("source", "target", "twin"))
    export(model, source)
    entries = " ".join(f'filterlist: "{op}"' for op in filterlist)
    report = converter.convert(source, target, f"{OPTIONS} bfloat16_optimization_options {{ {entries} }}")
    converter.write_cpu_twin(target, twin)
    expected, found = answers(source, test), answers(twin, test)
    round_weights(model)
    rounded = np.asarray(model(test, training=False))
    details = next(p.result.details.to_json() for p in report.passes if p.name == "bfloat16")
    accuracies = [100.0 * float((y.argmax(-1) == test_digits).mean()) for y in (expected, found)]
    ratio = details["variable_bytes_after"] / details["variable_bytes_before"]
    return (
        f"{name:<18}{relative_error(found, expected):<10.4f}{relative_error(rounded, expected):<10.4f}"
        f"{accuracies[0]:<10.2f}{accuracies[1]:<10.2f}{ratio:<8.3f}{details['casts']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["residual", "attention"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--filterlist", nargs="*", default=[])
    arguments = parser.parse_args()
    print(f"{'network':<18}{'error':<10}{'weights':<10}{'float32 %':<10}{'bfloat16 %':<10} {'bytes':<8}casts")
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as directory:
            print(measure(name, arguments.epochs, arguments.filterlist, Path(directory)), flush=True)


if __name__ == "__main__":
    main()
