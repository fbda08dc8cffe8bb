"""What the rows of a batch have to do with a tensor: where they lie in it, and what it mixes of them.

A batch is many requests' rows behind each other. Batching is right if every row of every result is made of its own row
of the inputs, whatever stands beside it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Axis:
    """Where the rows lie: in dimension `dim`, whose index is (outer, row, inner) with the row count in the middle.

    [b, t, d] reshaped to [b * t, d] has the rows in dimension 0 with t inner indices for each; two halves of a tensor
    behind each other, [2 * b, d], have 2 outer ones.
    """

    dim: int
    outer: int = 1
    inner: int = 1


ROWS = Axis(0)


@dataclass(frozen=True)
class Turn:
    """That of a loop over the rows: the function that is its body, and where the list that it reads has its rows."""

    body: str
    axis: Axis


class Effect(enum.IntEnum):
    """What makes a tensor unfit to be batched; of two the greater one is told."""

    UNKNOWN = 1
    """Nobody can tell whether the rows influence each other."""
    COUNTS = 2
    """It depends on how many rows there are."""
    PLACES = 3
    """It depends on a row's place in the batch."""
    PICKS = 4
    """Some rows are left out; joined with the others they may be all again."""
    MOVES = 5
    """Rows stand in the place of others; moved once more they may stand in their own."""
    MIXES = 6
    """Rows influence each other."""


@dataclass(frozen=True)
class Cause:
    """The node that first had the effect, and how: `how` completes "node (op) in function ..."."""

    effect: Effect
    function: str
    node: str
    op: str
    how: str

    def __str__(self) -> str:
        return f'"{self.node}" ({self.op}) in {self.function} {self.how}'


@dataclass(frozen=True)
class Value:
    """One tensor, or one list of tensors as the tensor that stacks them.

    Attributes:
      axis: where its rows lie; None if it has no dimension that grows with the batch.
      rows: made of the request's rows, each of its own.
      turn: of which loop over the rows, if it is made of the row of that loop's turn; it has no axis then.
      units: of indices made of a row's own place, how many of them a row has: such an index is the row times that, and
        less than that besides. One for each component, if the last dimension is one of several indices.
      least: none of its numbers is less than this, whatever it is made of.
      moved: why rows stand in the place of others.
      place, count, spoiled: why its values depend on a row's place; on the number of rows; or why they are lost, be it
        that rows are mixed or that there is no telling.
    """

    axis: Axis | None = None
    rows: bool = False
    turn: Turn | None = None
    units: tuple[int | None, ...] = ()
    least: int | None = None
    moved: Cause | None = None
    place: Cause | None = None
    count: Cause | None = None
    spoiled: Cause | None = None

    @property
    def varies(self) -> bool:
        """Whether it differs from row to row or from batch to batch."""
        return self.by_row or self.turn is not None or self.spoiled is not None or self.count is not None

    @property
    def by_row(self) -> bool:
        """Whether its content differs from row to row."""
        return self.rows or self.place is not None


CONSTANT = Value()
INPUT = Value(ROWS, rows=True)


def spoiled(cause: Cause) -> Value:
    return Value(rows=True, spoiled=cause)


def worst(causes: Iterable[Cause | None]) -> Cause | None:
    """The first of those with the greatest effect."""
    return max((c for c in causes if c is not None), key=lambda c: c.effect, default=None)


def union(values: Iterable[Value], axis: Axis | None) -> Value:
    """What is made of all of these, with its rows along `axis`."""
    found = list(values)
    return Value(
        axis,
        rows=any(v.rows for v in found),
        turn=next((v.turn for v in found if v.turn), None),
        moved=next((v.moved for v in found if v.moved), None),
        place=next((v.place for v in found if v.place), None),
        count=next((v.count for v in found if v.count), None),
        spoiled=worst(v.spoiled for v in found),
    )


def is_mixed(values: Sequence[Value]) -> bool:
    """Whether some of these are made of the row of a loop's turn and others of other rows."""
    turns = {v.turn for v in values if v.turn}
    return len(turns) > 1 or (bool(turns) and any(v.rows and not v.spoiled for v in values))


def either(values: Iterable[Value], elsewhere: Cause) -> Value:
    """What is one of these: of branches, or of a loop's turns. `elsewhere` is the cause if their rows lie apart."""
    found = list(values)
    axes = dict.fromkeys(v.axis for v in found if v.axis is not None)
    if len(axes) > 1:
        # Of what is the same for all rows, the axis is but a size.
        axes = dict.fromkeys(v.axis for v in found if v.axis is not None and v.by_row) or axes
    apart = len(axes) > 1 and any(v.by_row for v in found)
    turns = is_mixed(found)
    value = union(found, next(iter(axes), None))
    return replace(value, axis=None, spoiled=worst((value.spoiled, elsewhere))) if apart or turns else value
