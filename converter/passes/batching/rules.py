"""The batching op's shape rules, checked before anything is served.

TensorFlow's BatchFunction concatenates the inputs of several requests along their 0th dimension and splits the outputs
along theirs. What cannot work is certain (a tensor of rank 0 has no such dimension); what depends on the requests is
only possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import shapes
from converter.graph.model import Model
from converter.graph.protos import DT_INT64, FunctionDef, StructuredValue, TypeSpecProto
from converter.graph.shapes import Shape


@dataclass(frozen=True)
class Requirement:
    """One of the reference's four requirements: its number, what it asks, the op's message, and the remedy."""

    number: int
    text: str
    runtime_error: str
    remedy: str


_INSTEAD = "or batch a function or signature that meets the requirement"
REQUIREMENTS = {
    1: Requirement(
        1,
        "inputs to batching cannot be scalars",
        "Batching input tensors must have at least one dimension",
        f"Make the scalar a vector with one element for each row, {_INSTEAD}",
    ),
    2: Requirement(
        2,
        "across requests, an input has the same size in each dimension but the 0th",
        "Dimensions of inputs should match",
        f"Pad these inputs to one size before they are batched, {_INSTEAD}",
    ),
    3: Requirement(
        3,
        "all inputs of a request have the same 0th dimension",
        "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
        "Give the inputs input_signature shapes with None (for a signature: -1) in the 0th dimension, the batch, "
        f"{_INSTEAD}",
    ),
    4: Requirement(
        4,
        "the 0th dimension of each output is the sum of the 0th dimensions of the batched inputs, padding included",
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
        f"Return a tensor with one entry for each row, {_INSTEAD}",
    ),
}
_SPARSE_REMEDY = "Convert it with tf.sparse.to_dense before it is batched, and return dense tensors"


@dataclass(frozen=True)
class Violation:
    """What breaks a requirement, certainly or for some requests: one tensor, or the three of a SparseTensor."""

    tensor: str
    shape: str
    requirement: int
    certain: bool
    why: str
    remedy: str

    def __str__(self) -> str:
        return told([self])


def told(violations: Sequence[Violation]) -> str:
    """What breaks one requirement in one way, whichever tensors do."""
    first = violations[0]
    rule = REQUIREMENTS[first.requirement]
    tensors = list(dict.fromkeys(f"{v.tensor} of shape {v.shape}" for v in violations))
    outcome = f'{"fails" if first.certain else "may fail"} with "{rule.runtime_error}"'
    return (
        f"{'; '.join(tensors)} {first.why}, which breaks requirement {rule.number} of the batching op ({rule.text}): "
        f"serving {outcome}. {first.remedy}"
    )


@dataclass(frozen=True)
class Component:
    """What is to be batched.

    Attributes:
      function: its inputs and results are those of the batching op.
      declared: the shape of each argument as far as the model tells.
      inputs: indices of the arguments that belong to the request; the others are captured.
      input_names, result_names: what the user calls the tensors, one for each argument and each result.
      sizes: batch sizes that may be run: the allowed ones, or some of those up to max_batch_size.
      max_batch_size: rows of the largest request.
      largest_batch: rows of the largest batch that is run.
    """

    function: str
    declared: tuple[Shape, ...]
    inputs: tuple[int, ...]
    input_names: tuple[str, ...]
    result_names: tuple[str, ...]
    sizes: tuple[int, ...]
    max_batch_size: int
    largest_batch: int


def batch_sizes(allowed: Sequence[int], max_batch_size: int) -> tuple[int, ...]:
    """Sizes to try: all allowed ones; without those the smallest two and the largest."""
    return tuple(allowed) or tuple(sorted({size for size in (1, 2, max_batch_size) if size <= max_batch_size}))


def check(model: Model, component: Component, inference: Inference | None = None) -> list[Violation]:
    """Everything about a component's shapes that the batching op refuses or may refuse."""
    function = model.functions[component.function]
    sparse = _sparse_arguments(model, component, function)
    violations = [_sparse_violation("Input", component.input_names, component.declared, each) for each in sparse]
    violations += _input_violations(component, {i for each in sparse for i in each})
    if any(v.certain for v in violations):
        return violations
    return violations + _result_violations(model, component, function, inference or Inference(model))


