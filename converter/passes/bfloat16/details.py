"""What the bfloat16 pass reports: the ops and variables that became bfloat16, and those that did not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Converted:
    """How many nodes of an op type are bfloat16 now."""

    op: str
    count: int


@dataclass(frozen=True)
class Kept:
    """How many nodes of an op type stay float32, and why."""

    op: str
    reason: str
    count: int

    def text(self) -> str:
        return f"{self.count} {self.op} ({self.reason})"


@dataclass(frozen=True)
class BFloat16Details:
    """One run; the fields are the keys of the JSON, where the ops are objects by op type.

    Attributes:
      converted_ops, kept_ops: sorted.
      casts: put in around what computes in bfloat16.
      variable_bytes_before, variable_bytes_after: of all that the checkpoint holds for variables.
      variables_bfloat16: how many are stored as bfloat16.
      variables_float32: names of those that converted code reads and that stay float32.
    """

    converted_ops: tuple[Converted, ...]
    kept_ops: tuple[Kept, ...]
    casts: int
    variable_bytes_before: int
    variable_bytes_after: int
    variables_bfloat16: int
    variables_float32: tuple[str, ...]

    def lines(self) -> list[str]:
        before, after = self.variable_bytes_before, self.variable_bytes_after
        lines = [
            f"bfloat16: variables {before:,} -> {after:,} bytes, {sum(c.count for c in self.converted_ops)} ops "
            f"converted, {self.casts} casts"
        ]
        kept = ", ".join(k.text() for k in self.kept_ops)
        return [*lines, f"Kept float32: {kept}"] if kept else lines

    def to_json(self) -> dict[str, object]:
        kept: dict[str, dict[str, int]] = {}
        for each in self.kept_ops:
            kept.setdefault(each.op, {})[each.reason] = each.count
        return {
            "converted_ops": {each.op: each.count for each in self.converted_ops},
            "kept_ops": kept,
            "casts": self.casts,
            "variable_bytes_before": self.variable_bytes_before,
            "variable_bytes_after": self.variable_bytes_after,
            "variables_bfloat16": self.variables_bfloat16,
            "variables_float32": list(self.variables_float32),
        }
