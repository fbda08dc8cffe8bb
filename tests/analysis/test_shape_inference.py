"""Shape inference inside functions: through calls, TPU and batching ops, loops and branches, and past custom ops."""

import time
from typing import Any

import pytest

from converter.analysis.shape_inference import ShapeInferenceError, infer
from converter.errors import ConversionError
from converter.graph import outside
from converter.graph.model import MAIN_GRAPH
from converter.graph.shapes import Shape, from_proto
from converter.saved_model.reader import read_model
from tests.harness import parse_model

CALLS = """
main {
  x = Placeholder() {dtype: float32, shape: <?,3>}
  call = StatefulPartitionedCall(x) {Tin: [float32], Tout: [float32], f: @outer}
}
@outer(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) {
  w = Const() {dtype: float32, value: float32<3,5>}
  m = MatMul(x, w:output:0) {T: float32}
  core = TPUOrdinalSelector()
  t = TPUPartitionedCall(m:product:0, core:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @inner}
  b = BatchFunction(t:output:0, w:output:0) {Tin: [float32], Tcaptured: [float32], Tout: [float32], f: @batched,
    num_batch_threads: 1, max_batch_size: 2, batch_timeout_micros: 0}
  return b:out_tensors:0
}
@inner(x: float32) -> (y: float32) {
  i = TPUReplicatedInput(x) {N: 1, T: float32}
  axis = Const() {dtype: int32, value: int32(2)}
  e = ExpandDims(i:output:0, axis:output:0) {T: float32, Tdim: int32}
  return e:output:0
}
@batched(x: float32, w: float32) -> (y: float32) { i = Identity(x) {T: float32}; return i:output:0 }
"""


def test_calls_on_the_tpu_and_of_the_batching_op_are_followed() -> None:
    model = parse_model(CALLS)
    found = infer(model, "outer")
    assert found.argument(0) == (None, 3)
    assert found.of("m:product:0") == (None, 5)
    assert found.of("t:output:0") == (None, 5, 1)
    assert found.result(0) == (None, 5, 1)
    assert infer(model, "outer", [(7, 3)]).result(0) == (7, 5, 1)
    assert infer(model, MAIN_GRAPH).of("call") == (None, 5, 1)
    with pytest.raises(KeyError):
        found.of("none:0")


def test_arguments_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(
        ShapeInferenceError, match=r'inside "outer" .* arguments of the shapes \[None, 4\]: .*3 and 4|4 and 3'
    ):
        infer(parse_model(CALLS), "outer", [(None, 4)])
    assert issubclass(ShapeInferenceError, ConversionError)
    with pytest.raises(ShapeInferenceError, match=r"\{\{node m\}\}"):
        infer(parse_model(CALLS), "outer", [(None, 4)])


def test_recorded_shapes_are_used_unless_they_contradict_the_arguments() -> None:
    model = parse_model("""
    @f(x: float32 {_output_shapes: [<2,3>]}) -> (y: float32) {
      i = Identity(x) {T: float32, _output_shapes: [<2,3>]}; return i:output:0
    }
    @g(x: float32) -> (y: float32) { i = Identity(x) {T: float32, _output_shapes: [<?,3>]}; return i:output:0 }
    """)
    assert infer(model, "f").result(0) == (2, 3)
    assert infer(model, "f", [(9, 3)]).result(0) == (9, 3)
    assert infer(model, "g").argument(0) is None
    assert infer(model, "g").result(0) == (None, 3)


def test_a_variable_read_has_the_shape_that_its_handle_records() -> None:
    model = parse_model("""
    @f(v: resource(float32<4,5>)) -> (y: float32) {
      call = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @g}; return call:output:0
    }
    @g(v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
    """)
    assert infer(model, "f").result(0) == (4, 5)


