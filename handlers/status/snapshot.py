"""The status of a release, for people: wanted and actual revisions, steps, and what it waits for. Read-only.

A running phase stores its progress in its record with `releases.note`: the health of the hosts, the newest sentence,
the time of the next measurement, and the length of the watch.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.environment import frozen
from handlers.environment.load import load_environment
from handlers.errors import ConfigError, Refused
from handlers.queue.limits import limits
from handlers.release import due, journal, left_behind, lock
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import stretches
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.lock import Holder
from handlers.release.phase import FINISHED, LIVE, Phase, Release
from handlers.release.settings import stored_settings
from handlers.status.assemble import Facts, assemble
from handlers.status.guard_step import guard_steps
from handlers.status.host_tree import Operation
from handlers.status.past import PastRelease, current, past
from handlers.status.start_part import start_part
from handlers.status.steps import BACK
from handlers.status.view import LaterView, StatusView

SQL = queries(__name__)

_ROLLBACK_ENDED = BACK - {Phase.ROLLING_BACK}


async def read(engine: AsyncEngine, environment: str, release_id: str | None = None) -> StatusView:
    """The status of a release: the one named, otherwise the `current` one, with what was started after it.

    Raises Refused when the release is unknown or belongs to another environment.
    """
    async with transaction(engine) as tx:
        await tx.execute(SQL["begin_snapshot"])
        at: datetime = (await tx.execute(SQL["now"])).scalar_one()
        holder = await lock.holder(tx, environment)
        if release_id is None:
            known = await past(tx, environment)
            found = current(known)
            if found is None:
                return StatusView(environment=environment, at=at, release=None, lock=holder)
            view = await _view(tx, found.release, at, holder)
            return replace(view, later=tuple(map(_later, known[: known.index(found)])))
        release = await releases.get(tx, release_id)
        if release.environment != environment:
            raise Refused(f"release {release_id} belongs to {release.environment}, not to {environment}")
        return await _view(tx, release, at, holder)


async def _view(tx: AsyncConnection, release: Release, at: datetime, holder: Holder | None) -> StatusView:
    records = await releases.phase_records(tx, release)
    plan = await releases.plan(tx, release.id)
    progress = (await tx.execute(SQL["progress"], {"release_id": release.id})).one()
    return assemble(
        Facts(
            release=release,
            at=at,
            holder=holder,
            records=tuple(records),
            plan=plan,
            judged=tuple(await stretches(tx, release)),
            operations=await _operations(tx, release),
            care=await due.care(tx, release),
            limits=tuple(await limits(tx)) if release.phase in LIVE else (),
            start=await start_part(tx, release, records, plan, at),
            guard=await guard_steps(tx, release, at),
            batches=tuple(await dead_letters.batches(tx, release)),
            events_planned=progress.planned,
            events_settled=progress.settled,
            differences=_differences(release, await stored_settings(tx, release)),
            taken_back=_taken_back(release, records),
            left_behind=await left_behind.kinds(tx, release) if release.phase in _ROLLBACK_ENDED else (),
        )
    )


async def _operations(tx: AsyncConnection, release: Release) -> tuple[Operation, ...]:
    """The newest operation of each kind on each host, in each phase."""
    rows = await tx.execute(SQL["newest_operations"], {"release_id": release.id})
    return tuple(Operation(**{**row._mapping, "phase": Phase(row.phase)}) for row in rows)


def _taken_back(release: Release, records: list[PhaseRecord]) -> str:
    """That hosts went back while the ledger was away, which has not been told yet."""
    if release.phase not in LIVE | {Phase.SUCCEEDED, Phase.ROLLBACK_FAILED}:
        return ""
    found = journal.newest(release.id)
    told = [record.started_at for record in records if record.phase is Phase.ROLLING_BACK]
    return found.sentence if found and not any(at > found.begun_at for at in told) else ""


def _differences(release: Release, settings: dict[str, Any] | None) -> tuple[str, ...]:
    """How the environment file differs from the settings of a release that may still use them."""
    if not settings or (release.phase in FINISHED and release.phase is not Phase.ROLLBACK_FAILED):
        return ()
    waits = release.phase in (Phase.PLANNED, Phase.APPROVED)
    words = {"keeper": "the plan", "keeps": "has"} if waits else {}
    try:
        return tuple(frozen.differences(settings, load_environment(release.environment), **words))
    except ConfigError as error:
        fault = str(error).replace("\n", "; ")
        return (f"{fault}. This release goes on with its own settings",)


def _later(each: PastRelease) -> LaterView:
    return LaterView(
        id=each.release.id,
        kind=each.kind,
        phase=each.release.phase,
        requested_by=each.release.requested_by,
        at=each.release.created_at,
        sentence=each.release.reason,
    )
