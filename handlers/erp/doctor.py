"""What is odd about an environment's database: nothing is changed, each finding says what it costs or needs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import migrate
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.release.phase import short

SQL = queries("doctor")


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """One finding."""

    name: str
    sentence: str


async def examine(database: AsyncEngine) -> list[Oddity]:
    """Redundant indexes, events stuck in processing, old workers beside ours, dead workers, a ledger that is behind."""
    found = []
    if await migrate.pending(database):
        found.append(Oddity(name="ledger", sentence="our schema is missing or behind: runbook db upgrade"))
        has_ledger = False
    else:
        has_ledger = True
    async with transaction(database) as tx:
        for row in await tx.execute(SQL["redundant_indexes"]):
            found.append(
                Oddity(
                    name="index",
                    sentence=f"{row.name} on ({row.columns}) is covered by {row.covered_by}: "
                    f"{row.bytes // 1024} kB, {row.scans} scans since the statistics began, and a write for each event",
                )
            )
        for row in await tx.execute(SQL["stuck"]):
            found.append(
                Oddity(
                    name="stuck",
                    sentence=f"{row.events} events are in processing with no lease or one that has run out "
                    f"(oldest since {row.oldest}): a `runbook worker` takes them back, the ERP's own never does",
                )
            )
        for row in await tx.execute(SQL["side_by_side"]):
            found.append(
                Oddity(
                    name="side by side",
                    sentence=f"{row.theirs} events of the last day were settled by other workers than `runbook worker` "
                    f"(the last came in at {row.last_came:%H:%M} UTC), {row.ours} by ours: an old worker with an old "
                    "event can overwrite a newer row of ours; stop it as soon as ours are proven",
                )
            )
        for row in await tx.execute(SQL["other_clock"]):
            found.append(
                Oddity(
                    name="clock",
                    sentence=f"{row.events} events of the last day were finished before they came in, or are leased "
                    "for hours: the ERP's own workers write times without a zone, and their leases hold nobody off: "
                    "run them with TZ=UTC",
                )
            )
        for row in await tx.execute(SQL["silent_workers"]) if has_ledger else ():
            found.append(
                Oddity(
                    name="worker",
                    sentence=f"worker {row.owner} of revision {short(row.revision)} "
                    f"has been silent since {row.beat_at}",
                )
            )
    return found
