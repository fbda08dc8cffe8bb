"""No random model whose rows influence each other is batched, and none is refused whose rows do not.

Which models these are is asked of the original: it answers each row alone and all rows together.
"""

import numpy as np
import pytest
from hypothesis import assume, note
from hypothesis import strategies as st

from converter import ConversionError, ConvertSettings, convert
from tests.properties.mixing_ops import MIXING
from tests.properties.random_models import FunctionSpec, ModelSpec, Step, inputs, steps
from tests.properties.random_options import REQUEST_ROWS, Batching, Options, options
from tests.properties.row_ops import OPS
from tests.properties.trial import ALONE, Trial, for_random_models, shards

ALL_OPS = {**OPS, **MIXING}
LEAVES = [name for name, op in OPS.items() if not op.calls and op.takes != "string" and op.when != "smooth"]


@st.composite
def mixing_models(draw: st.DrawFn) -> ModelSpec:
    """One function that mixes the rows somewhere, and a signature that calls it."""
    mixing = draw(st.sampled_from(sorted(MIXING)))
    made = (*draw(steps(LEAVES, 4)), Step(mixing, 0, 0, draw(st.integers(0, 5))), *draw(steps(LEAVES, 3)))
    given = draw(inputs(("float32",)))
    call = FunctionSpec(given, (*draw(steps(LEAVES, 1)), Step("call")), 1)
    return ModelSpec(True, (FunctionSpec(given, made, 1),), (call,))


def mixes(trial: Trial) -> bool:
    alone = trial.answers(trial.original, "v1", ALONE)["serving_default"]
    whole = trial.answers(trial.original, "v1", (list(range(REQUEST_ROWS)),))["serving_default"][0]
    return any(not np.allclose(np.concatenate([row[key] for row in alone]), whole[key]) for key in whole)


def check_refused(trial: Trial, data: st.DataObject) -> None:
    assume(mixes(trial))
    component = data.draw(st.sampled_from((None, "f0", "serving_default")))
    drawn = Options(("f0",), (Batching(component, (4, 8), 1, 0, True),))
    note(drawn.text())
    with pytest.raises(ConversionError):
        convert(trial.original, trial.directory / "refused", drawn.text())
    report = convert(
        trial.original, trial.directory / "allowed", drawn.text(), ConvertSettings(allow_batching_violations=True)
    )
    assert report.warnings


@pytest.mark.parametrize("number", shards(2, 20))
def test_no_random_model_that_mixes_rows_is_batched_without_an_error(number: str) -> None:
    for_random_models(number, 12, check_refused, mixing_models(), ALL_OPS)


def check_accepted(trial: Trial, data: st.DataObject) -> None:
    drawn = data.draw(options(trial.model, batched=True, bfloat16=False))
    report = convert(trial.original, trial.directory / "converted", drawn.text())
    told = [w for w in report.warnings if "disable_large_batch_splitting has no effect" not in w]
    # Shape inference does not see how many rows come out of map_fn.
    assert not told or "map_rows" in trial.spec.ops, told


@pytest.mark.parametrize("number", shards(2, 20))
def test_no_random_model_with_independent_rows_is_refused_or_warned_of(number: str) -> None:
    for_random_models(number, 12, check_accepted)
