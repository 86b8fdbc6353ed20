"""The JSON of the board: one model for each answer. The names of the fields are stable; new ones may come."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from board.model import Answer
from board.release_models import ReleaseDetail, ReleaseSummary


class EnvironmentHealth(Answer):
    """Whether an environment can be read."""

    name: str
    database: Literal["up", "down"]
    """`down` as well while its file cannot be used."""
    reason: str
    """Why it cannot be read; empty when it can."""
    unread: list[str]
    """The sources that could not be read, though the database answers."""


class Health(Answer):
    """`/health`: whether the board works. Without a token only `status` is told."""

    status: Literal["ok", "failing"]
    """`failing` (and HTTP 503) while any environment cannot be read."""
    environments: list[EnvironmentHealth] | None = None


class Check(Answer):
    """A measurement and its bar, as `runbook verify` has it."""

    name: str
    subject: str
    """The table or host that it is about; empty for the whole environment."""
    value: float | None
    unit: str
    bar: float | None
    state: Literal["good", "broken", "shown", "source down", "no data"]
    action: Literal["show", "hold", "roll_back"]
    """What a broken bar does to a release."""
    sentence: str


class TypeCount(Answer):
    """How many events of one type stand in one status."""

    entity: str
    status: str
    events: int


class ErrorGroup(Answer):
    """Dead letters of one type with equal errors."""

    entity: str
    error_code: str
    error: str
    """With ids, numbers and quoted values masked."""
    count: int


class FailedEvent(Answer):
    """An event whose last attempt failed."""

    id: UUID
    entity: str
    key: str
    """The record's id at the source."""
    status: str
    attempts: int
    at: datetime
    """When it was last tried."""
    error_code: str | None
    error: str


class Limit(Answer):
    """A limit on the intake of the queue."""

    sentence: str
    until: datetime
    set_by: str


class Queue(Answer):
    """`/queue`: the queue by status and type, and what died of which error."""

    environment: str
    at: datetime
    """The database's time."""
    status: dict[str, int]
    """The events in each status."""
    percent: dict[str, float | None]
    """The share of each status; null while there is no event."""
    by_type: list[TypeCount]
    """Without completed events."""
    open: int | None
    """Events that are pending, in processing or in retry."""
    oldest_due_seconds: float | None
    """How long the oldest due event waits; 0 when none is due."""
    limits: list[Limit]
    checks: list[Check]
    """The checks of the queue and the workers."""
    dead_letters: list[ErrorGroup] | None
    """By type and error, the most frequent first; null where they could not be read, and `unread` says why."""
    dead_letters_are_cut: bool
    """Whether only the newest failed events were grouped."""
    recent_errors: list[FailedEvent] | None
    """What failed last."""
    unread: dict[str, str]
    """What could not be read, and why."""


class TypeSuccess(Answer):
    """What became of the events of one type in the last day."""

    entity: str
    replayed: bool
    """Whether a release redrove them."""
    completed: int
    failed: int
    open: int
    percent: float | None
    """Completed of those that ended; null while none has."""


class TypeTimes(Answer):
    """How long the completed events of one type took, in seconds."""

    entity: str
    """Empty for all types together."""
    completed: int
    a_minute: float
    applying_average: float | None
    """From claim to completion, as the next three."""
    applying_p50: float | None
    applying_p95: float | None
    applying_max: float | None
    waiting_p50: float | None
    """In the queue before the claim."""
    waiting_p95: float | None


class Point(Answer):
    """One moment of the last day."""

    at: datetime
    success_percent: float | None
    """Of the events that ended in the half hour before; null where none did."""
    ended: int
    open: int
    oldest_seconds: float


class SuccessRate(Answer):
    """`/success-rate`: whether events succeed, now and over the last day."""

    environment: str
    at: datetime
    checks: list[Check]
    """Success, failing events and dead letters over 1 h and 24 h, the rise of the error rate, and the times."""
    since: datetime | None
    """The beginning of what follows; null where it could not be read, and `unread` says why."""
    types: list[TypeSuccess]
    times: list[TypeTimes]
    course: list[Point]
    unread: dict[str, str]
    """What could not be read, and why."""


class Releases(Answer):
    """`/releases`: the live or newest release, and those before it."""

    environment: str
    at: datetime
    current: ReleaseDetail | None
    """Null where there was no release."""
    history: list[ReleaseSummary]
    """The newest twenty, newest first."""


class Alert(Answer):
    """One thing that is broken now."""

    name: str
    subject: str
    severity: Literal["page", "warning", "info"]
    since: datetime | None
    since_is_of: Literal["ledger", "board"]
    """`ledger`: since then. `board`: this board has seen it since then, and it may be older."""
    sentence: str
    next: list[str]
    """What a person can type, the most useful first, each with a reason after a dash."""


class Alerts(Answer):
    """`/alerts`: what is broken now, the most urgent first. Also while the database is away."""

    environment: str
    alerts: list[Alert]


class Environments(Answer):
    """`/environments`: what this board serves."""

    environments: list[str]


class Problem(Answer):
    """An answer that could not be given."""

    error: str
    """What happened, and what to do."""


ANSWERS: tuple[type[Answer], ...] = (Health, Environments, Queue, SuccessRate, Releases, Alerts, Problem)
"""The answers; the other models are parts of them."""
