"""Finding variables and storing them as bfloat16, on models that TensorFlow saves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converter.analysis.variables.index import Variable, find_variables
from converter.analysis.variables.uses import UseKind
from converter.graph.invariants import check_structure
from converter.graph.model import Model
from converter.saved_model.reader import read_model
from converter.saved_model.writer import write_model
from tests.analysis.variables.models import KEY
from tests.oracle import open_model, relative_error
from tests.passes.bfloat16.models import store_as_bfloat16

SPEC = tf.TensorSpec([None, 4], tf.float32, "x")
ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


class Trained(tf.Module):
    """Serves a matmul; carries the training step of an optimizer with slots, and other writers."""

    def __init__(self) -> None:
        super().__init__()
        from tensorflow.python.keras.optimizer_v2.adam import Adam

        self.kernel = tf.Variable(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), name="kernel")
        self.table = tf.Variable(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), name="table")
        self.optimizer = Adam(0.5)
        self.train(ROWS)

    @tf.function(input_signature=[SPEC])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.matmul(x, self.kernel) + tf.gather(self.table, [1])}

    @tf.function(input_signature=[SPEC])
    def train(self, x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.serve(x)["y"] ** 2)
        variables = [self.kernel, self.table]
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function(input_signature=[SPEC])
    def overwrite(self, x: tf.Tensor) -> tf.Tensor:
        self.kernel[:1, :].assign(x[:1])
        self.kernel.scatter_update(tf.IndexedSlices(x[:1], [3]))
        self.kernel.scatter_nd_add([[2]], x[:1])
        self.kernel.assign_sub(tf.ones([4, 4]))
        self.kernel.assign_add(tf.ones([4, 4]))
        return self.kernel.gather_nd([[0]])


def save(root: tf.Module, directory: Path, **functions: Any) -> Path:
    tf.saved_model.save(root, str(directory), **functions)
    return directory


def _is_served(variable: Variable) -> bool:
    return any(use.served for use in variable.uses)


def convert(source: Path, target: Path, edit: Callable[[Model], None] = lambda model: None) -> list[Variable]:
    """Stores everything eligible that is served as bfloat16; returns it."""
    model = read_model(source)
    edit(model)
    check_structure(model)
    done = store_as_bfloat16(model, [v for v in find_variables(model) if _is_served(v) and v.ineligible is None])
    check_structure(model)
    write_model(model, target)
    return done


def test_training_code_is_converted_along(tmp_path: Path) -> None:
    root = Trained()
    source = save(root, tmp_path / "source", signatures=root.serve)
    done = convert(source, tmp_path / "target")
    names = {v.name: v for v in done}
    assert names.keys() == {"kernel", "table", "Adam/kernel/m", "Adam/kernel/v", "Adam/table/m", "Adam/table/v"}
    assert {"Adam/kernel/m", "Adam/kernel/v"} <= set(names["kernel"].companions)
    with open_model(tmp_path / "target") as converted:
        before = converted.call("serve", ROWS)["y"]
        # The op that updates a variable computes in its type, where beta_2 = 0.999 is 1: it runs, that is all.
        losses = [converted.call("train", ROWS) for _ in range(3)]
        assert np.isfinite(losses).all()
        assert not np.array_equal(converted.call("serve", ROWS)["y"], before)
        first_row = converted.call("overwrite", ROWS)
        np.testing.assert_allclose(first_row, ROWS[:1], rtol=1e-2, atol=1e-2)
        assert converted.loaded.kernel.dtype == tf.bfloat16
        assert converted.loaded.optimizer.get_slot(converted.loaded.kernel, "m").dtype == tf.bfloat16


class WithGradient(tf.Module):
    """Its custom gradient uses what the forward function read, so the object graph names the read."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), name="kernel")

    @tf.function(input_signature=[SPEC])
    def serve(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def product(h: tf.Tensor) -> Any:
            return tf.matmul(h, kernel), lambda upstream: tf.matmul(upstream, kernel, transpose_b=True) * 3.0

        kernel = self.kernel.value()
        return product(x)


def test_captured_reads_follow_the_cast(tmp_path: Path) -> None:
    root = WithGradient()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    source = save(root, tmp_path / "source", signatures=root.serve, options=options)
    model = read_model(source)
    captured = [n.captured_tensor.name for n in model.object_graph.nodes if n.WhichOneof("kind") == "captured_tensor"]
    convert(source, tmp_path / "target")
    model = read_model(tmp_path / "target")
    recast = [n.captured_tensor.name for n in model.object_graph.nodes if n.WhichOneof("kind") == "captured_tensor"]
    assert captured and captured != recast
    gradients = []
    for directory in (source, tmp_path / "target"):
        with open_model(directory) as loaded, tf.GradientTape() as tape:
            x = tf.constant(ROWS)
            tape.watch(x)
            y = loaded.loaded.serve(x)
            gradients.append(tape.gradient(y, x).numpy())
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-2)


