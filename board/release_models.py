"""The JSON of the board about one release: its steps, its hosts, and what it waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from board.model import Answer


class HostStep(Answer):
    """One step on one host. Its durations are real seconds."""

    step: str
    """`prepare`, `stop`, `switch`, `probe` or `start`."""
    state: Literal["done", "running", "failed", "held", "armed", "next", "later"]
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    """How long it took, or has been running."""
    usual_seconds: float | None
    """The median of the releases before."""
    sentence: str


class HostTree(Answer):
    """The steps of one phase on one host, in order."""

    host: str
    steps: list[HostStep]


class Step(Answer):
    """One step of a release."""

    name: str
    state: Literal["done", "running", "failed", "held", "armed", "next", "later"]
    at: datetime | None
    sentence: str
    seconds: float | None
    """Real seconds in the phase, all stays together."""
    usual_seconds: float | None
    """Real seconds, the median of the releases before."""
    hosts: list[HostTree]


class Wait(Answer):
    """Something that the release waits for now."""

    what: str
    since: datetime | None
    seconds: float | None
    """Real seconds since then."""
    usual_seconds: float | None


class HostRevision(Answer):
    """One host: the revision that it should run, and the one in its newest answer."""

    name: str
    want: str
    have: str | None
    good: bool | None
    """Null when it was not probed since the plan."""
    note: str
    seen_at: datetime | None
    state: Literal[
        "ok", "not_ok", "not_probed", "unchanged", "switching", "restarting", "not_ready", "going_back"
    ]
    """Only `not_ok` is wrong; a restart under way is not."""


class ReleaseSummary(Answer):
    """One release."""

    id: str
    phase: str
    from_revision: str
    to_revision: str
    requested_by: str
    reason: str
    """The sentence of the newest conclusion."""
    created_at: datetime
    finished_at: datetime | None


class ReleaseDetail(Answer):
    """The live or newest release, as `runbook status` has it."""

    release: ReleaseSummary
    why: str
    need: str
    """What a person has to do; empty when nothing."""
    next_what: str
    next_at: datetime | None
    running_seconds: float | None
    """Runbook seconds since the phase began; of a watch those in which a controller watched."""
    window_seconds: float | None
    phase_seconds: float | None
    """Real seconds since the phase began."""
    waits: list[Wait]
    """What the release waits for now."""
    carried: bool | None
    """Whether a living controller runs it; null when it needs none."""
    care: str
    steps: list[Step]
    hosts: list[HostRevision]
    findings: dict[str, int]
    """The judgements by finding."""
    events_planned: int
    events_settled: int
    events_set_aside: int
    around: list[str]
    """What is around the release: hosts, logs, upstream."""
