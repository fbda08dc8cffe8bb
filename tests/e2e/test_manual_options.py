"""Every option string of the manual, letter for letter, through the command line on a model that suits it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from converter import write_cpu_twin
from converter.graph.calls import rename_callees
from converter.saved_model.reader import read_model
from converter.saved_model.writer import write_model
from testdata.make_testdata import MODELS
from tests.options import manual
from tests.oracle import relative_error, run_saved_model

TPU_FUNC = 'tpu_functions { function_alias: "tpu_func" }\n'
# bfloat16 is on by default, with about three significant digits; errors of a matmul or two stay below this.
TOLERANCE = 2e-2


def convert(source: Path, target: Path, options: str) -> None:
    arguments = [f"--input_model_dir={source}", f"--output_model_dir={target}", f"--converter_options_string={options}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "-------- Conversion Report --------" in result.stdout


def assert_same_answers(name: str, original: Path, converted: Path, twin: Path) -> None:
    write_cpu_twin(converted, twin)
    for signature in MODELS[name].signatures:
        inputs = [MODELS[name].make_inputs(signature, size) for size in (1, 3)]
        for loader in ("v2", "v1"):
            before = run_saved_model(original, signature, inputs, loader, meta_optimizer=True)
            after = run_saved_model(twin, signature, inputs, loader, meta_optimizer=True)
            for expected, found in zip(before, after, strict=True):
                assert expected.keys() == found.keys()
                for output in expected:
                    assert relative_error(found[output], expected[output]) < TOLERANCE, (signature, loader, output)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("toy_variable", manual.CONVERTER_IMAGE, id="docker example"),
        pytest.param("two_functions", manual.SEVERAL_FUNCTIONS, id="several TPU functions"),
        pytest.param("toy_variable", TPU_FUNC + manual.BATCHING, id="default batching"),
        pytest.param("toy_variable", TPU_FUNC + manual.WITHOUT_OPTIMIZATIONS, id="without default optimizations"),
        pytest.param("function_batching", TPU_FUNC + manual.SIGNATURE_BATCHING, id="signature batching"),
        pytest.param("function_batching", TPU_FUNC + manual.FUNCTION_BATCHING, id="function batching"),
    ],
)
def test_the_manuals_options_convert(name: str, options: str, testdata: Callable[[str], Path], tmp_path: Path) -> None:
    convert(testdata(name), tmp_path / "converted", options)
    assert_same_answers(name, testdata(name), tmp_path / "converted", tmp_path / "twin")


def test_the_manuals_concrete_function_name_converts(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    model = read_model(testdata("no_alias"))
    traced = next(name for name in model.functions if name.startswith("__inference_serve_"))
    model.functions[traced].signature.name = "__inference_serve_24"
    for scope in model.scopes():
        for node in scope.nodes:
            rename_callees(node, {traced: "__inference_serve_24"})
    object_graph = model.object_graph
    if traced in object_graph.concrete_functions:
        renamed = object_graph.concrete_functions["__inference_serve_24"]
        renamed.CopyFrom(object_graph.concrete_functions.pop(traced))
    for saved in object_graph.nodes:
        if saved.WhichOneof("kind") == "function":
            names = [("__inference_serve_24" if n == traced else n) for n in saved.function.concrete_functions]
            saved.function.concrete_functions[:] = names
        if saved.bare_concrete_function.concrete_function_name == traced:
            saved.bare_concrete_function.concrete_function_name = "__inference_serve_24"
    write_model(model, tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "converted", manual.CONCRETE_FUNCTION)
    assert_same_answers("no_alias", tmp_path / "original", tmp_path / "converted", tmp_path / "twin")


def test_the_manuals_update_of_batching_options_converts(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    smaller = manual.BATCHING.replace("num_batch_threads: 2", "num_batch_threads: 1")
    convert(testdata("toy_variable"), tmp_path / "first", TPU_FUNC + smaller)
    convert(tmp_path / "first", tmp_path / "converted", manual.UPDATED_BATCHING)
    batching = [n for s in read_model(tmp_path / "converted").scopes() for n in s.nodes if n.op == "BatchFunction"]
    assert [n.attr["num_batch_threads"].i for n in batching] == [2]
    assert_same_answers("toy_variable", testdata("toy_variable"), tmp_path / "converted", tmp_path / "twin")
