"""A checkpoint of many types, and where to write another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoint.checkpoints import MIXED, save


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return save(tmp_path / "source" / "variables", MIXED)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target" / "variables"
