"""Models around one variable, as text."""

from collections.abc import Sequence

KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"


def model_text(body: str, names: Sequence[str] = ("v",), serve: str = "y") -> str:
    """A model with these float32<4> variables, restored in the main graph, and `body` after them."""
    keys = ", ".join(f'"{KEY.format(n)}"' for n in names)
    handles = "\n".join(f'  {n} = VarHandleOp() {{dtype: float32, shape: <4>, shared_name: "{n}"}}' for n in names)
    assigns = "\n".join(
        f"  assign_{n} = AssignVariableOp({n}, {'restore' if i == 0 else f'restore:{i}'}) {{dtype: float32}}"
        for i, n in enumerate(names)
    )
    main, _, functions = body.partition("FUNCTIONS")
    return f"""
signature "serving_default" x=x:0 -> y={serve}:0
main {{
  x = Placeholder() {{dtype: float32, shape: <4>}}
{handles}
  prefix = Placeholder() {{dtype: string, shape: <>}}
  keys = Const() {{dtype: string, value: string([{keys}])}}
  slices = Const() {{dtype: string, value: string([{", ".join(['""'] * len(names))}])}}
  restore = RestoreV2(prefix, keys, slices) {{dtypes: [{", ".join(["float32"] * len(names))}]}}
{assigns}
{main}
}}
{functions}
"""


READER = """
@read(v: resource(float32<4>)) -> (y: float32) {
  r = ReadVariableOp(v) {dtype: float32}
  return r:value:0
}
"""
