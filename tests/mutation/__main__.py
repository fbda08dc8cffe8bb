"""Mutation testing: breaks modules of the converter one small way at a time, and counts the breaks that no test sees.

    python tests/mutation captures batching_plan      # all modules, if none is named

TensorFlow is imported once; each mutant is tried in a fork, which finds the broken module where the tests import it.
A mutant meets the tests that run its line, fastest first, until one fails. docs/testing.md has more.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from operators import Mutant, find_mutants, sample
from reach import Cache, Reach, Recorder, digest

HERE = Path(__file__).parent
EQUIVALENT = HERE / "equivalent.txt"
MEMORY_LIMIT = 6 << 30  # a loop that never ends must not take the machine with it
STATES = ("killed", "timeout", "survived", "unreached", "equivalent")


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    state: str
    by: str = ""
    seconds: float = 0.0


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Gives the broken source where the module is imported; nothing is written to disk."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name = name
        self._path = path
        self._source = source

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        loader = _Loader(name, str(self._path), self._source)
        return spec_from_file_location(name, self._path, loader=loader)


class _Chosen:
    """A pytest plugin: only the tests in `order`, in that order; remembers the one that failed."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {test: i for i, test in enumerate(order)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"


class Forge:
    """Runs work in forks of this process, which has imported TensorFlow but started none of its threads."""

    def __init__(self, root: Path, cache: Path) -> None:
        self._root = root
        models = digest(*sorted((root / "testdata").glob("*.py")))
        self._testdata = cache / f"testdata.{models}"
        self._testdata.mkdir(parents=True, exist_ok=True)

    def run(self, work: Callable[[list[str]], dict[str, Any]], limit: float) -> dict[str, Any] | None:
        """What `work` gives for pytest's common arguments; None if it took longer than `limit` seconds of CPU."""
        with tempfile.TemporaryDirectory(dir=self._testdata, prefix="run.") as base:
            answer = Path(base) / "answer.json"
            pid = os.fork()
            if pid == 0:
                self._child(work, Path(base), answer)
            if not self._wait(pid, limit):
                return None
            return dict(json.loads(answer.read_text())) if answer.exists() else {"failed": "(the process died)"}

    def _child(self, work: Callable[[list[str]], dict[str, Any]], base: Path, answer: Path) -> None:
        try:
            os.setpgid(0, 0)
            silence = os.open(answer.with_name("output"), os.O_WRONLY | os.O_CREAT)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            # tests/conftest.py keeps models of testdata beside the base directory, for all workers of a session.
            os.environ["PYTEST_XDIST_WORKER"] = "mutation"
            models = f"--basetemp={self._testdata / base.name}.tests"
            result = work(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", models])
            answer.write_text(json.dumps(result))
        finally:
            shutil.rmtree(f"{self._testdata / base.name}.tests", ignore_errors=True)
            os._exit(0)

    def _wait(self, pid: int, limit: float) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        start = time.monotonic()
        while True:
            done, _ = os.waitpid(pid, os.WNOHANG)
            if done:
                return True
            fields = stat.read_text().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            # One that waits for ever uses no CPU; on a busy machine one that works may wait for long.
            if cpu > limit or time.monotonic() - start > 6 * limit or memory > MEMORY_LIMIT:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.05)


class Runner:
    def __init__(self, root: Path, cache: Path, budget: float, patience: float) -> None:
        self._root = root
        self._cache = Cache(cache / "reach", root)
        self._forge = Forge(root, cache)
        self._budget = budget
        self._patience = patience
        files = sorted((root / "tests").rglob("test_*.py"))
        self.test_files = [f for f in files if f.name != "test_mutation.py"]  # that one would start this program again

    def reach(self, test_file: Path, module: str) -> Reach:
        """What the tests of the file run, traced if it is not known."""
        known = self._cache.read(test_file, module)
        if known is not None:
            return known

        def work(common: list[str]) -> dict[str, Any]:
            recorder = Recorder(self._root)
            code = pytest.main([*common, str(test_file)], plugins=[recorder])
            return {"code": int(code), "failed": recorder.failed, "reach": recorder.reach.__dict__}

        found = self._forge.run(work, limit=900)
        if found is None or found.get("code") not in (0, 1, 5):
            sys.exit(f"{test_file} cannot be run before anything is broken: {found}. Run it alone.")
        if found["failed"]:
            print(f"Left out, since they fail before anything is broken: {', '.join(found['failed'])}", file=sys.stderr)
        reach = Reach(**found["reach"])
        self._cache.write(test_file, reach)
        return reach

    def tests(self, mutant: Mutant, module: str, reaches: Sequence[Reach]) -> dict[str, float]:
        """Tests that run the mutant's lines, and their seconds; for what runs at import, any line of the module."""
        seconds: dict[str, float] = {}
        for reach in reaches:
            for test, lines in reach.lines.get(module, {}).items():
                if mutant.at_import or not set(mutant.lines).isdisjoint(lines):
                    seconds[test] = reach.seconds[test]
        chosen: dict[str, float] = {}
        for test in sorted(seconds, key=lambda t: (seconds[t], t)):
            if chosen and sum(chosen.values()) + seconds[test] > self._budget:
                break
            chosen[test] = seconds[test]
        return chosen

    def attempt(self, mutant: Mutant, module: str, source: str, reaches: Sequence[Reach]) -> Outcome:
        tests = self.tests(mutant, module, reaches)
        if not tests:
            return Outcome(mutant, "unreached")
        files = sorted({test.partition("::")[0] for test in tests})

        def work(common: list[str]) -> dict[str, Any]:
            sys.meta_path.insert(0, _Finder(mutant.module, self._root / module, mutant.apply(source)))
            chosen = _Chosen(list(tests))
            code = pytest.main([*common, "-x", *files], plugins=[chosen])
            return {"failed": chosen.failed or ("" if code == 0 else f"(pytest ended with {int(code)})")}

        start = time.monotonic()
        found = self._forge.run(work, limit=self._patience + 3 * sum(tests.values()))
        seconds = time.monotonic() - start
        if found is None:
            return Outcome(mutant, "timeout", seconds=seconds)
        return Outcome(mutant, "killed" if found["failed"] else "survived", found["failed"], seconds)