class Batching(tf.Module):
    """A batched function that captures a variable, a function that is given one, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), name="kernel")
        self.given = tf.Variable(np.linspace(0, 1, 4, dtype=np.float32), name="given")
        self.counter = tf.Variable(0.0, name="counter")

    @tf.function
    def add(self, x: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        return x + variable

    @tf.function(input_signature=[SPEC])
    def serve(self, x: tf.Tensor) -> tf.Tensor:
        @tf.nondifferentiable_batch_function(1, 4, 10)
        def batched(h: tf.Tensor) -> tf.Tensor:
            return tf.matmul(h, self.kernel)

        self.counter.assign_add(1.0)
        return self.add(batched(x), self.given)


def test_batched_functions_and_variables_as_arguments(tmp_path: Path) -> None:
    root = Batching()
    source = save(root, tmp_path / "source", signatures=root.serve)
    done = convert(source, tmp_path / "target")
    assert sorted(v.name for v in done) == ["given", "kernel"]
    for loader in ("v2", "v1"):
        with open_model(tmp_path / "target", loader) as converted, open_model(source, loader) as original:
            (a,), (b,) = (m.run("serving_default", {"x": ROWS}).values() for m in (original, converted))
            assert relative_error(b, a) < 1e-2


def save_tensors(model: Model) -> None:
    """Turns a save function that reads variables into one that is given their values, as TensorFlow 2.4 wrote them."""
    nodes = {n.name: n for n in model.graph_def.node}
    call = next(n for n in nodes.values() if "traced_save" in n.attr["f"].func.name)
    save_function = model.functions[call.attr["f"].func.name]
    reads = {n.input[0]: n for n in save_function.node_def if n.op == "ReadVariableOp"}
    for i, argument in enumerate(save_function.signature.input_arg):
        if argument.name in reads:
            argument.type = tf.float32.as_datatype_enum
            argument.ClearField("handle_data")
            call.attr["Tin"].list.type[i] = tf.float32.as_datatype_enum
            call.input[i] = f"{call.input[i]}/Read/ReadVariableOp"
    gone = {n.name for n in save_function.node_def if n.op in ("ReadVariableOp", "DisableCopyOnRead")}
    values = {f"{n.name}:value:0": ref for ref, n in reads.items()}
    kept = [n for n in save_function.node_def if n.name not in gone]
    for node in kept:
        inputs = [values.get(ref, ref) for ref in node.input if ref.lstrip("^") not in gone]
        del node.input[:]
        node.input.extend(inputs)
    save_function.control_ret.clear()
    del save_function.signature.control_output[:]
    copies = [type(n).FromString(n.SerializeToString()) for n in kept]
    del save_function.node_def[:]
    save_function.node_def.extend(copies)


@pytest.mark.parametrize("edit", [lambda model: None, save_tensors], ids=["2.21", "2.4"])
def test_the_v1_loader_saves_bfloat16(edit: Callable[[Model], None], tmp_path: Path) -> None:
    root = Batching()
    source = save(root, tmp_path / "source", signatures=root.serve)
    convert(source, tmp_path / "target", edit)
    model = read_model(tmp_path / "target")
    save_function = next(f for name, f in model.functions.items() if "traced_save" in name)
    assert not any(n.op == "Cast" for n in save_function.node_def)
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "target"))
        saver = loaded.saver_def
        session.run(saver.save_tensor_name, {saver.filename_tensor_name: str(tmp_path / "checkpoint")})
        values = session.run(saver.restore_op_name, {saver.filename_tensor_name: str(tmp_path / "checkpoint")})
        assert values is None
    reader = tf.train.load_checkpoint(str(tmp_path / "checkpoint"))
    assert reader.get_variable_to_dtype_map()[KEY.format("kernel")] == tf.bfloat16
    assert reader.get_variable_to_dtype_map()[KEY.format("counter")] == tf.float32
    np.testing.assert_allclose(reader.get_tensor(KEY.format("kernel")).astype(np.float32), root.kernel, rtol=1e-2)


def test_keras_exports_hold_each_variable_twice(testdata: Callable[[str], Path]) -> None:
    variables = [v for v in find_variables(read_model(testdata("keras_dense"))) if v.checkpoint_key is not None]
    assert len(variables) == 16
    for variable in variables:
        assert variable.ineligible is None
        assert len(variable.companions) == 1
        assert any(u.served and u.kind is UseKind.READ for u in variable.uses)


def test_a_handle_that_nothing_restores_belongs_to_the_variable_captured_there(
    testdata: Callable[[str], Path],
) -> None:
    variables = find_variables(read_model(testdata("keras_saved_whole")))
    assert len(variables) == 8
    assert {(len(v.handles), len(v.object_node_ids), v.ineligible) for v in variables} == {(2, 1, None)}


def test_odd_variables(testdata: Callable[[str], Path]) -> None:
    found = {v.name: v for v in find_variables(read_model(testdata("odd_variables")))}
    assert {n: (v.shape, v.size_bytes) for n, v in found.items()} == {
        "kernel": ((10, 4), 160),
        "scale": ((), 4),
        "empty": ((0, 4), 0),
        "shift": ((), 8),
        "mask": ((4,), 4),
        "precise": ((), 8),
    }
    assert {n: v.ineligible for n, v in found.items() if v.ineligible} == {
        "shift": "is int64, not float32",
        "mask": "is bool, not float32",
        "precise": "is float64, not float32",
    }
