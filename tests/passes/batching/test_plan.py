"""The plan of the batching pass: names and values that settle all that is done, left, warned of and refused."""

import pytest

from converter.errors import ConversionError
from converter.graph.model import MAIN_GRAPH
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import Attributes
from converter.passes.batching.batch import Batch
from converter.passes.batching.details import BatchDetails
from converter.passes.batching.plan import BatchPlan, make_plan
from converter.passes.batching.targets import Place, Site, Target, Update
from converter.passes.pass_result import Skip
from tests.harness import assert_planning_changes_nothing, parse_model
from tests.passes.batching.scopes import DEFAULT, LEAF, MAIN, TYPES, batching, calling, named, on_tpu

SHAPED = LEAF.replace("x: float32", "x: float32 {_output_shapes: [<?,3>]}")
WORK = "n = Neg(x) {T: float32}; "
EIGHT = Attributes().with_options(DEFAULT[0])


def shaped(text: str) -> str:
    """The same with arguments of a known shape."""
    return text.replace("(x: float32)", "(x: float32 {_output_shapes: [<?,3>]})")


def plan(text: str, *options: BatchOptions, allow: bool = False) -> BatchPlan:
    return make_plan(parse_model(text), options or DEFAULT, allow)


def test_a_call_in_place_is_planned_by_the_names_of_its_nodes() -> None:
    made = plan(shaped(MAIN + on_tpu("outer", extra=WORK, fed="n:y:0") + LEAF))
    site = Site(call=Place("outer", "t"), ordinal=Place("outer", "core"), group=0)
    assert made == BatchPlan(
        targets=(Target("leaf", "TPU call", "leaf", (0,), EIGHT, site),),
        updates=(),
        unused=(Place("outer", "core"),),
        skips=(),
        warnings=(),
        details=BatchDetails(),
    )
    assert made.stateful == ("outer",)
    assert not made.is_empty


def test_a_stub_is_planned_by_its_name() -> None:
    made = plan(shaped(MAIN + on_tpu("outer") + LEAF))
    assert made.targets == (Target("leaf", "TPU function", "outer", (0,), EIGHT),)
    assert (made.unused, made.stateful) == ((), ("outer",))


def test_calls_on_the_way_to_the_main_graph_are_no_matter() -> None:
    main = MAIN.replace("StatefulPartitionedCall(x)", "TPUPartitionedCall(x, core)").replace("@outer", "@leaf")
    made = plan(main.replace("call =", "core = TPUOrdinalSelector(); call =") + SHAPED)
    assert made.targets[0].scope == MAIN_GRAPH
    assert made.unused == (Place(MAIN_GRAPH, "core"),)
    assert (made.stateful, made.is_empty) == ((), False)


def test_a_plan_is_empty_if_every_op_has_what_the_options_ask_for() -> None:
    text = shaped(MAIN + batching("outer") + LEAF)
    before = Attributes(num_batch_threads=1, max_batch_size=8)
    settled = BatchOptions(max_batch_size=8, enable_large_batch_splitting=False)
    made = plan(text, settled)
    update = Update("outer", Place("outer", "b"), "leaf", (0,), before, before)
    assert (made.targets, made.updates, made.is_empty) == ((), (update,), True)
    assert made.skips == (Skip("outer", 'its batching op "b" has these options already'),)
    changed = plan(text, BatchOptions(max_batch_size=9, enable_large_batch_splitting=False))
    assert (changed.updates[0].after.max_batch_size, changed.is_empty, changed.skips) == (9, False, ())


def test_one_op_that_changes_makes_a_plan() -> None:
    second = batching("second", "other").replace("max_batch_size: 8", "max_batch_size: 4")
    text = shaped(MAIN + batching("outer") + second + LEAF + LEAF.replace("leaf", "other"))
    made = plan(text, BatchOptions(max_batch_size=8, enable_large_batch_splitting=False))
    assert [u.before == u.after for u in made.updates] == [True, False]
    assert not made.is_empty
    assert [s.where for s in made.skips] == ["outer"]


