"""The batching op's shape rules: what certainly fails, what may fail, and what is fine."""

from dataclasses import replace
from pathlib import Path

import pytest

from converter.graph.model import Model
from converter.graph.shapes import Shape, declared_shape
from converter.passes.batching.rules import REQUIREMENTS, Component, batch_sizes, check
from converter.saved_model.reader import read_model
from tests.harness import parse_model

Found = list[tuple[str, int, bool]]


def found(
    arguments: str, body: str, results: str = "y: float32", *, size: int = 8, allowed: tuple[int, ...] = ()
) -> Found:
    """(tensor, requirement, certain) of each violation in a function whose arguments all belong to the request."""
    model = parse_model(f"@f({arguments}) -> ({results}) {{ {body} }}")
    return [(v.tensor, v.requirement, v.certain) for v in check(model, component(model, size, allowed))]


def component(model: Model, size: int = 8, allowed: tuple[int, ...] = (), function: str = "f") -> Component:
    definition = model.functions[function]
    arguments, results = definition.signature.input_arg, definition.signature.output_arg
    declared: tuple[Shape, ...] = tuple(declared_shape(definition, i) for i in range(len(arguments)))
    return Component(
        function=function,
        declared=declared,
        inputs=tuple(range(len(arguments))),
        input_names=tuple(a.name for a in arguments),
        result_names=tuple(r.name for r in results),
        sizes=batch_sizes(allowed, size),
        max_batch_size=size,
        largest_batch=allowed[-1] if allowed else size,
    )


def argument(name: str, shape: str, dtype: str = "float32") -> str:
    return f"{name}: {dtype} {{_output_shapes: [<{shape}>]}}"


NEG = "n = Neg(x) {T: float32}; return n:y:0"
TARGET = "Const() {{dtype: int32, value: int32([{}])}}"


def test_rows_in_rows_out_is_fine() -> None:
    assert found(argument("x", "?,3"), NEG) == []
    assert found(argument("x", "?"), NEG, allowed=(2, 8)) == []


def test_a_scalar_input_certainly_fails() -> None:
    assert found(argument("x", ""), NEG) == [('Input "x"', 1, True)]


def test_an_input_of_unknown_rank_may_fail() -> None:
    assert found("x: float32", NEG) == [('Input "x"', 1, False), ('Input "x"', 2, False), ('Output "y"', 4, False)]


def test_other_dimensions_of_unknown_size_may_fail() -> None:
    assert found(argument("x", "?,?,3"), NEG) == [('Input "x"', 2, False)]


def test_a_fixed_number_of_rows_works_for_that_number_only() -> None:
    assert found(argument("x", "2,3"), NEG) == [('Input "x"', 3, False)]
    assert found(argument("x", "9,3"), NEG) == [('Input "x"', 3, True)]
    body = f"s = {TARGET.format('2, 3')}; r = Reshape(x, s:output:0) {{T: float32, Tshape: int32}}; return r:output:0"
    assert found(argument("x", "2,3"), body) == [('Input "x"', 3, False), ('Input "x"', 4, True)]
    # Requests of 2 rows fill a batch of 2, so none is ever merged or padded.
    assert found(argument("x", "2,3"), body, size=2) == [('Input "x"', 3, False)]


def test_different_fixed_numbers_of_rows_certainly_fail() -> None:
    arguments = f"{argument('x', '2,3')}, {argument('z', '4,3')}"
    assert found(arguments, NEG) == [('Input "x"', 3, False), ('Input "z"', 3, False), ('Input "z"', 3, True)]


def test_inputs_that_cannot_have_equal_rows_certainly_fail() -> None:
    arguments = f"{argument('x', '?,3')}, {argument('z', '?,4')}"
    body = "m = MatMul(x, z) {T: float32}; return m:product:0"
    assert found(arguments, body) == [('Input "x"', 3, True)]


def test_outputs_without_the_batch_certainly_fail() -> None:
    body = f"a = {TARGET.format('0')}; s = Sum(x, a:output:0) {{T: float32, Tidx: int32}}; return s:output:0"
    assert found(argument("x", "?,3"), body) == [('Output "y"', 4, True)]
    assert found(argument("x", "?"), body) == [('Output "y"', 4, True)]


