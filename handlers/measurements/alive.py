"""The checks of the workers: events that none of them has any more, silent workers, and whether any is alive."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.environment.model import Environment
from handlers.erp import doctor
from handlers.measurements.measurement import Measurement, State, compared, no_data

_SQL = queries(__name__)
CHECKS = ("stuck", "silent_workers")


async def read(tx: AsyncConnection, environment: Environment) -> list[Measurement]:
    """Both checks."""
    stuck = await doctor.stuck(tx)
    sentence = f"{stuck:,} events are in processing, and no worker has them"
    return [
        compared("stuck", stuck, environment.bars.stuck_events, "", sentence),
        await _silent(tx, environment),
    ]


async def _silent(tx: AsyncConnection, environment: Environment) -> Measurement:
    row = (await tx.execute(_SQL["workers"])).one()
    bar = environment.bars.silent_workers
    if not row.known:
        sentence = "no worker sends a heartbeat here: the ERP's own do not"
        return no_data("silent_workers", sentence, bar=bar)
    if not row.running:
        # After a rollback the ERP's own may be at work again.
        sentence = "every worker that sent heartbeats has stopped properly; others send none"
        return no_data("silent_workers", sentence, bar=bar)
    if not row.alive and environment.execution == "workers" and bar is not None:
        sentence = f"no worker is alive, {row.silent} fell silent in the last day"
        return Measurement(
            name="silent_workers", value=row.silent, bar=bar, state=State.BROKEN, sentence=sentence
        )
    last = f", last {row.newest_silent}" if row.silent else ""
    sentence = f"{row.alive} workers are alive, {row.silent} fell silent in the last day{last}"
    return compared("silent_workers", row.silent, bar, "", sentence)
