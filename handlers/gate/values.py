"""What the gate is told and what it answers: plain values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Finding(StrEnum):
    """What the numbers say. Only UNHEALTHY rolls back and only HEALTHY passes."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_DATA = "NO_DATA"
    SOURCE_DOWN = "SOURCE_DOWN"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A finding, the sentence that explains it, and what it was made from (JSON-able)."""

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
    """Unfinished, but young enough."""
    late: int = 0
    """Unfinished past the limit: counts as failed, so that a stalled worker is a breach."""
    errors: tuple[str, ...] = ()
    """Samples of the failed events' error texts."""

    def __post_init__(self) -> None:
        if min(self.completed, self.failed, self.open, self.late) < 0:
            raise ValueError(f"a count of {self.entity} is below zero")

    @property
    def bad(self) -> int:
        """Failed for good, or too late."""
        return self.failed + self.late

    @property
    def outcomes(self) -> int:
        """Events about which something is known."""
        return self.completed + self.bad


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the previous revision did before the release, for the sentence only."""

    completed: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was seen since the release, or of a drain so far: one count for each entity type."""

    counts: tuple[Count, ...] = ()
    source_down: str | None = None
    """Why nothing could be measured; that is never the release's fault."""
    baseline: Baseline | None = None

    def total(self) -> Count:
        """All types together."""
        return Count(
            entity="all types together",
            completed=sum(count.completed for count in self.counts),
            failed=sum(count.failed for count in self.counts),
            open=sum(count.open for count in self.counts),
            late=sum(count.late for count in self.counts),
        )


@dataclass(frozen=True, kw_only=True)
class CanaryMeasurement:
    """The one dead letter that proves the revision, as it stands now."""

    entity: str
    key: str
    status: str
    """completed, failed, open."""
    seconds: float
    limit_seconds: float
    wanted_revision: str
    worker_revision: str | None = None
    """Which revision's worker completed it, where workers say so."""
    differences: tuple[str, ...] = ()
    """Where the entity's row does not say what the payload says."""
    not_compared: str = ""
    """Why the row could not be held against the payload, where that was wanted."""
    error: str = ""
    source_down: str | None = None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The bars. 95 and 80 are the runbook's numbers."""

    good_percent: float = 95.0
    roll_back_percent: float = 80.0
    outcomes_min: int = 20
    """So many events must have completed before a watch can pass."""
    failures_min: int = 3
    """Fewer failures than this never roll back."""
    instant_errors: tuple[str, ...] = ("greenlet_spawn",)
    """Texts that, found in one failed event's error, are a breach at once."""
