"""What a pass is and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from converter.graph.model import Model

Json: TypeAlias = dict[str, Any]
"""An object of JSON; Any, as what is in it is told by its keys alone."""


@dataclass(frozen=True)
class Change:
    """Something a pass did: where (a function, node or tensor), and what."""

    where: str
    what: str


@dataclass(frozen=True)
class Skip:
    """Something a pass looked at and left alone, with the reason."""

    where: str
    reason: str


@dataclass
class PassResult:
    """Changes, skips and warnings of one run of a pass.

    `changes` is truthful: empty exactly when the model's protos are as before. `details` holds what only this
    pass has to report; it must be serializable as JSON.
    """

    changes: list[Change] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: Json = field(default_factory=dict)

    def changed(self, where: str, what: str) -> None:
        self.changes.append(Change(where, what))

    def skipped(self, where: str, reason: str) -> None:
        self.skips.append(Skip(where, reason))


@dataclass(frozen=True)
class PassReport:
    """One pass that ran: its name, wall time in seconds, and its result."""

    name: str
    seconds: float
    result: PassResult


class Pass(Protocol):
    """A frozen dataclass whose fields are its own slice of the options.

    `apply` edits the model in place; a second run changes nothing more. Errors that a user can mend are
    ConversionErrors.
    """

    @property
    def name(self) -> str: ...

    def apply(self, model: Model) -> PassResult: ...
