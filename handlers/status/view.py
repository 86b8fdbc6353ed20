"""What the status view shows, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from handlers.database.jsonable import as_plain
from handlers.queue.limits import Limit
from handlers.release.ledger.dead_letters import Batch
from handlers.release.left_behind import LeftBehind
from handlers.release.lock import Holder
from handlers.release.phase import Release


class StepState(StrEnum):
    """The state of one step of a release."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    HELD = "held"
    ARMED = "armed"
    NEXT = "next"
    LATER = "later"


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step: its state, its start or end, and its sentence."""

    name: str
    state: StepState
    at: datetime | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class HostView:
    """One host: the revision it should run, and the one in its newest answer."""

    name: str
    want: str
    have: str | None
    good: bool | None
    """None when it was not probed since the plan."""
    note: str
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ReturnView:
    """One host on its way back."""

    name: str
    back: bool
    revision: str | None
    """The revision in its newest answer, or of its tree."""
    units: str
    operation: str
    """The newest operation and its outcome."""
    tries: int
    sentence: str
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class HostStepView:
    """The newest operation of a host in the running phase."""

    name: str
    step: str
    """`prepare`, `stop-workers`, `activate` or `start-workers`."""
    outcome: str | None
    """None while it runs."""
    started_at: datetime


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
    host_steps: tuple[HostStepView, ...] = ()
    """While hosts are being changed: how far each of them is."""
    returns: tuple[ReturnView, ...] = ()
    """During a rollback, and after one that failed: how far each host is on its way back."""
    lock: Holder | None = None
    carried: bool | None = None
    """Whether a living controller runs it; None when it needs none, because it has ended or a person decides."""
    uncarried_since: datetime | None = None
    care: str = ""
    """Who carries it, or since when nobody does and why."""
    due: bool = False
    """Whether `runbook resume --due` takes it up now."""
    around: tuple[str, ...] = ()
    """What is around the release: its upstream, new errors in the logs, the readings of hosts and database."""
    limits: tuple[Limit, ...] = ()
    """What limits the intake of the queue now: the gate of the release, or a person."""
    steps: tuple[StepView, ...] = ()
    batches: tuple[Batch, ...] = ()
    events_planned: int = 0
    events_settled: int = 0
    events_set_aside: int = 0
    """Planned dead letters that the drain has left as they are, because others like them failed again."""
    differences: tuple[str, ...] = ()
    """How the environment file differs from the settings that the release keeps, one sentence for each."""
    findings: dict[str, int] | None = None
    """The number of judgements with each finding."""
    taken_back: str = ""
    """That hosts went back without the ledger, which does not know it yet; as far as this machine knows."""
    left_behind: tuple[LeftBehind, ...] = ()
    """After a rollback: the live events that became dead letters under the rolled-back revision, and still are."""

    def as_json(self) -> dict[str, Any]:
        """The view as JSON values, with times as text."""
        values: dict[str, Any] = as_plain(self)
        return values
