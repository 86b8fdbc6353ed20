"""The ERP's queue: one verb for each change of an event's status, each in the caller's transaction.

Times are the database's own. A verb that settles an event is fenced: it touches only what *owner* holds,
and says what it touched. Priority follows the queue's own index, 1 before 10; receivers always write 5.
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
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import (
    ENTITY_TYPES,
    ErrorClass,
    Result,
    Status,
)

LEASES_LOST_MAX = 10
"""An event that was being worked on when so many leases ran out is taken for their cause."""

_SQL = queries(__name__)


class LeaseLost(TryAgain):
    """Another worker may hold these events by now: what was done for them must be rolled back."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one event was not applied."""

    id: UUID
    error_class: ErrorClass
    code: str
    """A SQLSTATE, an error's type, or our own word; what dead letters are grouped by."""
    message: str
    sqlstate: str | None = None
    field: str | None = None
    parents: tuple[str, ...] = ()
    """The ids at the source of the records that it waits for."""


async def complete(
    tx: AsyncConnection, *, owner: str, revision: str, results: Mapping[UUID, Result]
) -> set[UUID]:
    """Settle applied and superseded events as completed, in the transaction that wrote their rows.

    Returns those that *owner* still held. When one is missing, roll back: its rows must not stay.
    """
    kinds = {(result.outcome, result.reason) for result in results.values()}
    told = {
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
            "results": [told[result.outcome, result.reason] for result in results.values()],
        },
    )
    return set(rows.scalars())


async def retry_later(
    tx: AsyncConnection,
    *,
    owner: str,
    revision: str,
    failures: Sequence[Failure],
    base_seconds: float = 120,
    cap_seconds: float = 3600,
) -> dict[UUID, Status]:
    """Let failed events wait: 2, 4, 8 … minutes with jitter. With no attempt left they become dead letters.

    Returns the new status of those that *owner* still held.
    """
    values = _told(owner, revision, failures) | {"base_seconds": base_seconds, "cap_seconds": cap_seconds}
    rows = await tx.execute(_SQL["retry_later"], values)
    return {row.id: Status(row.status) for row in rows}


async def bury(tx: AsyncConnection, *, owner: str, revision: str, failures: Sequence[Failure]) -> set[UUID]:
    """Make events dead letters at once: no retry can cure them. Returns those that *owner* still held."""
    rows = await tx.execute(_SQL["bury"], _told(owner, revision, failures))
    return {row.id for row in rows}


async def release(tx: AsyncConnection, *, owner: str, ids: Sequence[UUID] | None = None) -> set[UUID]:
    """Give back what *owner* holds, or only *ids* of it, as if never claimed. Returns what went back."""
    rows = await tx.execute(_SQL["release"], {"owner": owner, "ids": None if ids is None else list(ids)})
    return {row.id for row in rows}


async def expire_leases(tx: AsyncConnection, *, leases_lost_max: int = LEASES_LOST_MAX) -> dict[UUID, Status]:
    """Take back events whose lease has run out, with their attempt counted. Returns their new status."""
    rows = await tx.execute(_SQL["expire_leases"], {"lost_max": leases_lost_max})
    return {row.id: Status(row.status) for row in rows}


async def refuse_unknown(tx: AsyncConnection) -> set[UUID]:
    """Bury due events of kinds that nobody handles. Returns them."""
    rows = await tx.execute(_SQL["refuse_unknown"], {"entities": list(ENTITY_TYPES)})
    return {row.id for row in rows}


def _told(owner: str, revision: str, failures: Sequence[Failure]) -> dict[str, Any]:
    """Failures as the arrays that a statement takes."""
    return {
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
            )
            for failure in failures
        ],
    }
