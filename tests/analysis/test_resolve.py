"""Names of the options -> functions of the model: each kind, what is unknown, what is named twice."""

import re

import pytest

from converter.analysis.resolve import resolve, resolve_all, same_signatures
from converter.errors import ConversionError
from converter.options.slices import FunctionKind, FunctionRef
from tests.harness import parse_model

MODEL = """
alias "encoder" = @__inference_encode_5, @__inference_encode_9
alias "decoder" = @__inference_decode_7
signature "serving_default" x=x:0 -> y=y:0
signature "nodes" x=x:0 -> z=z:0
signature "traced" x=x:0 -> i=i:0
object signatures.serving_default = bare @__inference_wrapper_1
object encode = function @__inference_encode_5, @__inference_encode_9
object decode = function @__inference_decode_7 {jit_compile}
main {
  x = Placeholder() {dtype: float32}
  y = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @__inference_wrapper_1}
  z = Neg(x) {T: float32}
  call = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @__inference_traced_3}
  i = Identity(call) {T: float32}
}
@__inference_wrapper_1(x: float32) -> (y: float32) {
  y = PartitionedCall(x) {Tin: [float32], Tout: [float32], f: @__inference_compiled_inside_4}
  return y:output:0
}
@__inference_traced_3(x: float32) -> (y: float32) { return x }
@__inference_encode_5(x: float32) -> (y: float32) { return x }
@__inference_encode_9(x: float32) -> (y: float32) { return x }
@__inference_decode_7(x: float32) -> (y: float32) [_XlaMustCompile: true] { return x }
@__inference_compiled_inside_4(x: float32) -> (y: float32) [_XlaMustCompile: true] { return x }
@__forward_decode_8(x: float32) -> (y: float32) [_XlaMustCompile: true] { return x }
@__inference_not_compiled_6(x: float32) -> (y: float32) [_XlaMustCompile: false] { return x }
"""


def alias(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.FUNCTION_ALIAS, name)


def concrete(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, name)


def signature(name: str) -> FunctionRef:
    return FunctionRef(FunctionKind.SIGNATURE_NAME, name)


JIT = FunctionRef(FunctionKind.JIT_COMPILE_FUNCTIONS, "")


@pytest.mark.parametrize(
    ("reference", "functions", "given"),
    [
        (alias("decoder"), ["__inference_decode_7"], "decoder"),
        (alias("encoder"), ["__inference_encode_5", "__inference_encode_9"], "encoder"),
        (concrete("__inference_encode_9"), ["__inference_encode_9"], "__inference_encode_9"),
        (signature("serving_default"), ["__inference_wrapper_1"], "serving_default"),
        # Not in the object graph: the main graph tells, through Identity nodes.
        (signature("traced"), ["__inference_traced_3"], "traced"),
    ],
)
def test_every_kind_of_name(reference: FunctionRef, functions: list[str], given: str) -> None:
    found = resolve(parse_model(MODEL), reference)
    assert [f.function for f in found] == functions
    assert {f.given for f in found} == {given}
    assert {f.reference for f in found} == {reference}