def test_a_custom_op_has_unknown_shapes_and_stops_nothing() -> None:
    model = parse_model("""
    @f(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32, z: float32) {
      c = MyCustomOp(x) {T: float32}
      n = Neg(c:out:0) {T: float32}
      call = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @g}
      m = Mul(x, x) {T: float32}
      return call:output:0, m:z:0
    }
    @g(x: float32) -> (y: float32) { c = MyCustomOp(x) {T: float32}; return c:out:0 }
    """)
    found = infer(model, "f")
    assert found.of("n:y:0") is None
    assert found.of("c:unused:1") is None
    assert found.result(0) is None
    assert found.result(1) == (None, 3)


LOOP = """
@f(x: float32 {_output_shapes: [<?,3>]}, p: bool {_output_shapes: [<>]}) -> (y: float32, grown: float32, z: float32) {
  zero = Const() {dtype: int32, value: int32(0)}
  w = While(zero:output:0, x, x) {T: [int32, float32, float32], cond: @cond, body: @body,
    output_shapes: [<>, <?,3>, <?,?>]}
  i = If(p, w:output:1) {Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @same, else_branch: @negative,
    output_shapes: [<?,?>]}
  return w:output:1, w:output:2, i:output:0
}
@cond(i: int32, x: float32, g: float32) -> (p: bool) {
  n = Const() {dtype: int32, value: int32(4)}; l = Less(i, n:output:0) {T: int32}; return l:z:0
}
@body(i: int32, x: float32, g: float32) -> (j: int32, y: float32, h: float32) {
  one = Const() {dtype: int32, value: int32(1)}
  j = AddV2(i, one:output:0) {T: int32}
  y = Neg(x) {T: float32}
  h = ConcatV2(g, g, one:output:0) {N: 2, T: float32, Tidx: int32}
  return j:z:0, y:y:0, h:output:0
}
@same(x: float32) -> (y: float32) { i = Identity(x) {T: float32}; return i:output:0 }
@negative(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
"""


def test_what_a_loop_and_both_branches_keep_is_known() -> None:
    found = infer(parse_model(LOOP), "f", [(6, 3), ()])
    assert found.result(0) == (6, 3)
    assert found.result(1) == (6, None)
    assert found.result(2) == (6, 3)


@pytest.mark.parametrize("name", ["two_functions", "while_loop", "keras_functional_captured", "int_inputs", "many_io"])
def test_inferred_shapes_agree_with_those_that_the_exporter_recorded(name: str, testdata: Any) -> None:
    model = read_model(testdata(name))
    for key in model.signatures:
        function_name = outside.signature_function(model, key)
        assert function_name is not None
        recorded = {k: from_proto(o.tensor_shape) for k, o in model.signatures[key].outputs.items()}
        found = infer(model, function_name)
        results = [found.result(i) for i in range(len(recorded))]
        assert sorted(results, key=str) == sorted(recorded.values(), key=str)


def test_ten_thousand_nodes_take_seconds() -> None:
    chain = "\n".join(f"n{i} = Neg(n{i - 1}:y:0) {{T: float32}}" for i in range(1, 10_000))
    model = parse_model(f"@f(x: float32) -> (y: float32) {{ n0 = Neg(x) {{T: float32}}\n{chain}\nreturn n9999:y:0 }}")
    start = time.process_time()
    shape: Shape = (None, 3)
    assert infer(model, "f", [shape]).result(0) == shape
    assert time.process_time() - start < 20


def test_a_variable_is_known_where_only_a_caller_records_its_handle() -> None:
    # As TensorFlow 2.4 exports it: handle_data in the outermost function at most.
    model = parse_model("""
    main {
      v = VarHandleOp() {dtype: float32, shape: <4,5>}
      call = StatefulPartitionedCall(v) {Tin: [resource], Tout: [float32], f: @f}
    }
    @f(v: resource) -> (y: float32) {
      call = PartitionedCall(v) {Tin: [resource], Tout: [float32], f: @g}; return call:output:0
    }
    @g(v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
    """)
    assert infer(model, MAIN_GRAPH).of("call") == (4, 5)


