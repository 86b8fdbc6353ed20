"""Releases and their phases: begun once, moved by guarded updates, found again after a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import LockLost, Refused
from handlers.release import lock
from handlers.release.note import PhaseNote
from handlers.release.phase import FINISHED, LIVE, NEXT, Phase, Release, Verdict
from handlers.release.planned import Plan

SQL = queries(__name__)

_NEEDS_LOCK = LIVE - {Phase.HELD}


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """One stay of a release in a phase: since when, until when, and what came of it."""

    id: int
    phase: Phase
    started_at: datetime
    finished_at: datetime | None
    verdict: Verdict | None
    sentence: str
    note: PhaseNote = field(default_factory=PhaseNote)

    @classmethod
    def from_row(cls, row: Row[Any]) -> PhaseRecord:
        """From the query `phase_records`."""
        return cls(
            id=row.id,
            phase=Phase(row.phase),
            started_at=row.started_at,
            finished_at=row.finished_at,
            verdict=Verdict(row.verdict) if row.verdict else None,
            sentence=row.sentence,
            note=PhaseNote.from_json(json.loads(row.detail)),
        )


async def begin(
    bind: Bind,
    *,
    plan: Plan,
    requested_by: str,
    reason: str = "",
    speed: float = 1.0,
) -> Release:
    """Write a new release down as planned. Its id is the day and the day's next number, race or no race."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["serialize_ids"])
        new = (await tx.execute(SQL["next_id"])).scalar_one()
        await tx.execute(
            SQL["begin"],
            {
                "id": new,
                "environment": plan.environment,
                "from_revision": plan.from_revision,
                "to_revision": plan.to_revision,
                "requested_by": clean(requested_by),
                "speed": float(speed),
                "plan": as_json({**plan.as_json(), "reason": reason}),
                "plan_hash": plan.hash,
            },
        )
        await tx.execute(SQL["open_phase"], {"release_id": new, "phase": Phase.PLANNED})
        return await get(tx, new)


async def get(bind: Bind, release_id: str) -> Release:
    """The release with this id; Refused when there is none."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["get"], {"id": release_id})).one_or_none()
    if row is None:
        raise _unknown(release_id)
    return _release(row)


async def latest(bind: Bind, environment: str) -> Release | None:
    """The newest release of an environment, in whatever phase."""
    found = await history(bind, environment, limit=1)
    return found[0] if found else None


async def live(bind: Bind, environment: str) -> Release | None:
    """The release that owns the environment now."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["live"], {"environment": environment})).one_or_none()
    return _release(row) if row else None


async def unfinished(bind: Bind, environment: str) -> Release:
    """The release of the environment that can go on. Refused when there is none."""
    run = await live(bind, environment) or await latest(bind, environment)
    if run is None or run.finished_at is not None:
        raise Refused(f"no release of {environment} is held or under way: there is nothing to go on with")
    return run


async def history(bind: Bind, environment: str, limit: int = 20) -> list[Release]:
    """The newest releases of an environment, newest first."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["history"], {"environment": environment, "limit": limit})
        return [_release(row) for row in rows]


async def plan(bind: Bind, release_id: str) -> Plan:
    """What the release set out to do."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["plan"], {"id": release_id})).one_or_none()
    if row is None:
        raise _unknown(release_id)
    return Plan.from_json(json.loads(row.plan))


