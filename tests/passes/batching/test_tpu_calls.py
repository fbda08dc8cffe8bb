"""TPU calls that no component leads to: batched by default, as a whole or in place, or left with a reason."""

import pytest

from converter.graph.model import MAIN_GRAPH
from converter.passes.batching.targets import Place
from converter.passes.batching.tpu_calls import batched_within
from tests.harness import parse_model
from tests.passes.batching.scopes import (
    DEFAULT,
    LEAF,
    MAIN,
    TYPES,
    batching,
    calling,
    found,
    named,
    on_tpu,
    selected,
)


def test_stubs_of_tpu_functions_are_batched_whole_and_others_in_place() -> None:
    assert found(MAIN + on_tpu("outer") + LEAF)[0] == [("leaf", "TPU function", "outer")]
    work = "n = Neg(x) {T: float32}; "
    assert found(MAIN + on_tpu("outer", extra=work, fed="n:y:0") + LEAF)[0] == [("leaf", "TPU call", "leaf")]
    # Two stubs of one function are two calls of it, for which one queue is made.
    text = MAIN + on_tpu("outer") + on_tpu("other") + LEAF
    assert found(text)[0] == [("leaf", "TPU call", "leaf"), ("leaf", "TPU call", "leaf")]
    assert [t.site.group for t in selected(text).targets if t.site is not None] == [0, 0]


def test_a_tpu_call_of_the_main_graph_is_batched_in_place() -> None:
    main = MAIN.replace("StatefulPartitionedCall(x)", "TPUPartitionedCall(x, core)").replace("@outer", "@leaf")
    (target,) = selected(main.replace("call =", "core = TPUOrdinalSelector(); call =") + LEAF).targets
    assert (target.what, target.inputs, target.site and target.site.call) == (
        "TPU call",
        (0,),
        Place(MAIN_GRAPH, "call"),
    )


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
    made = selected(text)
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
    made = selected(main.replace("call =", head, 1) + LEAF)
    assert not made.targets
    assert [s.where for s in made.skips] == ["leaf"]
    assert message in made.skips[0].reason
    assert made.skips[0].reason.startswith("is not batched: ")


def test_a_stub_without_an_input_of_the_request_is_left() -> None:
    text = MAIN.replace("StatefulPartitionedCall(x)", "StatefulPartitionedCall(c)").replace(
        "  call =", "  c = Const() {dtype: float32, value: float32([1])}\n  call ="
    )
    made = selected(text + on_tpu("outer") + LEAF)
    assert not made.targets
    assert [s.where for s in made.skips] == ["leaf"]
    assert "it has no input that belongs to the request" in made.skips[0].reason
    made = selected(text + on_tpu("outer", extra="n = Neg(x) {T: float32}; ", fed="n:y:0") + LEAF)
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
    return [t.site.group for t in selected(text).targets if t.site is not None]


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
    # One that knows less takes nothing away from what the queue is known to be.
    fourth = third + library.replace("@g(", "@k(")
    given = both + "\n" + both.replace("call =", "call2 =").replace("@g", "@k")
    assert groups(nodes=given, objects=bound, library=fourth) == [0, 0, 0]
    # What the main graph gives both is the same, what the object graph binds is not.
    two = both + "\n" + both.replace("call =", "call2 =").replace("@g", "@h")
    differ = 'object d = constant "Other"\n' + bound.replace("@h(c)", "@h(d)")
    assert groups(nodes=two, objects=bound, library=third) == [0, 0]
    assert groups(nodes=two, objects=differ, library=third) == [0, 1]


def test_a_core_that_the_caller_gives_cannot_be_merged() -> None:
    body = f"n = Neg(x) {{T: float32}}; t = TPUPartitionedCall(n:y:0, core) {{{TYPES}, f: @leaf}}; return t:output:0"
    made = selected(f"@outer(x: float32, core: int32) -> (y: float32) [stateful] {{ {body} }}\n{LEAF}")
    assert not made.targets
    assert "the TPU core that it runs on is computed for each call" in made.skips[0].reason


def test_the_tpu_functions_within_a_batch_are_named_once_each_and_no_others() -> None:
    text = MAIN + calling("outer", "stub") + on_tpu("stub") + on_tpu("again") + on_tpu("elsewhere", "other")
    model = parse_model(text + LEAF + LEAF.replace("leaf", "other"))
    assert batched_within(model, ["outer"]) == ("leaf",)
    assert batched_within(model, ["stub", "again"]) == ("leaf",)
    assert batched_within(model, ["elsewhere", "leaf"]) == ("other",)
