"""The tool that breaks modules: what it breaks, what it leaves alone, and that a broken module is what tests import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.operators import find_mutants, sample

MUTATION = Path(__file__).parent / "mutation"


def breaks(source: str) -> list[str]:
    return [f"{m.kind}: {m.before} -> {m.after}" for m in find_mutants(source, "converter.example")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "def f(a, b):\n    return a and not b",
            [
                "half of a condition dropped: a and not b -> ((not b))",
                "half of a condition dropped: a and not b -> ((a))",
                "not dropped: not b -> (b)",
            ],
        ),
        (
            "def f(a):\n    if a < 3:\n        g()\n        return 1\n    return 'é' + a",
            [
                "condition forced: a < 3 -> True",
                "condition forced: a < 3 -> False",
                "comparison moved: a < 3 -> (a <= 3)",
                "constant moved: 3 -> 4",
                "call dropped: g() -> pass",
                "early return dropped: return 1 -> pass",
                "constant moved: 1 -> 2",
                "operand dropped: 'é' + a -> ('é')",
                "operand dropped: 'é' + a -> (a)",
            ],
        ),
        (
            "for x in [y for y in z if y]:\n    if x in ('a', 'b'): continue\n    x.n += 1",
            [
                "filter dropped: y -> True",
                "condition forced: x in ('a', 'b') -> True",
                "condition forced: x in ('a', 'b') -> False",
                "comparison moved: x in ('a', 'b') -> (x not in ('a', 'b'))",
                "element dropped: ('a', 'b') -> ('b', )",
                "element dropped: ('a', 'b') -> ('a', )",
                "jump dropped: continue -> pass",
                "update dropped: x.n += 1 -> pass",
                "constant moved: 1 -> 2",
            ],
        ),
        (
            "x = {**f(a, k=any(b)), 'c': d}",
            [
                "element dropped: {**f(a, k=any(b)), 'c': d} -> {'c': d}",
                "element dropped: {**f(a, k=any(b)), 'c': d} -> {**f(a, k=any(b))}",
                "argument dropped: f(a, k=any(b)) -> f(a)",
                "function swapped: any -> all",
            ],
        ),
    ],
)
def test_each_operator_gives_its_breaks_in_the_order_of_the_text(source: str, expected: list[str]) -> None:
    assert breaks(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "@d(a=1)\ndef f(x: A | None) -> B | None:\n    'not here'\n    raise E(f'{1 + 2}', k=3)",
        "if TYPE_CHECKING:\n    x = 1",
        "zip(a, b, strict=c)[0:]",
    ],
)
def test_annotations_decorators_messages_and_docstrings_are_left_alone(source: str) -> None:
    assert [b for b in breaks(source) if not b.startswith(("call dropped: zip", "constant moved: 0"))] == []


def test_keys_name_the_function_and_number_what_is_alike() -> None:
    source = "class C:\n    def f(self):\n        g()\n        g()"
    assert [m.key for m in find_mutants(source, "converter.room.example")] == [
        "example.C.f: g() -> pass",
        "example.C.f: g() -> pass #1",
    ]


def test_a_sample_stays_the_same_where_the_code_does() -> None:
    functions = [f"def f{i}(a, b):\n    g(a, k=b)\n    return a and b\n" for i in range(30)]
    one = sample(find_mutants("\n".join(functions), "converter.example"), 40, "0")
    assert len(one) == 40
    assert one == sample(find_mutants("\n".join(functions), "converter.example"), 40, "0")
    assert one != sample(find_mutants("\n".join(functions), "converter.example"), 40, "1")
    edited = "import x\n" + "\n".join([*functions[1:], functions[0]])
    moved = sample(find_mutants(edited, "converter.room.example"), 40, "0")
    assert {m.key for m in moved} == {m.key for m in one}


def test_a_break_that_a_test_sees_is_killed_and_one_that_none_sees_survives(tmp_path: Path) -> None:
    for name, text in {
        "converter/__init__.py": "",
        "converter/room/__init__.py": "",
        "converter/room/example.py": (
            "def seen(a, b):\n    return a and b\n\ndef spin(n):\n    while n:\n        n -= 1\n    return n\n\n"
            "def unseen(a, b):\n    return a or b\n\ndef alone(a):\n    return not a\n"
        ),
        "converter/user.py": "from converter.room.example import seen, spin, unseen\n",
        "testdata/make_testdata.py": "",
        "tests/__init__.py": "",
        "tests/mutation/equivalent.txt": "example.unseen: a or b -> ((a))\n    a reason\n",
        "tests/test_user.py": (
            "from converter.user import seen, spin, unseen\n\n"
            "def test_seen():\n    assert [seen(1, 0), seen(0, 1)] == [0, 0]\n\n"
            "def test_spin():\n    assert spin(3) == 0\n\n"
            "def test_unseen():\n    assert unseen(0, 0) == 0\n"
        ),
        "setup.cfg": "[tool:pytest]\nmarkers =\n    slow: x\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, str(MUTATION), "--root", str(tmp_path), "--patience", "3", "--jobs", "1", "room/example"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = {line.split(": ", 2)[1]: line for line in done.stdout.splitlines() if ".py:" in line}
    assert state["survived"] == "converter/room/example.py:10: survived: half of a condition dropped"
    assert state["unreached"] == "converter/room/example.py:13: unreached: not dropped"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-2] == ["module", "killed", "timeout", "survived", "unreached", "equivalent", "score"]
    assert lines[-1] == ["converter.room.example", "2", "2", "1", "1", "1", "67", "%"]