async def enter(
    bind: Bind,
    release: Release,
    to: Phase,
    *,
    verdict: Verdict | None = None,
    sentence: str = "",
    note: PhaseNote | None = None,
) -> Release:
    """Close the release's phase with what came of it and move it to *to*, in one transaction.

    Refused when the move is not allowed, when somebody else moved the release, or when another release is
    live; LockLost when the lock is no longer this release's. Entering twice under one lock is harmless.
    A release that is finished or held gives its lock back: whoever goes on from there takes it again.
    """
    if to not in NEXT[release.phase]:
        raise Refused(f"release {release.id} is {release.phase}: it cannot become {to}")
    if to in _NEEDS_LOCK and release.token is None:
        raise Refused(
            f"release {release.id} cannot become {to} before it has the lock of {release.environment}"
        )
    async with transaction(bind) as tx:
        now = await _look_and_hold(tx, release)
        if now.phase is not release.phase and now.phase is to and now.token == release.token is not None:
            return now
        await _guard(tx, release, now)
        moved = await _move(tx, release, to, clean(sentence))
        await tx.execute(
            SQL["close_phase"],
            {
                "release_id": release.id,
                "verdict": verdict,
                "sentence": clean(sentence),
                "detail": as_json((note or PhaseNote()).as_json()),
            },
        )
        await tx.execute(SQL["open_phase"], {"release_id": release.id, "phase": to})
        if release.token is not None and to in FINISHED | {Phase.HELD}:
            await lock.free(tx, release.environment, release.token)
        return moved


async def hold(bind: Bind, release: Release, sentence: str, *, note: PhaseNote | None = None) -> Release:
    """Stop and let a person decide; the release remembers the phase in which it would go on."""
    return await enter(bind, release, Phase.HELD, verdict=Verdict.INCONCLUSIVE, sentence=sentence, note=note)


async def resume(bind: Bind, release: Release, sentence: str = "resumed") -> Release:
    """Go on with a held release where it stopped. Take the lock first."""
    if release.phase is not Phase.HELD or release.resume_phase is None:
        raise Refused(f"release {release.id} is {release.phase}: only a held release can be resumed")
    return await enter(bind, release, release.resume_phase, sentence=sentence)


async def note(bind: Bind, release: Release, note: PhaseNote) -> None:
    """Add to what the running phase knows (hosts seen, the next look), for whoever watches."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["note"], {"release_id": release.id, "detail": as_json(note.as_json())})


async def phase_records(bind: Bind, release: Release) -> list[PhaseRecord]:
    """Every phase that the release has been in, in order."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["phase_records"], {"release_id": release.id})
        return [PhaseRecord.from_row(row) for row in rows]


async def _look_and_hold(tx: AsyncConnection, release: Release) -> Release:
    row = (await tx.execute(SQL["look_and_hold"], {"id": release.id})).one_or_none()
    if row is None:
        raise _unknown(release.id)
    return _release(row)


async def _guard(tx: AsyncConnection, release: Release, now: Release) -> None:
    """Nobody else has moved it, and where a lock was taken it is still ours."""
    if now.token != release.token:
        raise LockLost(
            f"release {release.id} goes under token {now.token} now, ours was {release.token}: "
            "another controller has it, or the release must be read again after taking the lock"
        )
    if now.phase is not release.phase:
        raise Refused(
            f"release {release.id} is no longer {release.phase}: somebody moved it, it is {now.phase} now"
        )
    if release.token is not None:
        await lock.fence(tx, release.environment, release.token)


async def _move(tx: AsyncConnection, release: Release, to: Phase, sentence: str) -> Release:
    try:
        # A savepoint, so that the transaction can still be asked who the other release is.
        async with tx.begin_nested():
            rows = await tx.execute(
                SQL["enter_phase"],
                {
                    "id": release.id,
                    "from": release.phase,
                    "to": to,
                    "resume_phase": release.phase if to is Phase.HELD else None,
                    "sentence": sentence,
                    "is_final": to in FINISHED,
                },
            )
    except IntegrityError as error:
        other = await live(tx, release.environment)
        if other is None or other.id == release.id:
            raise
        raise Refused(
            f"release {other.id} is {other.phase} in {release.environment}: "
            "only one can be live, wait until it has finished or abort it"
        ) from error
    return _release(rows.one())


def _release(row: Row[Any]) -> Release:
    values = dict(row._mapping)
    resume_phase = values.pop("resume_phase")
    return Release(
        **{**values, "phase": Phase(row.phase)}, resume_phase=Phase(resume_phase) if resume_phase else None
    )


def _unknown(release_id: str) -> Refused:
    return Refused(f"there is no release {release_id}: `runbook history` lists them")
