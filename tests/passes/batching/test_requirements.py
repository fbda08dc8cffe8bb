"""The four requirements of the batching op, as the manual has them, and the sentences about what breaks them."""

from dataclasses import replace

import pytest

from converter.passes.batching.requirements import REQUIREMENTS, told, violation

INSTEAD = "or batch a function or signature that meets the requirement"


def test_requirements_are_those_of_the_manual_by_its_numbers() -> None:
    assert {n: (rule.text, rule.runtime_error, rule.remedy) for n, rule in REQUIREMENTS.items()} == {
        1: (
            "inputs to batching cannot be scalars",
            "Batching input tensors must have at least one dimension",
            f"Make the scalar a vector with one element for each row, {INSTEAD}",
        ),
        2: (
            "across requests, an input has the same size in each dimension but the 0th",
            "Dimensions of inputs should match",
            f"Pad these inputs to one size before they are batched, {INSTEAD}",
        ),
        3: (
            "all inputs of a request have the same 0th dimension",
            "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
            "Give the inputs input_signature shapes with None (for a signature: -1) in the 0th dimension, the batch, "
            f"{INSTEAD}",
        ),
        4: (
            "the 0th dimension of each output is the sum of the 0th dimensions of the batched inputs, padding included",
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
            f"Return a tensor with one entry for each row, {INSTEAD}",
        ),
    }


def test_a_violation_names_tensor_shape_requirement_error_and_remedy() -> None:
    assert str(violation('Input "k"', (), 1, True, "is a scalar")) == (
        'Input "k" of shape [] is a scalar, which breaks requirement 1 of the batching op (inputs to batching cannot '
        'be scalars): serving fails with "Batching input tensors must have at least one dimension". Make the scalar a '
        "vector with one element for each row, or batch a function or signature that meets the requirement."
    )


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(("certain", "outcome"), [(True, "serving fails with"), (False, "serving may fail with")])
def test_only_what_is_certain_fails(number: int, certain: bool, outcome: str) -> None:
    rule = REQUIREMENTS[number]
    assert str(violation("T", None, number, certain, "is odd")) == (
        f"T of shape unknown rank is odd, which breaks requirement {number} of the batching op ({rule.text}): "
        f'{outcome} "{rule.runtime_error}". {rule.remedy}.'
    )


def test_tensors_that_break_a_requirement_alike_are_listed_once_each() -> None:
    first, second = violation('Input "x"', (None, None), 2, False, "varies"), violation('Input "y"', (3,), 2, False, "")
    assert told([first, second, first]).startswith('Input "x" of shape [None, None]; Input "y" of shape [3] varies, ')
    other = replace(first, shape="[7]")
    assert told([first, other]).startswith('Input "x" of shape [None, None]; Input "x" of shape [7] varies, ')
