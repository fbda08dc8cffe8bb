"""Functions change with what calls them, are copied where the CPU calls them too, or stay as they are."""

from converter.passes.bfloat16.convert import BFloat16
from tests.harness import parse_model
from tests.passes.bfloat16.models import CALL, check, tpu_model


def test_loops_branches_and_calls_change_with_what_they_call() -> None:
    functions = """
    @cond(i: int32, h: float32) -> (b: bool) {
      n = Const() {dtype: int32, value: int32(3)}
      l = Less(i, n:output:0) {T: int32}
      return l:z:0
    }
    @body(i: int32, h: float32) -> (i2: int32, h2: float32) {
      n = Const() {dtype: int32, value: int32(1)}
      j = AddV2(i, n:output:0) {T: int32}
      t = Tanh(h) {T: float32}
      return j:z:0, t:y:0
    }
    @yes(h: float32) -> (r: float32) { a = Relu(h) {T: float32}; return a:activations:0 }
    @no(h: float32) -> (r: float32) { return h }
    @byname(h: float32) -> (r: float32) { a = Exp(h) {T: float32}; return a:y:0 }
    """
    body = """
        zero = Const() {dtype: int32, value: int32(0)}
        w = While(zero:output:0, x) {T: [int32, float32], body: @body, cond: @cond}
        flag = Const() {dtype: bool, value: bool(1)}
        i = If(flag:output:0, w:output:1)
          {Tcond: bool, Tin: [float32], Tout: [float32], then_branch: @yes, else_branch: @no}
        p = PartitionedCall(i:output:0) {Tin: [float32], Tout: [float32], f: @yes}
        c = byname(p:output:0)
        return c:r:0
    """
    check(body, body.replace("float32", "bfloat16"), functions, functions.replace("float32", "bfloat16"), skips=[])


def test_a_function_that_the_cpu_calls_too_is_copied() -> None:
    helper = "@helper(h: float32) -> (r: float32) { a = Exp(h) {T: float32}; return a:y:0 }"
    cpu = f"@cpu(h: float32) -> (r: float32) {{ p = PartitionedCall(h) {{{CALL}, f: @helper}}; return p:output:0 }}"
    copy = "@helper_bfloat16(h: bfloat16) -> (r: bfloat16) { a = Exp(h) {T: bfloat16}; return a:y:0 }"
    result = check(
        f"p = PartitionedCall(x) {{{CALL}, f: @helper}}; return p:output:0",
        "p = PartitionedCall(x) {Tin: [bfloat16], Tout: [bfloat16], f: @helper_bfloat16}; return p:output:0",
        f"object cpu = function @cpu\n{helper}\n{cpu}",
        f"object cpu = function @cpu\n{helper}\n{cpu}\n{copy}",
    )
    assert [c.what for c in result.changes if c.where == "helper"] == [
        "copied to helper_bfloat16, because other code uses it as well"
    ]


def test_functions_of_ops_that_fix_their_types_stay_float32() -> None:
    reducer = "@reducer(a: float32, b: float32) -> (c: float32) { s = AddV2(a, b) {T: float32}; return s:z:0 }"
    check(
        """
        a = Tanh(x) {T: float32}
        init = Const() {dtype: float32, value: float32(0)}
        r = XlaReduce(a:y:0, init:output:0) {T: float32, dimensions_to_reduce: [0], reducer: @reducer}
        return r:output:0
        """,
        """
        a = Tanh(x) {T: bfloat16}
        init = Const() {dtype: float32, value: float32(0)}
        r = XlaReduce(a/float32:y:0, init:output:0) {T: float32, dimensions_to_reduce: [0], reducer: @reducer}
        a/float32 = Cast(a:y:0) {SrcT: bfloat16, DstT: float32}
        return r:output:0
        """,
        reducer,
        reducer,
        y="float32",
        skips=[
            "Const: stays float32: is needed as float32",
            "XlaReduce: stays float32: is on the list of ops that need float32",
        ],
    )


def test_everything_that_handles_one_list_has_its_type() -> None:
    loop = """
    @cond(i: int32, l: variant, q: variant) -> (b: bool) {
      n = Const() {dtype: int32, value: int32(3)}
      c = Less(i, n:output:0) {T: int32}
      return c:z:0
    }
    @body(i: int32, l: variant, q: variant) -> (i2: int32, l2: variant, q2: variant) {
      n = Const() {dtype: int32, value: int32(1)}
      j = AddV2(i, n:output:0) {T: int32}
      s = Const() {dtype: int32, value: int32([4])}
      g = TensorListGetItem(q, i, s:output:0) {element_dtype: float32}
      t = Tanh(g:item:0) {T: float32}
      l1 = TensorListSetItem(l, i, t:y:0) {element_dtype: float32}
      same = Identity(l1:output_handle:0) {T: variant}
      return j:z:0, same:output:0, q
    }
    """
    body = """
        s = Const() {dtype: int32, value: int32([4])}
        n = Const() {dtype: int32, value: int32(3)}
        zero = Const() {dtype: int32, value: int32(0)}
        q = TensorListFromTensor(x, s:output:0) {element_dtype: float32, shape_type: int32}
        l = TensorListReserve(s:output:0, n:output:0) {element_dtype: float32, shape_type: int32}
        w = While(zero:output:0, l:handle:0, q:output_handle:0) {T: [int32, variant, variant], body: @body, cond: @cond}
        y = TensorListStack(w:output:1, s:output:0) {element_dtype: float32}
        return y:tensor:0
    """
    check(body, body.replace("float32", "bfloat16"), loop, loop.replace("float32", "bfloat16"), skips=[])


def test_converted_code_names_no_gradient_of_the_float32_code() -> None:
    model = parse_model(tpu_model('i = Tanh(x) {T: float32, _gradient_op_type: "CustomGradient-1"}; return i:y:0'))
    BFloat16().apply(model)
    (node,) = model.functions["T"].node_def
    assert "_gradient_op_type" not in node.attr
