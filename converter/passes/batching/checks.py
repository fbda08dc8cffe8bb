"""All that is checked of what is to be batched, told once for each cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from converter.analysis.shape_inference import Inference
from converter.graph.model import Model
from converter.passes.batching.component import Component
from converter.passes.batching.requirements import Violation, told
from converter.passes.batching.rows.report import RowReport, check_rows, listed
from converter.passes.batching.rules import check


@dataclass
class Findings:
    """Messages, each once.

    Attributes:
      certain: what fails, or answers wrongly, in every deployment.
      possible: what depends on the requests.
      unclear: component -> why the converter cannot tell whether its rows influence each other.
    """

    certain: list[str] = field(default_factory=list)
    possible: list[str] = field(default_factory=list)
    unclear: dict[str, str] = field(default_factory=dict)


def check_components(model: Model, components: Iterable[tuple[str, Component]]) -> Findings:
    """Checks the shape rules of the batching op and the rows of these components, which have a name each."""
    findings = Findings()
    inference = Inference(model)
    violations: list[tuple[str, Violation]] = []
    mixed: dict[str, list[str]] = {}
    checked: set[str] = set()
    for name, component in components:
        if component.function in checked:
            continue
        checked.add(component.function)
        spelled = f'"{name}" ({component.function})'
        found = check(model, component, inference)
        certain = any(v.certain for v in found)
        rows = RowReport() if certain else check_rows(model, component, inference)
        found = [v for v in found if v.tensor not in {f'Output "{each}"' for each in rows.proved}]
        open_results = [v for v in found if v.requirement == 4 and not v.certain]
        violations += [(spelled, v) for v in found if v not in open_results]
        for message in rows.mixed:
            mixed.setdefault(message, []).append(spelled)
        if not rows.mixed and (rows.unclear or open_results):
            findings.unclear[name] = rows.unclear or f"{open_results[0].tensor} {open_results[0].why}"
    findings.certain += _told(violations, certain=True)
    findings.certain += [f"Batching {listed(names)}: {message}" for message, names in mixed.items()]
    findings.possible += _told(violations, certain=False)
    return findings


def _told(violations: Sequence[tuple[str, Violation]], *, certain: bool) -> list[str]:
    """One message for each requirement and way to break it, whichever tensors and components do."""
    groups: dict[tuple[int, str, str], list[tuple[str, Violation]]] = {}
    for name, violation in violations:
        if violation.certain == certain:
            key = (violation.requirement, violation.why, violation.remedy)
            groups.setdefault(key, []).append((name, violation))
    return [
        f"Batching {listed([name for name, _ in group])}: {told([violation for _, violation in group])}"
        for group in groups.values()
    ]
