"""bfloat16 end to end: answers stay near those of float32, variables take half the bytes, all of it loads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from converter import ConversionError, ConversionReport, convert, write_cpu_twin
from converter.checkpoint.read import list_tensors
from converter.graph.model import Model
from converter.graph.protos import NodeDef
from converter.saved_model.reader import VARIABLES_PREFIX, read_model
from testdata.make_testdata import MODELS
from tests.oracle import relative_error, run_saved_model

# bfloat16 rounds to 8 bits, 0.4 % at the worst in each step; the errors of these models stay below five such steps.
TOLERANCE = 2e-2
ONLY_BFLOAT16 = " io_shape_optimization: DISABLED"
CANDIDATES = [name for name, m in MODELS.items() if not m.error and name != "bfloat16_inside"]
# Tiny checkpoints are mostly object graph; here the variables are what counts.
TPU_ONLY = ["tiny_bert", "embedding", "while_loop", "deep_nesting", "sharded_checkpoint", "keras_dense"]
# Of these, variables are most of the bytes; keras_dense and mobilenet_v2 name one of the two signatures of an export().
SHRINKING = ["tiny_bert", "mobilenet_v2", "mobilenet_v2_alias", "efficientnet_b0", "resnet50"]


def convert_and_twin(name: str, source: Path, work: Path, extra: str = "") -> ConversionReport:
    report = convert(source, work / "converted", MODELS[name].options_for(source) + extra)
    write_cpu_twin(work / "converted", work / "twin")
    return report


def details(report: ConversionReport) -> dict[str, object]:
    return next(p.result.details.to_json() for p in report.passes if p.name == "bfloat16")


def nodes(model_dir: Path, op: str) -> list[NodeDef]:
    model: Model = read_model(model_dir)
    return [node for scope in model.scopes() for node in scope.nodes if node.op == op]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if MODELS[n].slow else n for n in CANDIDATES])
def test_answers_stay_near_those_of_float32(name: str, testdata: Callable[[str], Path], tmp_path: Path) -> None:
    convert_and_twin(name, testdata(name), tmp_path)
    for signature in MODELS[name].signatures:
        inputs = [MODELS[name].make_inputs(signature, size) for size in (1, 3)]
        for loader in MODELS[name].loaders:
            before = run_saved_model(testdata(name), signature, inputs, loader, meta_optimizer=True)
            after = run_saved_model(tmp_path / "twin", signature, inputs, loader, meta_optimizer=True)
            for expected, found in zip(before, after, strict=True):
                for output, value in expected.items():
                    assert found[output].dtype == value.dtype
                    if value.dtype.kind == "f":
                        error = relative_error(found[output], value)
                        assert error < TOLERANCE, f"{signature}/{output} by {loader}: {error:.2e}"
                    else:
                        assert np.array_equal(found[output], value), f"{signature}/{output} by {loader}"


@pytest.mark.parametrize("name", TPU_ONLY)
def test_variables_that_only_the_tpu_reads_take_half_the_bytes(
    name: str, testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    found = details(convert_and_twin(name, testdata(name), tmp_path))
    before = {k: t for k, t in list_tensors(testdata(name) / VARIABLES_PREFIX).items() if t.dtype == tf.float32}
    after = list_tensors(tmp_path / "converted" / VARIABLES_PREFIX)
    ratio = sum(after[key].size_bytes for key in before) / sum(t.size_bytes for t in before.values())
    assert 0.5 <= ratio <= 0.52
    assert found["variables_float32"] == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if MODELS[n].slow else n for n in SHRINKING])
def test_the_whole_model_gets_smaller(name: str, testdata: Callable[[str], Path], tmp_path: Path) -> None:
    report = convert(testdata(name), tmp_path / "converted", MODELS[name].options_for(testdata(name)))
    assert report.output_bytes is not None
    assert report.output_bytes < 0.75 * report.input_bytes
    assert details(report)["variables_float32"] == []


def test_a_variable_that_the_cpu_reads_stays_float32_and_its_answers_exact(
    testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    report = convert_and_twin("shared_variable", testdata("shared_variable"), tmp_path)
    assert "shared" in details(report)["variables_float32"]  # type: ignore[operator]
    assert any(w.startswith("The CPU reads variables of the TPU too") for w in report.warnings)
    inputs = [MODELS["shared_variable"].make_inputs("serving_default", 3)]
    for loader in ("v2", "v1"):
        [before] = run_saved_model(testdata("shared_variable"), "serving_default", inputs, loader, meta_optimizer=True)
        [after] = run_saved_model(tmp_path / "twin", "serving_default", inputs, loader, meta_optimizer=True)
        assert relative_error(after["cpu"], before["cpu"]) < 1e-6


def test_filtered_ops_run_in_float32_and_their_neighbours_in_bfloat16(
    testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    convert_and_twin(
        "two_functions", testdata("two_functions"), tmp_path, ' bfloat16_optimization_options { filterlist: "MatMul" }'
    )
    products = nodes(tmp_path / "converted", "MatMul")
    assert products
    assert {node.attr["T"].type for node in products} == {types_pb2.DT_FLOAT}
    assert types_pb2.DT_BFLOAT16 in {node.attr["T"].type for node in nodes(tmp_path / "converted", "AddV2")}


def test_an_unknown_op_type_in_the_filterlist_is_an_error(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r'"MatMull".*"MatMul"'):
        convert_and_twin(
            "toy_variable",
            testdata("toy_variable"),
            tmp_path,
            ' bfloat16_optimization_options { filterlist: "MatMull" }',
        )
    assert not (tmp_path / "converted").exists()


def test_bfloat16_that_is_there_already_is_an_error_unless_checks_are_skipped(
    testdata: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="found bfloat16 ops in the model, expected none"):
        convert_and_twin("bfloat16_inside", testdata("bfloat16_inside"), tmp_path)
    convert_and_twin(
        "bfloat16_inside",
        testdata("bfloat16_inside"),
        tmp_path,
        " bfloat16_optimization_options { skip_safety_checks: true }",
    )


@pytest.mark.parametrize("name", ["two_functions", "tiny_bert", "while_in_if", "string_preprocess"])
def test_scope_all_keeps_signatures_and_answers(name: str, testdata: Callable[[str], Path], tmp_path: Path) -> None:
    convert_and_twin(name, testdata(name), tmp_path, " bfloat16_optimization_options { scope: ALL }")
    before, after = read_model(testdata(name)).signatures, read_model(tmp_path / "converted").signatures
    for key, signature in before.items():
        assert {k: v.dtype for k, v in signature.outputs.items()} == {k: v.dtype for k, v in after[key].outputs.items()}
    inputs = [MODELS[name].make_inputs("serving_default", 3)]
    [expected] = run_saved_model(testdata(name), "serving_default", inputs, "v2", meta_optimizer=True)
    [found] = run_saved_model(tmp_path / "twin", "serving_default", inputs, "v2", meta_optimizer=True)
    for output, value in expected.items():
        if value.dtype.kind == "f":
            assert relative_error(found[output], value) < 3 * TOLERANCE  # the CPU's part is rounded as well


def test_the_result_can_be_saved_again_by_tensorflow(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    convert_and_twin("tiny_bert", testdata("tiny_bert"), tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "twin"))
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=dict(loaded.signatures))
    inputs = [MODELS["tiny_bert"].make_inputs("serving_default", 2)]
    [once] = run_saved_model(tmp_path / "twin", "serving_default", inputs, "v2", meta_optimizer=False)
    [again] = run_saved_model(tmp_path / "again", "serving_default", inputs, "v2", meta_optimizer=False)
    for output, value in once.items():
        assert relative_error(again[output], value) < 1e-6


def test_a_trained_classifier_keeps_its_accuracy(tmp_path: Path) -> None:
    """Digits of scikit-learn, a network trained here: test accuracy within half a point of float32."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1200], order[1200:]
    rng = np.random.default_rng(1)

    class Classifier(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = tf.Variable(rng.normal(0, 0.15, (64, 96)).astype(np.float32))
            self.offset = tf.Variable(np.zeros(96, np.float32))
            self.out = tf.Variable(rng.normal(0, 0.15, (96, 10)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
        def tpu_func(self, x: tf.Tensor) -> tf.Tensor:
            return tf.matmul(tf.nn.relu(tf.matmul(x, self.hidden) + self.offset), self.out)

    model = Classifier()
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels[train], model.tpu_func(images[train]))
            )
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.8 * gradient)
    options = tf.saved_model.SaveOptions(function_aliases={"tpu_func": model.tpu_func})
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.tpu_func, options=options)
    convert(tmp_path / "model", tmp_path / "converted", 'tpu_functions { function_alias: "tpu_func" }')
    write_cpu_twin(tmp_path / "converted", tmp_path / "twin")
    accuracy = {}
    for directory in ("model", "twin"):
        [answer] = run_saved_model(
            tmp_path / directory, "serving_default", [{"x": images[test]}], "v2", meta_optimizer=True
        )
        [logits] = answer.values()
        accuracy[directory] = float(np.mean(np.argmax(logits, -1) == labels[test]))
    assert accuracy["model"] > 0.95
    assert abs(accuracy["model"] - accuracy["twin"]) <= 0.005
