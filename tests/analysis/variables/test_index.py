"""Finding variables and storing them as bfloat16: on graphs as text, and on models that TensorFlow saves."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converter.analysis.variables.index import Variable, find_variables
from converter.analysis.variables.uses import UseKind
from converter.graph.invariants import verify_structure
from converter.graph.model import MAIN_GRAPH, Model
from converter.passes.bfloat16.storage import store_as_bfloat16
from converter.saved_model.reader import read_model
from converter.saved_model.writer import write_model
from tests.harness import parse_model, render
from tests.oracle import open_model, relative_error

BFLOAT16 = tf.bfloat16.as_datatype_enum
KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"


def model_text(body: str, names: Sequence[str] = ("v",), serve: str = "y") -> str:
    """A model with these float32<4> variables, restored in the main graph, and `body` after them."""
    keys = ", ".join(f'"{KEY.format(n)}"' for n in names)
    handles = "\n".join(f'  {n} = VarHandleOp() {{dtype: float32, shape: <4>, shared_name: "{n}"}}' for n in names)
    assigns = "\n".join(
        f"  assign_{n} = AssignVariableOp({n}, {'restore' if i == 0 else f'restore:{i}'}) {{dtype: float32}}"
        for i, n in enumerate(names)
    )
    main, _, functions = body.partition("FUNCTIONS")
    return f"""
