"""Every test model with all its variables stored as bfloat16 and nothing else changed.

Computing stays float32, so the converted model must answer to the last bit like the original whose variables were
rounded to bfloat16 in memory. That leaves no tolerance for a place that was forgotten.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from converter.analysis.variables.index import find_variables
from converter.checkpoint.read import list_tensors
from converter.graph.invariants import check_structure
from converter.options.parse import parse_options
from converter.options.settings import ConvertSettings
from converter.pipeline import build_passes, run_passes
from converter.proofs.cpu_twin import make_cpu_twin
from converter.saved_model.reader import VARIABLES_PREFIX, read_model
from converter.saved_model.writer import write_model
from testdata.make_testdata import MODELS
from tests.oracle import LoadedModel, Values, assert_same, open_model
from tests.passes.bfloat16.models import store_as_bfloat16

Testdata = Callable[[str], Path]
NAMES = [pytest.param(name, marks=pytest.mark.slow) if model.slow else name for name, model in MODELS.items()]


@pytest.mark.parametrize("name", NAMES)
def test_all_variables_as_bfloat16(name: str, testdata: Testdata, tmp_path: Path) -> None:
    converted, again = tmp_path / "converted", tmp_path / "again"
    stored = store_all(name, testdata(name), converted)

    with open_model(testdata(name)) as original:
        for variable in variables_of(original):
            if variable.dtype == tf.float32:
                variable.assign(tf.cast(tf.cast(variable, tf.bfloat16), tf.float32))
        expected = answers(name, original)

    with open_model(converted) as loaded:
        assert_same(answers(name, loaded), expected)
        dtypes = {v.dtype for v in variables_of(loaded)}
        assert tf.float32 not in dtypes
        assert (tf.bfloat16 in dtypes) == bool(stored) or name == "bfloat16_inside"
        tf.saved_model.save(loaded.loaded, str(again), signatures=dict(loaded.loaded.signatures))
    with open_model(again) as reloaded:
        assert_same(answers(name, reloaded), expected)
        assert tf.float32 not in {v.dtype for v in variables_of(reloaded)}
    if "v1" in MODELS[name].loaders:
        for directory in (converted, again):
            with open_model(directory, "v1") as loaded:
                assert_same(answers(name, loaded), expected)

    before, after = (list_tensors(d / VARIABLES_PREFIX) for d in (testdata(name), converted))
    for key, tensor in before.items():
        halved = tensor.dtype == tf.float32
        assert (after[key].dtype, after[key].size_bytes) == (
            (tf.bfloat16, tensor.size_bytes // 2) if halved else (tensor.dtype, tensor.size_bytes)
        ), key


def store_all(name: str, source: Path, target: Path) -> bool:
    """Puts the model on the TPU, stores all that can be as bfloat16, writes its CPU twin; whether there was any."""
    model = read_model(source)
    if not MODELS[name].error:
        options = parse_options(MODELS[name].options_for(source) + "\ndisable_default_optimizations: true")
        run_passes(model, build_passes(options, ConvertSettings()))
    eligible = [v for v in find_variables(model) if v.ineligible is None]
    stored = store_as_bfloat16(model, eligible)
    assert stored == eligible
    check_structure(model)
    found = {v.name: v for v in find_variables(model)}
    assert all(found[v.name].dtype == tf.bfloat16.as_datatype_enum for v in stored)
    make_cpu_twin(model)
    write_model(model, target)
    return bool(stored)


def variables_of(model: LoadedModel) -> Iterator[tf.Variable]:
    return (v for v in tf.train.TrackableView(model.loaded).descendants() if isinstance(v, tf.Variable))


def answers(name: str, model: LoadedModel) -> dict[str, Values]:
    described = MODELS[name]
    found = {
        f"{signature}/{batch}": model.run(signature, described.make_inputs(signature, batch))
        for signature in described.signatures
        for batch in (1, 3)
    }
    assert all(np.isfinite(v).all() for each in found.values() for v in each.values() if v.dtype.kind == "f")
    return found
