"""The report's text, to the letter, and its JSON."""

import json
from collections import Counter
from dataclasses import dataclass, field

from converter.analysis.cost import Cost
from converter.passes.pass_result import Change, PassReport, PassResult, Skip
from converter.reports.conversion import ConversionReport

# The example of the manual.
MANUAL = """\
-------- Conversion Report --------
TPU cost of the model: 96.67% (2034/2104)
CPU cost of the model:  3.33% (70/2104)

Cost breakdown
================================
%         Cost    Name
--------------------------------
3.33      70      [CPU cost]
48.34     1017    tpu_func_1
48.34     1017    tpu_func_2
--------------------------------"""


@dataclass(frozen=True)
class Told:
    """Details of no pass in particular."""

    text: tuple[str, ...] = ()
    values: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return list(self.text)

    def to_json(self) -> dict[str, object]:
        return self.values


def report(cost: Cost, *results: PassResult) -> ConversionReport:
    return ConversionReport(
        cost=cost,
        passes=tuple(PassReport(f"pass_{i}", 0.1234567, result) for i, result in enumerate(results)),
        input_bytes=10,
        output_bytes=None,
        seconds={"read": 1.23456789},
        versions={"tpu_convert": "1"},
        notes=("a note",),
    )


def test_the_example_of_the_manual() -> None:
    assert report(Cost(70, Counter(tpu_func_1=1017, tpu_func_2=1017))).text() == MANUAL


def test_all_on_the_tpu_and_nothing_at_all() -> None:
    text = report(Cost(0, Counter(f=5))).text()
    assert "TPU cost of the model: 100.00% (5/5)\nCPU cost of the model:  0.00% (0/5)\n" in text
    text = report(Cost()).text()
    assert "TPU cost of the model:  0.00% (0/0)\nCPU cost of the model:  0.00% (0/0)\n" in text
    assert "\n0.00      0       [CPU cost]\n" in text


def test_a_cost_wider_than_its_column_keeps_away_from_the_name() -> None:
    text = report(Cost(1, Counter(resnet=123456789))).text()
    assert "\n100.00    123456789  resnet\n" in text


def test_the_json_has_everything() -> None:
    first = PassResult([Change("F", "moved")], [Skip("G", "fine")], ["careful"], Told(values={"more": [1]}))
    found = report(Cost(2, Counter(f=3)), first, PassResult())
    assert json.loads(json.dumps(found.to_json())) == {
        "cost": {"total": 5, "cpu": 2, "tpu": {"f": 3}},
        "breakdown": [
            {"name": "[CPU cost]", "percent": 40.0, "cost": 2},
            {"name": "f", "percent": 60.0, "cost": 3},
        ],
        "passes": [
            {
                "name": "pass_0",
                "seconds": 0.123457,
                "changes": [{"where": "F", "what": "moved"}],
                "skips": [{"where": "G", "reason": "fine"}],
                "warnings": ["careful"],
                "details": {"more": [1]},
            },
            {"name": "pass_1", "seconds": 0.123457, "changes": [], "skips": [], "warnings": [], "details": {}},
        ],
        "warnings": ["careful"],
        "notes": ["a note"],
        "input_bytes": 10,
        "output_bytes": None,
        "seconds": {"read": 1.234568},
        "versions": {"tpu_convert": "1"},
    }
    assert found.changed
    assert not report(Cost(), PassResult(skips=[Skip("G", "fine")])).changed


def test_the_summary_has_the_lines_of_every_pass_in_order() -> None:
    told = [PassResult([Change("F", "made")], details=Told(x)) for x in (("one", "two"), (), ("three",))]
    assert report(Cost(), told[0], PassResult(), *told[1:]).summary().lines == ("one", "two", "three")


def test_a_conversion_that_changed_nothing_says_why_once_for_each_reason() -> None:
    skips = [Skip(f"f{i}", "runs on the TPU already") for i in range(7)]
    idle = PassResult(skips=[*skips, Skip("g", "has no results")])
    assert report(Cost(), idle, PassResult()).summary().lines == (
        "Nothing was left to do:",
        "  pass_0: f0, f1, f2, f3, f4 and 2 more: runs on the TPU already",
        "  pass_0: g: has no results",
        "  pass_1: found nothing that it would change",
    )
    five = PassResult(skips=[Skip(f"f{i}", "r") for i in range(5)])
    assert report(Cost(), five).summary().lines[1] == "  pass_0: f0, f1, f2, f3, f4: r"
    assert report(Cost(), idle, PassResult([Change("F", "moved")])).summary().lines == ()