signature "serving_default" x=x:0 -> y={serve}:0
main {{
  x = Placeholder() {{dtype: float32, shape: <4>}}
{handles}
  prefix = Placeholder() {{dtype: string, shape: <>}}
  keys = Const() {{dtype: string, value: string([{keys}])}}
  slices = Const() {{dtype: string, value: string([{", ".join(['""'] * len(names))}])}}
  restore = RestoreV2(prefix, keys, slices) {{dtypes: [{", ".join(["float32"] * len(names))}]}}
{assigns}
{main}
}}
{functions}
"""


READER = """
@read(v: resource(float32<4>)) -> (y: float32) {
  r = ReadVariableOp(v) {dtype: float32}
  return r:value:0
}
"""

Use = tuple[str, str, str, bool]
READ: Use = ("read", "r", "ReadVariableOp", True)


def uses_of(variable: Variable) -> list[Use]:
    return [(u.scope, u.node, u.op, u.served) for u in variable.uses if u.op != "AssignVariableOp"]


FLOWS: dict[str, tuple[str, list[Use]]] = {
    "a read in the main graph": (
        "y = ReadVariableOp(v) {dtype: float32}",
        [(MAIN_GRAPH, "y", "ReadVariableOp", True)],
    ),
    "a read that no signature reaches": (
        "other = ReadVariableOp(v) {dtype: float32}; y = Identity(x) {T: float32}",
        [(MAIN_GRAPH, "other", "ReadVariableOp", False)],
    ),
    "calls of each kind, through Identity": (
        """
        i = Identity(v) {T: resource}; j = IdentityN(x, i) {T: [float32, resource]}
        a = PartitionedCall(j:1) {Tin: [resource], Tout: [float32], f: @outer}
        y = AddV2(a, a) {T: float32}
        FUNCTIONS
        @outer(w: resource(float32<4>)) -> (y: float32) {
          c = StatefulPartitionedCall(w) {Tin: [resource], Tout: [float32], f: @middle}
          return c:output:0
        }
        @middle(w: resource(float32<4>)) -> (y: float32) {
          c = read(w)
          return c:y:0
        }
        """
        + READER,
        [READ],
    ),
    "a TPU call, whose last input is the ordinal": (
        """
        ordinal = TPUOrdinalSelector()
        y = TPUPartitionedCall(v, ordinal) {Tin: [resource], Tout: [float32], f: @read}
        FUNCTIONS
        """
        + READER,
        [READ],
    ),
    "batching: in_tensors, then captured_tensors": (
        """
        y = BatchFunction(x, v) {Tin: [float32], Tcaptured: [resource], Tout: [float32], f: @f, num_batch_threads: 1,
          max_batch_size: 4, batch_timeout_micros: 1}
        FUNCTIONS
        @f(x: float32, v: resource(float32<4>)) -> (y: float32) {
          g = ResourceGather(v, x) {dtype: float32, Tindices: int32}
          return g:output:0
        }
        """,
        [("f", "g", "ResourceGather", True)],
    ),
    "If, after its predicate": (
        """
        p = Const() {dtype: bool, value: bool(true)}
        y = If(p, v) {Tcond: bool, Tin: [resource], Tout: [float32], then_branch: @read, else_branch: @shape}
        FUNCTIONS
        @shape(w: resource(float32<4>)) -> (y: float32) {
          s = VariableShape(w) {out_type: int32}
          c = Cast(s:output:0) {SrcT: int32, DstT: float32}
          return c:y:0
        }
        """
        + READER,
        [READ, ("shape", "s", "VariableShape", True)],
    ),
    "Case, after its index": (
        """
        p = Const() {dtype: int32, value: int32(1)}
        y = StatelessCase(p, v) {Tin: [resource], Tout: [float32], branches: [@read, @other]}
        FUNCTIONS
        @other(v: resource(float32<4>)) -> (y: float32) {
          r = ReadVariableOp(v) {dtype: float32}
          return r:value:0
        }
        """
        + READER,
        [("other", "r", "ReadVariableOp", True), READ],
    ),
    "While: its body gives the variable back, and the loop gives it on": (
        """
        n = Const() {dtype: int32, value: int32(1)}
        loop = While(n, v) {T: [int32, resource], cond: @cond, body: @body, output_shapes: []}
        y = ReadVariableOp(loop:1) {dtype: float32}
        FUNCTIONS
        @cond(n: int32, v: resource(float32<4>)) -> (go: bool) {
          i = VarIsInitializedOp(v)
          return i:is_initialized:0
        }
        @body(n: int32, v: resource(float32<4>)) -> (n_out: int32, v_out: resource) {
          same = Identity(v) {T: resource}
          r = ReadVariableOp(same:output:0) {dtype: float32}
          return n, same:output:0
        }
        """,
        [
            ("body", "r", "ReadVariableOp", True),
            ("cond", "i", "VarIsInitializedOp", True),
            (MAIN_GRAPH, "y", "ReadVariableOp", True),
        ],
    ),
    "a function returns the variable": (
        """
        c = PartitionedCall(v) {Tin: [resource], Tout: [resource], f: @pick}
        y = ReadVariableOp(c) {dtype: float32}
        FUNCTIONS
        @pick(v: resource(float32<4>)) -> (w: resource) {
          return v
        }
        """,
        [(MAIN_GRAPH, "y", "ReadVariableOp", True)],
    ),
    "functions that call each other": (
        """
        y = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @a}
        FUNCTIONS
        @a(v: resource(float32<4>)) -> (y: float32) {
          b = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @b}
          return b:output:0
        }
        @b(v: resource(float32<4>)) -> (y: float32) {
          a = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @a}
          r = ReadVariableOp(v) {dtype: float32}
          return r:value:0
        }
        """,
        [("b", "r", "ReadVariableOp", True)],
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_uses_are_found(flow: str) -> None:
    text, expected = FLOWS[flow]
    (variable,) = find_variables(parse_model(model_text(text)))
    assert sorted(uses_of(variable)) == sorted(expected)
    assert variable.ineligible is None


INELIGIBLE: dict[str, tuple[str, str]] = {
    "an op of unknown kind": (
        'y = PyFunc(v) {Tin: [resource], Tout: [float32], token: "t"}',
        r'is used by "y" \(PyFunc\) in main graph, which the converter cannot see through',
    ),
    "a functional op of unknown kind, even where no signature reaches it": (
        """
        y = Identity(x) {T: float32}
        components = Placeholder() {dtype: variant, shape: <>}
        map = MapDataset(components, v) {f: @f, Targuments: [resource], output_types: [float32], output_shapes: [<4>]}
        FUNCTIONS
        """
        + READER.replace("@read", "@f"),
        r'is used by "map" \(MapDataset\)',
    ),
    "a sum that serving code keeps": (
        """
        y = PartitionedCall(x, v) {Tin: [float32, resource], Tout: [float32], f: @f}
        FUNCTIONS
        @f(x: float32, v: resource(float32<4>)) -> (y: float32) {
          a = AssignAddVariableOp(v, x) {dtype: float32}
          return x, ^a
        }
        """,
        r'is written while serving, by "a" \(AssignAddVariableOp\) in f',
    ),
    "a function that others can call with variables of their own": (
        """
        y = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @read}
        FUNCTIONS
        object read = function @read
        """
        + READER,
        r'reaches the argument "v" of function "read", which code outside the model can use with other variables',
    ),
    "a handle of the same name inside a function": (
        """
        y = PartitionedCall() {Tin: [], Tout: [float32], f: @f}
        FUNCTIONS
        @f() -> (y: float32) {
          h = VarHandleOp() {dtype: float32, shape: <4>, shared_name: "v"}
          r = ReadVariableOp(h:resource:0) {dtype: float32}
          return r:value:0
        }
        """,
        r'is used by "h" \(VarHandleOp\) in f',
    ),
}


@pytest.mark.parametrize("case", INELIGIBLE)
def test_ineligible(case: str) -> None:
    text, reason = INELIGIBLE[case]
    model = parse_model(model_text(text))
    (variable,) = find_variables(model)
    assert variable.ineligible is not None
    assert re.match(reason, variable.ineligible), variable.ineligible
    with pytest.raises(ValueError, match='the variable "v" cannot be stored as bfloat16: it '):
        store_as_bfloat16(model, [variable], ())


def test_variables_that_share_an_argument_are_companions() -> None:
    text = model_text(
        """
        a = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @read}
        b = PartitionedCall(w) {Tin: [resource], Tout: [float32], f: @read}
        c = ReadVariableOp(alone) {dtype: float32}
        y = AddN(a, b, c) {N: 3, T: float32}
        FUNCTIONS
        """
        + READER,
        ("v", "w", "alone"),
    )
    model = parse_model(text)
    v, w, alone = find_variables(model)
    assert (v.companions, w.companions, alone.companions) == (("w",), ("v",), ())
    assert v.uses == w.uses
    assert store_as_bfloat16(model, [w], ()) == [v, w]
    assert model.recasts == {KEY.format("v"), KEY.format("w")}
    assert dtypes_of(model) == {"v": BFLOAT16, "w": BFLOAT16, "alone": tf.float32.as_datatype_enum}


def test_one_ineligible_companion_keeps_all() -> None:
    text = model_text(
        """
        y = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @read}
        b = PartitionedCall(w) {Tin: [resource], Tout: [float32], f: @read}
        w = VarHandleOp() {dtype: float32, shape: <4>, shared_name: "unsaved"}
        FUNCTIONS
        """
        + READER
    )
    v, w = find_variables(parse_model(text))
    assert w.checkpoint_key is None
    assert w.ineligible is not None and w.ineligible.startswith("is not saved")
    assert v.ineligible == f'has to be stored like the variable "w", which {w.ineligible}'


def test_handles_of_one_name_are_one_variable() -> None:
    text = model_text(
        'second = VarHandleOp() {dtype: float32, shape: <4>, shared_name: "v"}; '
        'other = VarHandleOp() {container: "c", dtype: float32, shape: <4>, shared_name: "v"}; '
        "y = ReadVariableOp(second) {dtype: float32}"
    )
    variable, other = find_variables(parse_model(text))
    assert (variable.name, variable.handles) == ("v", ("v", "second"))
    assert other.handles == ("other",)
    assert uses_of(variable) == [(MAIN_GRAPH, "y", "ReadVariableOp", True)]


# --- storing ----------------------------------------------------------------------------------------------------


def dtypes_of(model: Model) -> dict[str, int]:
    return {v.name: v.dtype for v in find_variables(model)}


def stored(text: str, scopes: Collection[str] = ()) -> str:
    """The model with all its variables as bfloat16, as text."""
    model = parse_model(text)
    store_as_bfloat16(model, find_variables(model), scopes)
    verify_structure(model)
    return render(model)


def test_reads_are_cast_back_outside_of_bfloat16_scopes() -> None:
    text = model_text(
        """
        p = Const() {dtype: bool, value: bool(true)}
        y = If(p, x, v) {Tcond: bool, Tin: [float32, resource], Tout: [float32], then_branch: @tpu, else_branch: @cpu}
        FUNCTIONS
        """
        + "".join(
            f"""
            @{name}(x: float32, v: resource(float32<4>)) -> (y: float32, raw: float32) {{
              r = ReadVariableOp(v) {{dtype: float32}}
              m = Mul(r:value:0, r:value:0) {{T: float32}}
              n = Mul(m:z:0, x, ^r) {{T: float32}}
              return n:z:0, r:value:0
            }}
            """
            for name in ("tpu", "cpu")
        )
    )
    found = stored(text, ["tpu"])
    assert (
        """