def test_names_that_are_prefixes_of_others_do_not_collide() -> None:
    model = parse_model("""
    @f(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) {
      a/b = Neg(x) {T: float32}
      call = PartitionedCall(a/b:y:0) {Tin: [float32], Tout: [float32], f: @g}
      a = Neg(call:output:0) {T: float32}
      a/b/c = PartitionedCall(a:y:0) {Tin: [float32], Tout: [float32], f: @g}
      return a/b/c:output:0
    }
    @g(x: float32) -> (y: float32) {
      axis = Const() {dtype: int32, value: int32(1)}
      e = ExpandDims(x, axis:output:0) {T: float32, Tdim: int32}
      return e:output:0
    }
    """)
    assert infer(model, "f").result(0) == (None, 1, 1, 3)


def test_a_ring_of_nodes_as_tensorflow_1_makes_of_a_loop() -> None:
    model = parse_model("""
    main {
      x = Placeholder() {dtype: float32, shape: <?,3>}
      start = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @g}
      enter = Enter(start) {T: float32, frame_name: "loop"}
      merge = Merge(enter, next) {T: float32, N: 2}
      go = Const() {dtype: bool, value: bool(true)}
      on = LoopCond(go)
      switch = Switch(merge, on) {T: float32}
      body = PartitionedCall(switch:1) {Tin: [float32], Tout: [float32], f: @g}
      next = NextIteration(body) {T: float32}
      exit = Exit(switch) {T: float32}
    }
    @g(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }
    """)
    found = infer(model, MAIN_GRAPH)
    assert found.of("start") == (None, 3)
    assert found.of("exit") in (None, (None, 3), (None, None))


def test_a_function_that_calls_itself_has_unknown_results() -> None:
    model = parse_model("""
    @f(x: float32 {_output_shapes: [<?,3>]}) -> (y: float32) {
      n = Neg(x) {T: float32}
      call = PartitionedCall(n:y:0) {Tin: [float32], Tout: [float32], f: @f}
      return call:output:0
    }
    """)
    assert infer(model, "f").of("n:y:0") == (None, 3)
    assert infer(model, "f").result(0) is None


def test_functions_of_many_calls_are_inferred_once_for_each_shape() -> None:
    # 2^40 call sites, and a branch at each of them.
    functions = "".join(
        f"""
        @f{i}(x: float32) -> (y: float32) {{
          a = PartitionedCall(x) {{f: @f{i + 1}, Tin: [float32], Tout: [float32]}}
          p = Const() {{dtype: bool, value: bool(true)}}
          b = If(p:output:0, a:output:0) {{Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @f{i + 1},
            else_branch: @f{i + 1}}}
          return b:output:0
        }}
        """
        for i in range(40)
    )
    model = parse_model(functions + "@f40(x: float32) -> (y: float32) { n = Neg(x) {T: float32}; return n:y:0 }")
    assert infer(model, "f0", [(None, 3)]).result(0) == (None, 3)


def test_a_variable_is_known_from_the_object_graph_where_no_function_records_its_handle() -> None:
    model = parse_model("""
    object v = variable float32<4,5>
    object f = function @f(v)
    @f(ids: int32 {_output_shapes: [<?>]}, v: resource) -> (y: float32) {
      r = ResourceGather(v, ids) {dtype: float32, Tindices: int32}; return r:output:0
    }
    """)
    assert infer(model, "f", [(2,), None]).result(0) == (2, 5)


