"""What the status view shows, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from handlers.database.jsonable import as_plain
from handlers.release.ledger.dead_letters import Batch
from handlers.release.left_behind import LeftBehind
from handlers.release.lock import Holder
from handlers.release.phase import Release


class StepState(StrEnum):
    """Where one step of a release stands."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    HELD = "held"
    ARMED = "armed"
    NEXT = "next"
    LATER = "later"


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step: its state, since or until when, and its sentence."""

    name: str
    state: StepState
    at: datetime | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class HostView:
    """One host: the revision it should run beside the one it was last seen with."""

    name: str
    want: str
    have: str | None
    good: bool | None
    """None when nobody has asked it since the plan."""
    note: str
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """A release at one moment. *release* is None where the environment has never had one."""

    environment: str
    at: datetime
    release: Release | None
    why: str = ""
    need: str = ""
    next_what: str = ""
    next_at: datetime | None = None
    running_seconds: float | None = None
    """Runbook seconds since the phase began."""
    window_seconds: float | None = None
    hosts: tuple[HostView, ...] = ()
    lock: Holder | None = None
    steps: tuple[StepView, ...] = ()
    batches: tuple[Batch, ...] = ()
    events_planned: int = 0
    events_settled: int = 0
    findings: dict[str, int] | None = None
    """How many judgements came to each finding."""
    left_behind: tuple[LeftBehind, ...] = ()
    """After a rollback: live events that died under the revision that was left, and are dead letters still."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it, times as text."""
        values: dict[str, Any] = as_plain(self)
        return values
