"""How fresh the ERP's tables are: their rows, those changed in the last hour, and the age of the newest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.entities.registry import HANDLERS
from handlers.environment.bars import Bars
from handlers.measurements.measurement import Measurement, compared, no_data, source_down

_SQL = queries(__name__)
TABLES = tuple(sorted({handler.table.name for handler in HANDLERS.values()}))


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """One table of the ERP."""

    table: str
    rows: int | None = None
    changed: int | None = None
    """In the last hour."""
    newest: datetime | None = None
    age_seconds: float | None = None
    note: str = ""
    """Why it could not be read; empty when it was."""


async def columns(tx: AsyncConnection) -> dict[str, list[str]]:
    """The columns of each table that tell when a row was written. A table without one is left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in await tx.execute(_SQL["time_columns"], {"tables": list(TABLES)}):
        found[row.table_name].append(row.column_name)
    return found


async def read(tx: AsyncConnection, table: str, times: list[str], at: datetime, hour: datetime) -> Freshness:
    """Count one table in one pass."""
    # No SQL injection: names come from our own specs and the query above.
    newest = f"greatest({', '.join(_aware(name) for name in times)})"
    statement = (
        "SELECT count(*) AS rows, count(*) FILTER (WHERE r.written >= :hour) AS changed, "
        f'max(r.written) AS newest FROM (SELECT {newest} AS written FROM "{table}") r'
    )
    row = (await tx.execute(text(statement), {"hour": hour})).one()
    age = max((at - row.newest).total_seconds(), 0.0) if row.newest is not None else None
    return Freshness(table=table, rows=row.rows, changed=row.changed, newest=row.newest, age_seconds=age)


def measured(bars: Bars, fresh: Freshness) -> Measurement:
    """The measurement of one table."""
    if fresh.note:
        return source_down("freshness", fresh.note, subject=fresh.table)
    bar = (
        bars.freshness_seconds if not bars.freshness_tables or fresh.table in bars.freshness_tables else None
    )
    counts = f"{fresh.rows:,} rows, {fresh.changed:,} changed in the last hour"
    if fresh.age_seconds is None:
        sentence = f"{counts}: none tells when it was written"
        return no_data("freshness", sentence, subject=fresh.table, bar=bar, unit="s")
    sentence = f"{counts}, the newest {_age(fresh.age_seconds)} old"
    return compared("freshness", fresh.age_seconds, bar, "s", sentence, subject=fresh.table)


def _aware(column: str) -> str:
    # One without a time zone holds UTC, and so does this transaction (`limit_time`).
    return f'CAST("{column}" AS timestamptz)'


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
