"""What is to be batched, as the rules of shapes and rows see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.analysis.shape_inference import infer
from converter.graph import calls, refs, shapes
from converter.graph.model import Model
from converter.graph.shapes import Shape
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.targets import Target, Update


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

    @property
    def fixed_rows(self) -> frozenset[int]:
        """Numbers of rows that inputs promise for every request."""
        found = (shape[0] for i in self.inputs if (shape := self.declared[i]))
        return frozenset(rows for rows in found if rows is not None)

    @property
    def fills_batches(self) -> bool:
        """Whether every request fills the largest batch: then none is ever merged or padded."""
        return self.fixed_rows == {self.largest_batch}


def batch_sizes(allowed: Sequence[int], max_batch_size: int) -> tuple[int, ...]:
    """Sizes to try: all allowed ones; without those the smallest two and the largest."""
    return tuple(allowed) or tuple(sorted({size for size in (1, 2, max_batch_size) if size <= max_batch_size}))


def target_component(model: Model, target: Target) -> Component:
    """
    Raises:
      ShapeInferenceError: nothing is recorded of a TPU call's arguments, nor can it be inferred around the call.
    """
    declared = shapes.declared_shapes(model.functions[target.function])
    if target.site is not None and None in declared:
        # A TPU call that somebody else built often records no shapes; what feeds it may be known.
        around = infer(model, target.scope)
        _, call = target.site.call.find(model)
        fed = [around.of(ref) for ref in refs.data_inputs(call)[:-1]]
        declared = [f if d is None else d for d, f in zip(declared, fed, strict=True)]
    return _component(model, target.function, target.inputs, declared, target.attributes)


def update_component(model: Model, update: Update) -> Component:
    declared = shapes.declared_shapes(model.functions[update.function])
    return _component(model, update.function, update.inputs, declared, update.after)


def _component(
    model: Model, name: str, inputs: tuple[int, ...], declared: Sequence[Shape], attributes: Attributes
) -> Component:
    signature = model.functions[name].signature
    keys = _signature_outputs(model, name)
    return Component(
        function=name,
        declared=tuple(declared),
        inputs=inputs,
        input_names=tuple(a.name for a in signature.input_arg),
        result_names=tuple(keys.get(i, r.name) for i, r in enumerate(signature.output_arg)),
        sizes=batch_sizes(attributes.allowed_batch_sizes, attributes.max_batch_size),
        max_batch_size=attributes.max_batch_size,
        largest_batch=attributes.largest_batch,
    )


def _signature_outputs(model: Model, function: str) -> dict[int, str]:
    """Result number -> output key, for a function that computes a signature."""
    callers = {n.name for n in model.graph_def.node if function in calls.called_functions(n, model)}
    found = {}
    for signature in model.signatures.values():
        for key, output in signature.outputs.items():
            node = refs.producer_of(output.name)
            if node in callers:
                found[refs.output_number(output.name)] = key
    return found
