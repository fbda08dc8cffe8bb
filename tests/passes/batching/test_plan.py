"""What is batched, as a function, as a signature, in place or as an update, what is left, and what is refused."""

from collections.abc import Sequence

import pytest

from converter.errors import ConversionError
from converter.options.slices import BatchOptions, FunctionKind, FunctionRef
from converter.passes.batching.plan import Plan, batched_within, make_plan
from tests.harness import parse_model

DEFAULT = (BatchOptions(max_batch_size=8, num_batch_threads=2),)
TYPES = "Tin: [float32], Tout: [float32]"
BATCHING = "num_batch_threads: 1, max_batch_size: 8, batch_timeout_micros: 0, Tcaptured: []"
MAIN = f"""
signature "serving_default" x=x:0 float32<?,3> -> y=call:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,3>}}
  call = StatefulPartitionedCall(x) {{{TYPES}, f: @outer}}
}}
"""
LEAF = "@leaf(x: float32) -> (y: float32) { m = Neg(x) {T: float32}; return m:y:0 }"


def named(*names: str, kind: FunctionKind = FunctionKind.CONCRETE_FUNCTION_NAME) -> tuple[BatchOptions, ...]:
    return tuple(BatchOptions(component=FunctionRef(kind, name), max_batch_size=8) for name in names)


def function(name: str, body: str, result: str) -> str:
    return f"@{name}(x: float32) -> (y: float32) [stateful] {{ {body}; return {result} }}\n"


def calling(name: str, callee: str, extra: str = "", fed: str = "x") -> str:
    call = f"c = StatefulPartitionedCall({fed}) {{{TYPES}, f: @{callee}}}"
    return function(name, f"{extra}{call}", "c:output:0")


def batching(name: str, callee: str = "leaf", extra: str = "", fed: str = "x") -> str:
    op = f"b = BatchFunction({fed}) {{{TYPES}, f: @{callee}, {BATCHING}}}"
    return function(name, f"{extra}{op}", "b:out_tensors:0")


def on_tpu(name: str, callee: str = "leaf", extra: str = "", fed: str = "x") -> str:
    call = f"t = TPUPartitionedCall({fed}, core:device_ordinals:0) {{{TYPES}, f: @{callee}}}"
    return function(name, f"{extra}core = TPUOrdinalSelector(); {call}", "t:output:0")


def plan(text: str, options: tuple[BatchOptions, ...] = DEFAULT) -> Plan:
    return make_plan(parse_model(text), options)


Found = tuple[list[tuple[str, str, str]], list[tuple[str, str, str]], list[str]]


def found(text: str, options: tuple[BatchOptions, ...] = DEFAULT) -> Found:
    """(name, what, function) of each target, (name, scope, node) of each update, and the name of each skip."""
    made = plan(text, options)
    targets = [(t.name, t.what, t.function) for t in made.targets]
    return targets, [(u.name, u.scope.name, u.node.name) for u in made.updates], [s.where for s in made.skips]


# ---------------------------------------------------------------------------------------------- what is batched already


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
        plan(text, named("outer"))
    assert found(text) == ([], [("outer", "outer", "b")], [])


def test_a_function_of_two_batching_ops_is_refused() -> None:
    second = f"a = BatchFunction(x) {{{TYPES}, f: @other, {BATCHING}}}; "
    text = MAIN + batching("outer", extra=second) + LEAF + LEAF.replace("leaf", "other")
    with pytest.raises(ConversionError, match=r"""and the batching op "a" in outer would batch twice"""):
        plan(text, named("outer"))
    assert found(text)[1] == [("outer", "outer", "a"), ("outer", "outer", "b")]


def test_batching_ops_that_are_not_named_keep_their_options() -> None:
    text = MAIN + batching("outer") + batching("second", "other") + LEAF + LEAF.replace("leaf", "other")
    assert found(text, named("outer")) == ([], [("outer", "outer", "b")], ["second"])
    (skip,) = plan(text, named("outer")).skips
    assert skip.reason == 'keeps the options of its batching op "b": batch_options name other components'
    both = (*DEFAULT, *named("outer"))
    made = plan(text, both)
    assert [(u.name, u.options) for u in made.updates] == [("outer", both[1]), ("second", both[0])]


