"""The whole check: once more until everything agrees, because hosts and queue need a moment to come to rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release.phase import Phase
from rehearsal.consistency import hosts, ledger, queue
from rehearsal.target import Target

REST_SECONDS = 75.0
"""How long everything may take to come to rest: a worker's lease, a restart, the lock of a controller that died."""
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The result of the check."""

    disagreements: tuple[str, ...]
    is_quarantined: bool
    damaged: int
    """Live webhooks that the released workers took and never completed."""


async def check(
    target: Target,
    database: AsyncEngine,
    release_id: str,
    *,
    sent: Sequence[UUID],
    window_seconds: float,
    rest_seconds: float = REST_SECONDS,
    expected: Sequence[str] = (),
) -> Consistency:
    """Compare hosts, ledger and queue until they agree, or until they have had time to come to rest.

    A disagreement with one of the parts *expected* in its sentence is none.
    """
    deadline = time.monotonic() + rest_seconds
    while True:
        result = await _look(target, database, release_id, sent, window_seconds)
        unexpected = [each for each in result.disagreements if not any(part in each for part in expected)]
        result = replace(result, disagreements=tuple(unexpected))
        if not result.disagreements or time.monotonic() > deadline:
            return result
        await asyncio.sleep(_LOOK_SECONDS)


async def _look(
    target: Target, database: AsyncEngine, release_id: str, sent: Sequence[UUID], window_seconds: float
) -> Consistency:
    async with database.connect() as tx:
        record = await ledger.read(tx, release_id)
        found = list(
            ledger.disagreements(record, window_seconds=window_seconds, is_good=target.story.is_good)
        )
        found += await queue.disagreements(
            tx,
            release_id,
            sent,
            is_finished=record.is_finished,
            is_good=target.story.is_good,
            is_old_running=record.phase is not Phase.SUCCEEDED,
        )
        damaged = await queue.damaged(tx, sent, record.to_revision)
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        states = await asyncio.gather(*(hosts.read(http, host) for host in target.hosts))
    for state in states:
        found += hosts.disagreements(state, record.expected)
    return Consistency(disagreements=tuple(found), is_quarantined=record.is_quarantined, damaged=len(damaged))
