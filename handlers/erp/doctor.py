"""What is odd about an environment's database: nothing is changed, each finding says what it costs or needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import migrate
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.release.phase import short

SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """One finding."""

    name: str
    sentence: str


_SENTENCES: dict[str, tuple[str, Callable[[Row[Any]], str]]] = {
    "redundant_indexes": (
        "index",
        lambda row: (
            f"{row.name} on ({row.columns}) is covered by {row.covered_by}: {row.bytes // 1024} kB, "
            f"{row.scans} scans since the statistics began, and a write for each event"
        ),
    ),
    "stuck": (
        "stuck",
        lambda row: (
            f"{row.events} events are in processing with no lease or one that has run out "
            f"(oldest since {row.oldest}): a `runbook worker` takes them back, the ERP's own never does"
        ),
    ),
    "side_by_side": (
        "side by side",
        lambda row: (
            f"{row.theirs} events of the last day were settled by other workers than `runbook worker` "
            f"(the last came in at {row.last_came:%H:%M} UTC), {row.ours} by ours: an old worker with an old "
            "event can overwrite a newer row of ours; stop it as soon as ours are proven"
        ),
    ),
    "other_clock": (
        "clock",
        lambda row: (
            f"{row.events} events of the last day were finished before they came in, or are leased "
            "for hours: the ERP's own workers write times without a zone, and their leases hold nobody off: "
            "run them with TZ=UTC"
        ),
    ),
    "silent_workers": (
        "worker",
        lambda row: (
            f"worker {row.owner} of revision {short(row.revision)} has been silent since {row.beat_at}"
        ),
    ),
}
"""Each query that finds oddities: what its findings are called, and the sentence about a row."""
_NEEDS_LEDGER = frozenset({"silent_workers"})


async def examine(database: AsyncEngine) -> list[Oddity]:
    """Redundant indexes, events stuck in processing, old workers beside ours, dead workers, a ledger that is behind."""
    found = []
    has_ledger = not await migrate.pending(database)
    if not has_ledger:
        found.append(Oddity(name="ledger", sentence="our schema is missing or behind: runbook db upgrade"))
    async with transaction(database) as tx:
        for query, (name, sentence) in _SENTENCES.items():
            if has_ledger or query not in _NEEDS_LEDGER:
                found += [Oddity(name=name, sentence=sentence(row)) for row in await tx.execute(SQL[query])]
    return found