def find_modules(root: Path, names: Sequence[str]) -> list[str]:
    """Paths of the modules that are named by the end of their path, as in captures or passes/batch."""
    paths = [p.relative_to(root).as_posix() for p in sorted((root / "converter").rglob("*.py"))]
    found = []
    for name in names or ["*"]:
        end = name.removesuffix(".py").replace(".", "/")
        matches = [p for p in paths if name == "*" or f"/{p.removesuffix('.py')}".endswith(f"/{end}")]
        if not matches:
            sys.exit(f"No module under converter/ ends with {name!r}.")
        found += [m for m in matches if m not in found]
    return found


def read_equivalent(path: Path) -> set[str]:
    """Keys of the mutants that were judged to change nothing; the indented lines below each say why."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {line for line in lines if line and not line.startswith(("#", " "))}


def describe(outcome: Outcome, source: str, path: str) -> str:
    mutant = outcome.mutant
    diff = difflib.unified_diff(source.splitlines(), mutant.apply(source).splitlines(), n=0, lineterm="")
    changed = "\n".join(f"    {line}" for line in list(diff)[3:])
    return f"{path}:{mutant.line}: {outcome.state}: {mutant.kind}\n  {mutant.key}\n{changed}"


def row(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = {state: sum(o.state == state for o in outcomes) for state in STATES}
    judged = sum(counts.values()) - counts["equivalent"]
    score = round(100 * (counts["killed"] + counts["timeout"]) / judged) if judged else None
    return {"module": name, **counts, "score": score}


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'module':<40}" + "".join(f"{state:>11}" for state in STATES) + f"{'score':>8}"]
    for each in rows:
        score = "-" if each["score"] is None else f"{each['score']} %"
        lines.append(f"{each['module']:<40}" + "".join(f"{each[state]:>11}" for state in STATES) + f"{score:>8}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the small breaks of modules that no test sees.")
    parser.add_argument("modules", nargs="*", help="ends of module paths (captures, passes/batch); default all")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="the checkout")
    parser.add_argument("--count", type=int, default=20, help="mutants drawn of each module (default %(default)s)")
    parser.add_argument("--seed", default="0", help="another seed draws others (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default %(default)s)")
    parser.add_argument("--budget", type=float, default=20, help="seconds of tests per mutant (default %(default)s)")
    parser.add_argument("--patience", type=float, default=20, help="CPU seconds granted beyond (default %(default)s)")
    parser.add_argument("--cache", type=Path, help="what tests run which lines (default ROOT/build/mutation)")
    parser.add_argument("--only", default="", help="only mutants whose key contains this text")
    parser.add_argument("--json", type=Path, help="writes all outcomes there")
    parser.add_argument("--list", action="store_true", help="prints the drawn mutants and tries none")
    options = parser.parse_args()
    root = options.root.resolve()
    os.chdir(root)
    sys.path.insert(0, str(root))
    equivalent = read_equivalent(root / "tests" / "mutation" / "equivalent.txt") | read_equivalent(EQUIVALENT)
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")
    if not options.list:
        import hypothesis  # noqa: F401
        import tensorflow  # noqa: F401
    runner = Runner(root, (options.cache or root / "build" / "mutation").resolve(), options.budget, options.patience)
    rows, outcomes = [], []
    with ThreadPoolExecutor(options.jobs) as pool:
        for path in find_modules(root, options.modules):
            source = (root / path).read_text()
            name = path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
            mutants = [m for m in find_mutants(source, name) if options.only in m.key]
            mutants = sample(mutants, options.count, options.seed)
            if options.list:
                print("\n".join(f"{path}:{m.line}: {m.kind}: {m.key}" for m in mutants))
                continue
            tried = [m for m in mutants if m.key not in equivalent]
            reaches = list(pool.map(lambda file, path=path: runner.reach(file, path), runner.test_files))
            found = list(pool.map(lambda m, p=path, s=source, r=reaches: runner.attempt(m, p, s, r), tried))
            found += [Outcome(m, "equivalent") for m in mutants if m.key in equivalent]
            for each in found:
                if each.state in ("survived", "unreached"):
                    print(describe(each, source, path), flush=True)
            rows.append(row(name, found))
            outcomes += found
            print(table(rows[-1:]), flush=True)
    if rows:
        print(f"\n{table(rows)}")
    if options.json:
        dump = [{"key": o.mutant.key, "line": o.mutant.line, "kind": o.mutant.kind, "module": o.mutant.module,
                 "state": o.state, "by": o.by, "seconds": round(o.seconds, 1)} for o in outcomes]  # fmt: skip
        options.json.write_text(json.dumps({"modules": rows, "mutants": dump}, indent=1))


if __name__ == "__main__":
    main()
