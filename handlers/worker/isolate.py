"""Who is to blame: what became of the events of a batch, and each failure as it is written down."""

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
"""How many events of a batch ended how: applied, superseded, retry, dead_letter, lost, given back."""


@dataclass(kw_only=True)
class BatchResult:
    """What became of some events, and who must be woken once it is committed."""

    tally: Tally = field(default_factory=Counter)
    came: set[str] = field(default_factory=set)
    """Keys of records that were written."""
    waiting: list[UUID] = field(default_factory=list)
    """Events that wait for a parent."""

    def add(self, other: BatchResult) -> None:
        """Take over what became of other events."""
        self.tally += other.tally
        self.came |= other.came
        self.waiting += other.waiting


@dataclass(kw_only=True)
class Isolation(BatchResult):
    """What isolating a failed batch has found out so far."""

    failures: list[Failure] = field(default_factory=list)
    back: list[UUID] = field(default_factory=list)
    """Good events that must not run before an older one of the same record, which has to be tried again."""
    held: set[tuple[EntityType, str]] = field(default_factory=set)


def without_refused(
    events: Sequence[Event], refused: RowsRefused, found: Isolation, several: list[Event]
) -> list[Event]:
    """Blame the events whose records are *refused*. Returns the others.

    Where *several* events of the batch are about one such record, it is not known which of them is bad.
    """
    bad = [event for event in events if event.entity is refused.entity and event.key in refused.errors]
    times = Counter(event.key for event in bad)
    for event in bad:
        if times[event.key] == 1:
            record_failure(event, refused.errors[event.key], found)
        else:
            several.append(event)
    return [
        event for event in events if event.entity is not refused.entity or event.key not in refused.errors
    ]


def record_failure(event: Event, error: Exception, found: Isolation) -> None:
    """Note that *event* raised *error*; what is tried again holds back the newer events of its record."""
    if isinstance(error, LeaseLost):
        found.tally["lost"] += 1
        found.held.add((event.entity, event.key))
        return
    failed = failure(event, error)
    found.failures.append(failed)
    if failed.error_class is not ErrorClass.PERMANENT:
        found.held.add((event.entity, event.key))


def failure(event: Event, error: Exception) -> Failure:
    told = diagnose(error)
    return Failure(
        id=event.id,
        error_class=told.error_class,
        code=told.code,
        message=told.message,
        sqlstate=told.sqlstate,
        field=told.field,
    )


def not_applied(id_: UUID, result: Result) -> Failure:
    """An event that its handler turned down: it waits for a parent, or its payload is wrong."""
    waits = result.outcome is Outcome.WAITING
    return Failure(
        id=id_,
        error_class=ErrorClass.MISSING_PARENT if waits else ErrorClass.PERMANENT,
        code=ErrorClass.MISSING_PARENT.value if waits else Outcome.REFUSED.value,
        message=result.reason,
        field=result.field,
        parents=result.parents,
    )


def describe(tally: Tally) -> str:
    """What became of some events, in words."""
    return ", ".join(f"{count} {word}" for word, count in sorted(tally.items())) or "nothing"


def log_failures(failures: Sequence[Failure]) -> None:
    """One line for each kind of failure, with masked values: payloads hold customers' data."""
    kinds = Counter((each.error_class.value, each.code, fingerprint(each.message)) for each in failures)
    for (error_class, code, text), times in kinds.most_common():
        log.warning("%d events not applied, %s %s: %s", times, error_class, code, text)
