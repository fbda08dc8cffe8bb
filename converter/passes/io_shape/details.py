"""What the IO-shape pass reports: the tensors that cross, and what that costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class CrossingRow:
    """One tensor that crosses at a TPU call; the fields are the keys of the JSON."""

    tpu_function: str
    tensor: str
    dtype: str
    shape: str
    crosses_as: str
    batch_size: int
    """Rows for which the bytes count."""
    bytes_before: int | None
    """Padded to tiles; None where shape or type has no size."""
    bytes_after: int | None

    def line(self) -> str:
        gain = "copied instead of transposed"
        if self.bytes_before is not None and self.bytes_after is not None and self.bytes_after < self.bytes_before:
            gain = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes"
        rows = "1 row" if self.batch_size == 1 else f"{self.batch_size} rows"
        return (
            f"{self.tpu_function}: {self.tensor} {self.dtype}{self.shape} crosses as {self.crosses_as}, {gain} for "
            f"{rows}"
        )


@dataclass(frozen=True)
class IoShapeDetails:
    """Every tensor that could cross in another shape, those that keep theirs included."""

    rows: tuple[CrossingRow, ...]

    def lines(self) -> list[str]:
        return [row.line() for row in self.rows if row.shape != row.crosses_as]

    def to_json(self) -> dict[str, object]:
        return {"crossing": [dataclasses.asdict(row) for row in self.rows]} if self.rows else {}
