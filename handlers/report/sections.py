"""The sections of a report about the queue: statuses, times, types, errors, dead letters, and their course."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue import diagnose, look
from handlers.queue.event import ENTITY_TYPES, SYNTHETIC_KEY
from handlers.release.ledger import releases
from handlers.release.phase import Release

SQL = queries(__name__)
ROWS_MAX = 100_000
"""So many events of a window are read, the newest ones of each kind."""
BUCKETS = 48
"""The points of a picture."""
_SEEN: dict[str, TextClause] = {
    name: text(f"{SQL['seen'].text}\n{SQL[name].text}")
    for name in ("statuses", "processing", "by_type", "course")
}
_ROW = re.compile(r"Failing row contains \(.*\)", re.DOTALL)
"""Of a database's error: a whole row of a customer."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """What a report is about: a window, and the release that it belongs to, if any."""

    since: datetime
    until: datetime
    release: Release | None = None

    @property
    def values(self) -> dict[str, object]:
        """For the queries about events."""
        return {
            "since": self.since,
            "release_id": self.release.id if self.release else None,
            "synthetic": SYNTHETIC_KEY,
            "rows_max": ROWS_MAX,
        }


async def of_queue(tx: AsyncConnection, span: Span) -> dict[str, Any]:
    """What happened in the queue in a window, and what stands in it now."""
    statuses = {row.status: row.events for row in await tx.execute(_SEEN["statuses"], span.values)}
    total = sum(statuses.values())
    return {
        "queue": {str(name): count for name, count in (await look.counts(tx)).items()},
        "window": {
            "since": span.since,
            "until": span.until,
            "events": total,
            "is_cut": total >= ROWS_MAX,
            "statuses": [
                {"status": name, "events": count, "percent": 100 * count / total}
                for name, count in statuses.items()
            ],
        },
        **await course_of(tx, span),
        "errors": await _errors(tx),
        "letters": await _letters(tx),
    }


async def course_of(tx: AsyncConnection, span: Span) -> dict[str, Any]:
    """What became of the events of a window by type, how long they took, and success, depth and age over time."""
    minutes = max((span.until - span.since).total_seconds() / 60, 1 / 60)
    processing = await _by_entity(tx, "processing", span)
    return {
        "types": await _by_entity(tx, "by_type", span),
        "processing": [
            {**row, "a_minute": row["completed"] / minutes} for row in processing if row["entity"]
        ],
        "all_processing": next(
            ({**row, "a_minute": row["completed"] / minutes} for row in processing if not row["entity"]), None
        ),
        "course": await _course(tx, span),
    }


async def dead_letters(tx: AsyncConnection, release: Release) -> dict[str, Any]:
    """The planned dead letters by type and outcome, the set aside ones, and why some were not drained."""
    by_type: dict[str, dict[str, int]] = defaultdict(dict)
    totals = {"completed": 0, "failed": 0, "open": 0, "left": 0}
    for row in await tx.execute(SQL["planned"], {"release_id": release.id}):
        by_type[ENTITY_TYPES.get(row.entity_type, row.entity_type)][row.fate] = row.events
        totals[row.fate] += row.events
    plan = await releases.plan(tx, release.id)
    aside = releases.set_aside(await releases.phase_records(tx, release))
    unexplained = totals["left"] > sum(aside.values())
    return {
        "planned": sum(totals.values()),
        "drained": totals["completed"] + totals["failed"] + totals["open"],
        **totals,
        "by_type": by_type,
        # First what no plan contains, then what the drain has left.
        "set_aside": {**plan.set_aside, **aside},
        "why_left": f"{release.phase}: {release.reason}" if unexplained else "",
    }


async def quarantined(tx: AsyncConnection, environment: str) -> list[dict[str, Any]]:
    """The revisions in quarantine."""
    rows = await tx.execute(SQL["quarantined"], {"environment": environment})
    return [dict(row._mapping) for row in rows]


async def requested_because(tx: AsyncConnection, release: Release) -> str:
    """The reason that the requester gave; empty without one."""
    return str((await tx.execute(SQL["requested"], {"release_id": release.id})).scalar_one() or "")


async def moments(tx: AsyncConnection, environment: str, span: Span) -> list[dict[str, Any]]:
    """When phases of releases began in the window."""
    values = {"environment": environment, "since": span.since, "until": span.until}
    return [dict(row._mapping) for row in await tx.execute(SQL["moments"], values)]


async def _errors(tx: AsyncConnection) -> list[dict[str, Any]]:
    """The errors in the queue, grouped by fingerprint, the most common first, each with the text of one of them."""
    errors: dict[str, dict[str, Any]] = {}
    for row in await tx.execute(SQL["errors"], {"synthetic": SYNTHETIC_KEY}):
        masked = diagnose.fingerprint(row.error or "") or "no error text"
        actual = _ROW.sub("Failing row contains <row>", row.error or "").strip()
        error = errors.setdefault(
            masked,
            {
                "fingerprint": masked,
                "events": 0,
                "kinds": {},
                "code": row.error_code,
                "actual": actual,
                "last_at": row.last_at,
            },
        )
        error["events"] += row.events
        error["last_at"] = max(error["last_at"], row.last_at)
        kind = f"{ENTITY_TYPES.get(row.raw_type, row.raw_type)} {row.status}"
        error["kinds"][kind] = error["kinds"].get(kind, 0) + row.events
    return sorted(errors.values(), key=lambda error: -error["events"])


async def _letters(tx: AsyncConnection) -> list[dict[str, Any]]:
    return [
        {
            "entity": str(ENTITY_TYPES.get(row.raw_type, row.raw_type)),
            "code": row.error_code,
            "events": row.events,
            "oldest_at": row.oldest_at,
            "attempts_max": row.attempts_max,
        }
        for row in await tx.execute(SQL["letters"], {"synthetic": SYNTHETIC_KEY})
    ]


async def _course(tx: AsyncConnection, span: Span) -> list[dict[str, Any]]:
    """Success, depth and age at each point of the window. A part without an event that ended has no success."""
    values = span.values | {"until": span.until, "buckets": BUCKETS}
    points = []
    for row in await tx.execute(_SEEN["course"], values):
        ended = row.completed + row.failed
        age = max((row.at - row.oldest).total_seconds(), 0.0) if row.oldest is not None else 0.0
        points.append(
            {
                "at": row.at,
                "success_percent": 100 * row.completed / ended if ended else None,
                "ended": ended,
                "open": row.open,
                "oldest_seconds": age,
            }
        )
    return points


async def _by_entity(tx: AsyncConnection, query: str, span: Span) -> list[dict[str, Any]]:
    """The rows of a query, with the readable name of their entity type, sorted by it."""
    rows = []
    for row in await tx.execute(_SEEN[query], span.values):
        values = dict(row._mapping)
        raw = values.pop("raw_type")
        rows.append({"entity": str(ENTITY_TYPES.get(raw, raw)), **values})
    return sorted(rows, key=lambda values: (values["entity"], values.get("replayed", False)))
