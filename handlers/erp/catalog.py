"""The existing tables, columns and indexes of the ERP's database, read before `runbook db adopt` adds to them."""

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
"""Relations that are no tables: rows cannot be written to them. The keys are pg_class.relkind."""


@dataclass(frozen=True, kw_only=True)
class ExistingColumn:
    """A column as it is in the database."""

    type_name: str
    not_null: bool
    has_default: bool
    full_type: str = ""
    """The type with its precision, such as `numeric(10,2)`."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """The relation that has a table's name."""

    kind: str | None
    """Its pg_class.relkind; None when the search path has no relation of this name."""
    owner: str | None
    is_ours: bool
    """Whether our role has the rights of its owner."""
    elsewhere: str | None
    """Relations of the same name outside the search path, when there is none on it."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The existing relations, columns and indexes. An index is listed by its first column."""

    relations: dict[str, Relation]
    tables: dict[str, dict[str, ExistingColumn]]
    indexed: frozenset[tuple[str, str]]
    unique: frozenset[tuple[str, str]]
    duplicates: dict[tuple[str, str], str]
    """For columns that must become unique: a duplicate value."""
    index_is_valid: dict[str, bool]
    """Every index of these tables by name. It is invalid when its creation was interrupted."""


async def read_catalog(tx: AsyncConnection, keys: Mapping[str, str | None]) -> Catalog:
    """Read the catalog of the tables in *keys*, which maps each to the column that must be unique."""
    names = {"tables": list(keys)}
    relations = {
        row.name: Relation(kind=row.kind, owner=row.owner, is_ours=bool(row.is_ours), elsewhere=row.elsewhere)
        for row in await tx.execute(_SQL["places"], names)
    }
    tables: dict[str, dict[str, ExistingColumn]] = defaultdict(dict)
    for row in await tx.execute(_SQL["columns"], names):
        tables[row.table_name][row.column_name] = ExistingColumn(
            type_name=row.type_name,
            not_null=row.not_null,
            has_default=row.has_default,
            full_type=row.full_type,
        )
    indexes = (await tx.execute(_SQL["indexes"], names)).all()
    usable = [row for row in indexes if row.is_whole and not row.is_partial]
    unique = frozenset((row.table_name, row.column_name) for row in usable if row.is_unique)
    duplicates = {}
    for table, key in keys.items():
        if key is not None and key in tables[table] and (table, key) not in unique:
            value = (await tx.execute(_duplicate(table, key))).scalar()
            if value is not None:
                duplicates[table, key] = value
    return Catalog(
        relations=relations,
        tables={name: columns for name, columns in tables.items() if columns},
        indexed=frozenset((row.table_name, row.column_name) for row in usable),
        unique=unique,
        duplicates=duplicates,
        index_is_valid={row.name: row.is_whole for row in indexes},
    )


def _duplicate(table: str, column: str) -> TextClause:
    """A query for one duplicate value of a column."""
    return text(
        f"SELECT CAST({column} AS text) FROM {table} WHERE {column} IS NOT NULL"
        f" GROUP BY {column} HAVING count(*) > 1 LIMIT 1"
    )