def test_an_update_is_named_as_its_user_named_it() -> None:
    batched = MAIN + batching("outer", "stub")
    assert found(batched + on_tpu("stub") + LEAF)[1] == [("leaf", "outer", "b")]
    assert found('alias "mine" = @outer' + batched + on_tpu("stub") + LEAF)[1] == [("mine", "outer", "b")]
    assert found('alias "mine" = @stub' + batched + on_tpu("stub") + LEAF)[1] == [("mine", "outer", "b")]
    two = calling("stub", "one", f"d = StatefulPartitionedCall(x) {{{TYPES}, f: @two}}; ")
    rest = on_tpu("one") + on_tpu("two", "other") + LEAF + LEAF.replace("leaf", "other")
    assert found(batched + two + rest)[1] == [("outer", "outer", "b")], "two TPU functions are in it"
    alone = on_tpu("elsewhere", "other") + LEAF.replace("leaf", "other")
    assert found(batched + LEAF.replace("leaf", "stub") + alone)[1] == [("outer", "outer", "b")]


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
        plan(MAIN + text + LEAF, named(*names))
    assert str(caught.value).startswith(f"Batching both {first} and {second} would batch twice: ")


def test_batches_beside_each_other_are_fine() -> None:
    text = MAIN + calling("outer", "one", f"d = StatefulPartitionedCall(x) {{{TYPES}, f: @two}}; ")
    text += batching("one") + calling("two", "other") + LEAF + LEAF.replace("leaf", "other")
    targets, updates, _ = found(text, named("one", "two"))
    assert (targets, updates) == ([("two", "function", "two")], [("one", "one", "b")])


# ----------------------------------------------------------------------------------------------------------- components


def test_components_are_batched_as_what_they_were_named() -> None:
    text = 'alias "nick" = @outer' + MAIN + calling("outer", "leaf") + LEAF
    kinds = (FunctionKind.FUNCTION_ALIAS, "nick"), (FunctionKind.SIGNATURE_NAME, "serving_default")
    whats = [found(text, named(name, kind=kind))[0] for kind, name in kinds]
    assert whats == [[("nick", "function", "outer")], [("serving_default", "signature", "outer")]]
    (target,) = plan(text, named("leaf")).targets
    assert (target.inputs, target.call, target.scope) == ((0,), None, None)
    assert target.options.component == FunctionRef(FunctionKind.CONCRETE_FUNCTION_NAME, "leaf")


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
        plan(text, named("f"))
    assert message in str(caught.value)


def test_a_bound_resource_is_no_obstacle() -> None:
    objects = "object v = variable float32<>\nobject f = function @f(v)\n"
    text = f"{objects}@f(x: float32, v: resource) -> (y: float32) {{ return x }}"
    (target,) = plan(text, named("f")).targets
    assert target.inputs == (0,)


# -------------------------------------------------------------------------------------------------------- TPU functions


def test_stubs_of_tpu_functions_are_batched_whole_and_others_in_place() -> None:
    assert found(MAIN + on_tpu("outer") + LEAF)[0] == [("leaf", "TPU function", "outer")]
    work = "n = Neg(x) {T: float32}; "
    assert found(MAIN + on_tpu("outer", extra=work, fed="n:y:0") + LEAF)[0] == [("leaf", "TPU call", "leaf")]
    # Two stubs of one function are two calls of it, for which one queue is made.
    text = MAIN + on_tpu("outer") + on_tpu("other") + LEAF
    assert found(text)[0] == [("leaf", "TPU call", "leaf"), ("leaf", "TPU call", "leaf")]
    assert [t.group for t in plan(text).targets] == [0, 0]


def test_a_tpu_call_of_the_main_graph_is_batched_in_place() -> None:
    main = MAIN.replace("StatefulPartitionedCall(x)", "TPUPartitionedCall(x, core)").replace("@outer", "@leaf")
    (target,) = plan(main.replace("call =", "core = TPUOrdinalSelector(); call =") + LEAF).targets
    assert (target.what, target.inputs, target.call.name if target.call else "") == ("TPU call", (0,), "call")


def test_without_a_default_tpu_functions_stay_as_they_are() -> None:
    text = MAIN + on_tpu("outer") + LEAF + calling("second", "other") + LEAF.replace("leaf", "other")
    targets, _, skips = found(text, named("second"))
    assert (targets, skips) == ([("second", "function", "second")], ["leaf"])


