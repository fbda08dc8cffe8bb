"""The BatchFunction op: how it is built, and the arguments of the function that it calls."""

from converter.graph.protos import FunctionDef
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.op import (
    argument_order,
    batch_node,
    free_batch_dimension,
    permute_arguments,
)
from converter.passes.batching.targets import Target
from tests.harness import parse_model, render_function
from tests.passes.batching.models import attributes_text

# ------------------------------------------------------------------------------------------------------------ arguments


def test_the_requests_tensors_come_first_in_their_order() -> None:
    assert argument_order((), 3) == [0, 1, 2]
    assert argument_order((1, 3), 4) == [1, 3, 0, 2]
    assert argument_order((0, 1), 2) == [0, 1]


def function_of(arguments: str, attrs: str = "") -> FunctionDef:
    return parse_model(f"@f({arguments}) -> () {attrs} {{ return }}").functions["f"]


def test_all_that_is_noted_of_an_argument_moves_with_it() -> None:
    a, b, c = "a: float32 {_output_shapes: [<1>], _note: 1}", "b: resource(float32<2>)", "c: int32 {_note: 3}"
    function = function_of(
        f"{a}, {b}, {c}",
        "[_input_shapes: [<1>, <2>, <3>]]",
    )
    function.resource_arg_unique_id[1] = 7
    permute_arguments(function, [2, 0, 1])
    shown = ("_output_shapes",)
    assert render_function(function, shown) == render_function(
        function_of(
            f"{c}, {a}, {b}",
            "[_input_shapes: [<3>, <1>, <2>]]",
        ),
        shown,
    )
    assert dict(function.resource_arg_unique_id) == {2: 7}
    assert sorted(function.arg_attr) == [0, 1]


def test_recorded_shapes_of_another_number_stay_as_they_are() -> None:
    function = function_of("a: float32, b: int32", "[_input_shapes: [<1>]]")
    permute_arguments(function, [1, 0])
    assert render_function(function) == render_function(function_of("b: int32, a: float32", "[_input_shapes: [<1>]]"))


def test_the_batch_dimension_of_the_requests_tensors_is_freed_and_no_other() -> None:
    """Recorded for one row, the shape would be wrong for a batch."""
    shapes = "a: float32 {{_output_shapes: [<{}>]}}, b: float32, c: float32 {{_output_shapes: [<4,5>]}}"
    function = function_of(shapes.format("1,3"), "[_input_shapes: [<1,3>, <1>, <4,5>]]")
    free_batch_dimension(function, 2)
    assert function.attr["_input_shapes"].list.shape[1].dim[0].size == -1
    after = function_of(shapes.format("?,3"), "[_input_shapes: [<?,3>, <?>, <4,5>]]")
    assert render_function(function, ("_output_shapes",)) == render_function(after, ("_output_shapes",))


def test_what_has_no_batch_dimension_is_left() -> None:
    text = "a: float32 {_output_shapes: [<>]}, b: float32 {_output_shapes: [<*>]}, c: float32 {_note: 1}"
    function = function_of(text, "[_input_shapes: [<>, <*>, <>]]")
    before = function.SerializeToString(deterministic=True)
    free_batch_dimension(function, 3)
    assert function.SerializeToString(deterministic=True) == before
    plain = function_of("a: float32")
    free_batch_dimension(plain, 1)
    assert plain == function_of("a: float32")


# ------------------------------------------------------------------------------------------------------------- new ops


def new_node(options: BatchOptions, attrs: str = "Tout: [float32]") -> str:
    model = parse_model(f"""
    main {{ call = PartitionedCall(v, x, core, ^before) {{{attrs}, f: @f}} }}
    @f(x: float32, v: resource) -> (y: float32) {{ return x }}
    """)
    target = Target("f", "function", "f", (1,), Attributes().with_options(options))
    return attributes_text(batch_node("b", model.graph_def.node[0], model.functions["f"], target, "queue"))


def test_a_new_op_has_its_options_and_nothing_at_its_default() -> None:
    given = BatchOptions(max_batch_size=8, num_batch_threads=2, enable_large_batch_splitting=False)
    types = "Tcaptured: [resource], Tin: [float32], Tout: [float32], "
    assert new_node(given) == (
        f"b = BatchFunction(x, v) {{{types}batch_timeout_micros: 0, f: @f, max_batch_size: 8, num_batch_threads: 2, "
        'shared_name: "queue"}'
    )
    given = BatchOptions(
        max_batch_size=8,
        num_batch_threads=0,
        batch_timeout_micros=9,
        max_enqueued_batches=11,
        allowed_batch_sizes=(4, 8),
    )
    assert new_node(given, "Tout: [float32], Tin: [float32, float32], _other: 1") == (
        f"b = BatchFunction(x, v) {{{types}allowed_batch_sizes: [4, 8], batch_timeout_micros: 9, "
        "enable_large_batch_splitting: true, f: @f, max_batch_size: 8, max_enqueued_batches: 11, num_batch_threads: 0, "
        'shared_name: "queue"}'
    )


def test_shapes_that_the_call_records_are_kept() -> None:
    model = parse_model("""
    main { call = PartitionedCall(x) {Tout: [float32], _output_shapes: [<?,3>], f: @f} }
    @f(x: float32) -> (y: float32) { return x }
    """)
    call = model.graph_def.node[0]
    target = Target("f", "function", "f", (0,), Attributes(max_batch_size=8))
    node = batch_node("b", call, model.functions["f"], target, "queue")
    assert node.attr["_output_shapes"] == call.attr["_output_shapes"]
    del call.attr["_output_shapes"]
    node = batch_node("b", call, model.functions["f"], target, "queue")
    assert "_output_shapes" not in node.attr
    assert "_output_shapes" not in call.attr
