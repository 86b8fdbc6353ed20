"""Problems of an environment's database. Read-only: each sentence says what a problem costs, or how to fix it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database import migrate
from handlers.database.privileges import obstacles
from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.environment.load import env_option
from handlers.erp import adopt
from handlers.erp.controller_needs import CONTROLLER_NEEDS
from handlers.queue import in_hand
from handlers.release import due
from handlers.release.phase import short

SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem: its kind, and a sentence about it."""

    name: str
    sentence: str


_SENTENCES: dict[str, tuple[str, Callable[[Row[Any]], str]]] = {
    "redundant_indexes": (
        "index",
        lambda row: (
            f"{row.name} on ({row.columns}) is redundant, {row.covered_by} covers it: {row.bytes // 1024} kB, "
            f"{row.scans} scans since the last statistics reset, and one more write for each event"
        ),
    ),
    "missing_indexes": (
        "index",
        lambda row: (
            f"{row.name} is missing: after a burst a claim may read the whole burst. `runbook db adopt` makes it "
            "without blocking writes; it costs one write for each event"
        ),
    ),
    "stuck": (
        "stuck",
        lambda row: (
            f"{row.events} events are in processing without a lease or with an expired one "
            f"(oldest since {row.oldest}): a `runbook worker` reclaims them, the ERP's own worker never does"
        ),
    ),
    "left_in_hand": (
        "stuck",
        lambda row: (
            f"{row.events} events are left from a worker that was killed (oldest since {row.oldest}): any running "
            "`runbook worker` takes them back within seconds, so none is running"
        ),
    ),
    "side_by_side": (
        "side by side",
        lambda row: (
            f"{row.theirs} events of the last day were settled by other workers than `runbook worker` "
            f"(the last arrived at {row.last_came:%H:%M} UTC), {row.ours} by ours. An old worker with an old "
            "event can overwrite a newer row: stop it as soon as ours are proven"
        ),
    ),
    "other_clock": (
        "clock",
        lambda row: (
            f"{row.events} events of the last day were finished before they arrived, or are leased for hours. "
            "The ERP's own workers write times without a zone, so their leases protect nothing: "
            "run them with TZ=UTC"
        ),
    ),
    "silent_workers": (
        "worker",
        lambda row: (
            f"worker {row.owner} of revision {short(row.revision)} sent its last heartbeat at {row.beat_at}, "
            "and no clean shutdown was recorded"
        ),
    ),
}
"""Each query for problems: their kind, and the sentence about a row."""
_NEEDS_LEDGER = frozenset({"missing_indexes", "left_in_hand", "silent_workers"})


async def examine(database: AsyncEngine, environment: str | None = None) -> list[Problem]:
    """Find missing privileges, narrow columns, redundant indexes, stuck events, old or dead workers, wrong clocks.

    Also an outdated ledger. Of *environment* also a release that nobody carries.
    """
    problems = []
    has_ledger = not await migrate.pending(database)
    if not has_ledger:
        problems.append(
            Problem(name="ledger", sentence="its schema is missing or outdated: run `runbook db upgrade`")
        )
    found = await obstacles(database, CONTROLLER_NEEDS)
    problems += [
        Problem(name="privileges", sentence=sentence)
        for sentence in (found.read_only, *found.denied)
        if sentence
    ]
    if found.denied:
        # What cannot be read would look like no problem.
        return problems
    problems += [Problem(name="column", sentence=sentence) for sentence in await adopt.warnings(database)]
    async with transaction(database) as tx:
        for query, (name, sentence) in _SENTENCES.items():
            if has_ledger or query not in _NEEDS_LEDGER:
                problems += [
                    Problem(name=name, sentence=sentence(row)) for row in await tx.execute(SQL[query])
                ]
        if has_ledger and environment is not None:
            problems += await _uncarried(tx, environment)
    return problems


async def stuck(tx: AsyncConnection) -> int:
    """How many events no worker has, though they are in processing or in hand. Without our ledger: in processing."""
    queries_ = ["stuck", "left_in_hand"] if await in_hand.is_there(tx) else ["stuck"]
    return sum([int(row.events) for query in queries_ for row in await tx.execute(SQL[query])])


async def _uncarried(tx: AsyncConnection, environment: str) -> list[Problem]:
    care = await due.find(tx, environment)
    if care is None or care.carried is not False:
        return []
    sentence = f"{care.release.id} is {care.release.phase}, {care.sentence}"
    return [
        Problem(name="release", sentence=f"{sentence}: run `runbook resume --due {env_option(environment)}`")
    ]