def test_what_a_batch_runs_needs_no_batch_of_its_own() -> None:
    stub = on_tpu("stub") + LEAF
    assert found(MAIN + batching("outer", "stub") + stub) == ([], [("leaf", "outer", "b")], [])
    assert found(MAIN + calling("outer", "stub") + stub, (*DEFAULT, *named("outer"))) == (
        [("outer", "function", "outer")], [], [],
    )  # fmt: skip
    alone = on_tpu("outer") + LEAF, (*DEFAULT, *named("outer"))
    assert found(MAIN + alone[0], alone[1]) == ([("outer", "function", "outer")], [], [])
    # The same where no signature needs it, and Python calls it.
    assert found("object outer = function @outer\n" + alone[0], alone[1]) == ([("outer", "function", "outer")], [], [])


SECOND = MAIN.replace("main {", f"main {{\n  two = StatefulPartitionedCall(x) {{{TYPES}, f: @second}}").replace(
    "main {", 'signature "second" x=x:0 float32<?,3> -> y=two:0\nmain {', 1
)


def test_what_runs_in_a_batch_and_outside_of_it_is_left_and_said() -> None:
    text = SECOND + batching("outer", "stub") + calling("second", "stub") + on_tpu("stub") + LEAF
    made = plan(text)
    assert not made.targets
    (skip,) = made.skips
    assert skip.where == "leaf"
    assert skip.reason.startswith('is called both inside of the batch of "outer" and outside of it')
    # Both ways lead through a batch.
    text = SECOND + batching("outer", "stub") + calling("second", "third") + batching("third", "stub") + on_tpu("stub")
    assert found(text + LEAF)[2] == []
    both = SECOND + calling("outer", "stub") + calling("second", "stub") + on_tpu("stub") + LEAF
    assert found(both, (*DEFAULT, *named("outer", "second")))[2] == []
    assert found(both, (*DEFAULT, *named("outer")))[2] == ["leaf"]


def test_calls_that_no_signature_needs_do_not_count_as_outside() -> None:
    batched = MAIN + batching("outer", "stub") + on_tpu("stub") + LEAF
    assert found(batched + calling("training", "stub"))[2] == []
    exposed = "object t = function @training\n"
    assert found(exposed + batched + calling("training", "stub"))[2] == [], "the signature's way is the batch's"
    # What no signature needs at all is as Python may call it.
    unserved = MAIN + LEAF.replace("leaf", "outer") + batching("b", "stub") + calling("training", "stub")
    unserved += on_tpu("stub") + LEAF
    assert found("object b = function @b\n" + unserved)[2] == []
    assert found("object b = function @b\n" + exposed + unserved)[2] == ["leaf"]


def test_a_signature_that_only_the_object_graph_names_is_a_way_in() -> None:
    """Its function is called by no node of the main graph that the signature's output leads to."""
    objects = "object signatures.serving_default = bare @second\n"
    text = MAIN + batching("outer", "stub") + calling("second", "stub") + on_tpu("stub") + LEAF
    assert found(text)[2] == []
    assert found(objects + text)[2] == ["leaf"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("core = Neg(n) {T: int32}", "the TPU core that it runs on is computed for each call"),
        (
            "call/transfer_0 = Reshape(x, n) {T: float32, Tshape: int32}",
            "an earlier conversion reshaped what crosses at",
        ),
    ],
)
def test_tpu_calls_that_cannot_be_merged_are_left(extra: str, message: str) -> None:
    core = "" if extra.startswith("core") else "core = TPUOrdinalSelector(); "
    main = MAIN.replace("StatefulPartitionedCall(x)", "TPUPartitionedCall(x, core)").replace("@outer", "@leaf")
    head = f"{core}n = Const() {{dtype: int32, value: int32(0)}}; {extra}; call ="
    made = plan(main.replace("call =", head, 1) + LEAF)
    assert not made.targets
    assert [s.where for s in made.skips] == ["leaf"]
    assert message in made.skips[0].reason
    assert made.skips[0].reason.startswith("is not batched: ")


def test_a_stub_without_an_input_of_the_request_is_left() -> None:
    text = MAIN.replace("StatefulPartitionedCall(x)", "StatefulPartitionedCall(c)").replace(
        "  call =", "  c = Const() {dtype: float32, value: float32([1])}\n  call ="
    )
    made = plan(text + on_tpu("outer") + LEAF)
    assert not made.targets
    assert [s.where for s in made.skips] == ["leaf"]
    assert "it has no input that belongs to the request" in made.skips[0].reason
    made = plan(text + on_tpu("outer", extra="n = Neg(x) {T: float32}; ", fed="n:y:0") + LEAF)
    assert not made.targets
    assert "it has no input that belongs to the request" in made.skips[0].reason


