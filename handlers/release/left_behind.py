"""Live events that became dead letters under a revision that was left: no plan has them, so they are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.queue import diagnose
from handlers.queue.event import ENTITY_TYPES
from handlers.release.ledger import releases
from handlers.release.phase import Release

SQL = queries(__name__)
KINDS_TOLD = 4
ERROR_TOLD = 70


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """Dead letters of one kind of record with one error."""

    entity: str
    error_code: str | None
    fingerprint: str
    """The error with ids, numbers and quoted values masked."""
    events: int
    oldest_at: datetime


async def kinds(bind: Bind, release: Release) -> tuple[LeftBehind, ...]:
    """What the revision of *release* has left behind and is still there, the most common first."""
    found: dict[tuple[str, str | None, str], LeftBehind] = {}
    async with transaction(bind) as tx:
        for row in await tx.execute(SQL["kinds"], await _time_range(tx, release)):
            entity = str(ENTITY_TYPES.get(row.raw_type, row.raw_type))
            one = LeftBehind(
                entity=entity,
                error_code=row.error_code,
                fingerprint=diagnose.fingerprint(row.error),
                events=row.events,
                oldest_at=row.oldest_at,
            )
            key = (entity, one.error_code, one.fingerprint)
            if (same := found.get(key)) is not None:
                oldest = min(same.oldest_at, one.oldest_at)
                one = replace(one, events=same.events + one.events, oldest_at=oldest)
            found[key] = one
    return tuple(sorted(found.values(), key=lambda one: (-one.events, one.entity)))


async def ids(bind: Bind, environment: str, release_id: str) -> frozenset[UUID]:
    """Exactly those dead letters; Refused when the release is none of this environment."""
    async with transaction(bind) as tx:
        release = await releases.get(tx, release_id)
        if release.environment != environment:
            raise Refused(f"release {release_id} belongs to {release.environment}, not to {environment}")
        return frozenset((await tx.execute(SQL["ids"], await _time_range(tx, release))).scalars())


def summary(left: Sequence[LeftBehind]) -> str:
    """How many, of what, since when, and with which error; empty when there are none."""
    if not left:
        return ""
    parts = [
        f"{one.events} {one.entity} since {one.oldest_at:%H:%M} UTC ({one.error_code or 'no code'}: "
        f"{one.fingerprint[:ERROR_TOLD] or 'no error text'})"
        for one in left[:KINDS_TOLD]
    ]
    if rest := sum(one.events for one in left[KINDS_TOLD:]):
        parts.append(f"{rest} others")
    return f"{sum(one.events for one in left)} live events became dead letters under it: {', '.join(parts)}"


def command(release: Release) -> str:
    """What sends them back to the workers that run now."""
    return f"runbook drain -e {release.environment} --left-by {release.id}"


async def _time_range(tx: AsyncConnection, release: Release) -> dict[str, object]:
    """The bounds of its time; a release that never came to deploy has no beginning, and so left nothing behind."""
    spell = (await tx.execute(SQL["spell"], {"release_id": release.id})).one()
    return {"release_id": release.id, "since": spell.since, "until": spell.until}