@cpu(x: float32, v: resource(bfloat16<4>)) -> (y: float32, raw: float32) {
  r = ReadVariableOp(v) {dtype: bfloat16}
  m = Mul(r/float32:y:0, r/float32:y:0) {T: float32}
  n = Mul(m:z:0, x, ^r) {T: float32}
  r/float32 = Cast(r:value:0) {DstT: float32, SrcT: bfloat16}
  return n:z:0, r/float32:y:0
}
"""
        in found
    )
    assert (
        """
@tpu(x: float32, v: resource(bfloat16<4>)) -> (y: float32, raw: float32) {
  r = ReadVariableOp(v) {dtype: bfloat16}
  m = Mul(r:value:0, r:value:0) {T: float32}
"""
        in found
    )
    assert "dtypes: [bfloat16]" in found
    assert "assign_v = AssignVariableOp(v, restore) {dtype: bfloat16}" in found


def test_main_graph_initializers_and_visible_reads() -> None:
    text = model_text(
        """
        zero = Const() {dtype: float32, value: float32([0, 0, 0, 0])}
        init = AssignVariableOp(v, zero) {dtype: float32}
        copy = AssignVariableOp(w, y) {dtype: float32}
        y = ReadVariableOp(v) {dtype: float32}
        """,
        ("v", "w"),
    )
    found = stored(text)
    assert "init = AssignVariableOp(v, init/bfloat16) {dtype: bfloat16}" in found
    assert "init/bfloat16 = Cast(zero) {DstT: bfloat16, SrcT: float32}" in found
    # The signature sees float32; another bfloat16 variable takes the value as it is.
    assert "copy = AssignVariableOp(w, y) {dtype: bfloat16}" in found
    assert "-> y=y/float32:0" in found


def test_a_variable_that_stays_float32_is_given_float32() -> None:
    text = model_text(
        """
        copy = AssignVariableOp(w, r) {dtype: float32}
        back = AssignVariableOp(v, s) {dtype: float32}
        r = ReadVariableOp(v) {dtype: float32}; s = ReadVariableOp(w) {dtype: float32}
        y = Identity(x) {T: float32}
        """,
        ("v", "w"),
    )
    model = parse_model(text)
    store_as_bfloat16(model, find_variables(model)[:1], ())
    verify_structure(model)
    found = render(model)
    assert "copy = AssignVariableOp(w, r/float32) {dtype: float32}" in found
    assert "back = AssignVariableOp(v, back/bfloat16) {dtype: bfloat16}" in found
    assert "dtypes: [bfloat16, float32]" in found


def test_types_that_mlir_repeats_on_arguments() -> None:
    text = model_text(
        "y = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @read}; FUNCTIONS"
        + READER.replace("(float32<4>)", "(float32<4>) {_handle_dtypes: [float32], _handle_shapes: [<4>]}")
    )
    assert "resource(bfloat16<4>) {_handle_dtypes: [bfloat16], _handle_shapes: [<4>]}" in stored(text)


def test_a_slice_of_a_restored_tensor_is_restored_as_bfloat16_and_cast() -> None:
    """Where RestoreV2's output does other work on its way, that work stays float32."""
    text = model_text("y = ReadVariableOp(v) {dtype: float32}").replace(
        "AssignVariableOp(v, restore)", "AssignVariableOp(v, twice)"
    )
    text = text.replace(
        "main {",
        "main { twice = AddV2(restore, restore) {T: float32}; early = Identity(restore) {T: float32}; "
        "use = AssignVariableOp(v, early) {dtype: float32};",
    )
    found = stored(text)
    assert "twice = AddV2(restore/float32, restore/float32) {T: float32}" in found
    assert "assign_v = AssignVariableOp(v, assign_v/bfloat16) {dtype: bfloat16}" in found


# --- models that TensorFlow saves -------------------------------------------------------------------------------

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
    verify_structure(model)
    done = store_as_bfloat16(model, [v for v in find_variables(model) if _is_served(v) and v.ineligible is None], ())
    verify_structure(model)
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