# --------------------------------------------------------------------------------------------------------------- queues


def groups(*calls: str, nodes: str = "", objects: str = "", library: str = "") -> list[int]:
    """The queues of TPU calls in the main graph, each call given as its inputs."""
    types = "Tin: [float32, float32], Tout: [float32]"
    made = "\n".join(f"t{i} = TPUPartitionedCall({each}) {{{types}, f: @f}}" for i, each in enumerate(calls))
    text = f"""
    {objects}
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,3>}}
      c = Const() {{dtype: float32, value: float32(2)}}
      d = Const() {{dtype: float32, value: float32(3)}}
      e = Const() {{dtype: float32, value: float32(2)}}
      core = TPUOrdinalSelector()
      again = TPUOrdinalSelector()
      zero = Const() {{dtype: int64, value: int64(0)}}
      one = Const() {{dtype: int64, value: int64(1)}}
      {nodes}
      {made}
    }}
    @f(x: float32, c: float32) -> (y: float32) {{ return x }}
    {library}
    """
    return [t.group for t in plan(text).targets]


def test_calls_share_a_queue_if_they_capture_the_same() -> None:
    assert groups("x, c, core", "x, d, core", "x, e, core", "x, d, core") == [0, 1, 0, 1]
    assert groups("x, x, core", "x, x, core") == [0, 0], "nothing is captured"


def test_calls_of_other_inputs_or_cores_have_queues_of_their_own() -> None:
    assert groups("x, c, core", "c, x, core", "x, x, core") == [0, 1, 2]
    assert groups("x, c, core", "x, c, again", "x, c, zero", "x, c, one", "x, c, zero") == [0, 0, 1, 2, 1]


def test_calls_whose_captures_have_nothing_in_common_share_no_queue() -> None:
    """One captures what the object graph binds, the other what the main graph names: nobody knows that it is one."""
    types = "Tin: [float32, float32], Tout: [float32]"
    library = f"""
    @g(x: float32, c: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector(); n = Neg(x) {{T: float32}}
      t = TPUPartitionedCall(n:y:0, c, core:device_ordinals:0) {{{types}, f: @f}}
      return t:output:0
    }}"""
    objects = 'object c = constant "Const"\nobject g = function @g(c)'
    assert groups("x, c, core", objects=objects, library=library) == [0, 1]
    # A call of the function from the main graph tells that they are one.
    both = f"call = StatefulPartitionedCall(x, c) {{{types}, f: @g}}"
    assert groups("x, c, core", nodes=both, objects=objects, library=library) == [0, 0]
    assert groups("x, d, core", nodes=both, objects=objects, library=library) == [0, 1]
    # A third call meets what the second has told of the queue.
    third = library + library.replace("@g(", "@h(")
    bound = objects + "\nobject h = function @h(c)"
    assert groups("x, c, core", nodes=both, objects=bound, library=third) == [0, 0, 0]
    assert groups("x, c, core", objects=bound, library=third) == [0, 1, 1]
    # What the main graph gives both is the same, what the object graph binds is not.
    two = both + "\n" + both.replace("call =", "call2 =").replace("@g", "@h")
    differ = 'object d = constant "Other"\n' + bound.replace("@h(c)", "@h(d)")
    assert groups(nodes=two, objects=bound, library=third) == [0, 0]
    assert groups(nodes=two, objects=differ, library=third) == [0, 1]


def test_a_core_that_the_caller_gives_cannot_be_merged() -> None:
    body = f"n = Neg(x) {{T: float32}}; t = TPUPartitionedCall(n:y:0, core) {{{TYPES}, f: @leaf}}; return t:output:0"
    made = plan(f"@outer(x: float32, core: int32) -> (y: float32) [stateful] {{ {body} }}\n{LEAF}")
    assert not made.targets
    assert "the TPU core that it runs on is computed for each call" in made.skips[0].reason


def test_the_tpu_functions_within_a_batch_are_named_once_each_and_no_others() -> None:
    text = MAIN + calling("outer", "stub") + on_tpu("stub") + on_tpu("again") + on_tpu("elsewhere", "other")
    model = parse_model(text + LEAF + LEAF.replace("leaf", "other"))
    assert batched_within(model, ["outer"]) == ["leaf"]
    assert batched_within(model, ["stub", "again"]) == ["leaf"]
    assert batched_within(model, ["elsewhere", "leaf"]) == ["other"]
