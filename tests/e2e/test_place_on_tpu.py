"""Functions of real models on the TPU: the CPU twin of a converted model answers like the original."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from converter import ConversionError, convert, write_cpu_twin
from testdata.make_testdata import MODELS
from tests.e2e.cases import answers, names
from tests.oracle import LOADERS, assert_same, open_model

Testdata = Callable[[str], Path]

WITHOUT_OPTIMIZATIONS = "\ndisable_default_optimizations: true"


def converted(name: str, original: Path, directory: Path) -> Path:
    convert(original, directory, MODELS[name].options_for(original) + WITHOUT_OPTIMIZATIONS)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def assert_twin_answers_alike(name: str, original: Path, directory: Path, meta_optimizer: bool, rtol: float) -> None:
    write_cpu_twin(converted(name, original, directory / "converted"), directory / "twin")
    for loader in MODELS[name].loaders:
        expected = answers(name, original, loader, meta_optimizer)
        assert_same(answers(name, directory / "twin", loader, meta_optimizer), expected, rtol, where=loader)


@pytest.mark.parametrize("name", names("mobilenet_v2_alias"))
def test_the_cpu_twin_answers_with_the_bits_of_the_original(name: str, testdata: Testdata, tmp_path: Path) -> None:
    assert_twin_answers_alike(name, testdata(name), tmp_path, meta_optimizer=False, rtol=0.0)


@pytest.mark.parametrize("name", names("mobilenet_v2_alias"))
def test_the_cpu_twin_answers_like_the_original_when_optimized(name: str, testdata: Testdata, tmp_path: Path) -> None:
    assert_twin_answers_alike(name, testdata(name), tmp_path, meta_optimizer=True, rtol=1e-6)


@pytest.mark.parametrize("name", names("mobilenet_v2_alias"))
def test_conversion_is_deterministic_and_done_once(name: str, testdata: Testdata, tmp_path: Path) -> None:
    original = testdata(name)
    first = converted(name, original, tmp_path / "first")
    assert files(converted(name, original, tmp_path / "second")) == files(first)
    options = MODELS[name].options_for(original) + WITHOUT_OPTIMIZATIONS
    report = convert(first, tmp_path / "again", options)
    assert not report.changed
    assert files(tmp_path / "again") == files(first)


@pytest.mark.parametrize("name", names())
def test_a_converted_model_loads_without_a_warning(name: str, testdata: Testdata, tmp_path: Path) -> None:
    directory = converted(name, testdata(name), tmp_path / "converted")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loader in MODELS[name].loaders:
            with open_model(directory, loader) as opened:
                assert set(MODELS[name].signatures) <= set(opened.signatures)


@pytest.mark.parametrize("name", names())
def test_the_twin_can_be_saved_again(name: str, testdata: Testdata, tmp_path: Path) -> None:
    write_cpu_twin(converted(name, testdata(name), tmp_path / "converted"), tmp_path / "twin")
    model = MODELS[name]
    with open_model(tmp_path / "twin") as twin:
        tf.saved_model.save(twin.loaded, str(tmp_path / "saved"), signatures=twin.loaded.signatures)
        with open_model(tmp_path / "saved") as saved:
            for signature in model.signatures:
                inputs = model.make_inputs(signature, 3)
                assert_same(saved.run(signature, inputs), twin.run(signature, inputs))


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.error])
def test_a_model_that_cannot_be_converted_is_refused_and_nothing_is_written(
    name: str, testdata: Testdata, tmp_path: Path
) -> None:
    original = testdata(name)
    before = files(original)
    with pytest.raises(ConversionError, match=MODELS[name].error):
        converted(name, original, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
    assert files(original) == before


def test_what_surrounds_the_graph_survives(testdata: Testdata, tmp_path: Path) -> None:
    original = testdata("string_preprocess")
    before, after = files(original), files(converted("string_preprocess", original, tmp_path / "converted"))
    assert {k: v for k, v in after.items() if k != "saved_model.pb"} == {
        k: v for k, v in before.items() if k not in ("saved_model.pb", "fingerprint.pb")
    }
    assert "assets/vocabulary.txt" in after


def test_a_function_made_from_a_lambda_is_converted(tmp_path: Path) -> None:
    class Lambda(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(tf.eye(4), name="kernel")
            self.function = tf.function(lambda x: tf.matmul(x, self.kernel) + 1.0)

    root, spec = Lambda(), tf.TensorSpec([None, 4], tf.float32, name="x")
    concrete = root.function.get_concrete_function(spec)
    aliases = tf.saved_model.SaveOptions(function_aliases={"f": root.function})
    tf.saved_model.save(root, str(tmp_path / "original"), signatures=concrete, options=aliases)
    options = 'tpu_functions { function_alias: "f" }' + WITHOUT_OPTIMIZATIONS
    report = convert(tmp_path / "original", tmp_path / "converted", options)
    assert "<lambda>" in report.passes[0].result.changes[0].where
    write_cpu_twin(tmp_path / "converted", tmp_path / "twin")
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    for loader in LOADERS:
        with open_model(tmp_path / "original", loader) as before, open_model(tmp_path / "twin", loader) as after:
            assert_same(after.run("serving_default", inputs), before.run("serving_default", inputs))


def test_another_process_writes_the_same_bytes_and_the_loader_says_nothing(testdata: Testdata, tmp_path: Path) -> None:
    original = testdata("two_functions")
    here = converted("two_functions", original, tmp_path / "here")
    options = MODELS["two_functions"].options_for(original) + WITHOUT_OPTIMIZATIONS
    script = """
import sys
import converter
original, converted, options = sys.argv[1:]
converter.convert(original, converted, options)
import tensorflow as tf
for directory in (original, converted):
    print("LOADING", file=sys.stderr, flush=True)
    tf.saved_model.load(directory)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(original), str(tmp_path / "there"), options],
        env={**os.environ, "PYTHONHASHSEED": "7", "TF_CPP_MIN_LOG_LEVEL": "0"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert files(tmp_path / "there") == files(here)
    _, before, after = run.stderr.split("LOADING\n")
    assert len(after.splitlines()) <= len(before.splitlines()), after
    assert "ingerprint" not in after
