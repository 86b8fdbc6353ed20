"""The outcomes of a batch: counts, and a failure record for each event that was not applied."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from handlers.queue.diagnose import RowsRefused, diagnose, fingerprint
from handlers.queue.event import EntityType, ErrorClass, Event, Outcome, Result
from handlers.queue.settle import Failure, LeaseLost

log = logging.getLogger(__name__)

Tally = Counter[str]
"""Number of events by outcome: applied, superseded, retry, dead_letter, lost, released."""


@dataclass(kw_only=True)
class BatchResult:
    """The outcomes of some events, and what to wake after the commit."""

    tally: Tally = field(default_factory=Counter)
    written: set[str] = field(default_factory=set)
    """Keys of records that were written."""
    waiting: list[UUID] = field(default_factory=list)
    """Events that wait for a parent."""

    def add(self, other: BatchResult) -> None:
        """Add the outcomes of other events."""
        self.tally += other.tally
        self.written |= other.written
        self.waiting += other.waiting


@dataclass(kw_only=True)
class Isolation(BatchResult):
    """The outcomes of a failed batch, as far as it is isolated."""

    failures: list[Failure] = field(default_factory=list)
    deferred: list[UUID] = field(default_factory=list)
    """Good events that must wait for an older event of the same record, which is retried."""
    held: set[tuple[EntityType, str]] = field(default_factory=set)
    """Records with an event that is retried or lost: their newer events are deferred."""


def without_refused(
    events: Sequence[Event], refused: RowsRefused, isolation: Isolation, shared: list[Event]
) -> list[Event]:
    """Record a failure for the events whose records are *refused*. Returns the other events.

    If several events of the batch share a refused record, any of them may be bad: they go to *shared*.
    """
    bad = [event for event in events if event.entity is refused.entity and event.key in refused.errors]
    count = Counter(event.key for event in bad)
    for event in bad:
        if count[event.key] == 1:
            record_failure(event, refused.errors[event.key], isolation)
        else:
            shared.append(event)
    return [
        event for event in events if event.entity is not refused.entity or event.key not in refused.errors
    ]


def record_failure(event: Event, error: Exception, isolation: Isolation) -> None:
    """Record that *event* raised *error*. An event that is retried holds the newer events of its record."""
    if isinstance(error, LeaseLost):
        isolation.tally["lost"] += 1
        isolation.held.add((event.entity, event.key))
        return
    failed = failure(event, error)
    isolation.failures.append(failed)
    if failed.error_class is not ErrorClass.PERMANENT:
        isolation.held.add((event.entity, event.key))


def failure(event: Event, error: Exception) -> Failure:
    """The failure record of *event* for *error*."""
    diagnosis = diagnose(error)
    return Failure(
        id=event.id,
        error_class=diagnosis.error_class,
        code=diagnosis.code,
        message=diagnosis.message,
        sqlstate=diagnosis.sqlstate,
        field=diagnosis.field,
    )


def not_applied(id_: UUID, result: Result) -> Failure:
    """The failure record of an event that its handler did not apply: a missing parent, or a wrong payload."""
    waits = result.outcome is Outcome.WAITING
    return Failure(
        id=id_,
        error_class=ErrorClass.MISSING_PARENT if waits else ErrorClass.PERMANENT,
        code=ErrorClass.MISSING_PARENT.value if waits else Outcome.REFUSED.value,
        message=result.reason,
        field=result.field,
        parents=result.parents,
        number=result.number,
    )


def describe(tally: Tally) -> str:
    """The tally as text, such as `3 applied, 1 retry`."""
    return ", ".join(f"{count} {word}" for word, count in sorted(tally.items())) or "nothing"


def log_failures(failures: Sequence[Failure]) -> None:
    """Log one line for each kind of failure, with masked values: payloads hold customer data.

    What no retry cures is an ERROR, because it is a dead letter now: who looks for errors in the logs finds it.
    """
    kinds = Counter(
        (failed.error_class.value, failed.code, fingerprint(failed.message)) for failed in failures
    )
    for (error_class, code, text), count in kinds.most_common():
        level = logging.ERROR if error_class == ErrorClass.PERMANENT else logging.WARNING
        log.log(level, "%d events not applied, %s %s: %s", count, error_class, code, text)
