"""Releases and their phases. A release changes its phase by compare-and-set, and continues after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import LockLost, Refused
from handlers.release import lock
from handlers.release.ledger import guards, outbox
from handlers.release.note import PhaseNote
from handlers.release.phase import FINISHED, LIVE, NEXT, Phase, Release, Verdict
from handlers.release.planned import Plan

SQL = queries(__name__)

_NEEDS_LOCK = LIVE - {Phase.HELD}


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """One phase of a release: its times, its verdict, and its note. A phase that is entered twice has two records."""

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
    """Record a new release as planned. Its id is the date and the next number of that day, also in a race."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["serialize_ids"])
        release_id = (await tx.execute(SQL["next_id"])).scalar_one()
        await tx.execute(
            SQL["begin"],
            {
                "id": release_id,
                "environment": plan.environment,
                "from_revision": plan.from_revision,
                "to_revision": plan.to_revision,
                "requested_by": clean(requested_by),
                "speed": float(speed),
                "plan": as_json({**plan.as_json(), "reason": reason}),
                "plan_hash": plan.hash,
            },
        )
        await tx.execute(SQL["open_phase"], {"release_id": release_id, "phase": Phase.PLANNED})
        return await get(tx, release_id)


async def get(bind: Bind, release_id: str) -> Release:
    """The release with this id. Raises Refused when there is none."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["get"], {"id": release_id})).one_or_none()
    if row is None:
        raise _unknown(release_id)
    return _release(row)


async def get_locked(tx: AsyncConnection, release_id: str) -> Release:
    """The same, with its row locked to the end of the transaction, so that nobody else moves it."""
    row = (await tx.execute(SQL["lock_release"], {"id": release_id})).one_or_none()
    if row is None:
        raise _unknown(release_id)
    return _release(row)


async def latest(bind: Bind, environment: str) -> Release | None:
    """The newest release of an environment, in any phase; None when it has had none."""
    releases = await history(bind, environment, limit=1)
    return releases[0] if releases else None


async def live(bind: Bind, environment: str) -> Release | None:
    """The release that owns the environment now; None when there is none."""
    async with transaction(bind) as tx:
        values = {"environment": environment, "live": [phase.value for phase in sorted(LIVE)]}
        row = (await tx.execute(SQL["live"], values)).one_or_none()
    return _release(row) if row else None


async def history(bind: Bind, environment: str, limit: int = 20) -> list[Release]:
    """The newest releases of an environment, newest first."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["history"], {"environment": environment, "limit": limit})
        return [_release(row) for row in rows]


async def plan(bind: Bind, release_id: str) -> Plan:
    """The stored plan of the release. Raises Refused when there is no such release."""
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
    """Close the current phase with its outcome and move the release to *to*, in one transaction.

    A second call under the same lock is harmless. Entering a finished phase or a hold releases the lock. Raises
    Refused when the transition is not allowed, when another controller moved the release, or when another release
    is live; LockLost when the lock was lost.
    """
    if to not in NEXT[release.phase]:
        raise Refused(f"release {release.id} is {release.phase}: it cannot become {to}")
    if to in _NEEDS_LOCK and release.token is None:
        raise Refused(
            f"release {release.id} cannot become {to} before it has the lock of {release.environment}"
        )
    async with transaction(bind) as tx:
        stored = await get_locked(tx, release.id)
        if (
            stored.phase is not release.phase
            and stored.phase is to
            and stored.token == release.token is not None
        ):
            return stored
        await _raise_if_moved(tx, release, stored)
        moved = await _move(tx, release, to, clean(sentence))
        await tx.execute(
            SQL["close_phase"],
            {
                "release_id": release.id,
                "verdict": verdict,
                "sentence": clean(sentence),
                "detail": await _detail(tx, note or PhaseNote()),
            },
        )
        await tx.execute(SQL["open_phase"], {"release_id": release.id, "phase": to})
        await guards.follow(tx, release.phase, moved)
        await outbox.follow(tx, release.phase, moved, note or PhaseNote())
        if release.token is not None and to in FINISHED | {Phase.HELD}:
            await lock.free(tx, release.environment, release.token)
        return moved


