"""What the status view shows, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from handlers.database.jsonable import as_plain
from handlers.queue.limits import Limit
from handlers.release.approval import Given
from handlers.release.ledger.dead_letters import Batch
from handlers.release.left_behind import LeftBehind
from handlers.release.lock import Holder
from handlers.release.phase import Phase, Release


class StepState(StrEnum):
    """The state of one step of a release."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    HELD = "held"
    ARMED = "armed"
    NEXT = "next"
    LATER = "later"


class HostState(StrEnum):
    """What is to be said of a host. Only `not_ok` is wrong; what is under way has a name of its own."""

    OK = "ok"
    NOT_OK = "not_ok"
    NOT_PROBED = "not_probed"
    UNCHANGED = "unchanged"
    """The release has not switched it yet."""
    SWITCHING = "switching"
    RESTARTING = "restarting"
    """It was switched, and its new process does not answer yet."""
    NOT_READY = "not_ready"
    """It answers with the wanted revision, and not well yet. It has time until the probe's limit."""
    GOING_BACK = "going_back"


@dataclass(frozen=True, kw_only=True)
class HostStep:
    """One step on one host. Its durations are real seconds, also in a rehearsal."""

    step: str
    """`prepare`, `stop` (the workers), `switch`, `probe` or `start` (the workers)."""
    state: StepState
    """`done`, `running`, `failed`, `next` or `later`."""
    started_at: datetime | None = None
    """None before it begins."""
    finished_at: datetime | None = None
    """None until it has ended."""
    seconds: float | None = None
    """How long it took, or has been running."""
    usual_seconds: float | None = None
    """The median of the releases before; null without one."""
    sentence: str = ""
    """What it waits for, its progress, or why it failed."""


@dataclass(frozen=True, kw_only=True)
class HostTree:
    """The steps of one phase on one host, in order."""

    host: str
    """Its name."""
    steps: tuple[HostStep, ...]
    """In the order in which they are done; a step that was not needed is left out."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One phase as a step of the release: its state, its times, and its sentence."""

    name: str
    """`plan`, `approval`, `deploy`, `probe`, `canary`, `drain`, `watch`, `rollback` or `guard`."""
    state: StepState
    """How far it is."""
    at: datetime | None
    """Its end, or its start while it runs."""
    sentence: str
    """Its result, or its progress while it runs; empty before it begins."""
    phase: Phase | None = None
    """The phase that it shows; null for the guard and for a rollback that has not begun."""
    started_at: datetime | None = None
    """When the newest stay in the phase began."""
    seconds: float | None = None
    """Real seconds that the release has been in the phase, all stays together."""
    usual_seconds: float | None = None
    """Real seconds, the median of the releases before; null without one."""
    hosts: tuple[HostTree, ...] = ()
    """What is done on each host; empty where no host is changed or probed."""


@dataclass(frozen=True, kw_only=True)
class WaitView:
    """Something that the release waits for now."""

    what: str
    """In words: `switch of web-2`."""
    since: datetime | None
    """When it began."""
    seconds: float | None
    """Real seconds since then."""
    usual_seconds: float | None = None
    """How many are usual; null where that is not known."""


@dataclass(frozen=True, kw_only=True)
class HostView:
    """One host: the revision it should run, and the one in its newest answer."""

    name: str
    """Its name."""
    want: str
    """Full hash."""
    have: str | None
    """As in its newest answer, or of its tree; None where neither is known."""
    good: bool | None
    """Whether its newest answer was good; null when it was not probed since the plan."""
    note: str
    """What was wrong with that answer; empty when nothing was."""
    seen_at: datetime | None
    """When it answered, or was looked at without an answer."""
    state: HostState = HostState.NOT_PROBED
    """What is to be said of it."""


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
class LaterView:
    """What was started after the release that is shown, and has neither changed a host nor runs."""

    id: str
    kind: str
    phase: Phase
    requested_by: str
    at: datetime
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ApprovalView:
    """The approvals of a release."""

    needed: int
    given: tuple[Given, ...]
    until: datetime | None
    """Until when it may be approved, or start once it is approved; None when it has started or ended."""
    starts: bool | None
    """Whether it starts by itself once it is approved; None when it has started or ended."""
    progress: str
    whom: str
    """Who can still approve it; empty when nobody needs to."""
    command: str
    """What they type."""


@dataclass(frozen=True, kw_only=True)
class StartView:
    """What the start of a release needs or needed."""

    approval: ApprovalView | None = None
    """None where no approval is asked for."""
    overrides: tuple[str, ...] = ()
    """The freezes that a person has overridden for it."""
    freeze: str = ""
    """The freeze of releases that is active now."""
    pull_request: str = ""
    """The merged pull request that made the revision, with its address; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """A release at one moment."""

    environment: str
    """Its name."""
    at: datetime
    """The database's time of this moment."""
    release: Release | None
    """None where the environment has never had one."""
    kind: str = "release"
    """What was started: a release, or one phase by hand: `canary`, `drain`, `watch`."""
    later: tuple[LaterView, ...] = ()
    """Newer ones, the newest first: refused, aborted before a change, or a phase by hand that has ended."""
    why: str = ""
    """The newest judgement of the phase, else its progress; of a release that has ended or is held, the cause."""
    need: str = ""
    """What a person has to do; empty when nothing."""
    next_what: str = ""
    """What happens next, such as `next look`."""
    next_at: datetime | None = None
    """When that is due; None when nothing is, or nobody would do it."""
    running_seconds: float | None = None
    """Runbook seconds since the phase began; of a watch those in which a controller watched."""
    window_seconds: float | None = None
    """How many runbook seconds a watch lasts; null in other phases."""
    phase_seconds: float | None = None
    """Real seconds since the phase began; null when the release has ended."""
    total_seconds: float | None = None
    """Real seconds of all phases so far, without the wait for approval and without holds."""
    usual_total_seconds: float | None = None
    """Real seconds that a release takes, the median of those before; null without one."""
    usual_releases: int = 0
    """How many releases before that median is of."""
    waits: tuple[WaitView, ...] = ()
    """What the release waits for; empty when it has ended."""
    hosts: tuple[HostView, ...] = ()
    """Which revision each host should run, and what its newest answer says."""
    host_steps: tuple[HostStepView, ...] = ()
    """While hosts are being changed: the newest operation of each. `steps` has all of them."""
    returns: tuple[ReturnView, ...] = ()
    """During a rollback, and after one that failed: how far each host is on its way back."""
    lock: Holder | None = None
    """Who holds the environment's lock; it may be for another release."""
    carried: bool | None = None
    """Whether a living controller runs it; None when it needs none, because it has ended or a person decides."""
    uncarried_since: datetime | None = None
    """Since when nobody runs it."""
    care: str = ""
    """Who carries it, or since when nobody does and why."""
    due: bool = False
    """Whether `runbook resume --due` takes it up now."""
    around: tuple[str, ...] = ()
    """What is around the release: its upstream, new errors in the logs, the readings of hosts and database."""
    limits: tuple[Limit, ...] = ()
    """What limits the intake of the queue now: the gate of the release, or a person."""
    start: StartView = StartView()
    """Its approvals, the freezes that were overridden for it, and a freeze that is active now."""
    steps: tuple[StepView, ...] = ()
    """The phases in order, then the rollback and the guard."""
    batches: tuple[Batch, ...] = ()
    """The batches of the drain; number 0 is the canary."""
    events_planned: int = 0
    """Dead letters that the release may redrive."""
    events_settled: int = 0
    """How many of them have come to rest."""
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
