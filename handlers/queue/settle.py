"""Changes of an event's status: one function for each, in the caller's transaction.

Times are the database's own. A function with an *owner* is fenced: it changes only events leased to *owner*, and
returns their ids. With *lock_seconds* the events have no lease: the caller's transaction has locked their rows, and
they keep a lease of so many seconds, which tells the ERP's own workers to leave them alone. Priority follows the
queue's own index, 1 before 10; receivers always write 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.errors import TryAgain
from handlers.queue import in_hand
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import (
    ENTITY_TYPES,
    ErrorClass,
    Result,
    Status,
)

LEASES_LOST_MAX = 5
"""An event that was alone in its batch when so many leases expired is considered their cause."""

BACKOFF_SECONDS, BACKOFF_CAP_SECONDS = 120.0, 3600.0
"""How long after a failed attempt an event is tried again: the first time, and at most."""

WAIT_SECONDS_MAX = 600.0
"""How long an event waits for a parent of which no event is open. Its arrival still wakes it as a dead letter."""

_SQL = queries(__name__)


class LeaseLost(TryAgain):
    """Another worker may hold these events now: the transaction must be rolled back."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one event was not applied."""

    id: UUID
    error_class: ErrorClass
    code: str
    """A SQLSTATE, an error's type, or our own code; dead letters are grouped by it."""
    message: str
    sqlstate: str | None = None
    field: str | None = None
    parents: tuple[str, ...] = ()
    """The source ids of the missing parents."""
    number: str | None = None
    """The unique column whose value another record still has."""


async def complete(
    tx: AsyncConnection,
    *,
    owner: str,
    revision: str,
    results: Mapping[UUID, Result],
    lock_seconds: float | None = None,
) -> set[UUID]:
    """Settle applied and superseded events as completed, in the transaction that wrote their rows.

    Returns the ids that *owner* still held. If one is missing, roll back: its rows must not stay.
    """
    kinds = {(result.outcome, result.reason) for result in results.values()}
    json_results = {
        (outcome, reason): json.dumps(
            {"outcome": outcome.value, "worker": owner, "revision": revision, "reason": clean(reason)}
        )
        for outcome, reason in kinds
    }
    rows = await tx.execute(
        _SQL["complete"],
        {
            "owner": owner,
            "ids": list(results),
            "targets": [result.target for result in results.values()],
            "results": [json_results[result.outcome, result.reason] for result in results.values()],
            **_fence(lock_seconds),
        },
    )
    return set(rows.scalars())


async def retry_later(
    tx: AsyncConnection,
    *,
    owner: str,
    revision: str,
    failures: Sequence[Failure],
    base_seconds: float = BACKOFF_SECONDS,
    cap_seconds: float = BACKOFF_CAP_SECONDS,
    wait_seconds: float = WAIT_SECONDS_MAX,
    lock_seconds: float | None = None,
) -> dict[UUID, Status]:
    """Schedule a retry of failed events, with backoff: 2, 4, 8 … minutes and jitter.

    An event without attempts left becomes a dead letter. A wait costs no attempt: it ends *wait_seconds* after the last
    open event of its parents has settled. Returns the new status of those that *owner* still held.
    """
    values = _parameters(owner, revision, failures, lock_seconds) | {
        "base_seconds": base_seconds,
        "cap_seconds": cap_seconds,
        "wait_seconds": wait_seconds,
        "waits": [failure.error_class is ErrorClass.MISSING_PARENT for failure in failures],
    }
    rows = await tx.execute(_SQL["retry_later"], values)
    return {row.id: Status(row.status) for row in rows}


async def bury(
    tx: AsyncConnection,
    *,
    owner: str,
    revision: str,
    failures: Sequence[Failure],
    lock_seconds: float | None = None,
) -> set[UUID]:
    """Make events dead letters at once: no retry can help. Returns the ids that *owner* still held."""
    rows = await tx.execute(_SQL["bury"], _parameters(owner, revision, failures, lock_seconds))
    return {row.id for row in rows}


async def release(tx: AsyncConnection, *, owner: str, ids: Sequence[UUID] | None = None) -> set[UUID]:
    """Release the leases of *owner*, or only those of *ids*, as if never claimed. Returns the released ids.

    Without *ids*, *owner* has no batch in progress: what it had in hand without a lease is forgotten too.
    """
    if ids is None:
        await in_hand.forget(tx, owner)
    rows = await tx.execute(_SQL["release"], {"owner": owner, "ids": None if ids is None else list(ids)})
    return {row.id for row in rows}


async def expire_leases(tx: AsyncConnection, *, leases_lost_max: int = LEASES_LOST_MAX) -> dict[UUID, Status]:
    """Take back events with an expired lease, or of a killed worker. Returns their new status by id.

    No attempt of ours counts. One of the ERP's own worker does; without one left the event is a dead letter.
    One event that kills its worker must not take its batch along: the events come back in pieces of a tenth, until the
    cause is alone. Only that one becomes a dead letter, when it was alone *leases_lost_max* times.
    """
    await in_hand.take_back(tx)
    rows = await tx.execute(
        _SQL["expire_leases"], {"alone_max": leases_lost_max, "ours": in_hand.OWNER_PATTERN}
    )
    return {row.id: Status(row.status) for row in rows}


async def refuse_unknown(tx: AsyncConnection) -> set[UUID]:
    """Bury due events of types without a handler. Returns their ids."""
    rows = await tx.execute(_SQL["refuse_unknown"], {"entities": list(ENTITY_TYPES)})
    return {row.id for row in rows}


def _fence(lock_seconds: float | None) -> dict[str, Any]:
    return {"leased": lock_seconds is None, "lease_seconds": lock_seconds}


def _parameters(
    owner: str, revision: str, failures: Sequence[Failure], lock_seconds: float | None
) -> dict[str, Any]:
    """The failures as the array parameters of a statement."""
    return _fence(lock_seconds) | {
        "owner": owner,
        "ids": [failure.id for failure in failures],
        "messages": [clean(failure.message) for failure in failures],
        "codes": [clean(failure.code)[:50] for failure in failures],
        "results": [
            json.dumps(
                {
                    "class": failure.error_class.value,
                    "field": None if failure.field is None else clean(failure.field),
                    "sqlstate": failure.sqlstate,
                    "fingerprint": fingerprint(clean(failure.message)),
                    "worker": owner,
                    "revision": revision,
                }
                | ({"parents": sorted(set(failure.parents))} if failure.parents else {})
                | ({"number": failure.number} if failure.number else {})
            )
            for failure in failures
        ],
    }
