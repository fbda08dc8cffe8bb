"""The batching op's shape rules: what certainly fails, what may fail, and what is fine."""

from dataclasses import replace

from converter.passes.batching.rules import check
from tests.harness import parse_model
from tests.passes.batching.models import argument, component

Found = list[tuple[str, int, bool]]


def found(
    arguments: str, body: str, results: str = "y: float32", *, size: int = 8, allowed: tuple[int, ...] = ()
) -> Found:
    """(tensor, requirement, certain) of each violation in a function whose arguments all belong to the request."""
    model = parse_model(f"@f({arguments}) -> ({results}) {{ {body} }}")
    return [(v.tensor, v.requirement, v.certain) for v in check(model, component(model, size, allowed))]


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


def test_a_component_may_capture_some_arguments() -> None:
    model = parse_model(f"@f({argument('x', '?,3')}, {argument('c', '')}) -> (y: float32) {{ {NEG} }}")
    assert check(model, replace(component(model), inputs=(0,))) == []


# --- what exactly, and from where -------------------------------------------------------------------------------


def whys(
    arguments: str, body: str, results: str = "y: float32", *, size: int = 8, allowed: tuple[int, ...] = ()
) -> list[str]:
    """What is said of each violation: tensor, shape and why."""
    model = parse_model(f"@f({arguments}) -> ({results}) {{ {body} }}")
    return [f"{v.tensor} {v.shape} {v.why}" for v in check(model, component(model, size, allowed))]


def test_an_input_says_what_is_wrong_with_it() -> None:
    assert whys("x: float32", NEG)[:2] == [
        'Input "x" unknown rank may be a scalar',
        'Input "x" unknown rank may have other sizes in other requests',
    ]
    assert whys(argument("x", ""), NEG) == ['Input "x" [] is a scalar that belongs to the request']
    assert whys(argument("x", "?,?"), NEG) == [
        'Input "x" [None, None] may have other sizes where it is None in other requests, and then they cannot share a '
        "batch"
    ]
    assert whys(argument("x", "9,3"), NEG) == ['Input "x" [9, 3] has 9 rows always, more than max_batch_size: 8']


def test_as_many_rows_as_the_largest_request_has_are_not_too_many() -> None:
    exactly = 'Input "x" [8, 3] has a fixed 0th dimension, so batching works only for requests of exactly 8 rows'
    assert whys(argument("x", "8,3"), NEG) == [exactly]
    assert whys(argument("x", "8,3"), NEG, allowed=(2, 4)) == [exactly], "it is split into batches of 4"


def test_two_numbers_of_rows_are_told_of_the_second_input() -> None:
    arguments = f"{argument('x', '2,3')}, {argument('z', '4,5')}, {argument('w', '4,6')}"
    assert whys(arguments, NEG)[-1] == 'Input "z" [4, 5] has 4 rows always, while input "x" has 2'
    equal = f"{argument('x', '4,3')}, {argument('z', '4,5')}"
    assert ["always" in why for why in whys(equal, NEG)] == [False, False]


def test_a_result_says_what_is_wrong_with_it() -> None:
    total = f"a = {TARGET.format('0')}; s = Sum(x, a:output:0) {{T: float32, Tidx: int32}}; return s:output:0"
    assert whys(argument("x", "?"), total) == ['Output "y" [] is a scalar']
    assert whys(argument("x", "?,3"), total) == ['Output "y" [3] has 3 rows in a batch of 1']
    unique = "u = Unique(x) {T: float32, out_idx: int32}; return u:y:0"
    assert whys(argument("x", "?"), unique) == [
        'Output "y" [None] has a 0th dimension that cannot be proved to be the batch'
    ]
    assert whys("x: float32", NEG)[2:] == ['Output "y" unknown rank may have another 0th dimension than the batch']


def test_every_result_is_checked_and_told_once_for_its_first_batch() -> None:
    total = f"a = {TARGET.format('0')}; s = Sum(x, a:output:0) {{T: float32, Tidx: int32}}"
    body = f"{total}; return s:output:0, x, s:output:0"
    assert whys(argument("x", "?,3"), body, "y: float32, z: float32, w: float32", allowed=(3, 4, 8)) == [
        'Output "y" [3] has 3 rows in a batch of 4',
        'Output "w" [3] has 3 rows in a batch of 4',
    ]


def test_what_is_captured_keeps_its_shape_in_a_batch() -> None:
    body = "a = AddV2(x, c) {T: float32}; return a:z:0"
    model = parse_model(f"@f({argument('x', '?,3')}, {argument('c', '5,1,3')}) -> (y: float32) {{ {body} }}")
    (violation,) = check(model, replace(component(model), inputs=(0,)))
    assert violation.why == "has 5 rows in a batch of 1"
    model = parse_model(f"@f({argument('x', '?,3')}, {argument('c', '3')}) -> (y: float32) {{ {body} }}")
    assert check(model, replace(component(model), inputs=(0,))) == []


def test_what_cannot_be_computed_says_for_which_batch_and_why() -> None:
    eight = f"s = {TARGET.format('2, 12')}; r = Reshape(x, s:output:0) {{T: float32, Tshape: int32}}; return r:output:0"
    (why,) = whys(argument("x", "?,3"), eight, allowed=(8,))
    assert why == 'Output "y" [2, 12] has 2 rows in a batch of 8'
    (why,) = whys(argument("x", "?,3"), eight, allowed=(4, 8))
    assert why.startswith('Input "x" [None, 3] cannot be computed in a batch of 4 rows (')
    assert "12" in why and "24" in why and "\n" not in why and "cannot be inferred" not in why
    product = "m = MatMul(x, z) {T: float32}; return m:product:0"
    (why,) = whys(f"{argument('x', '?,4')}, {argument('z', '?,5')}", product, allowed=(4, 8))
    assert why.startswith('Input "x" [None, 4] cannot be computed with 8 rows in each of the inputs "x", "z" (')


def test_captures_are_not_named_among_the_inputs_that_do_not_fit() -> None:
    product = "m = MatMul(x, z) {T: float32}; return m:product:0"
    text = f"@f({argument('c', '3')}, {argument('x', '?,4')}, {argument('z', '?,5')}) -> (y: float32) {{ {product} }}"
    model = parse_model(text)
    (violation,) = check(model, replace(component(model, 8, (8,)), inputs=(1, 2)))
    assert (violation.tensor, violation.requirement, violation.certain) == ('Input "x"', 3, True)
    assert violation.why.startswith('cannot be computed with 8 rows in each of the inputs "x", "z" (')
    (violation,) = check(model, replace(component(model, 8, (8,)), inputs=(2,)))
    assert (violation.tensor, violation.requirement, violation.certain) == ('Input "z"', 4, True)
    assert violation.why.startswith("cannot be computed in a batch of 8 rows (")


def test_results_are_not_inferred_behind_inputs_that_certainly_fail() -> None:
    total = f"a = {TARGET.format('0')}; s = Sum(x, a:output:0) {{T: float32, Tidx: int32}}; return s:output:0"
    assert found(f"{argument('x', '?,3')}, {argument('k', '')}", total) == [('Input "k"', 1, True)]
    assert found(argument("x", "?,?"), total) == [('Input "x"', 2, False), ('Output "y"', 4, False)]