LIST = """
@f(x: float32 {_output_shapes: [<?,3,4>]}) -> (y: float32) {
  n = Const() {dtype: int32, value: int32(3)}
  zero = Const() {dtype: int32, value: int32(0)}
  shape = Const() {dtype: int32, value: int32([-1, 4])}
  list = TensorListReserve(shape:output:0, n:output:0) {element_dtype: float32, shape_type: int32}
  w = While(zero:output:0, list:handle:0, x) {T: [int32, variant, float32], cond: @cond, body: @body}
  s = TensorListStack(w:output:1, shape:output:0) {element_dtype: float32, num_elements: 3}
  return s:tensor:0
}
@cond(i: int32, l: variant, x: float32) -> (p: bool) {
  n = Const() {dtype: int32, value: int32(3)}; l = Less(i, n:output:0) {T: int32}; return l:z:0
}
@body(i: int32, l: variant, x: float32) -> (j: int32, m: variant, y: float32) {
  one = Const() {dtype: int32, value: int32(1)}
  j = AddV2(i, one:output:0) {T: int32}
  item = Sum(x, one:output:0) {T: float32, Tidx: int32}
  m = TensorListSetItem(l, i, item:output:0) {element_dtype: float32}
  k = Identity(m:output_handle:0) {T: variant}
  return j:z:0, k:output:0, x
}
"""


def test_what_a_loop_puts_into_a_list_tells_the_shape_of_its_elements() -> None:
    # As an LSTM of Keras does: the list is made without knowing the batch.
    assert infer(parse_model(LIST), "f", [(2, 3, 4)]).result(0) == (3, 2, 4)
    assert infer(parse_model(LIST), "f", [(None, 3, 4)]).result(0) == (3, None, 4)


def test_the_list_that_a_loop_fills_has_as_many_elements_as_it_was_made_with() -> None:
    sized = LIST.replace("num_elements: 3", "num_elements: -1")
    assert infer(parse_model(sized), "f", [(2, 3, 4)]).result(0) == (3, 2, 4)
    pushed = sized.replace("TensorListSetItem(l, i, item:output:0)", "TensorListPushBack(l, item:output:0)")
    assert infer(parse_model(pushed), "f", [(2, 3, 4)]).result(0) == (None, 2, 4)
    resized = sized.replace("item:output:0) {", "item:output:0) {resize_if_index_out_of_bounds: true, ")
    assert infer(parse_model(resized), "f", [(2, 3, 4)]).result(0) == (None, 2, 4)
    other = sized.replace("TensorListSetItem(l, i, item:output:0) {element_dtype: float32}", LONGER)
    assert infer(parse_model(other), "f", [(2, 3, 4)]).result(0) == (None, None, 4)


LONGER = """TensorListReserve(shape:output:0, five:output:0) {element_dtype: float32, shape_type: int32}
  shape = Const() {dtype: int32, value: int32([-1, 4])}
  five = Const() {dtype: int32, value: int32(5)}"""


MASK = """
@f(x: float32) -> (y: float32) {
  m = Const() {dtype: int32, value: int32([1, 0, 1])}
  w = Where(m:output:0) {T: int32}
  i = Squeeze(w:index:0) {T: int64, squeeze_dims: [1]}
  one = Const() {dtype: int32, value: int32(1)}
  g = GatherV2(x, i:output:0, one:output:0) {Tparams: float32, Tindices: int64, Taxis: int32}
  return g:output:0
}
"""


def test_the_places_of_a_constant_mask_are_known() -> None:
    assert infer(parse_model(MASK), "f", [(2, 3, 4)]).result(0) == (2, 2, 4)
    by_data = MASK.replace("w = Where(m:output:0) {T: int32}", "w = Where(x) {T: float32}").replace(
        "i = Squeeze(w:index:0) {T: int64, squeeze_dims: [1]}", "i = Identity(w:index:0) {T: int64}"
    )
    assert infer(parse_model(by_data), "f", [(2, 3, 4)]).result(0) == (2, None, 3, 4)


def test_a_list_whose_elements_grow_has_no_fixed_shape() -> None:
    growing = LIST.replace(
        "item = Sum(x, one:output:0) {T: float32, Tidx: int32}",
        """
      item = Sum(x, one:output:0) {T: float32, Tidx: int32}
      more = ConcatV2(x, x, zero:output:0) {N: 2, T: float32, Tidx: int32}
      zero = Const() {dtype: int32, value: int32(0)}
    """,
    ).replace("k:output:0, x\n", "k:output:0, more:output:0\n")
    assert infer(parse_model(growing), "f", [(2, 3, 4)]).result(0) == (3, None, 4)
