"""Whether two databases have the same records: column by column, whatever way these took there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Column, Table

Contents = dict[str, dict[str, str]]
"""By table a digest of each row, by the record's source id and, of lines, their number."""


async def contents(engine: AsyncEngine) -> Contents:
    """What the tables of all entity types have. The ERP's own ids differ between databases, and are left out."""
    found: Contents = {}
    async with engine.connect() as tx:
        for handler in HANDLERS.values():
            for name, sql in _queries(handler.table):
                found.setdefault(name, {}).update(await _digests(tx, sql))
    return found


def differences(one: Contents, other: Contents, *, shown: int = 5) -> list[str]:
    """What one database has and the other has not, or has otherwise; empty when they are equal."""
    said = []
    for table in sorted(one.keys() | other.keys()):
        ours, theirs = one.get(table, {}), other.get(table, {})
        for what, keys in (
            ("only in the first", ours.keys() - theirs.keys()),
            ("only in the second", theirs.keys() - ours.keys()),
            ("different", {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}),
        ):
            if keys:
                said.append(f"{table}: {len(keys)} {what}, as {', '.join(sorted(keys)[:shown])}")
    return said


def _queries(table: Table) -> Iterator[tuple[str, str]]:
    key = f"t.{table.key}"
    yield (
        table.name,
        f"SELECT {key} AS key, md5(ROW({_columns('t', table.columns)}, t.zoho_deleted_at IS NULL)::text) AS digest"
        f" FROM {table.name} t WHERE {key} IS NOT NULL",
    )
    for child in table.children:
        yield (
            child.name,
            f"SELECT {key} || ' ' || c.line_no AS key, md5(ROW({_columns('c', child.columns)})::text) AS digest"
            f" FROM {child.name} c JOIN {table.name} t ON t.id = c.{child.link} WHERE {key} IS NOT NULL",
        )


def _columns(alias: str, columns: Collection[Column]) -> str:
    return ", ".join(f"{alias}.{column.name}" for column in columns if not column.local)


async def _digests(tx: AsyncConnection, sql: str) -> dict[str, str]:
    return {row.key: row.digest for row in await tx.execute(text(sql))}
