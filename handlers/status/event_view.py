"""What is known of one event of the queue, without the values of its payload."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from handlers.queue.event import Status


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt that failed."""

    at: str
    """When it ended, ISO 8601."""
    error_class: str
    """`transient`, `permanent` or another class of the worker."""
    code: str
    """The error's code, such as `23505`."""
    fingerprint: str
    """Equal for equal errors."""
    revision: str
    """The commit of the worker."""


@dataclass(frozen=True, kw_only=True)
class EventHolder:
    """Who has the event."""

    owner: str
    """The name of the worker."""
    until: datetime | None
    """When the lease ends; None for a batch in hand, which ends with its transaction."""
    since: datetime | None
    """When it took the event."""
    worker: str
    """The worker's host, process, revision and last beat; empty where it sends none."""


@dataclass(frozen=True, kw_only=True)
class Redrive:
    """What a release was to do with the event."""

    release: str
    """Its id."""
    batch: int | None
    """The batch of the drain; 0 is the canary; null when it was in none."""
    redriven_at: datetime | None
    """None: planned, and not redriven."""
    status: str | None
    """What became of it; null: nothing yet."""


@dataclass(frozen=True, kw_only=True)
class Healing:
    """When healing sent the event back, and what came of it."""

    batch: int
    """The number of the batch."""
    redriven_at: datetime
    """When it was sent back."""
    settled_at: datetime | None
    """When it ended; null: not yet."""
    status: str | None
    """How it ended; null: not yet."""
    counts: bool
    """Whether it was a try: not where it came back before a worker had it."""


@dataclass(frozen=True, kw_only=True)
class EventView:
    """Everything about one event but the values of its payload."""

    id: UUID
    """Its id in the queue."""
    entity: str
    """The type's name."""
    key: str
    """The record's id at the source."""
    operation: str
    """`create`, `update` or `delete`."""
    status: Status
    """Where it is in the queue."""
    priority: int
    """A smaller number is taken first."""
    synthetic: bool
    """Whether it is a test event of the runbook."""
    source: str
    """Who wrote it to the inbox: the queue's word for it."""
    verified: bool | None
    """Whether its signature was verified."""
    created_at: datetime
    """When it was queued."""
    started_at: datetime | None
    """When a worker took it last."""
    completed_at: datetime | None
    """When it ended."""
    payload_bytes: int
    """The size of its payload."""
    payload_keys: dict[str, str]
    """The type of each key's value."""
    attempts: int
    """Attempts so far."""
    attempts_max: int
    """After so many it is a dead letter."""
    failed_attempts: list[Attempt]
    """The newest attempts that failed."""
    error_code: str | None
    """The last error's code."""
    error: str
    """The last error, masked."""
    holder: EventHolder | None
    """Who has it; null: nobody."""
    waits_for: list[str]
    """Sentences; empty when it waits for nothing."""
    outcome: str
    """What the core did with it; empty while it did nothing."""
    worker: str
    """Who applied it; empty if nobody did."""
    revision: str
    """The commit of that worker."""
    local_id: str | None
    """The ERP's id of the record."""
    row: str
    """What the ERP's table has of the record now, without its values."""
    redrives: list[Redrive]
    """What releases did with it."""
    healings: list[Healing] = field(default_factory=list)
    """What healing did with it."""

    @property
    def healing_tries(self) -> int:
        """How often healing has tried it."""
        return sum(each.counts for each in self.healings)
