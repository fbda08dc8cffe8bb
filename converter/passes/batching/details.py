"""What the batching pass reports: what is batched and how, what is not, and whose rows cannot be followed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from converter.passes.batching.attributes import Attributes
from converter.passes.pass_result import Skip


@dataclass(frozen=True)
class Padding:
    """What a batch is padded to; the fields are the keys of the JSON."""

    rows: str
    """A range of sizes that share an answer: "5-8"."""
    padded_to: int | str | None
    """None for rows that are split into batches of at most the last allowed size."""
    waste: float | None
    """The largest share of padding in the range, from 0 to 1."""


@dataclass(frozen=True)
class BatchedRow:
    """One component and its batching op; the fields are the keys of the JSON."""

    name: str
    """What the user calls the component."""
    what: str
    function: str
    """What the batching op calls."""
    queue: str
    inputs: int
    captures: int
    tpu_functions: tuple[str, ...]
    """Those that run in it."""
    options: Attributes
    padding: tuple[Padding, ...]

    def line(self) -> str:
        padding = ", ".join(f"{each.rows} -> {each.padded_to}" for each in self.padding)
        return f"Batched: {self.name}" + (f" (rows padded {padding})" if padding else "")

    def to_json(self) -> dict[str, object]:
        options = {**self.options.values(), "allowed_batch_sizes": list(self.options.allowed_batch_sizes)}
        lists = {"options": options, "padding": [dataclasses.asdict(each) for each in self.padding]}
        return {**dataclasses.asdict(self), "tpu_functions": list(self.tpu_functions), **lists}


@dataclass(frozen=True)
class BatchDetails:
    """All that is batched, and the names of what is not, or not checked, with the reason."""

    batched: tuple[BatchedRow, ...] = ()
    not_batched: tuple[Skip, ...] = ()
    rows_unclear: tuple[Skip, ...] = ()

    def lines(self) -> list[str]:
        return [
            *(row.line() for row in self.batched),
            *(f"Not batched: {name}: {reason}" for name, reason in _by_name(self.not_batched).items()),
            *(
                f"Cannot tell whether rows of a batch influence each other in {name}: {why}"
                for name, why in _by_name(self.rows_unclear).items()
            ),
        ]

    def to_json(self) -> dict[str, object]:
        return {
            "rows_unclear": _by_name(self.rows_unclear),
            "batched": [row.to_json() for row in self.batched],
            "not_batched": _by_name(self.not_batched),
        }


def _by_name(skips: Sequence[Skip]) -> dict[str, str]:
    return {skip.where: skip.reason for skip in skips}


def padding_table(allowed: Sequence[int], max_batch_size: int) -> tuple[Padding, ...]:
    """What a batch of 1 to `max_batch_size` rows is padded to: an entry for each range of sizes with one answer."""
    if not allowed:
        return (Padding(_range(1, max_batch_size), "the same", 0.0),)
    table = []
    first = 1
    for size in allowed:
        table.append(Padding(_range(first, size), size, round((size - first) / size, 3)))
        first = size + 1
    if first <= max_batch_size:
        table.append(Padding(_range(first, max_batch_size), None, None))
    return tuple(table)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
