"""Finding variables and their uses, and which must stay float32, on graphs as text."""

import re

import pytest
import tensorflow as tf

from converter.analysis.variables.index import Variable, find_variables
from converter.graph.model import MAIN_GRAPH, Model
from tests.analysis.variables.models import KEY, READER, model_text
from tests.harness import parse_model
from tests.passes.bfloat16.models import store_as_bfloat16

BFLOAT16 = tf.bfloat16.as_datatype_enum

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
        store_as_bfloat16(model, [variable])


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
    assert store_as_bfloat16(model, [w]) == [v, w]
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


def dtypes_of(model: Model) -> dict[str, int]:
    return {v.name: v.dtype for v in find_variables(model)}
