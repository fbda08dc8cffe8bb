"""Small models around one TPU function, before and after it computes in bfloat16; and storing variables by itself."""

from collections.abc import Collection, Sequence

from converter.analysis.variables.index import Variable, VariableIndex
from converter.graph.model import Model
from converter.passes.bfloat16.carry_out import write
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.bfloat16.edits import Draft
from converter.passes.bfloat16.storage import plan_storage
from converter.passes.pass_result import PassResult
from tests.harness import assert_pass

CALL = "Tin: [float32], Tout: [float32]"


def tpu_model(body: str, functions: str = "") -> str:
    """A model that runs `@T(x: float32) -> (y: float32) { body }` on the TPU."""
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {CALL}}}
    }}
    @F(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall(x, core:device_ordinals:0) {{f: @T, {CALL}}}
      return on_tpu:output:0, ^on_tpu
    }}
    @T(x: float32) -> (y: float32) {{ {body} }}
    {functions}
    """


def converted(body: str, functions: str = "", x: str = "bfloat16", y: str = "bfloat16") -> str:
    """What becomes of `tpu_model`: the types of its argument and result, and its casts on the host."""
    cast_x = "x/bfloat16 = Cast(x) {SrcT: float32, DstT: bfloat16}" if x == "bfloat16" else ""
    cast_y = "on_tpu/float32 = Cast(on_tpu:output:0) {SrcT: bfloat16, DstT: float32}" if y == "bfloat16" else ""
    return f"""
    signature "serving_default" x=x:0 -> y=call:0
    main {{
      x = Placeholder() {{dtype: float32, shape: <?,4>}}
      call = StatefulPartitionedCall(x) {{f: @F, {CALL}}}
    }}
    @F(x: float32) -> (y: float32) [stateful] {{
      core = TPUOrdinalSelector()
      on_tpu = TPUPartitionedCall({"x/bfloat16:y:0" if cast_x else "x"}, core:device_ordinals:0)
        {{f: @T, Tin: [{x}], Tout: [{y}], _tpu_convert_bfloat16: true}}
      {cast_x}
      {cast_y}
      return {"on_tpu/float32:y:0" if cast_y else "on_tpu:output:0"}, ^on_tpu
    }}
    @T(x: {x}) -> (y: {y}) {{ {body} }}
    {functions}
    """


def check(
    before: str,
    after: str,
    functions: str = "",
    functions_after: str = "",
    *,
    each: BFloat16 | None = None,
    x: str = "bfloat16",
    y: str = "bfloat16",
    skips: Sequence[str] = (),
) -> PassResult:
    """Fails unless the body of the TPU function becomes `after`, and these are the skips."""
    after = converted(after, functions_after, x, y)
    return assert_pass(each or BFloat16(), tpu_model(before, functions), after, skips=skips)


def store_as_bfloat16(model: Model, variables: Sequence[Variable], scopes: Collection[str] = ()) -> list[Variable]:
    """Stores these variables of the model and their companions, which it returns; `scopes` are to be bfloat16."""
    draft = Draft()
    stored = plan_storage(model, variables, scopes, VariableIndex(model), draft)
    write(model, draft.edits())
    return stored