def test_jit_compile_finds_what_is_exposed_or_served_and_names_it_by_its_function() -> None:
    found = resolve(parse_model(MODEL), JIT)
    assert [f.function for f in found] == ["__inference_decode_7", "__inference_compiled_inside_4"]
    assert [f.given for f in found] == [f.function for f in found]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (alias("encoderr"), r'^The model has no function alias "encoderr"\. It has: "encoder", "decoder"\.$'),
        (
            concrete("__inference_encode_8"),
            r'^The model has no function "__inference_encode_8"\. It has: "__inference_encode_5", "__infer',
        ),
        (
            signature("serve"),
            r'^The model has no signature "serve"\. It has: "serving_default", "nodes", "traced"\.$',
        ),
        (
            signature("nodes"),
            r'^Signature "nodes" cannot be used: no function of the model computes it, its outputs are made by main '
            r"graph nodes\. Name a function by function_alias or concrete_function_name instead\.$",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_first(reference: FunctionRef, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        resolve(parse_model(MODEL), reference)


def test_a_model_without_aliases_tells_how_else_to_name_a_function() -> None:
    with pytest.raises(
        ConversionError,
        match=r'^The model has no function alias "encoder"\. It has: none\. The model was exported without function '
        r"aliases \(tf\.saved_model\.SaveOptions\(function_aliases=\.\.\.\)\): name a signature \(signature_name: "
        r'"\w+", "\w+", "\w+"\) or a concrete function \(concrete_function_name\) instead\.$',
    ):
        resolve(parse_model(re.sub(r"alias .*\n", "", MODEL)), alias("encoder"))


def test_an_alias_of_functions_that_were_removed_is_unknown() -> None:
    with pytest.raises(ConversionError, match=r'no function alias "gone"\. It has: "decoder", "encoder"'):
        resolve(parse_model(MODEL + 'alias "gone" = @__inference_gone_1'), alias("gone"))


def test_jit_compile_without_such_functions_is_refused() -> None:
    with pytest.raises(
        ConversionError,
        match=r"^jit_compile_functions is set, but the model has no function that was traced with "
        r"@tf\.function\(jit_compile=True\)\. Name the functions by",
    ):
        resolve(parse_model(MODEL.replace("_XlaMustCompile: true", "_noinline: true")), JIT)


@pytest.mark.parametrize(
    ("references", "function"),
    [
        ((alias("encoder"), concrete("__inference_encode_9")), "__inference_encode_9"),
        ((signature("serving_default"), concrete("__inference_wrapper_1")), "__inference_wrapper_1"),
        ((JIT, alias("decoder")), "__inference_decode_7"),
        ((concrete("__inference_decode_7"), JIT), "__inference_decode_7"),
    ],
)
def test_a_function_that_is_named_twice_by_whatever_route_is_refused(
    references: tuple[FunctionRef, FunctionRef], function: str
) -> None:
    first, second = references
    message = (
        f'The function "{function}" is named twice in tpu_functions: by {first} and by {second}. Name each function '
        "once: remove one of the two entries."
    )
    with pytest.raises(ConversionError, match=f"^{re.escape(message)}$"):
        resolve_all(parse_model(MODEL), references, "tpu_functions")


def test_two_signatures_of_one_function_name_it_twice() -> None:
    model = parse_model(MODEL + 'signature "again" x=x:0 -> y=y:0')
    with pytest.raises(ConversionError, match=r'by signature_name: "serving_default" and by signature_name: "again"'):
        resolve_all(model, (signature("serving_default"), signature("again")), "tpu_functions")


def test_different_functions_come_in_the_order_of_the_options() -> None:
    references = (signature("traced"), alias("encoder"), concrete("__inference_decode_7"))
    found = resolve_all(parse_model(MODEL), references, "tpu_functions")
    assert [f.function for f in found] == [
        "__inference_traced_3",
        "__inference_encode_5",
        "__inference_encode_9",
        "__inference_decode_7",
    ]


def test_jit_compile_asks_nothing_of_what_is_on_the_tpu_already() -> None:
    text = """
    @stub(x: float32) -> (y: float32) {
      o = TPUOrdinalSelector()
      t = TPUPartitionedCall(x, o:device_ordinals:0) {Tin: [float32], Tout: [float32], f: @compiled}
      return t:output:0
    }
    @compiled(x: float32) -> (y: float32) [_XlaMustCompile: true] { return x }
    main { x = Placeholder() {dtype: float32}; y = stub(x); z = compiled(x) }
    """
    assert resolve(parse_model(text), JIT) == []


WRAPPERS = """
signature "serve" x=x:0 -> y=a:0
signature "serving_default" x=x:0 -> y=b:0
signature "again" x=x:0 -> y=a:0
signature "nodes" x=x:0 -> z=z:0
object signatures.serve = bare @serve
object signatures.serving_default = bare @default
object signatures.again = bare @serve
object v = variable float32<4>
object w = variable float32<4>
object functions = function @serve(v), @default(v), @other(w)
main { x = Placeholder() {dtype: float32}; z = Neg(x) {T: float32} }
@serve(x: float32, v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
@default(x: float32, v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
@other(x: float32, v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return r:value:0 }
"""
DEFAULT = "@default(x: float32, v: resource) -> (y: float32) { r = ReadVariableOp(v) {dtype: float32}; return"


def same_as(text: str, reference: FunctionRef) -> list[tuple[str, str]]:
    model = parse_model(text)
    (resolved,) = resolve(model, reference)
    return [(f.given, f.function) for f in same_signatures(model, resolved)]


def test_a_signature_is_told_its_equals_and_no_other_kind_of_name_is() -> None:
    assert same_as(WRAPPERS, signature("serve")) == [("serving_default", "default")]
    assert same_as(WRAPPERS, signature("serving_default")) == [("again", "serve"), ("serve", "serve")]
    assert same_as(WRAPPERS, concrete("serve")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@default(v)", "@default(w)"),
        ("@default(v), ", ""),
        (DEFAULT, DEFAULT.replace("x: float32", "z: float32")),
        (DEFAULT, DEFAULT.replace("x: float32", "x: int32")),
        (DEFAULT, DEFAULT.replace("y: float32", "z: float32")),
        (DEFAULT, DEFAULT.replace("return", "i = Identity(x) {T: float32}; return")),
        (DEFAULT + " r:value:0", DEFAULT + " x"),
    ],
)
def test_signatures_that_differ_in_anything_but_their_name_are_not_the_same(old: str, new: str) -> None:
    assert WRAPPERS.count(old) == 1
    assert same_as(WRAPPERS.replace(old, new), signature("serve")) == []
