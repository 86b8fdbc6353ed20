"""What the gate takes and what it returns: plain values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Finding(StrEnum):
    """The result of the gate. Only UNHEALTHY rolls back and only HEALTHY passes."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_DATA = "NO_DATA"
    SOURCE_DOWN = "SOURCE_DOWN"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A finding, the sentence that explains it, and the inputs of the rule, ready for JSON."""

    finding: Finding
    sentence: str
    inputs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Count:
    """The events of one entity type, each counted once."""

    entity: str
    completed: int = 0
    failed: int = 0
    open: int = 0
    """Unfinished, and still within the time limit."""
    late: int = 0
    """Unfinished after the time limit: counts as failed, so that a stalled worker is a breach."""
    held: int = 0
    """Of the open ones, those that a limit of the queue holds: their time stands still."""
    held_by: str = ""
    known: int = 0
    """Failures with an error from before the release, of the type or of the letter: no news, so no outcome."""
    errors: tuple[str, ...] = ()
    """Samples of the failed events' error texts."""
    kinds: tuple[str, ...] = ()
    """The codes, and the beginnings of the texts, of every error since the release, of events in retry too."""

    def __post_init__(self) -> None:
        if min(self.completed, self.failed, self.open, self.late, self.held, self.known) < 0:
            raise ValueError(f"a count of {self.entity} is below zero")

    @property
    def bad(self) -> int:
        """Failed events and late ones."""
        return self.failed + self.late

    @property
    def outcomes(self) -> int:
        """Events with a known outcome: completed, failed or late."""
        return self.completed + self.bad


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The outcomes under the previous revision, before the release. Used in sentences, never in a rule."""

    completed: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The events since the release, or of a drain so far: one count for each entity type."""

    counts: tuple[Count, ...] = ()
    source_down: str | None = None
    """Why nothing could be measured. The release is never blamed for it."""
    baseline: Baseline | None = None

    def total(self) -> Count:
        """All types together."""
        return Count(
            entity="all types together",
            completed=sum(count.completed for count in self.counts),
            failed=sum(count.failed for count in self.counts),
            open=sum(count.open for count in self.counts),
            late=sum(count.late for count in self.counts),
            held=sum(count.held for count in self.counts),
            known=sum(count.known for count in self.counts),
            held_by=", ".join(sorted({count.held_by for count in self.counts} - {""})),
        )


@dataclass(frozen=True, kw_only=True)
class CanaryMeasurement:
    """The current state of the one event that proves the revision."""

    entity: str
    key: str
    status: str
    """completed, failed, open."""
    seconds: float
    limit_seconds: float
    wanted_revision: str
    worker_revision: str | None = None
    """The revision of the worker that completed it, where workers record it."""
    differences: tuple[str, ...] = ()
    """Fields in which the entity's row differs from the payload."""
    not_compared: str = ""
    """Why the row could not be compared with the payload; empty when it was, or need not be."""
    error: str = ""
    source_down: str | None = None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The limits of the gate. 95 and 80 are the runbook's numbers."""

    good_percent: float = 95.0
    roll_back_percent: float = 80.0
    outcomes_min: int = 20
    """The number of completed events that a watch needs to pass."""
    failures_min: int = 3
    """Fewer failures than this never roll back."""
    instant_errors: tuple[str, ...] = ("greenlet_spawn",)
    """One event with an error of this type or code, or that begins with these words, is a breach."""
