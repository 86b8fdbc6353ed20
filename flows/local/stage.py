"""What goes on around a release while it is rehearsed: live webhooks, and the turn of the story."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.sqlstate import DRIVER_ERRORS
from handlers.release.phase import Phase
from rehearsal import cues
from rehearsal.faults.fault import Moment
from rehearsal.faults.moments import Moments
from rehearsal.target import Target
from rehearsal.webhooks.traffic import traffic

TRAFFIC_PER_SECOND = 3.0
_AGAIN_SECONDS = 0.1
_LAST_SECONDS = 20.0
"""How long the last webhooks may take to come in."""


@asynccontextmanager
async def live_traffic(target: Target, received: list[UUID]) -> AsyncIterator[None]:
    """Let webhooks come in until the end of the block. *received* gets the ids of those that the queue has."""
    stop = asyncio.Event()
    engine = target.engine()
    sending = asyncio.create_task(
        traffic(engine, stop, TRAFFIC_PER_SECOND, received, mix=target.story.plot.mix)
    )
    try:
        yield
    finally:
        stop.set()
        # One that is being sent must end: we have to know whether the queue has it.
        await asyncio.wait({sending}, timeout=_LAST_SECONDS)
        await _end(sending)
        await engine.dispose()


@asynccontextmanager
async def turn_of(target: Target, release_id: str) -> AsyncIterator[None]:
    """Let happen what the story has in store, at its minute of the watch."""
    engine = target.engine()
    moments = Moments(engine, release_id)
    tasks = [asyncio.create_task(moments.watch()), asyncio.create_task(_turn(target, moments, engine))]
    try:
        yield
    finally:
        for task in tasks:
            await _end(task)
        await engine.dispose()


async def _turn(target: Target, moments: Moments, engine: AsyncEngine) -> None:
    turn = target.story.plot.turn
    if turn is None:
        return
    delay = turn.minute * 60 / target.pace.speed
    await moments.reached(Moment(name=Phase.WATCHING, delay_seconds=delay))
    if turn.blip_seconds is None:
        await asyncio.to_thread(cues.give, target.cues, target.story.value)
    else:
        await _blip(engine, turn.blip_seconds / target.pace.speed)


async def _blip(engine: AsyncEngine, seconds: float) -> None:
    """Begin it; while a fault keeps the database away, rows are refused without our help."""
    while True:
        try:
            await cues.blip(engine, seconds)
        except DRIVER_ERRORS:
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return


async def _end(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