def test_components_come_before_what_nobody_named() -> None:
    bodies = "".join(LEAF.replace("leaf", name) + "\n" for name in ("leaf", "device", "one", "two"))
    text = MAIN + on_tpu("stub", "device") + batching("first", "one") + batching("second", "two")
    text = shaped(text + calling("outer", "leaf") + bodies)
    made = plan(text, *DEFAULT, *named("outer", "second"))
    assert [t.name for t in made.targets] == ["outer", "device"]
    assert [u.name for u in made.updates] == ["second", "first"]
    assert [s.where for s in plan(text, *named("outer", "second")).skips] == ["first", "device"]


def test_skips_are_what_is_left_then_what_is_unclear_then_what_is_settled() -> None:
    unclear = LEAF.replace("Neg(x) {T: float32}", "NobodyKnows(x) {T: float32}").replace("m:y:0", "m:out:0")
    text = MAIN + batching("outer", "odd") + batching("kept", "fine") + LEAF.replace("leaf", "fine")
    entry = named("outer")[0]
    settled = BatchOptions(component=entry.component, max_batch_size=8, enable_large_batch_splitting=False)
    made = plan(shaped(text + unclear.replace("leaf", "odd")), settled)
    why = 'output "y": "m" (NobodyKnows) in odd is an op that TensorFlow does not know'
    left = Skip("kept", 'keeps the options of its batching op "b": batch_options name other components')
    assert made.skips == (
        left,
        Skip("outer", f"cannot tell whether rows of a batch influence each other: {why}"),
        Skip("outer", 'its batching op "b" has these options already'),
    )
    assert made.details == BatchDetails(not_batched=(left,), rows_unclear=(Skip("outer", why),))


# --- refusals and warnings --------------------------------------------------------------------------------------

TOTAL = "a = Const() {dtype: int32, value: int32([0])}; m = Sum(x, a:output:0) {T: float32, Tidx: int32}"
TOTALS = LEAF.replace("m = Neg(x) {T: float32}", TOTAL).replace("m:y:0", "m:output:0")


def test_what_certainly_fails_is_refused_unless_it_is_allowed() -> None:
    text = shaped(MAIN + on_tpu("outer") + TOTALS)
    with pytest.raises(ConversionError) as caught:
        plan(text)
    message = str(caught.value)
    allowed = plan(text, allow=True)
    assert [f"{w} (--allow_batching_violations converts all the same.)" for w in allowed.warnings] == [message]
    assert message.startswith('Batching "leaf" (outer): Output "y" of shape [3] has 3 rows in a batch of 1, which')
    assert len(allowed.targets) == 1


def test_what_may_fail_is_never_refused() -> None:
    text = (MAIN + on_tpu("outer") + LEAF).replace("(x: float32)", "(x: float32 {_output_shapes: [<?,?>]})")
    (warning,) = plan(text).warnings
    assert warning.startswith('Batching "leaf" (outer): Input "x" of shape [None, None] may have other sizes where')


def test_warnings_are_what_fails_then_what_may_then_what_the_scheduler_ignores() -> None:
    text = (MAIN + on_tpu("outer") + TOTALS).replace("(x: float32)", "(x: float32 {_output_shapes: [<?,?>]})")
    made = plan(text, BatchOptions(max_batch_size=8, enable_large_batch_splitting=False), allow=True)
    assert [
        next(k for k in ("mixes the rows", "may have other sizes", "adaptive") if k in w) for w in made.warnings
    ] == ["mixes the rows", "may have other sizes", "adaptive"]
    assert made.warnings[-1] == (
        'Batching "leaf": disable_large_batch_splitting has no effect with num_batch_threads: 0, because the '
        "runtime's adaptive scheduler always splits. Set num_batch_threads."
    )


