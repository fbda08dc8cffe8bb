"""SparseTensors among a component's tensors: three tensors whose 0th dimensions differ, which no batch can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converter.graph import shapes
from converter.graph.model import Model
from converter.graph.protos import DT_INT64, FunctionDef, StructuredValue, TypeSpecProto
from converter.graph.shapes import Shape
from converter.passes.batching.component import Component
from converter.passes.batching.requirements import Violation
from converter.passes.batching.rows.report import listed

_REMEDY = "Convert it with tf.sparse.to_dense before it is batched, and return dense tensors"


def sparse_violation(what: str, names: Sequence[str], found: Sequence[Shape], parts: Sequence[int]) -> Violation:
    number = 3 if what == "Input" else 4
    quoted = [f'"{names[i]}"' for i in parts]
    tensor = f"The SparseTensor of {what.lower()}s {listed(quoted)}"
    why = "has an indices, a values and a dense_shape tensor, whose 0th dimensions differ"
    shape = ", ".join(shapes.text(found[i]) for i in parts)
    return Violation(tensor, shape, number, True, why, f"{_REMEDY}.")


def sparse_arguments(model: Model, component: Component, function: FunctionDef) -> list[tuple[int, ...]]:
    """Indices of the arguments that are indices, values and dense_shape of one SparseTensor, a tuple for each."""
    concrete = model.object_graph.concrete_functions
    if component.function in concrete:
        recorded = _sparse_leaves(concrete[component.function].canonicalized_input_signature)
        if recorded is not None:
            return [each for each in recorded if set(each) <= set(component.inputs)]
    inputs = component.inputs
    dtypes = [function.signature.input_arg[i].type for i in inputs]
    found = _look_sparse([component.input_names[i] for i in inputs], dtypes, [component.declared[i] for i in inputs])
    return [tuple(inputs[i] for i in each) for each in found]


def sparse_results(
    model: Model, component: Component, dtypes: Sequence[int], found: Sequence[Shape]
) -> list[tuple[int, ...]]:
    concrete = model.object_graph.concrete_functions
    if component.function in concrete:
        recorded = _sparse_leaves(concrete[component.function].output_signature)
        if recorded is not None:
            return recorded
    return _look_sparse(component.result_names, dtypes, found)


def _sparse_leaves(structure: StructuredValue) -> list[tuple[int, ...]] | None:
    """The same from a StructuredValue of the object graph; None if it does not tell how many tensors it stands for."""
    found: list[tuple[int, ...]] = []
    position = 0
    for leaf in _leaves(structure):
        kind = leaf.WhichOneof("kind")
        if kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
            position += 1
        elif kind == "type_spec_value":
            if leaf.type_spec_value.type_spec_class != TypeSpecProto.SPARSE_TENSOR_SPEC:
                return None
            found.append((position, position + 1, position + 2))
            position += 3
        elif kind is None:
            return None
    return found


def _leaves(structure: StructuredValue) -> Iterator[StructuredValue]:
    kind = structure.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        for value in getattr(structure, kind).values:
            yield from _leaves(value)
    elif kind == "dict_value":
        for key in sorted(structure.dict_value.fields):
            yield from _leaves(structure.dict_value.fields[key])
    elif kind == "named_tuple_value":
        for pair in structure.named_tuple_value.values:
            yield from _leaves(pair.value)
    else:
        yield structure


def _look_sparse(names: Sequence[str], dtypes: Sequence[int], found: Sequence[Shape]) -> list[tuple[int, ...]]:
    """By names, or by shapes: indices [entries, rank], values [entries], dense_shape [rank]."""
    sparse: list[tuple[int, ...]] = []
    for i in range(len(names) - 2):
        indices, values, dense_shape = found[i : i + 3]
        if dtypes[i] != DT_INT64 or dtypes[i + 2] != DT_INT64:
            continue
        endings = zip(names[i : i + 3], ("indices", "values", "dense_shape"), strict=True)
        named = all(name.endswith(ending) for name, ending in endings)
        shaped = (
            indices is not None
            and values is not None
            and dense_shape is not None
            and (len(indices), len(values), len(dense_shape)) == (2, 1, 1)
            and indices[1] is not None
            and indices[1] == dense_shape[0]
            and indices[0] == values[0]
        )
        if named or shaped:
            sparse.append((i, i + 1, i + 2))
    return sparse
