"""Functions and signatures that options name: as what each is batched, and what is refused."""

from collections.abc import Sequence

import pytest

from converter.errors import ConversionError
from converter.options.slices import FunctionKind
from converter.passes.batching.attributes import Attributes
from tests.passes.batching.scopes import (
    BATCHING,
    LEAF,
    MAIN,
    TYPES,
    batching,
    calling,
    found,
    named,
    selected,
)


@pytest.mark.parametrize(
    "glue",
    [
        "g = Identity(x) {T: float32}; ",
        "g = NoOp(); ",
        "g = Const() {dtype: float32, value: float32(1)}; ",
        "g = Cast(x) {SrcT: float32, DstT: bfloat16}; ",
        "g = Const() {dtype: int32, value: int32([-1, 3])}; r = Reshape(x, g:output:0) {T: float32, Tshape: int32}; ",
        "g = IdentityN(x) {T: [float32]}; ",
        "g = TPUOrdinalSelector(); ",
    ],
)
def test_a_function_that_only_calls_its_batching_op_is_batched_already(glue: str) -> None:
    text = MAIN + batching("outer", extra=glue) + LEAF
    assert found(text, named("outer")) == ([], [("outer", "outer", "b")], [])


def test_a_function_that_does_work_of_its_own_around_its_batching_op_is_refused() -> None:
    """It is neither batched as a whole by that op, nor can its work be batched around it."""
    text = MAIN + batching("outer", extra="n = Neg(x) {T: float32}; ", fed="n:y:0") + LEAF
    message = r'Batching both "outer" \(outer\) and the batching op "b" in outer would batch twice'
    with pytest.raises(ConversionError, match=message):
        selected(text, named("outer"))
    assert found(text) == ([], [("outer", "outer", "b")], [])


def test_a_function_of_two_batching_ops_is_refused() -> None:
    second = f"a = BatchFunction(x) {{{TYPES}, f: @other, {BATCHING}}}; "
    text = MAIN + batching("outer", extra=second) + LEAF + LEAF.replace("leaf", "other")
    with pytest.raises(ConversionError, match=r"""and the batching op "a" in outer would batch twice"""):
        selected(text, named("outer"))
    assert found(text)[1] == [("outer", "outer", "a"), ("outer", "outer", "b")]


# --------------------------------------------------------------------------------------------------- batches in batches


@pytest.mark.parametrize(
    ("text", "names", "first", "second"),
    [
        (calling("outer", "leaf"), ("outer", "leaf"), '"outer" (outer)', '"leaf" (leaf)'),
        (calling("outer", "leaf"), ("leaf", "outer"), '"outer" (outer)', '"leaf" (leaf)'),
        (calling("outer", "b") + batching("b"), ("outer",), '"outer" (outer)', 'the batching op "b" in b'),
        (calling("outer", "b") + batching("b"), ("outer", "b"), '"outer" (outer)', '"b" (b)'),
        (batching("outer"), ("leaf",), 'the batching op "b" in outer', '"leaf" (leaf)'),
        (batching("outer", "m") + calling("m", "leaf"), ("leaf",), 'the batching op "b" in outer', '"leaf" (leaf)'),
        (batching("outer", "b") + batching("b"), ("outer",), '"outer" (outer)', 'the batching op "b" in b'),
        (batching("outer", "b") + batching("b"), ("b",), 'the batching op "b" in outer', '"b" (b)'),
    ],
)
def test_a_batch_in_a_batch_is_refused(text: str, names: Sequence[str], first: str, second: str) -> None:
    with pytest.raises(ConversionError) as caught:
        selected(MAIN + text + LEAF, named(*names))
    assert str(caught.value).startswith(f"Batching both {first} and {second} would batch twice: ")


def test_batches_beside_each_other_are_fine() -> None:
    text = MAIN + calling("outer", "one", f"d = StatefulPartitionedCall(x) {{{TYPES}, f: @two}}; ")
    text += batching("one") + calling("two", "other") + LEAF + LEAF.replace("leaf", "other")
    targets, updates, _ = found(text, named("one", "two"))
    assert (targets, updates) == ([("two", "function", "two")], [("one", "one", "b")])


# ---------------------------------------------------------------------------------------------------------- components


def test_components_are_batched_as_what_they_were_named() -> None:
    text = 'alias "nick" = @outer' + MAIN + calling("outer", "leaf") + LEAF
    kinds = (FunctionKind.FUNCTION_ALIAS, "nick"), (FunctionKind.SIGNATURE_NAME, "serving_default")
    whats = [found(text, named(name, kind=kind))[0] for kind, name in kinds]
    assert whats == [[("nick", "function", "outer")], [("serving_default", "signature", "outer")]]
    (target,) = selected(text, named("leaf")).targets
    assert (target.inputs, target.site, target.scope) == ((0,), None, "leaf")
    assert target.attributes == Attributes().with_options(*named("leaf"))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("(x: float32) -> () { return }", "it returns nothing; the batching op needs at least one output to split"),
        ("() -> (y: float32) { CONST; return c:output:0 }", "it has no input that belongs to the request"),
        ("(x: variant) -> (y: variant) { return x }", 'its argument "x" is a variant that is not the same in every'),
        ("(x: float32, v: resource) -> (y: float32) { return x }", 'its argument "v" is a resource that is not the'),
        ("(x: float32) -> (y: resource) { HANDLE; return v:resource:0 }", 'its result "y" is a resource, and only'),
        ("(x: float32) -> (z: float32, y: variant) { HANDLE; return x, v:resource:0 }", 'its result "y" is a variant'),
    ],
)
def test_what_the_batching_op_cannot_take_is_refused(head: str, message: str) -> None:
    head = head.replace("CONST", "c = Const() {dtype: float32, value: float32([1])}")
    text = f"@f{head.replace('HANDLE', 'v = VarHandleOp() {dtype: float32, shape: <>}')}"
    with pytest.raises(ConversionError, match=r'"f" \(f\) cannot be batched: ') as caught:
        selected(text, named("f"))
    assert message in str(caught.value)


def test_a_bound_resource_is_no_obstacle() -> None:
    objects = "object v = variable float32<>\nobject f = function @f(v)\n"
    text = f"{objects}@f(x: float32, v: resource) -> (y: float32) {{ return x }}"
    (target,) = selected(text, named("f")).targets
    assert target.inputs == (0,)
