"""The size of a dimension that inference does not know, from those that it knows."""

from fractions import Fraction

import pytest

from converter.passes.batching.rows.folds import _completed
from converter.passes.batching.rows.site import Extent

ROWS = Extent(Fraction(0), Fraction(1))


def size(count: int) -> Extent:
    return Extent(Fraction(count), Fraction(0))


@pytest.mark.parametrize(
    ("known", "per_row", "missing"),
    [
        ((None, size(3)), 12, Extent(Fraction(0), Fraction(4))),
        ((ROWS, None), 12, size(12)),
        ((Extent(Fraction(0), Fraction(2)), None, size(3)), 12, size(2)),
        ((None, size(5)), 12, Extent(Fraction(0), Fraction(12, 5))),
    ],
)
def test_one_size_follows_from_the_others(known: tuple[Extent | None, ...], per_row: int, missing: Extent) -> None:
    completed = _completed(known, per_row)
    assert completed is not None
    assert [e for k, e in zip(known, completed, strict=True) if k is None] == [missing]


def test_nothing_follows_where_two_sizes_are_unknown_or_one_is_zero() -> None:
    assert _completed((None, None), 12) is None
    assert _completed((None, size(0)), 12) is None
    assert _completed(None, 12) is None
