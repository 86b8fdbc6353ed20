"""What has happened in the queue since a time: which events were taken, failed, waited and ended, and what waits.

The gate is told of it. A look costs the same however long the history and the backlog are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.sqlstate import is_of_content
from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.queue import in_hand
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY, ErrorClass, Status

_SQL = queries(__name__)
WAITING_MAX = 500
"""So many events that wait for a worker are looked at, the next ones: they tell whether any are taken."""
ROWS_MAX = 200_000
"""The day before is made of so many events at most, the newest ones."""
NEVER_SHARE = 1e-9
"""The share of an error of which dead letters tell, but no event of the day before."""
UTC_TIME = (
    "^20([0-9]{2}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    "|([02468][048]|[13579][26])-02-29)"
    "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?[+]00:00$"
)
"""A time as our workers note it. Only what matches is cast: the ERP's own may store anything there."""

_CHANGED: dict[bool, TextClause] = {
    there: text(f"{_SQL['hand' if there else 'no_hand'].text}\n{_SQL['changed'].text}")
    for there in (True, False)
}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt that failed."""

    at: datetime
    hard: bool
    """Whether no retry cures the error."""
    code: str
    fingerprint: str
    revision: str | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """From a worker's note."""
        return cls(
            at=datetime.fromisoformat(stored["at"]),
            hard=stored.get("class") == ErrorClass.PERMANENT,
            code=str(stored.get("code") or ""),
            fingerprint=str(stored.get("fingerprint") or ""),
            revision=_text_of(stored.get("revision")),
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """One event as it stands now."""

    id: UUID
    type: str
    """Its readable type; for one without a handler the queue's own word."""
    key: str
    priority: int
    """Workers take what has a smaller one first."""
    status: Status
    created_at: datetime
    is_taken: bool
    """Whether a worker has it, or has had it."""
    admitted: datetime | None
    """When a worker first took it; None if nobody did, or if its time cannot be used."""
    revision: str | None
    """What the worker ran that took it first, as far as is known."""
    ended: datetime | None
    """None while it is open, and where the time cannot be used."""
    attempts: tuple[Attempt, ...] = ()
    """The last ten that failed."""
    waits_since: datetime | None = None
    parent: str = ""
    """The first parent that it waits for."""
    last: Attempt | None = None
    """The error with which it ended or waits for a retry."""
    due: datetime | None = None
    """When the next attempt is due, if one is."""

    @property
    def is_ended(self) -> bool:
        """Whether it has come to rest."""
        return self.status in (Status.COMPLETED, Status.DEAD_LETTER, Status.FAILED)

    @property
    def failed_otherwise_at(self) -> datetime | None:
        """When it failed of something else than a missing parent, if it is to be tried again because of that."""
        waits = self.last is None or self.last.code == ErrorClass.MISSING_PARENT
        return None if waits or self.last is None or self.status is not Status.RETRY else self.last.at

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From the query."""
        result, status = json.loads(row.result), Status(row.status)
        stored = result["attempts"] if isinstance(result["attempts"], list) else []
        attempts = tuple(Attempt.from_json(each) for each in stored if _is_attempt(each))
        taken = row.in_hand or status is not Status.PENDING or row.admitted is not None
        parents = result["parents"] if isinstance(result["parents"], list) else []
        waits = status is Status.RETRY and row.code == ErrorClass.MISSING_PARENT and not row.in_hand
        first = attempts[0].revision if attempts else None
        settled = _text_of(result["revision"])
        return cls(
            id=row.id,
            type=ENTITY_TYPES.get(row.raw_type, row.raw_type),
            key=row.key,
            priority=row.priority,
            status=status,
            created_at=row.created_at,
            is_taken=taken,
            admitted=row.admitted,
            revision=first or settled or row.owner_revision,
            ended=row.completed_at if status is Status.COMPLETED else row.started_at,
            attempts=attempts,
            waits_since=row.started_at if waits else None,
            parent=str(parents[0]) if parents else "",
            last=_last(row, result) if row.error or row.code else None,
            # It stays until the next attempt has ended.
            due=row.next_retry_at if status in (Status.RETRY, Status.PROCESSING) else None,
        )


async def changes(
    tx: AsyncConnection, *, since: datetime, open_: Collection[UUID], waiting_max: int = WAITING_MAX
) -> list[Change]:
    """Every event that was taken or has ended since *since*, those in *open_*, and the next that wait for a worker.

    An event of *open_* that is missing in the answer is not in the queue any more.
    """
    statement = _CHANGED[await in_hand.is_there(tx)]
    values = {"since": since, "open": list(open_), "waiting_max": waiting_max}
    values |= {"utc": UTC_TIME, "synthetic": SYNTHETIC_KEY}
    rows = await tx.execute(statement, values)
    return [Change.from_row(row) for row in rows]


async def letters_of_before(tx: AsyncConnection, switch: datetime, *, rows_max: int = ROWS_MAX) -> set[UUID]:
    """The dead letters that were taken last before *switch*, the newest *rows_max* of them."""
    rows = await tx.execute(_SQL["letters_of_before"], {"switch": switch, "rows_max": rows_max})
    return set(rows.scalars())


async def day_before(
    tx: AsyncConnection, until: datetime, letters: Iterable[tuple[str, str]] = (), *, rows_max: int = ROWS_MAX
) -> DayBefore:
    """The 24 hours before *until*, by type. *letters* are the types and errors of dead letters: they are known too."""
    known: dict[str, dict[str, float]] = {}
    for type_, error in letters:
        known.setdefault(type_, {})[fingerprint(error)] = NEVER_SHARE
    types: dict[str, TypeBefore] = {name: TypeBefore(fingerprints=errors) for name, errors in known.items()}
    total, good, waits = 0, 0, list[float]()
    values = {"until": until, "rows_max": rows_max, "utc": UTC_TIME, "synthetic": SYNTHETIC_KEY}
    for row in await tx.execute(_SQL["day_before"], values):
        name = ENTITY_TYPES.get(row.raw_type, row.raw_type)
        errors: Counter[str] = Counter()
        for error, is_masked, units in json.loads(row.errors):
            errors[error if is_masked else fingerprint(error)] += units
        shares = {error: units / row.units for error, units in errors.items()}
        latency = tuple(float(each) for each in row.latency or () if each is not None)
        types[name] = TypeBefore(
            units=row.units,
            ok=row.good / row.units,
            fingerprints=known.get(name, {}) | shares,
            waited=row.waited / row.units,
            latency_s=(latency[0], latency[1], latency[2]) if len(latency) == 3 else None,
        )
        total, good = total + row.units, good + row.good
        waits += [float(each) for each in row.waits or () if each is not None]
    return DayBefore(
        units=total,
        ok=good / total if total else 1.0,
        types=types,
        wait_p99_s=sorted(waits)[int(0.99 * (len(waits) - 1))] if waits else None,
    )


def _is_attempt(stored: object) -> bool:
    """Whether a worker of ours wrote it: the ERP's own may store anything there."""
    if not isinstance(stored, dict) or not isinstance(stored.get("at"), str):
        return False
    try:
        return datetime.fromisoformat(stored["at"]).tzinfo is not None
    except ValueError:
        return False


def _text_of(stored: object) -> str | None:
    return stored if isinstance(stored, str) else None


def _is_hard(said: object, code: str | None) -> bool:
    """Whether no retry cures an error. Of the ERP's own workers only a SQLSTATE tells."""
    if said is not None:
        return said == ErrorClass.PERMANENT
    return is_of_content(code or "")


def _last(row: Row[Any], result: Mapping[str, Any]) -> Attempt:
    masked = _text_of(result["fingerprint"])
    return Attempt(
        at=row.started_at or row.created_at,
        hard=_is_hard(result["class"], row.code),
        code=row.code or "",
        fingerprint=fingerprint(row.error or "") if masked is None else masked,
        revision=_text_of(result["revision"]),
    )