async def hold(bind: Bind, release: Release, sentence: str, *, note: PhaseNote | None = None) -> Release:
    """Hold the release until a person decides. It stores its phase, in which a resume continues."""
    return await enter(bind, release, Phase.HELD, verdict=Verdict.INCONCLUSIVE, sentence=sentence, note=note)


async def resume(bind: Bind, release: Release, sentence: str = "resumed") -> Release:
    """Continue a held release in the phase where it stopped. Take the lock first.

    Raises Refused for a release in another phase.
    """
    if release.phase is not Phase.HELD or release.resume_phase is None:
        raise Refused(f"release {release.id} is {release.phase}: only a held release can be resumed")
    return await enter(bind, release, release.resume_phase, sentence=sentence)


async def note(bind: Bind, release: Release, note: PhaseNote) -> None:
    """Merge *note* into the note of the current phase, for the status view."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["note"], {"release_id": release.id, "detail": await _detail(tx, note)})


async def rollback_cause(bind: Bind, release: Release) -> str:
    """Why the first rollback of a release was started, however often it has been tried again since."""
    records = await phase_records(bind, release)
    causes = [record.note.why for record in records if record.phase is Phase.ROLLING_BACK and record.note.why]
    return causes[0] if causes else release.reason


async def phase_records(bind: Bind, release: Release) -> list[PhaseRecord]:
    """Every phase that the release has been in, in order."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["phase_records"], {"release_id": release.id})
        return [PhaseRecord.from_row(row) for row in rows]


async def upstream_changes(bind: Bind, release: Release) -> list[tuple[datetime, bool]]:
    """When the upstream went away (False) and when it answered again (True), in order. An outage is told by its start.

    It is confirmed some time after that, so a change may be older than the newest look of the gate.
    """
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["upstream_changes"], {"release_id": release.id})
        return [(datetime.fromisoformat(row.at), row.up) for row in rows]


def around(records: Iterable[PhaseRecord]) -> tuple[str, ...]:
    """What the newest look around the release saw, in sentences."""
    seen = [record.note.around for record in records if record.note.around]
    return tuple(map(str, seen[-1].get("lines") or ())) if seen else ()


def set_aside(records: Iterable[PhaseRecord]) -> dict[str, int]:
    """The letters that the drain has set aside, counted by reason; empty when it has not begun or set none aside."""
    notes = [record.note.set_aside for record in records if record.phase is Phase.DRAINING]
    return next((note for note in reversed(notes) if note is not None), {})


async def _detail(tx: AsyncConnection, note: PhaseNote) -> str:
    """The note as it is stored. What was seen gets its time here, because stored times are the database's."""
    if note.hosts or note.returns or note.armed:
        note = note.stamped(await clock.now(tx))
    return as_json(note.as_json())


async def _raise_if_moved(tx: AsyncConnection, release: Release, stored: Release) -> None:
    """Raise when *stored*, the current row, has another token or phase than *release*, or the lock was lost."""
    if stored.token != release.token:
        raise LockLost(
            f"release {release.id} has token {stored.token} now, ours was {release.token}: another controller "
            "took it over, or the release was not read again after taking the lock"
        )
    if stored.phase is not release.phase:
        raise Refused(
            f"release {release.id} is {stored.phase} now, not {release.phase}: another controller moved it"
        )
    if release.token is not None:
        await lock.fence(tx, release.environment, release.token)


async def _move(tx: AsyncConnection, release: Release, to: Phase, sentence: str) -> Release:
    try:
        # A savepoint, so that the other live release can be read after a unique violation.
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
            "only one can be live. Wait until it has ended, or abort it"
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
