"""Events that no worker has any more, taken back: what the housekeeping of a worker does, where none of ours runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.queue import look, settle
from handlers.queue.event import Status
from handlers.queue.look import EventState
from handlers.queue.redrive import notify
from handlers.queue.wake import wake_arrived
from handlers.release.ledger import heals
from handlers.release.ledger.heals import Claim


@dataclass(frozen=True, kw_only=True)
class TakenBack:
    """What came back."""

    lost: tuple[EventState, ...] = ()
    """Events of workers that are gone, as they are now."""
    woken: tuple[EventState, ...] = ()
    """Events whose parents had come, and that nobody had woken."""

    @property
    def sentence(self) -> str:
        """What came back, in one sentence; empty when nothing did."""
        ends = Counter(state.status for state in self.lost)
        words = []
        if self.lost:
            words.append(f"{len(self.lost)} events of dead workers are back in the queue")
        if dead := ends[Status.DEAD_LETTER]:
            words.append(f"{dead} of them are dead letters now")
        if self.woken:
            words.append(f"{len(self.woken)} events woken whose parents had come")
        return ", ".join(words)


async def take_back(core: Core, claim: Claim) -> TakenBack:
    """Take back what workers lost, and wake what waits for parents that have come, in one transaction."""
    async with transaction(core.database) as tx:
        await heals.fence(tx, claim)
        found = await _take_back(tx)
        if found.sentence:
            ids = [state.id for state in (*found.lost, *found.woken)]
            await heals.taken_back(tx, claim, ids, found.sentence)
            await notify(tx)
    return found


async def would_take_back(core: Core) -> TakenBack:
    """What `take_back` would do now. The same is done, and undone: nothing is changed."""
    async with transaction(core.database) as tx, tx.begin_nested() as attempt:
        found = await _take_back(tx)
        await attempt.rollback()
    return found


async def _take_back(tx: AsyncConnection) -> TakenBack:
    lost = await settle.expire_leases(tx)
    woken = await wake_arrived(tx)
    return TakenBack(lost=await _states(tx, list(lost)), woken=await _states(tx, sorted(woken)))


async def _states(tx: AsyncConnection, ids: Sequence[UUID]) -> tuple[EventState, ...]:
    return tuple(await look.states(tx, ids)) if ids else ()
