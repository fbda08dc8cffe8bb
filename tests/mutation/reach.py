"""Which tests run which lines of the converter, and how long each takes: found once by tracing, kept in a cache.

A test file is traced in a process of its own, so that what the converter remembers from one file (lru_cache) does not
hide lines from the next. What was found stays valid for a module for as long as neither it nor the tests change.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest


@dataclass
class Reach:
    """What the tests of one file run: seconds of each test, and the lines of each module by test."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


class Recorder:
    """A pytest plugin that notes the lines of the converter that each test runs which passes, fixtures included."""

    def __init__(self, root: Path) -> None:
        self._folder = f"{root / 'converter'}{os.sep}"
        self._root = root
        self._ran: dict[str, set[int]] = {}
        self.reach = Reach()
        self.failed: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._ran = {}
        start = time.process_time()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        yield
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self.reach.seconds[item.nodeid] = round(time.process_time() - start, 3)
        if item.nodeid in self.failed:
            return
        for path, lines in self._ran.items():
            name = str(Path(path).relative_to(self._root))
            self.reach.lines.setdefault(name, {})[item.nodeid] = sorted(lines)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(self._folder):
            return None
        lines = self._ran.setdefault(path, set())
        lines.add(frame.f_lineno)

        def note(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return note

        return note


class Cache:
    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        support = [p for p in sorted((root / "tests").rglob("*.py")) if not p.name.startswith("test_")]
        self._support = digest(*(p for p in support if p.parent.name != "mutation"))

    def read(self, test_file: Path, module: str) -> Reach | None:
        """What is known of the test file, unless its tests or the module (if they run it) have changed since."""
        path = self._path(test_file)
        if not path.exists():
            return None
        reach = Reach(**json.loads(path.read_text()))
        known = reach.hashes.get(module)
        return reach if known is None or known == digest(self._root / module) else None

    def write(self, test_file: Path, reach: Reach) -> None:
        reach.hashes = {name: digest(self._root / name) for name in reach.lines}
        path = self._path(test_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(reach.__dict__))
        unfinished.rename(path)

    def _path(self, test_file: Path) -> Path:
        name = test_file.relative_to(self._root).with_suffix("").as_posix().replace("/", ".")
        return self._folder / f"{name}.{digest(test_file)}{self._support}.json"


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in paths)).hexdigest()[:12]
