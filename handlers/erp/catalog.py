"""What the database already has of the tables that the core works on, read before `runbook db adopt` adds to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

_SQL = queries(__name__)

KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
}
"""What may have a table's name and cannot hold our rows."""


@dataclass(frozen=True, kw_only=True)
class ExistingColumn:
    """A column as it is in the database."""

    type_name: str
    not_null: bool
    has_default: bool


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What a table's name stands for."""

    kind: str | None
    """PostgreSQL's letter for it; None when the search path has nothing of this name."""
    owner: str | None
    is_ours: bool
    """We may do what its owner may."""
    elsewhere: str | None
    """The same name in schemas that are not on the search path, where nothing is on it."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What the database has: columns by table, and the columns that lead an index."""

    places: dict[str, Relation]
    tables: dict[str, dict[str, ExistingColumn]]
    indexed: frozenset[tuple[str, str]]
    unique: frozenset[tuple[str, str]]
    twice: dict[tuple[str, str], str]
    """For columns that must be unique and are not yet: a value that stands twice."""
    names: dict[str, bool]
    """Every index of these tables by name: whether it is whole. One whose making was cut short is not."""


async def read_catalog(tx: AsyncConnection, keys: Mapping[str, str | None]) -> Catalog:
    """Read what the database has of the tables *keys*, given with the column of each that must be unique."""
    names = {"tables": list(keys)}
    places = {
        row.name: Relation(kind=row.kind, owner=row.owner, is_ours=bool(row.is_ours), elsewhere=row.elsewhere)
        for row in await tx.execute(_SQL["places"], names)
    }
    tables: dict[str, dict[str, ExistingColumn]] = defaultdict(dict)
    for row in await tx.execute(_SQL["columns"], names):
        tables[row.table_name][row.column_name] = ExistingColumn(
            type_name=row.type_name, not_null=row.not_null, has_default=row.has_default
        )
    indexes = (await tx.execute(_SQL["indexes"], names)).all()
    whole = [row for row in indexes if row.is_whole and not row.is_partial]
    unique = frozenset((row.table_name, row.column_name) for row in whole if row.is_unique)
    twice = {}
    for table, key in keys.items():
        if key is not None and key in tables[table] and (table, key) not in unique:
            value = (await tx.execute(_twice(table, key))).scalar()
            if value is not None:
                twice[table, key] = value
    return Catalog(
        places=places,
        tables={name: columns for name, columns in tables.items() if columns},
        indexed=frozenset((row.table_name, row.column_name) for row in whole),
        unique=unique,
        twice=twice,
        names={row.name: row.is_whole for row in indexes},
    )


def _twice(table: str, column: str) -> TextClause:
    """A value that stands twice in a column."""
    return text(
        f"SELECT CAST({column} AS text) FROM {table} WHERE {column} IS NOT NULL"
        f" GROUP BY {column} HAVING count(*) > 1 LIMIT 1"
    )