def test_sizes_that_an_update_keeps_are_refused_before_any_rule_is_looked_at() -> None:
    kept = batching("outer").replace("max_batch_size: 8", "max_batch_size: 8, allowed_batch_sizes: [2, 8]")
    with pytest.raises(ConversionError, match=r'^The batching op "b" of "outer" keeps its allowed_batch_sizes'):
        plan(shaped(MAIN + kept + TOTALS), BatchOptions(max_batch_size=4))


# --- ordinals that nothing needs --------------------------------------------------------------------------------


def unused(extra: str = "", results: str = "t:output:0, ^t", control: str = "", head: str = "") -> list[str]:
    """Names of the nodes that go of a function that calls the TPU as `t`, with `control`, and takes its core `core`."""
    types = "y: float32, z: int32" if "core:" in results else "y: float32"
    nodes = f"""{WORK}core = TPUOrdinalSelector(); {extra}
      t = TPUPartitionedCall(n:y:0, core:device_ordinals:0{control}) {{{TYPES}, f: @leaf}}"""
    outer = f"@outer(x: float32) -> ({types}) [stateful] {{ {nodes}; return {results} }}\n"
    made = plan(head + shaped(MAIN + outer + LEAF))
    assert {t.what for t in made.targets} == {"TPU call"}
    assert {place.scope for place in made.unused} <= {"outer"}
    return [place.node for place in made.unused]


def test_an_ordinal_goes_with_the_calls_that_used_it() -> None:
    assert unused("") == ["core"]
    two = f"u = TPUPartitionedCall(x, core:device_ordinals:0) {{{TYPES}, f: @leaf}}"
    assert unused(f"{two}; ") == ["core"]
    assert unused(f"other = TPUOrdinalSelector(); {two.replace('core:', 'other:')}; ") == ["other", "core"]


@pytest.mark.parametrize(
    ("extra", "results", "control"),
    [
        ("u = Identity(core:device_ordinals:0) {T: int32}; ", "t:output:0, ^t", ""),
        ("u = NoOp(^core); ", "t:output:0, ^t", ""),
        ("", "t:output:0, ^t", ", ^core"),
        ("", "t:output:0, ^t, ^core", ""),
        ("", "t:output:0, core:device_ordinals:0, ^t", ""),
    ],
    ids=["taken", "waited for", "waited for by the call", "must run", "returned"],
)
def test_an_ordinal_that_something_else_needs_stays(extra: str, results: str, control: str) -> None:
    assert unused(extra, results, control) == []


def test_an_ordinal_that_is_named_from_outside_stays() -> None:
    assert unused("", head="object g = captured core:0 in @outer\n") == []
    assert unused("", head="object g = captured core:0 in @leaf\n") == ["core"], "a node of that name elsewhere"


def test_a_call_that_takes_its_core_as_an_argument_too_keeps_it() -> None:
    types = "Tin: [float32, int32], Tout: [float32]"
    call = f"t = TPUPartitionedCall(x, core:device_ordinals:0, core:device_ordinals:0) {{{types}, f: @F}}"
    text = f"""
    @outer(x: float32) -> (y: float32) [stateful] {{ {WORK}core = TPUOrdinalSelector(); {call}; return t:output:0 }}
    @F(x: float32, core: int32) -> (y: float32) {{ return x }}
    """
    made = plan(shaped(text).replace("core: int32", "core: int32 {_output_shapes: [<>]}"), allow=True)
    assert [t.what for t in made.targets] == ["TPU call"]
    assert made.unused == ()


# --- the contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        MAIN + on_tpu("outer", extra=WORK, fed="n:y:0") + LEAF,
        MAIN + calling("outer", "stub") + on_tpu("stub") + LEAF,
        MAIN + batching("outer", "stub") + on_tpu("stub") + LEAF,
    ],
)
def test_planning_looks_only(text: str) -> None:
    """What is not recorded of shapes is inferred, and absent attributes are not made by looking."""
    plans = [assert_planning_changes_nothing(Batch(DEFAULT), parse_model(each)) for each in (text, shaped(text))]
    assert all(isinstance(each, BatchPlan) for each in plans)
