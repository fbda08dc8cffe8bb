"""Whether the rows of a batch influence each other: if they do, an answer depends on who else asks at that moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converter.analysis.arguments import Argument
from converter.analysis.shape_inference import Inference, ShapeInferenceError
from converter.graph.model import Model
from converter.graph.shapes import Shape
from converter.passes.batching.component import Component
from converter.passes.batching.rows.flow import RowFlow
from converter.passes.batching.rows.site import Extents, extents
from converter.passes.batching.rows.values import CONSTANT, INPUT, ROWS, Effect, Value

# Sizes to try for dimensions that requests decide, such as the length of a text or the height of an image.
_FREE_SIZES = (8, 32, 64, 224, 1, None)
_INSTEAD = "or batch a function or signature in which each row is computed by itself"
_EFFECTS = {
    **dict.fromkeys((Effect.MIXES, Effect.MOVES, Effect.PICKS), "mixes the rows of a batch"),
    Effect.PLACES: "depends on a row's place in the batch",
    Effect.COUNTS: "depends on how many rows the batch has",
}


@dataclass(frozen=True)
class RowReport:
    """What is known of a component's rows.

    Attributes:
      mixed: one message for each cause by which a row's answer depends on others.
      unclear: why there is no telling, for the first such result; empty if all is clear.
      proved: names of the results that have one row for each row of the request, made of that row alone.
    """

    mixed: tuple[str, ...] = ()
    unclear: str = ""
    proved: frozenset[str] = frozenset()


def check_rows(model: Model, component: Component, inference: Inference) -> RowReport:
    """Follows the rows from the inputs of a component to its results."""
    if component.largest_batch < 2 or component.fills_batches:
        return RowReport()
    sizes = _two_sizes(component)
    values = [INPUT if i in component.inputs else CONSTANT for i in range(len(component.declared))]
    problem = "its shapes cannot be inferred"
    for free in _FREE_SIZES:
        first, second = (tuple(_arguments(component, rows, free)) for rows in sizes)
        try:
            results = RowFlow(model, inference, sizes).results(component.function, values, (first, second))
            views = [inference.infer(component.function, each) for each in (first, second)]
        except ShapeInferenceError as error:
            problem = str(error)
            continue
        known = [extents([view.result(i) for view in views], sizes) for i in range(len(results))]
        return _report(component, results, known)
    return RowReport(unclear=problem)


def _two_sizes(component: Component) -> tuple[int, int]:
    """Two batch sizes that may be run, or twice one; a batch of one row tells nothing of the others."""
    found = sorted({size for size in component.sizes if size > 1})[-2:]
    if len(found) == 2:
        return found[0], found[1]
    size = found[0] if found else 2
    return size, 2 * size


def _arguments(component: Component, rows: int, free: int | None) -> Iterator[Argument]:
    for i, shape in enumerate(component.declared):
        yield _filled(shape, rows, free) if i in component.inputs and shape else shape


def _filled(shape: tuple[int | None, ...], rows: int, free: int | None) -> Shape:
    return (rows, *(free if size is None else size for size in shape[1:]))


def _report(component: Component, results: list[Value], known: list[Extents | None]) -> RowReport:
    mixed: dict[str, list[str]] = {}
    unclear: list[str] = []
    proved: set[str] = set()
    for name, value, shape in zip(component.result_names, results, known, strict=True):
        effect, why = _judgement(value, shape)
        if effect is None:
            proved |= {name} if value.rows else set()
        elif effect is Effect.UNKNOWN:
            unclear.append(f'output "{name}": {why}')
        else:
            mixed.setdefault(f"{_EFFECTS[effect]}: {why}", []).append(f'"{name}"')
    messages = [f"Output {listed(names)} {reason}. {_remedy()}" for reason, names in mixed.items()]
    return RowReport(tuple(messages), unclear[0] if unclear else "", frozenset(proved))


def _judgement(value: Value, shape: Extents | None) -> tuple[Effect | None, str]:
    """What is wrong with a result, and why; None if nothing is that the op's own shape rules would not find."""
    if value.turn:
        return Effect.MIXES, "it is what the last turn of a loop over the rows left"
    cause = next((c for c in (value.spoiled, value.moved, value.place, value.count) if c is not None), None)
    if cause is not None:
        return cause.effect, str(cause)
    for dim, extent in enumerate(shape or ()):
        if dim > 0 and extent is not None and extent.grows:
            return Effect.MIXES, f"its dimension {dim} grows with the batch, of which only dimension 0 is split again"
    if value.rows and value.axis != ROWS:
        return Effect.UNKNOWN, "its rows do not lie one by one in its 0th dimension"
    return None, ""


def _remedy() -> str:
    return (
        "What a request is answered would depend on the other requests in its batch, and on padding. Compute each row "
        f"by itself, {_INSTEAD}."
    )


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them, each once."""
    each = list(dict.fromkeys(names))
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} and {each[-1]}"
