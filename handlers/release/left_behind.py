"""Live events that became dead letters under a rolled-back revision. No plan contains them, so they are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.environment.load import env_option
from handlers.errors import Refused
from handlers.queue import diagnose
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY
from handlers.release.ledger import heals, releases
from handlers.release.phase import Release

SQL = queries(__name__)
KINDS_SHOWN = 4
ERROR_LENGTH_SHOWN = 70


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
    """The dead letters that *release* has left behind and that remain, by kind and error, the most common first."""
    kinds: dict[tuple[str, str | None, str], LeftBehind] = {}
    async with transaction(bind) as tx:
        for row in await tx.execute(SQL["kinds"], await _time_range(tx, release)):
            entity = str(ENTITY_TYPES.get(row.raw_type, row.raw_type))
            kind = LeftBehind(
                entity=entity,
                error_code=row.error_code,
                fingerprint=diagnose.fingerprint(row.error),
                events=row.events,
                oldest_at=row.oldest_at,
            )
            key = (entity, kind.error_code, kind.fingerprint)
            if (same := kinds.get(key)) is not None:
                oldest = min(same.oldest_at, kind.oldest_at)
                kind = replace(kind, events=same.events + kind.events, oldest_at=oldest)
            kinds[key] = kind
    return tuple(sorted(kinds.values(), key=lambda kind: (-kind.events, kind.entity)))


async def ids(bind: Bind, environment: str, release_id: str) -> frozenset[UUID]:
    """The ids of these dead letters. Raises Refused when the release belongs to another environment."""
    async with transaction(bind) as tx:
        release = await releases.get(tx, release_id)
        if release.environment != environment:
            raise Refused(f"release {release_id} belongs to {release.environment}, not to {environment}")
        return frozenset((await tx.execute(SQL["ids"], await _time_range(tx, release))).scalars())


def summary(kinds: Sequence[LeftBehind]) -> str:
    """The number of events, their kinds, times and errors, in one sentence; empty when there are none."""
    if not kinds:
        return ""
    parts = [
        f"{kind.events} {kind.entity} since {kind.oldest_at:%H:%M} UTC ({kind.error_code or 'no code'}: "
        f"{kind.fingerprint[:ERROR_LENGTH_SHOWN] or 'no error text'})"
        for kind in kinds[:KINDS_SHOWN]
    ]
    if rest := sum(kind.events for kind in kinds[KINDS_SHOWN:]):
        parts.append(f"{rest} others")
    total = sum(kind.events for kind in kinds)
    return f"{total} live events became dead letters under the rolled-back revision: {', '.join(parts)}"


def command(release: Release) -> str:
    """The command that redrives them."""
    return f"runbook drain {env_option(release.environment)} --left-by {release.id}"


async def _time_range(tx: AsyncConnection, release: Release) -> dict[str, object]:
    """When the workers of the release ran. Without a deploy *since* is NULL, and then no event matches."""
    time_range = (await tx.execute(SQL["time_range"], {"release_id": release.id})).one()
    # What healing had out when the release began, or died again of, is none of its live events.
    healed = await heals.replays(tx, time_range.since) if time_range.since is not None else {}
    return {
        "release_id": release.id,
        "healed": list(healed),
        "since": time_range.since,
        "until": time_range.until,
        "synthetic": SYNTHETIC_KEY,
    }
