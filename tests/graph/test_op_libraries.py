"""Models with ops that a library registers: told by name without it, converted and verified with --import."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cli
from converter import ConversionError, OptionsError, inspect_model, verify_conversion
from converter.errors import ModelReadError
from converter.graph.op_libraries import expect_registered_ops, import_op_libraries, unregistered_ops
from converter.saved_model.reader import blaming_input
from tests.harness import parse_model, write_model_text

ROOT = Path(__file__).parents[2]
OP = "TpuConvertTwice"
SOURCE = """
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
using namespace tensorflow;
REGISTER_OP("TpuConvertTwice").Input("x: float").Output("y: float").SetShapeFn(
    [](shape_inference::InferenceContext* c) { c->set_output(0, c->input(0)); return absl::OkStatus(); });
class Twice : public OpKernel {
 public:
  using OpKernel::OpKernel;
  void Compute(OpKernelContext* c) override {
    Tensor* y = nullptr;
    OP_REQUIRES_OK(c, c->allocate_output(0, c->input(0).shape(), &y));
    for (int i = 0; i < y->NumElements(); ++i) y->flat<float>()(i) = 2 * c->input(0).flat<float>()(i);
  }
};
REGISTER_KERNEL_BUILDER(Name("TpuConvertTwice").Device(DEVICE_CPU), Twice);
"""
MODULE = """
import pathlib
import tensorflow as tf
twice = tf.load_op_library(str(pathlib.Path(__file__).with_name("twice.so"))).tpu_convert_twice
"""
BUILD = """
import subprocess, sys
import tensorflow as tf
flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
subprocess.run(["g++", "-shared", "-fPIC", "-w", "-o", "twice.so", "twice.cc", *flags], check=True)
import twice_ops
root = tf.Module()
root.tpu_func = tf.function(lambda x: x @ tf.eye(4, 3), input_signature=[tf.TensorSpec([None, 4], tf.float32)])
def serve(x):
    return {"y": root.tpu_func(twice_ops.twice(x))}
root.serve = tf.function(serve, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
options = tf.saved_model.SaveOptions(function_aliases={"tpu_func": root.tpu_func})
tf.saved_model.save(root, "model", root.serve, options)
"""
OPTIONS = 'tpu_functions { function_alias: "tpu_func" } batch_options { max_batch_size: 4 }'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


def in_a_process(script: str, directory: Path) -> str:
    """Ops stay registered for as long as a process lives, so what needs them has one of its own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the module twice_ops, which registers an op, and a model that uses it."""
    if shutil.which("g++") is None:
        pytest.skip("an op library is made by g++, which is not here")
    directory = tmp_path_factory.mktemp("library")
    (directory / "twice.cc").write_text(SOURCE)
    (directory / "twice_ops.py").write_text(MODULE)
    in_a_process(BUILD, directory)
    return directory


def test_without_the_library_conversion_works_and_verify_names_op_and_flag(library: Path, tmp_path: Path) -> None:
    model, out = library / "model", tmp_path / "out"
    flags = [f"--input_model_dir={model}", f"--output_model_dir={out}", f"--converter_options_string={OPTIONS}"]
    assert run(*flags, f"--report_json={tmp_path / 'report.json'}").exit_code == 0
    assert run("inspect", model).exit_code == 0
    result = run("verify", model, out)
    assert result.exit_code == 1
    assert result.stderr.startswith(f'Error: "{model}" uses the op "{OP}" (the node "{OP}" in __inference_serve_')
    assert "import the package that registers it with --import MODULE" in result.stderr
    assert "Traceback" not in result.output
    with pytest.raises(ConversionError, match="which is not registered with this TensorFlow"):
        verify_conversion(model, out)


def test_with_the_library_every_command_works(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"""
import json
from click.testing import CliRunner
import cli
results = [CliRunner().invoke(cli.main, arguments) for arguments in (
    ["--input_model_dir=model", "--output_model_dir={out}", "--converter_options_string", {OPTIONS!r}, "--import=json",
     "--import=twice_ops"],
    ["inspect", "model", "--import", "twice_ops", "--json"],
    ["verify", "model", "{out}", "--import", "twice_ops"],
)]
print(json.dumps([[r.exit_code, r.stdout, r.stderr] for r in results]))
"""
    converted, inspected, verified = json.loads(in_a_process(script, library).splitlines()[-1])
    assert converted[0] == inspected[0] == verified[0] == 0, (converted, inspected, verified)
    assert "Conversion Report" in converted[1]
    assert json.loads(inspected[1])["functions"]
    assert verified[1].splitlines()[-1].startswith("PASSED")


def test_a_module_that_cannot_be_imported_is_bad_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_ops_module.py").write_text("raise OSError('libnone.so: cannot open\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    model = write_model_text("main { x = Placeholder() {dtype: float32} }", tmp_path / "model")
    flags = ["--input_model_dir", model, "--output_model_dir", tmp_path / "out", "--converter_options_string", OPTIONS]
    for command in (["inspect", model], ["verify", model, model], flags):
        result = run(*command, "--import=no_such_module_of_ops")
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(
            'Error: The module "no_such_module_of_ops" of --import cannot be imported: ModuleNotFoundError: No module '
            "named 'no_such_module_of_ops'. Expected the name of an importable Python module that registers ops."
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionsError, match=r"cannot be imported: OSError: libnone\.so: cannot open\. Expected"):
        import_op_libraries(["json", "broken_ops_module"])


def test_ops_that_are_missing_are_found_in_all_scopes_once() -> None:
    model = parse_model(
        """
        main { x = Placeholder() {dtype: float32}; a = NoSuchOp(x); c = PartitionedCall(x) {f: @F} }
        @F(x: float32) -> (y: float32) {
          a = NoSuchOp(x); b = OtherOp(x); c = G(x); n = Neg(x) {T: float32}; return n:y:0
        }
        @G(x: float32) -> (y: float32) { return x }
        """
    )
    assert unregistered_ops(model) == {
        "NoSuchOp": 'the node "a" in main graph',
        "OtherOp": 'the node "b" in F',
    }
    with pytest.raises(ModelReadError, match=r'"model" uses the op "NoSuchOp" .* 1 more are unknown: OtherOp\. It'):
        expect_registered_ops(model)
    expect_registered_ops(parse_model("main { x = Placeholder() {dtype: float32} }"))


def test_what_dies_of_a_missing_op_while_it_is_converted_or_inspected_names_it(tmp_path: Path) -> None:
    model = write_model_text("main { x = NoSuchOp() }", tmp_path / "model")
    with pytest.raises(ModelReadError, match=r'uses the op "NoSuchOp" .* --import MODULE'), blaming_input(model):
        raise RuntimeError("Op type not registered 'NoSuchOp' in binary running on host.")
    with pytest.raises(RuntimeError, match=r"^something else$"), blaming_input(model):
        raise RuntimeError("something else")
    assert inspect_model(model, import_modules=["json"]).functions == ()
