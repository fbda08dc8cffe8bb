"""What is to be batched as the rules see it: sizes to try, rows that are promised, shapes and names of tensors."""

import pytest

from converter.graph.shapes import Shape
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.component import Component, batch_sizes, target_component, update_component
from converter.passes.batching.targets import Place, Site, Target, Update
from tests.harness import parse_model
from tests.passes.batching.models import argument

TYPES = "Tin: [float32, float32], Tout: [float32, float32]"


def of_shapes(*declared: Shape, inputs: tuple[int, ...] = (0,), largest: int = 8) -> Component:
    names = tuple(f"a{i}" for i in range(len(declared)))
    return Component("f", declared, inputs, names, (), (largest,), largest, largest)


@pytest.mark.parametrize(
    ("allowed", "largest", "sizes"),
    [((2, 4), 4, (2, 4)), ((4,), 16, (4,)), ((), 8, (1, 2, 8)), ((), 1, (1,)), ((), 2, (1, 2))],
)
def test_sizes_to_try(allowed: tuple[int, ...], largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(allowed, largest) == sizes


def test_rows_are_fixed_by_inputs_of_the_request_alone() -> None:
    assert of_shapes((2, 3), (None, 3), (4,), (), None, (9,), inputs=(0, 1, 2, 3, 4)).fixed_rows == {2, 4}
    assert of_shapes((None, 3)).fixed_rows == frozenset()
    assert of_shapes((0, 3)).fixed_rows == {0}, "no row is a number of rows, too"


def test_requests_fill_batches_if_all_have_as_many_rows_as_the_largest_batch() -> None:
    assert of_shapes((8, 3)).fills_batches
    assert of_shapes((8, 3), (None, 3), inputs=(0, 1)).fills_batches
    assert not of_shapes((4, 3)).fills_batches
    assert not of_shapes((None, 3)).fills_batches
    assert not of_shapes((8, 3), (4, 3), inputs=(0, 1)).fills_batches


SERVED = f"""
signature "two" x=x:0 float32<?,3> -> first=call, second=call:1
signature "other" x=x:0 float32<?,3> -> wrong=alone
main {{
  x = Placeholder() {{dtype: float32, shape: <?,3>}}
  alone = Neg(x) {{T: float32}}
  call = StatefulPartitionedCall(x, x) {{{TYPES}, f: @f}}
}}
@f({argument("p", "?,3")}, {argument("q", "3")}) -> (y: float32, z: float32) {{ return p, q }}
"""
HOW = Attributes(allowed_batch_sizes=(2, 4), max_batch_size=9)


def test_a_target_has_the_shapes_that_its_function_records_and_the_outputs_of_its_signature() -> None:
    target = Target("named", "function", "f", (0,), HOW)
    assert target_component(parse_model(SERVED), target) == Component(
        function="f",
        declared=((None, 3), (3,)),
        inputs=(0,),
        input_names=("p", "q"),
        result_names=("first", "second"),
        sizes=(2, 4),
        max_batch_size=9,
        largest_batch=4,
    )
    unserved = SERVED.replace('signature "two"', '# signature "two"')
    assert target_component(parse_model(unserved), target).result_names == ("y", "z")


def test_an_update_is_seen_with_the_attributes_that_it_gets() -> None:
    update = Update("named", Place("main graph", "b"), "f", (0,), Attributes(max_batch_size=100), HOW)
    found = update_component(parse_model(SERVED), update)
    assert (found.declared, found.inputs, found.sizes) == (((None, 3), (3,)), (0,), (2, 4))
    assert (found.max_batch_size, found.largest_batch) == (9, 4)


def test_what_a_call_in_place_does_not_record_is_inferred_around_it() -> None:
    text = f"""
    @outer({argument("x", "?,5")}) -> (y: float32) [stateful] {{
      n = Neg(x) {{T: float32}}; core = TPUOrdinalSelector()
      t = TPUPartitionedCall(n:y:0, x, core:device_ordinals:0) {{{TYPES}, f: @f}}
      return t:output:0
    }}
    @f(p: float32, {argument("q", "?,?")}) -> (y: float32, z: float32) {{ return p, q }}
    """
    site = Site(Place("outer", "t"), Place("outer", "core"), 0)
    model = parse_model(text)
    inferred = target_component(model, Target("f", "TPU call", "f", (0, 1), HOW, site))
    assert inferred.declared == ((None, 5), (None, None)), "what is recorded goes before what feeds it"
    assert target_component(model, Target("f", "function", "f", (0, 1), HOW)).declared == (None, (None, None))
