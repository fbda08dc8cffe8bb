"""Fixtures that every test may use, and a quiet TensorFlow."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["KERAS_BACKEND"] = "tensorflow"

# The same examples on every machine and in any order of the tests. What watches the clock is off: machines are busy,
# and Hypothesis builds its table of characters inside of whichever test draws text first.
settings.register_profile(
    "tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def testdata(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """testdata(name) is the directory of the SavedModel `name` of testdata/make_testdata.py. Never write into it.

    A model is built when it is first asked for and then kept for the session, which the workers of pytest-xdist share.
    A build that fails raises in each test that asks.
    """
    base = tmp_path_factory.getbasetemp()
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = session / "testdata"
    directory.mkdir(exist_ok=True)

    def get(name: str) -> Path:
        target = directory / name
        if target.exists():
            return target
        from testdata.make_testdata import MODELS  # imports TensorFlow, which many tests never need

        model = MODELS[name]
        with (directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                unfinished = directory / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                model.build(unfinished)
                unfinished.rename(target)
        return target

    return get
