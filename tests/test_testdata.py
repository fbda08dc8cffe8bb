"""The test models load and answer alike through both loaders, and the oracle tells equal from different."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from testdata import make_testdata
from testdata.make_testdata import MODELS
from tests.oracle import LOADERS, Loader, assert_same, call_functions_directly, open_model, relative_error

tf.get_logger().setLevel("ERROR")

Testdata = Callable[[str], Path]
NAMES = [pytest.param(name, marks=pytest.mark.slow) if model.slow else name for name, model in MODELS.items()]


@pytest.mark.parametrize("name", NAMES)
def test_both_loaders_answer_alike(name: str, testdata: Testdata) -> None:
    model, directory = MODELS[name], testdata(name)
    with open_model(directory, "v2") as v2, open_model(directory, model.loaders[-1]) as v1:
        assert set(model.signatures) <= set(v2.signatures)
        assert sorted(v1.signatures) == sorted(v2.signatures)
        for signature in model.signatures:
            for batch in (1, 3):
                inputs = model.make_inputs(signature, batch)
                expected = v2.run(signature, inputs)
                assert_same(v1.run(signature, inputs), expected)
                assert expected
                for key, value in expected.items():
                    if tf.as_dtype(value.dtype).is_floating:
                        assert np.isfinite(value.astype(np.float64)).all(), key
                        assert np.any(value != 0), key


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.direct and not model.slow])
def test_functions_can_be_called_directly(name: str, testdata: Testdata) -> None:
    model = MODELS[name]
    for attribute in model.direct:
        arguments = [model.make_arguments(attribute, batch) for batch in (1, 3)]
        results = call_functions_directly(testdata(name), attribute, arguments)
        assert_same(results, call_functions_directly(testdata(name), attribute, arguments))


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.row_independent and not model.slow])
def test_rows_are_independent_where_the_description_says_so(name: str, testdata: Testdata) -> None:
    model = MODELS[name]
    with open_model(testdata(name)) as loaded:
        for signature in model.signatures:
            inputs = model.make_inputs(signature, 3)
            together = loaded.run(signature, inputs)
            alone = [loaded.run(signature, {k: v[row : row + 1] for k, v in inputs.items()}) for row in range(3)]
            assert_same({k: np.concatenate([row[k] for row in alone]) for k in together}, together, rtol=1e-6)


def test_a_keras_model_saved_whole_does_not_run_in_the_v1_loader(testdata: Testdata) -> None:
    model = MODELS["keras_saved_whole"]
    inputs = model.make_inputs("serving_default", 1)
    with (
        open_model(testdata("keras_saved_whole"), "v1") as loaded,
        pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"),
    ):
        loaded.run("serving_default", inputs)


def test_aliases_are_those_of_the_description(testdata: Testdata) -> None:
    for name, model in MODELS.items():
        if model.slow:
            continue
        proto = make_testdata.saved_model_pb2.SavedModel.FromString((testdata(name) / "saved_model.pb").read_bytes())
        meta_graph = proto.meta_graphs[0]
        assert sorted(set(meta_graph.meta_info_def.function_aliases.values())) == list(model.aliases), name


def test_building_again_gives_the_same_answers(testdata: Testdata, tmp_path: Path) -> None:
    for name in ("two_functions", "keras_dense"):
        model = MODELS[name]
        inputs = model.make_inputs("serving_default", 3)
        with open_model(testdata(name)) as first, open_model(make_testdata.build(name, tmp_path / name)) as second:
            assert_same(second.run("serving_default", inputs), first.run("serving_default", inputs))


def test_options_name_the_concrete_function(testdata: Testdata) -> None:
    options = MODELS["no_alias"].options_for(testdata("no_alias"))
    assert 'concrete_function_name: "__inference_serve_' in options
    with pytest.raises(LookupError, match="0 functions"):
        make_testdata.concrete_function_name(testdata("no_alias"), "no_such_function")


def test_a_direct_call_keeps_the_structure_of_the_result(testdata: Testdata) -> None:
    last, steps = call_functions_directly(
        testdata("while_loop"), "tpu_func", [MODELS["while_loop"].make_arguments("tpu_func", 3)]
    )[0]
    assert last.shape == (3, 8)
    assert steps.shape == (3, 6, 8)
    with open_model(testdata("while_loop"), "v1") as model, pytest.raises(ValueError, match="v2 loader"):
        model.call("tpu_func")


@pytest.mark.parametrize("loader", LOADERS)
def test_wrong_inputs_are_named(loader: Loader, testdata: Testdata) -> None:
    with open_model(testdata("toy"), loader) as model, pytest.raises(KeyError, match=r"takes \['x'\], given \['y'\]"):
        model.run("serving_default", {"y": np.zeros((1, 10), np.float32)})


def test_the_command_line_builds_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_testdata.main([str(tmp_path), "toy"]) == 0
    assert (tmp_path / "toy" / "saved_model.pb").exists()
    assert make_testdata.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and model.description for name, model in MODELS.items())
    for wrong in ([str(tmp_path), "toy"], [str(tmp_path), "no_such_model"], []):
        with pytest.raises(SystemExit):
            make_testdata.main(wrong)


@pytest.mark.parametrize("loader", LOADERS)
def test_the_meta_optimizer_runs_only_when_asked(loader: Loader, testdata: Testdata) -> None:
    """Grappler fuses MatMul + BiasAdd/Add + activation: look at the graph that was executed.

    What it makes of them depends on the CPU and on oneDNN: _FusedMatMul, or _MklNativeFusedMatMul.
    """
    inputs = MODELS["keras_dense"].make_inputs("serving_default", 3)
    executed = {on: _executed_ops(testdata("keras_dense"), loader, on, inputs) for on in (True, False)}
    fused = {on: [op for op in found if op.endswith("FusedMatMul")] for on, found in executed.items()}
    assert len(fused[True]) == 1, executed[True]
    assert fused[False] == []
    assert not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


def test_two_models_cannot_disagree_about_the_meta_optimizer(testdata: Testdata) -> None:
    with (
        open_model(testdata("toy"), "v2", meta_optimizer=True),
        pytest.raises(RuntimeError, match="meta optimizer"),
        open_model(testdata("toy"), "v2", meta_optimizer=False),
    ):
        pass
    with open_model(testdata("toy"), "v2"), open_model(testdata("toy_variable"), "v2"):
        pass


def _executed_ops(model_dir: Path, loader: Loader, meta_optimizer: bool, inputs: dict[str, np.ndarray]) -> set[str]:
    from tensorflow.python.eager import context

    if loader == "v2":
        with open_model(model_dir, "v2", meta_optimizer) as model:
            context.enable_run_metadata()
            try:
                model.run("serving_default", inputs)
                metadata = context.export_run_metadata()
            finally:
                context.disable_run_metadata()
        graphs = [graph.post_optimization_graph for graph in metadata.function_graphs]
    else:
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = not meta_optimizer
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(model_dir))
            definition = meta_graph.signature_def["serving_default"]
            metadata = tf.compat.v1.RunMetadata()
            session.run(
                [tensor.name for tensor in definition.outputs.values()],
                {definition.inputs[key].name: value for key, value in inputs.items()},
                options=tf.compat.v1.RunOptions(output_partition_graphs=True),
                run_metadata=metadata,
            )
        graphs = list(metadata.partition_graphs)
    assert graphs
    return {node.op for graph in graphs for node in graph.node}


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (np.float32([1.0, 2.0]), np.float32([1.0, np.nextafter(np.float32(2), np.float32(3))]), r"first at \(1,\)"),
        (np.float32([0.0]), np.float32([-0.0]), "1 of 1 values differ"),
        (np.float32([np.nan]), np.float32([1.0]), "values differ"),
        (np.float32([1.0]), np.float64([1.0]), "dtype float32, expected float64"),
        (np.float32([[1.0]]), np.float32([1.0]), r"shape \(1, 1\), expected \(1,\)"),
        (np.int32([1, 2]), np.int32([1, 3]), "1 of 2 values differ"),
        (np.array([b"a"], object), np.array([b"b"], object), "values differ"),
        ({"a": np.float32(1)}, {"b": np.float32(1)}, r"keys \['a'\], expected \['b'\]"),
        ([np.float32(1)], [np.float32(1), np.float32(1)], "1 elements, expected 2"),
        ({"a": [np.float32(1)]}, {"a": [np.float32(2)]}, r"result\['a'\]\[0\]: 1 of 1"),
        (np.array(1, ml_dtypes.bfloat16), np.array(2, ml_dtypes.bfloat16), "values differ"),
    ],
)
def test_assert_same_tells_what_differs(actual: object, expected: object, message: str) -> None:
    assert_same(actual, actual)
    assert_same(expected, expected)
    with pytest.raises(AssertionError, match=message):
        assert_same(actual, expected)


def test_assert_same_with_a_tolerance() -> None:
    expected = np.float32([3.0, 4.0])
    assert_same(expected + np.float32(1e-5), expected, rtol=1e-5)
    with pytest.raises(AssertionError, match="relative error"):
        assert_same(expected + np.float32(1e-2), expected, rtol=1e-5)
    with pytest.raises(AssertionError, match="values differ"):
        assert_same(np.int32([1000]), np.int32([1001]), rtol=0.5)
    with pytest.raises(AssertionError, match="relative error inf"):
        assert_same(np.float32([np.nan]), np.float32([1.0]), rtol=1.0)


def test_relative_error() -> None:
    assert relative_error(np.float32([3, 4]), np.float32([3, 4])) == 0.0
    assert relative_error(np.float32([3, 4.5]), np.float32([3, 4])) == pytest.approx(0.1)
    assert relative_error({"a": [1.0], "b": [2.2]}, {"a": [1.0], "b": [2.0]}) == pytest.approx(0.1)
    assert relative_error(np.float32([0]), np.float32([0])) == 0.0
    assert relative_error(np.float32([1]), np.float32([0])) == float("inf")
    assert relative_error(np.float32([np.inf, 1]), np.float32([np.inf, 1])) == 0.0
    assert relative_error(np.float32([np.inf, 1]), np.float32([1, 1])) == float("inf")
