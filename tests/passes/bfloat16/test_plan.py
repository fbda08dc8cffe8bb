"""The plan says everything that is done, in names and values, before anything is."""

import pytest
from tensorflow.core.framework.full_type_pb2 import TFT_PRODUCT

from converter.graph.protos import DT_BFLOAT16, DT_FLOAT, TFT_BFLOAT16, TFT_FLOAT
from converter.options.slices import ConversionScope
from converter.passes.bfloat16.carry_out import carry_out
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.bfloat16.edits import Edits, NewCast, NewInput, NewResult, Retyped, Surroundings
from converter.passes.bfloat16.plan import BFloat16Plan
from converter.passes.pass_result import Change, NoDetails, PassResult, Skip
from tests.harness import assert_planning_changes_nothing, parse_model, render
from tests.passes.bfloat16.models import CALL, tpu_model

SHARED = f"""
object helper = function @helper
@helper(h: float32) -> (r: float32) {{ a = PartitionedCall(h) {{{CALL}, f: @inner}}; return a:output:0 }}
@inner(h: float32) -> (r: float32) {{ a = Exp(h) {{T: float32}}; return a:y:0 }}
"""


def planned(text: str, **options: object) -> BFloat16Plan:
    plan = assert_planning_changes_nothing(BFloat16(**options), parse_model(text))  # type: ignore[arg-type]
    assert isinstance(plan, BFloat16Plan)
    return plan


def test_edits_are_names_and_values() -> None:
    text = tpu_model("a = Tanh(x) {T: float32}; return a:y:0")
    plan = planned(text)
    assert plan.edits == Edits(
        retyped=(
            Retyped("T", None, "argument", 0),
            Retyped("T", None, "result", 0),
            Retyped("T", "a", "T", None),
            Retyped("F", "on_tpu", "Tin", 0),
            Retyped("F", "on_tpu", "Tout", 0),
        ),
        casts=(
            NewCast("F", "x/bfloat16", "x", DT_FLOAT, DT_BFLOAT16, Surroundings()),
            NewCast("F", "on_tpu/float32", "on_tpu:output:0", DT_BFLOAT16, DT_FLOAT, Surroundings()),
        ),
        inputs=(NewInput("F", "on_tpu", 0, "x/bfloat16:y:0"),),
        results=(NewResult("F", "y", "on_tpu/float32:y:0"),),
    )
    assert plan.converted == ("T",) and plan.entries == (("F", "on_tpu"),)
    assert hash(plan) == hash(planned(text))


def test_what_is_decided_of_a_copy_is_planned_by_its_name() -> None:
    plan = planned(tpu_model(f"p = PartitionedCall(x) {{{CALL}, f: @helper}}; return p:output:0", SHARED))
    assert plan.copies.names == (("helper", "helper_bfloat16"), ("inner", "inner_bfloat16"))
    assert plan.copies.callers == ("T", "helper_bfloat16", "inner_bfloat16")
    assert plan.copies.entries == (("F", "on_tpu"),)
    assert {r.scope for r in plan.edits.retyped} == {"T", "F", "helper_bfloat16", "inner_bfloat16"}
    why = "because other code uses it as well"
    assert plan.changes[:2] == (
        Change("helper", f"copied to helper_bfloat16, {why}"),
        Change("inner", f"copied to inner_bfloat16, {why}"),
    )


def test_copies_of_like_names_get_names_of_their_own() -> None:
    # Parts of names that metrics take for another converter's are replaced, here by what the other has.
    names = ("my_optim", "my_opt_im")
    body = "".join(f"c{i} = PartitionedCall(x) {{{CALL}, f: @{name}}};" for i, name in enumerate(names))
    functions = "".join(
        f"object {name} = function @{name}\n@{name}(h: float32) -> (r: float32) {{ return h }}\n" for name in names
    )
    plan = planned(tpu_model(f"{body} s = AddV2(c0:output:0, c1:output:0) {{T: float32}}; return s:z:0", functions))
    assert sorted(copy for _, copy in plan.copies.names) == ["my_opt_im_bfloat16", "my_opt_im_bfloat161"]


def test_a_constant_that_bfloat16_holds_is_left_alone() -> None:
    def text(value: str) -> str:
        return tpu_model(
            f"""
            c = Const() {{dtype: float32, value: float32({value})}}
            n = Neg(c:output:0) {{T: float32}}
            a = AddV2(x, n:y:0) {{T: float32}}
            return a:z:0
            """
        )

    assert planned(text("-3.4028235e38")).edits.clamped == (("T", "c"),)
    assert planned(text("1.5")).edits.clamped == ()


@pytest.mark.parametrize(
    ("text", "scope", "reason"),
    [
        (
            "main { }",
            ConversionScope.TPU,
            "nothing in it runs on the TPU; bfloat16_optimization_options { scope: ALL } converts ",
        ),
        ("main { }", ConversionScope.ALL, "no signature calls a function"),
    ],
)
def test_a_plan_of_nothing_is_empty_and_does_nothing(text: str, scope: ConversionScope, reason: str) -> None:
    plan = planned(text, scope=scope)
    assert plan.is_empty and plan.details == NoDetails()
    assert [s.where for s in plan.skips] == ["model"] and plan.skips[0].reason.startswith(reason)
    model = parse_model(text)
    assert BFloat16(scope).carry_out(model, plan) == PassResult(skips=[Skip("model", plan.skips[0].reason)])
    assert render(model) == render(parse_model(text))


def test_code_without_float32_is_not_even_marked() -> None:
    text = tpu_model("i = Cast(x) {SrcT: float32, DstT: int32}; return x").replace("float32", "int32")
    plan = planned(text)
    assert plan.is_empty and plan.entries == (("F", "on_tpu"),)
    model = parse_model(text)
    carry_out(model, plan)
    assert render(model) == render(parse_model(text))


def test_a_cast_runs_where_its_tensor_is_made_and_has_its_shape() -> None:
    body = """
      a = Tanh(x) {T: float32, _output_shapes: [<?,4>]} on "/device:TPU:0"
      b = Qr(a:y:0) {T: float32, _tpu_replicate: "C"} on "/device:TPU:1"
      return b:q:0
    """
    text = tpu_model(body).replace("@F(x: float32)", "@F(x: float32 {_output_shapes: [<?,4>]})")
    casts = {(c.scope, c.name): c.surroundings for c in planned(text).edits.casts}
    assert casts["T", "a/float32"] == Surroundings("/device:TPU:0", b"C", ((None, 4),))
    assert casts["F", "x/bfloat16"] == Surroundings(shapes=((None, 4),))
    model = parse_model(text)
    BFloat16().apply(model)
    cast = '{DstT: float32, SrcT: bfloat16, _output_shapes: [<?,4>], _tpu_replicate: "C"} on "/device:TPU:0"'
    assert f"a/float32 = Cast(a:y:0) {cast}" in render(model, show=["_output_shapes"])


def test_full_types_follow_the_attributes_of_their_nodes() -> None:
    model = parse_model(tpu_model("a = Tanh(x) {T: float32}; b = Qr(a:y:0) {T: float32}; return b:q:0"))
    tanh, qr = model.functions["T"].node_def
    for node in (tanh, qr):
        node.experimental_type.type_id = TFT_PRODUCT
        node.experimental_type.args.add(type_id=TFT_FLOAT)
    BFloat16().apply(model)
    assert [n.experimental_type.args[0].type_id for n in (tanh, qr)] == [TFT_BFLOAT16, TFT_FLOAT]
