"""The four requirements of the batching op, as the manual numbers them, and how a violation of one is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.graph import shapes
from converter.graph.shapes import Shape


@dataclass(frozen=True)
class Requirement:
    """One of the reference's four requirements: what it asks, the op's message, and the remedy."""

    text: str
    runtime_error: str
    remedy: str


_INSTEAD = "or batch a function or signature that meets the requirement"
REQUIREMENTS = {
    1: Requirement(
        "inputs to batching cannot be scalars",
        "Batching input tensors must have at least one dimension",
        f"Make the scalar a vector with one element for each row, {_INSTEAD}",
    ),
    2: Requirement(
        "across requests, an input has the same size in each dimension but the 0th",
        "Dimensions of inputs should match",
        f"Pad these inputs to one size before they are batched, {_INSTEAD}",
    ),
    3: Requirement(
        "all inputs of a request have the same 0th dimension",
        "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
        "Give the inputs input_signature shapes with None (for a signature: -1) in the 0th dimension, the batch, "
        f"{_INSTEAD}",
    ),
    4: Requirement(
        "the 0th dimension of each output is the sum of the 0th dimensions of the batched inputs, padding included",
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
        f"Return a tensor with one entry for each row, {_INSTEAD}",
    ),
}


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
    number, rule = first.requirement, REQUIREMENTS[first.requirement]
    tensors = list(dict.fromkeys(f"{v.tensor} of shape {v.shape}" for v in violations))
    outcome = f'{"fails" if first.certain else "may fail"} with "{rule.runtime_error}"'
    return (
        f"{'; '.join(tensors)} {first.why}, which breaks requirement {number} of the batching op ({rule.text}): "
        f"serving {outcome}. {first.remedy}"
    )


def violation(tensor: str, shape: Shape, number: int, certain: bool, why: str) -> Violation:
    return Violation(tensor, shapes.text(shape), number, certain, why, f"{REQUIREMENTS[number].remedy}.")