def _input_violations(component: Component, sparse: set[int]) -> list[Violation]:
    found = []
    fixed: dict[int, tuple[str, Shape]] = {}
    for i in component.inputs:
        name, shape = f'Input "{component.input_names[i]}"', component.declared[i]
        if i in sparse:
            continue
        if shape is None:
            found.append(_violation(name, shape, 1, False, "may be a scalar"))
            found.append(_violation(name, shape, 2, False, "may have other sizes in other requests"))
        elif not shape:
            found.append(_violation(name, shape, 1, True, "is a scalar that belongs to the request"))
        else:
            if None in shape[1:]:
                why = "may have other sizes where it is None in other requests, and then they cannot share a batch"
                found.append(_violation(name, shape, 2, False, why))
            if shape[0] is not None:
                fixed.setdefault(shape[0], (name, shape))
                found += _fixed_violations(component, name, shape, shape[0])
    if len(fixed) > 1:
        (first, (first_name, _)), (second, (second_name, second_shape)), *_ = fixed.items()
        why = f"has {second} rows always, while {first_name[0].lower()}{first_name[1:]} has {first}"
        found.append(_violation(second_name, second_shape, 3, True, why))
    return found


def _fixed_violations(component: Component, name: str, shape: Shape, rows: int) -> list[Violation]:
    if rows > component.max_batch_size:
        why = f"has {rows} rows always, more than max_batch_size: {component.max_batch_size}"
        return [_violation(name, shape, 3, True, why)]
    why = f"has a fixed 0th dimension, so batching works only for requests of exactly {rows} rows"
    return [_violation(name, shape, 3, False, why)]


def _result_violations(
    model: Model, component: Component, function: FunctionDef, inference: Inference
) -> list[Violation]:
    """Infers the results for every batch size that may be run, and compares their 0th dimension with it."""
    fixed = {shape[0] for i in component.inputs if (shape := component.declared[i]) and shape[0] is not None}
    # Requests that fill the largest batch are never merged or padded.
    sizes = tuple(fixed) if fixed == {component.largest_batch} else component.sizes
    dtypes = [r.type for r in function.signature.output_arg]
    results: list[list[Shape]] = []
    for size in sizes:
        arguments = [
            (size, *shape[1:]) if i in component.inputs and shape else shape
            for i, shape in enumerate(component.declared)
        ]
        try:
            inferred = inference.infer(component.function, arguments)
        except ShapeInferenceError as error:
            return [_cannot_compute(component, size, error)]
        results.append([inferred.result(i) for i in range(len(dtypes))])
    common = [shapes.join([inferred[i] for inferred in results]) for i in range(len(dtypes))]
    sparse = _sparse_results(model, component, dtypes, common)
    found = [_sparse_violation("Output", component.result_names, common, each) for each in sparse]
    for i, result in enumerate(component.result_names):
        name = f'Output "{result}"'
        if any(i in each for each in sparse):
            continue
        for size, each in zip(sizes, results, strict=True):
            problem = _result_violation(name, each[i], size)
            if problem is not None:
                found.append(problem)
                break
    return found


def _result_violation(name: str, shape: Shape, size: int) -> Violation | None:
    if shape is None:
        return _violation(name, shape, 4, False, "may have another 0th dimension than the batch")
    if not shape:
        return _violation(name, shape, 4, True, "is a scalar")
    if shape[0] is None:
        return _violation(name, shape, 4, False, "has a 0th dimension that cannot be proved to be the batch")
    if shape[0] != size:
        return _violation(name, shape, 4, True, f"has {shape[0]} rows in a batch of {size}")
    return None


def _cannot_compute(component: Component, size: int, error: ShapeInferenceError) -> Violation:
    names = ", ".join(f'"{component.input_names[i]}"' for i in component.inputs)
    reason = str(error.__cause__).partition("\n")[0]
    first = component.declared[component.inputs[0]]
    if len(component.inputs) > 1:
        why = f"cannot be computed with {size} rows in each of the inputs {names} ({reason})"
        return _violation(f'Input "{component.input_names[component.inputs[0]]}"', first, 3, True, why)
    return _violation(f"Input {names}", first, 4, True, f"cannot be computed in a batch of {size} rows ({reason})")


def _violation(tensor: str, shape: Shape, number: int, certain: bool, why: str) -> Violation:
    return Violation(tensor, shapes.text(shape), number, certain, why, f"{REQUIREMENTS[number].remedy}.")


# --- sparse tensors ---------------------------------------------------------------------------------------------


def _sparse_violation(what: str, names: Sequence[str], found: Sequence[Shape], parts: Sequence[int]) -> Violation:
    number = 3 if what == "Input" else 4
    quoted = [f'"{names[i]}"' for i in parts]
    tensor = f"The SparseTensor of {what.lower()}s {', '.join(quoted[:-1])} and {quoted[-1]}"
    why = "has an indices, a values and a dense_shape tensor, whose 0th dimensions differ"
    shape = ", ".join(shapes.text(found[i]) for i in parts)
    return Violation(tensor, shape, number, True, why, f"{_SPARSE_REMEDY}.")


def _sparse_arguments(model: Model, component: Component, function: FunctionDef) -> list[tuple[int, ...]]:
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


def _sparse_results(
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
