"""Why healing sends no dead letter back now: a release, a limit, an upstream that is away, or no worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database import clock
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.phases import upstream_pause
from handlers.queue import limits
from handlers.release import due
from handlers.release.phase import Phase
from handlers.worker import roster
from handlers.worker.roster import Sign

SQL = queries(__name__)

PLAN_MAX = timedelta(days=1)
"""A release that nobody has started for so long keeps healing from nothing."""
TAKEN_MAX = timedelta(minutes=15)
"""Where workers send no heartbeat, one lives if an event was completed so lately."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """What healing waits for."""

    sentence: str
    is_wrong: bool
    """Whether somebody must act: a release and a limit are somebody's choice."""


async def of_the_moment(tx: AsyncConnection, core: Core) -> Block | None:
    """A release that has not ended, or a limit of the queue. Asked again all the time while a batch is out."""
    at = await clock.now(tx)
    for run in await due.unfinished_releases(tx, core.environment.name):
        if run.phase in (Phase.PLANNED, Phase.APPROVED) and at - run.created_at > PLAN_MAX:
            continue
        return Block(sentence=f"release {run.id} is {run.phase}", is_wrong=False)
    if in_force := await limits.limits(tx):
        return Block(sentence=f"the queue is limited: {in_force[0].sentence}", is_wrong=False)
    return None


async def find(core: Core) -> Block | None:
    """Why no dead letter may go back now; None when one may. Raises DatabaseDown."""
    async with transaction(core.database) as tx:
        block = await of_the_moment(tx, core) or await _no_worker(tx, core)
    if block is not None:
        return block
    if why := await upstream_pause.away(core):
        return Block(sentence=why, is_wrong=True)
    return None


async def lives_a_worker(tx: AsyncConnection) -> bool | None:
    """Whether a worker of ours lives; None where none sends heartbeats. In a long batch it is quiet for a moment."""
    known = [each for each in await roster.workers(tx) if each.sign is not Sign.STOPPED]
    return any(each.sign is not Sign.SILENT for each in known) if known else None


async def _no_worker(tx: AsyncConnection, core: Core) -> Block | None:
    if core.environment.execution == "inline":
        return None
    lives = await lives_a_worker(tx)
    if lives is None:
        at = await clock.now(tx) - TAKEN_MAX
        lives = bool((await tx.execute(SQL["completed_since"], {"since": at})).scalar_one())
        if not lives:
            minutes = TAKEN_MAX.total_seconds() / 60
            sentence = (
                f"no worker sends heartbeats here, and no event was completed in the last {minutes:.0f} min"
            )
            return Block(sentence=sentence, is_wrong=True)
    return None if lives else Block(sentence="no worker is alive", is_wrong=True)
