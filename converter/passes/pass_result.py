"""The contract of a pass: it plans, then carries out, and tells what it did.

A pass is a frozen dataclass whose fields are its own slice of the options:

    @dataclass(frozen=True)
    class Prune(Pass[PrunePlan]):
        name = "prune"

        def plan(self, model: Model) -> PrunePlan: ...                  # looks and decides; edits nothing
        def carry_out(self, model: Model, plan: PrunePlan) -> PassResult: ...      # edits; decides nothing

What a pass skips, warns of and refuses is settled in the plan, so a model that is refused is as it was.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from converter.errors import InternalError
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


class Details(Protocol):
    """What only one pass has to report: a frozen dataclass of that pass."""

    def lines(self) -> list[str]:
        """In a few lines for people, in the report's summary."""

    def to_json(self) -> dict[str, object]:
        """All of it, as values that `json.dumps` takes; empty if there is nothing to tell."""


@dataclass(frozen=True)
class NoDetails:
    """Of a pass that has nothing to report but changes and skips."""

    def lines(self) -> list[str]:
        return []

    def to_json(self) -> dict[str, object]:
        return {}


@dataclass
class PassResult:
    """Changes, skips and warnings of one run of a pass.

    `changes` is truthful: empty exactly when the model's protos are as before.
    """

    changes: list[Change] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: Details = NoDetails()

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


class AnyPass(Protocol):
    """A pass whatever its plan is: what runs passes needs no more of them."""

    @property
    def name(self) -> str: ...

    def apply(self, model: Model) -> PassResult: ...


class Plan(Protocol):
    """What a pass decided to do: a frozen dataclass of names and values, valid until the model changes."""

    @property
    def is_empty(self) -> bool:
        """Whether carrying it out leaves the model as it is."""


PlanT = TypeVar("PlanT", bound=Plan)


class Pass(ABC, Generic[PlanT]):
    """Base of all passes; see the module's docstring. A second run changes nothing more."""

    name: ClassVar[str]

    @abstractmethod
    def plan(self, model: Model) -> PlanT:
        """Decides what to do; does not change the model.

        Raises:
          ConversionError: something that a user can mend.
        """

    @abstractmethod
    def carry_out(self, model: Model, plan: PlanT) -> PassResult:
        """Edits the model as `plan` says: the plan of this model, which has not changed since."""

    def apply(self, model: Model) -> PassResult:
        """Plans and carries out.

        Raises:
          ConversionError: as `plan`.
          InternalError: planning changed the model, or the result does not tell whether the model changed.
        """
        before = fingerprint(model)
        with model.unchanged():
            plan = self.plan(model)
        if fingerprint(model) != before:
            raise InternalError(f'The pass "{self.name}" changed the model while it planned.')
        result = self.carry_out(model, plan)
        # What was not changed is not written anew, so a change that nobody tells would be lost.
        if not result.changes and fingerprint(model) != before:
            raise InternalError(f'The pass "{self.name}" changed the model and reports no change.')
        return result


def fingerprint(model: Model) -> bytes:
    """Equal for a model that has not changed; costs a fraction of reading the model."""
    digest = hashlib.blake2b(model.saved_model.SerializeToString(deterministic=True), digest_size=16)
    digest.update(repr(sorted(model.recasts)).encode())
    return digest.digest()
