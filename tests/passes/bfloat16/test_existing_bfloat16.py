"""What of the model is bfloat16 before, and models in which there is nothing to convert."""

from converter.errors import ConversionError
from converter.passes.bfloat16.convert import BFloat16
from tests.harness import assert_pass, assert_pass_raises
from tests.passes.bfloat16.models import check, tpu_model

MIXED = """
    a = Cast(x) {SrcT: float32, DstT: bfloat16}
    b = Tanh(a:y:0) {T: bfloat16}
    c = Cast(b:y:0) {SrcT: bfloat16, DstT: float32}
    d = Exp(c:y:0) {T: float32}
    return d:y:0
"""


def test_bfloat16_in_the_model_is_an_error_that_names_it() -> None:
    assert_pass_raises(
        BFloat16(), tpu_model(MIXED), ConversionError, r'"a" \(Cast\) in F, "b" \(Tanh\) in F.*skip_safety_checks: true'
    )


def test_bfloat16_in_the_model_is_kept_if_the_check_is_skipped() -> None:
    check(
        MIXED,
        """
        a = Cast(x) {SrcT: float32, DstT: bfloat16}
        b = Tanh(a:y:0) {T: bfloat16}
        c = Cast(b:y:0) {SrcT: bfloat16, DstT: bfloat16}
        d = Exp(c:y:0) {T: bfloat16}
        return d:y:0
        """,
        each=BFloat16(skip_safety_checks=True),
        x="float32",
        skips=["Cast: stays float32: casts a value that stays float32"],
    )


def test_without_tpu_functions_there_is_nothing_to_do() -> None:
    before = """
    signature "serving_default" x=x:0 -> y=call:0
    main {
      x = Placeholder() {dtype: float32, shape: <?,4>}
      call = PartitionedCall(x) {f: @F, Tin: [float32], Tout: [float32]}
    }
    @F(x: float32) -> (y: float32) { a = Tanh(x) {T: float32}; return a:y:0 }
    """
    reason = "nothing in it runs on the TPU; bfloat16_optimization_options { scope: ALL } converts CPU code as well"
    assert_pass(BFloat16(), before, before, changes=[], skips=[f"model: {reason}"])


def test_bfloat16_that_only_passes_through_is_no_bfloat16_op() -> None:
    # As PlaceOnTpu makes it of a function with a bfloat16 argument: the markers are the converter's own.
    types = "Tin: [bfloat16], Tout: [float32]"
    model = f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: bfloat16, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {types}}}
    }}
    @F(x: bfloat16) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @F_on_tpu, {types}}}
      return on_tpu:output:0, ^on_tpu
    }}
    @F_on_tpu(x: bfloat16) -> (y: float32) {{
      m = TPUReplicateMetadata() {{num_replicas: 1, _tpu_replicate: "c"}}
      in = TPUReplicatedInput(x) {{N: 1, T: bfloat16}}
      id = Identity(in:output:0, ^m) {{T: bfloat16, _tpu_replicate: "c", _tpu_input_identity: true}}
      body = StatefulPartitionedCall(id:output:0, ^m) {{f: @F_body, {types}, _tpu_replicate: "c"}}
      out = TPUReplicatedOutput(body:output:0) {{T: float32, num_replicas: 1}}
      return out:outputs:0
    }}
    @F_body(x: bfloat16) -> (y: float32) {{ c = Cast(x) {{SrcT: bfloat16, DstT: float32}}; return c:y:0 }}
    """
    message = r'found bfloat16 ops in the model, expected none: "c" \(Cast\) in F\. Whoever'
    assert_pass_raises(BFloat16(), model, ConversionError, message)
