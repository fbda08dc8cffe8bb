"""The batching op's shape rules, checked before anything is served.

TensorFlow's BatchFunction concatenates the inputs of several requests along their 0th dimension and splits the outputs
along theirs. What cannot work is certain (a tensor of rank 0 has no such dimension); what depends on the requests is
only possible.
"""

from __future__ import annotations

from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph import shapes
from converter.graph.model import Model
from converter.graph.protos import FunctionDef
from converter.graph.shapes import Shape
from converter.passes.batching.component import Component
from converter.passes.batching.requirements import Violation, violation
from converter.passes.batching.sparse import sparse_arguments, sparse_results, sparse_violation


def check(model: Model, component: Component, inference: Inference | None = None) -> list[Violation]:
    """Everything about a component's shapes that the batching op refuses or may refuse."""
    function = model.functions[component.function]
    sparse = sparse_arguments(model, component, function)
    violations = [sparse_violation("Input", component.input_names, component.declared, each) for each in sparse]
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
            found.append(violation(name, shape, 1, False, "may be a scalar"))
            found.append(violation(name, shape, 2, False, "may have other sizes in other requests"))
        elif not shape:
            found.append(violation(name, shape, 1, True, "is a scalar that belongs to the request"))
        else:
            if None in shape[1:]:
                why = "may have other sizes where it is None in other requests, and then they cannot share a batch"
                found.append(violation(name, shape, 2, False, why))
            if shape[0] is not None:
                fixed.setdefault(shape[0], (name, shape))
                found += _fixed_violations(component, name, shape, shape[0])
    if len(fixed) > 1:
        (first, (first_name, _)), (second, (second_name, second_shape)), *_ = fixed.items()
        why = f"has {second} rows always, while {first_name[0].lower()}{first_name[1:]} has {first}"
        found.append(violation(second_name, second_shape, 3, True, why))
    return found


def _fixed_violations(component: Component, name: str, shape: Shape, rows: int) -> list[Violation]:
    if rows > component.max_batch_size:
        why = f"has {rows} rows always, more than max_batch_size: {component.max_batch_size}"
        return [violation(name, shape, 3, True, why)]
    why = f"has a fixed 0th dimension, so batching works only for requests of exactly {rows} rows"
    return [violation(name, shape, 3, False, why)]


def _result_violations(
    model: Model, component: Component, function: FunctionDef, inference: Inference
) -> list[Violation]:
    """Infers the results for every batch size that may be run, and compares their 0th dimension with it."""
    sizes = (component.largest_batch,) if component.fills_batches else component.sizes
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
    sparse = sparse_results(model, component, dtypes, common)
    found = [sparse_violation("Output", component.result_names, common, each) for each in sparse]
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
        return violation(name, shape, 4, False, "may have another 0th dimension than the batch")
    if not shape:
        return violation(name, shape, 4, True, "is a scalar")
    if shape[0] is None:
        return violation(name, shape, 4, False, "has a 0th dimension that cannot be proved to be the batch")
    if shape[0] != size:
        return violation(name, shape, 4, True, f"has {shape[0]} rows in a batch of {size}")
    return None


def _cannot_compute(component: Component, size: int, error: ShapeInferenceError) -> Violation:
    names = ", ".join(f'"{component.input_names[i]}"' for i in component.inputs)
    reason = str(error.__cause__).partition("\n")[0]
    first = component.declared[component.inputs[0]]
    if len(component.inputs) > 1:
        why = f"cannot be computed with {size} rows in each of the inputs {names} ({reason})"
        return violation(f'Input "{component.input_names[component.inputs[0]]}"', first, 3, True, why)
    return violation(f"Input {names}", first, 4, True, f"cannot be computed in a batch of {size} rows ({reason})")
