"""Which three tensors of a component are one SparseTensor: by structure, by names, or by shapes."""

from dataclasses import replace
from pathlib import Path

import pytest

from converter.graph.model import Model
from converter.graph.protos import StructuredValue, TypeSpecProto
from converter.passes.batching.requirements import Violation
from converter.passes.batching.rules import check
from converter.passes.batching.sparse import sparse_arguments, sparse_results, sparse_violation
from converter.saved_model.reader import read_model
from tests.harness import parse_model
from tests.passes.batching.models import argument, component

PARTS = f"{argument('i', '?,2', 'int64')}, {argument('v', '?')}, {argument('d', '2', 'int64')}"


def arguments(text: str, *inputs: int) -> list[tuple[int, ...]]:
    """What is found among the arguments of `text`; these belong to the request, or all."""
    model = parse_model(f"@f({text}) -> () {{ return }}")
    each = component(model)
    return sparse_arguments(model, replace(each, inputs=inputs or each.inputs), model.functions["f"])


# ------------------------------------------------------------------------------------------------------------- by looks


def test_three_tensors_of_fitting_shapes_are_one_wherever_they_stand() -> None:
    x, y = argument("x", "?,3"), argument("y", "?,3")
    again = PARTS.replace("i:", "j:").replace("v:", "w:").replace("d:", "e:")
    assert arguments(PARTS) == [(0, 1, 2)]
    assert arguments(f"{x}, {PARTS}") == [(1, 2, 3)]
    assert arguments(f"{PARTS}, {y}") == [(0, 1, 2)]
    assert arguments(f"{x}, {PARTS}, {y}, {again}") == [(1, 2, 3), (5, 6, 7)]
    assert arguments(f"{x}, {y}") == []


@pytest.mark.parametrize(
    ("indices", "values", "dense_shape", "found"),
    [
        ("?,2", "?", "2", True),
        ("5,2", "5", "2", True),
        ("?,2", "?,1", "2", False),
        ("?,2,1", "?", "2", False),
        ("?", "?", "2", False),
        ("?,2", "?", "2,1", False),
        ("?,2", "?", "", False),
        ("?,2", "?", "3", False),
        ("?,?", "?", "?", False),
        ("?,?", "?", "2", False),
        ("?,2", "?", "?", False),
        ("5,2", "6", "2", False),
        ("5,2", "?", "2", False),
        ("*", "?", "2", False),
        ("?,2", "*", "2", False),
        ("?,2", "?", "*", False),
    ],
)
def test_the_sizes_must_fit(indices: str, values: str, dense_shape: str, found: bool) -> None:
    text = f"{argument('i', indices, 'int64')}, {argument('v', values)}, {argument('d', dense_shape, 'int64')}"
    assert arguments(text) == [(0, 1, 2)] * found


@pytest.mark.parametrize(("first", "last"), [("int64", "float32"), ("float32", "int64"), ("int32", "int32")])
def test_indices_and_dense_shape_are_int64(first: str, last: str) -> None:
    shaped = PARTS.replace("i: int64", f"i: {first}").replace("d: int64", f"d: {last}")
    assert arguments(shaped) == []
    assert arguments(f"indices: {first}, values: float32, dense_shape: {last}") == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("x/indices", "x/values", "x/dense_shape"), True),
        (("indices", "values", "dense_shape"), True),
        (("index", "values", "dense_shape"), False),
        (("indices", "value", "dense_shape"), False),
        (("indices", "values", "shape"), False),
        (("values", "indices", "dense_shape"), False),
    ],
)
def test_their_names_may_tell(names: tuple[str, str, str], found: bool) -> None:
    first, second, third = names
    assert arguments(f"{first}: int64, {second}: float32, {third}: int64") == [(0, 1, 2)] * found


def test_only_what_belongs_to_the_request_counts() -> None:
    capture = argument("c", "?,3")
    text = f"{argument('i', '?,2', 'int64')}, {capture}, {argument('v', '?')}, {argument('d', '2', 'int64')}"
    assert arguments(text) == []
    assert arguments(text, 0, 2, 3) == [(0, 2, 3)], "a capture between them does not part them"
    assert arguments(PARTS, 0, 1) == []


# --------------------------------------------------------------------------------------------------------- by structure

TENSOR = StructuredValue(tensor_spec_value={"name": "t"})
BOUNDED = StructuredValue(bounded_tensor_spec_value={"name": "t"})
SPARSE = StructuredValue(type_spec_value=TypeSpecProto(type_spec_class=TypeSpecProto.SPARSE_TENSOR_SPEC))
RAGGED = StructuredValue(type_spec_value=TypeSpecProto(type_spec_class=TypeSpecProto.RAGGED_TENSOR_SPEC))
NUMBER = StructuredValue(int64_value=3)


