"""What a conversion did, as text in the layout of the reference and as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from converter.analysis.cost import Cost
from converter.analysis.workload import Workload
from converter.errors import listed
from converter.passes.pass_result import Json, PassReport
from converter.printing import Paragraphs

_CPU_ROW = "[CPU cost]"
_PERCENT_WIDTH = 10
_COST_WIDTH = 8


@dataclass(frozen=True)
class ConversionReport:
    """The outcome of one conversion.

    Attributes:
      cost: cost of the converted model by the heuristic of `converter.analysis.cost`.
      passes: in the order in which they ran.
      input_bytes, output_bytes: sizes on disk of the SavedModels; output is None for a dry run.
      seconds: wall time by stage (read, verify, write), passes apart.
      versions: of tpu-convert, tensorflow and the TensorFlow that exported the model.
      notes: remarks on the conversion as a whole.
      workload: FLOPs and bytes of the converted model, if they were asked for.
    """

    cost: Cost
    passes: tuple[PassReport, ...]
    input_bytes: int
    output_bytes: int | None
    seconds: dict[str, float]
    versions: dict[str, str]
    notes: tuple[str, ...] = field(default=())
    workload: Workload | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(w for p in self.passes for w in p.result.warnings)

    @property
    def changed(self) -> bool:
        return any(p.result.changes for p in self.passes)

    def text(self) -> str:
        """The report block, to the letter in the layout of the reference."""
        total = self.cost.total
        tpu, cpu = self.cost.tpu_total, self.cost.cpu
        lines = [
            "-------- Conversion Report --------",
            f"TPU cost of the model: {_percent(tpu, total):>5}% ({tpu}/{total})",
            f"CPU cost of the model: {_percent(cpu, total):>5}% ({cpu}/{total})",
            "",
            "Cost breakdown",
            "=" * 32,
            _row("%", "Cost", "Name"),
            "-" * 32,
            *(_row(_percent(cost, total), str(cost), name) for cost, name in self._rows()),
            "-" * 32,
        ]
        return "\n".join(lines)

    def summary(self) -> Paragraphs:
        """What the passes did, in a few lines for people; all of it is in `to_json`."""
        lines = [] if self.changed else self._nothing_to_do()
        return Paragraphs((*lines, *(line for p in self.passes for line in p.result.details.lines())))

    def _nothing_to_do(self) -> list[str]:
        """Why a conversion has changed nothing: each reason once, with what it holds for."""
        lines = ["Nothing was left to do:"]
        for p in self.passes:
            reasons: dict[str, list[str]] = {}
            for skip in p.result.skips:
                reasons.setdefault(skip.reason, []).append(skip.where)
            lines += [f"  {p.name}: {listed(where)}: {reason}" for reason, where in reasons.items()]
            lines += [] if reasons else [f"  {p.name}: found nothing that it would change"]
        return lines

    def to_json(self) -> Json:
        """Everything in the report as JSON-serializable values; costs are integers, times seconds, sizes bytes."""
        return {
            "cost": {"total": self.cost.total, "cpu": self.cost.cpu, "tpu": dict(self.cost.tpu)},
            "breakdown": self._breakdown(),
            "passes": [_pass_json(p) for p in self.passes],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "seconds": {k: round(v, 6) for k, v in self.seconds.items()},
            "versions": self.versions,
        }

    def _rows(self) -> list[tuple[int, str]]:
        """Cost and name of each row of the breakdown."""
        return [(self.cost.cpu, _CPU_ROW), *((cost, name) for name, cost in self.cost.tpu.items())]

    def _breakdown(self) -> list[Json]:
        """The rows of the report's table, with FLOPs and bytes for one row of the batch as columns of their own."""
        rows = []
        for cost, name in self._rows():
            row = {"name": name, "percent": float(_percent(cost, self.cost.total)), "cost": cost}
            if self.workload is not None:
                work = self.workload.cpu if name == _CPU_ROW else self.workload.tpu[name]
                row |= {"flops": work.flops, "bytes": work.bytes}
            rows.append(row)
        return rows


def _pass_json(report: PassReport) -> Json:
    result = report.result
    return {
        "name": report.name,
        "seconds": round(report.seconds, 6),
        "changes": [dataclasses.asdict(c) for c in result.changes],
        "skips": [dataclasses.asdict(s) for s in result.skips],
        "warnings": list(result.warnings),
        "details": result.details.to_json(),
    }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}"


def _row(percent: str, cost: str, name: str) -> str:
    # Two blanks at least, also behind a cost wider than its column.
    return f"{percent:<{_PERCENT_WIDTH}}{cost + '  ':<{_COST_WIDTH}}{name}"