def test_an_output_whose_rows_depend_on_values_may_fail() -> None:
    body = "u = Unique(x) {T: float32, out_idx: int32}; return u:y:0"
    assert found(argument("x", "?"), body) == [('Output "y"', 4, False)]


def test_rows_folded_into_another_dimension_fail_for_some_batches() -> None:
    body = f"s = {TARGET.format('-1, 6')}; r = Reshape(x, s:output:0) {{T: float32, Tshape: int32}}; return r:output:0"
    assert found(argument("x", "?,3"), body, allowed=(2, 4)) == [('Output "y"', 4, True)]


def test_the_three_tensors_of_a_sparse_tensor_are_recognized() -> None:
    parts = f"{argument('i', '?,2', 'int64')}, {argument('v', '?')}, {argument('d', '2', 'int64')}"
    body = "n = Neg(v) {T: float32}; return n:y:0"
    assert found(parts, body) == [('The SparseTensor of inputs "i", "v" and "d"', 3, True)]
    named = "x/indices: int64, x/values: float32, x/dense_shape: int64"
    assert [tensor for tensor, _, _ in found(named, body.replace("Neg(v)", "Neg(x/values)"))] == [
        'The SparseTensor of inputs "x/indices", "x/values" and "x/dense_shape"'
    ]


def test_a_sparse_result_is_recognized() -> None:
    body = "w = Where(x) {T: float32}; s = Shape(x) {T: float32, out_type: int64}; return w:index:0, x, s:output:0"
    text = "i: int64, v: float32, d: int64"
    assert found(argument("x", "?"), body, text) == [('The SparseTensor of outputs "i", "v" and "d"', 4, True)]


def test_a_violation_names_tensor_shape_requirement_error_and_remedy() -> None:
    model = parse_model(f"@f({argument('k', '')}) -> (y: float32) {{ {NEG.replace('x', 'k')} }}")
    (violation,) = check(model, component(model))
    assert str(violation) == (
        'Input "k" of shape [] is a scalar that belongs to the request, which breaks requirement 1 of the batching op '
        '(inputs to batching cannot be scalars): serving fails with "Batching input tensors must have at least one '
        'dimension". Make the scalar a vector with one element for each row, or batch a function or signature that '
        "meets the requirement."
    )


def test_the_errors_are_those_of_the_manual() -> None:
    assert [REQUIREMENTS[n].runtime_error for n in (1, 2, 3, 4)] == [
        "Batching input tensors must have at least one dimension",
        "Dimensions of inputs should match",
        "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    ]


@pytest.mark.parametrize(
    ("allowed", "largest", "sizes"), [((2, 4), 4, (2, 4)), ((), 8, (1, 2, 8)), ((), 1, (1,)), ((), 2, (1, 2))]
)
def test_sizes_to_try(allowed: tuple[int, ...], largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(allowed, largest) == sizes


def test_a_component_may_capture_some_arguments() -> None:
    model = parse_model(f"@f({argument('x', '?,3')}, {argument('c', '')}) -> (y: float32) {{ {NEG} }}")
    assert check(model, replace(component(model), inputs=(0,))) == []


def test_sparse_arguments_of_a_traced_function_are_recognized_whatever_their_shapes(tmp_path: Path) -> None:
    import tensorflow as tf

    root = tf.Module()
    rows = tf.TensorSpec([None, 3], tf.float32)
    specs = [rows, {"a": tf.SparseTensorSpec(None, tf.float32), "b": rows}]
    root.f = tf.function(lambda x, many: (x + many["b"], many["a"]), input_signature=specs)
    root.f.get_concrete_function()
    tf.saved_model.save(root, str(tmp_path), options=tf.saved_model.SaveOptions(function_aliases={"f": root.f}))
    model = read_model(tmp_path)
    function = model.functions[model.aliases["f"][0]]
    each = replace(
        component(model, function=function.signature.name),
        input_names=("x", "indices_of_a", "values_of_a", "shape_of_a", "b"),
    )
    (violation,) = check(model, each)
    assert violation.tensor == 'The SparseTensor of inputs "indices_of_a", "values_of_a" and "shape_of_a"'
    assert violation.shape == "[None, None], [None], [None]"
    (violation,) = check(model, replace(each, inputs=(0, 4)))
    assert violation.requirement == 4
    assert violation.tensor.startswith("The SparseTensor of outputs ")