def tuple_of(*values: StructuredValue) -> StructuredValue:
    made = StructuredValue()
    made.tuple_value.SetInParent()
    made.tuple_value.values.extend(values)
    return made


def list_of(*values: StructuredValue) -> StructuredValue:
    made = StructuredValue()
    made.list_value.values.extend(values)
    return made


def dict_of(**values: StructuredValue) -> StructuredValue:
    made = StructuredValue()
    made.dict_value.SetInParent()
    for key, value in values.items():
        made.dict_value.fields[key].CopyFrom(value)
    return made


def named_tuple_of(**values: StructuredValue) -> StructuredValue:
    made = StructuredValue()
    for key, value in values.items():
        made.named_tuple_value.values.add(key=key).value.CopyFrom(value)
    return made


def traced(structure: StructuredValue, results: StructuredValue | None = None) -> Model:
    """A function of eight tensors of unknown shape, and what its exporter recorded of their structure."""
    types = ", ".join(f"a{i}: float32" for i in range(8))
    model = parse_model(f"object f = function @f\n@f({types}) -> ({types}) {{ return a0, a1, a2, a3, a4, a5, a6, a7 }}")
    recorded = model.object_graph.concrete_functions["f"]
    recorded.canonicalized_input_signature.CopyFrom(structure)
    recorded.output_signature.CopyFrom(results or StructuredValue())
    return model


@pytest.mark.parametrize(
    ("structure", "found"),
    [
        (tuple_of(tuple_of(TENSOR, SPARSE, TENSOR), dict_of()), [(1, 2, 3)]),
        (tuple_of(SPARSE, SPARSE, TENSOR, SPARSE), [(0, 1, 2), (3, 4, 5), (7, 8, 9)]),
        (list_of(SPARSE, NUMBER, TENSOR, SPARSE), [(0, 1, 2), (4, 5, 6)]),
        (dict_of(b=SPARSE, a=TENSOR, c=SPARSE), [(1, 2, 3), (4, 5, 6)]),
        (named_tuple_of(b=SPARSE, a=TENSOR, c=SPARSE), [(0, 1, 2), (4, 5, 6)]),
        (tuple_of(BOUNDED, SPARSE), [(1, 2, 3)]),
        (tuple_of(TENSOR, TENSOR), []),
        (tuple_of(), []),
    ],
)
def test_a_structure_tells_where_they_stand(structure: StructuredValue, found: list[tuple[int, ...]]) -> None:
    """A dict's values stand in the order of its keys, whatever the order in which they were given."""
    model = traced(structure, structure)
    each = replace(component(model), inputs=tuple(range(10)))
    assert sparse_arguments(model, each, model.functions["f"]) == found
    assert sparse_results(model, each, [], []) == found


@pytest.mark.parametrize("structure", [tuple_of(SPARSE, RAGGED), tuple_of(SPARSE, StructuredValue()), RAGGED])
def test_a_structure_of_parts_that_are_not_known_tells_nothing(structure: StructuredValue) -> None:
    model = traced(structure, structure)
    each = component(model)
    assert sparse_arguments(model, each, model.functions["f"]) == []
    names = ("indices", "values", "dense_shape", *each.input_names[3:])
    int64 = [9] * 8
    assert sparse_results(model, replace(each, result_names=names), int64, [None] * 8) == [(0, 1, 2)], "by its looks"


def test_a_sparse_tensor_that_is_captured_in_part_is_none() -> None:
    model = traced(tuple_of(SPARSE, SPARSE))
    each = replace(component(model), inputs=(0, 1, 2, 3, 4))
    assert sparse_arguments(model, each, model.functions["f"]) == [(0, 1, 2)]


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


# -------------------------------------------------------------------------------------------------------------- message


@pytest.mark.parametrize(("what", "requirement"), [("Input", 3), ("Output", 4)])
def test_the_three_are_named_in_one_message(what: str, requirement: int) -> None:
    found = sparse_violation(what, ["x", "i", "v", "d"], [(None, 3), (None, 2), (None,), (2,)], (1, 2, 3))
    assert found == Violation(
        tensor=f'The SparseTensor of {what.lower()}s "i", "v" and "d"',
        shape="[None, 2], [None], [2]",
        requirement=requirement,
        certain=True,
        why="has an indices, a values and a dense_shape tensor, whose 0th dimensions differ",
        remedy="Convert it with tf.sparse.to_dense before it is batched, and return dense tensors.",
    )
