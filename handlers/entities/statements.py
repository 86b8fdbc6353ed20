"""The SQL for a table, generated from its declaration: dynamic only in names that we declared ourselves.

Rows are sent as one text array for each column, and the server unpacks and casts them. Inserts go in key order to
avoid deadlocks between workers with the same keys.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy import TextClause, text

from handlers.entities.rows import RowStatement, unnest
from handlers.entities.spec import Child, Column, Table

SYNC_COLUMNS: tuple[tuple[str, str], ...] = (
    ("zoho_data", "jsonb"),
    ("zoho_modified_at", "timestamptz"),
    ("zoho_deleted_at", "timestamptz"),
    ("zoho_versions", "jsonb"),
    ("zoho_shape", "text"),
    ("synced_at", "timestamptz"),
)
"""On every entity's table: the raw record, the stamp of its newest version, when it was deleted at the
source, which keys come from older versions, a digest of the set of keys, and when its newest version first arrived
(`updated_at` says when we last wrote the row)."""

EXTRA = ("event", "raw", "path", "stamp", "deleted", "versions", "shape", "arrived")
"""Extra values of each row; the raw record is extracted by its path from the event's payload, or from a text."""

_SENT = "CAST(u.raw AS jsonb) #> CAST(u.path AS text[])"
_COPIED = (
    # The empty path would unpack the record, and it would be packed again.
    f"CASE WHEN u.event IS NULL THEN {_SENT}"
    " WHEN u.path = '{}' THEN (SELECT q.validated_payload FROM tds_sync_queue q WHERE q.id = CAST(u.event AS uuid))"
    " ELSE (SELECT q.validated_payload #> CAST(u.path AS text[]) FROM tds_sync_queue q"
    " WHERE q.id = CAST(u.event AS uuid)) END"
)


def _extra_values(*, copies: bool) -> tuple[str, ...]:
    """The values of `SYNC_COLUMNS`. With *copies* a raw record is copied inside the server where the queue has it."""
    return (
        _COPIED if copies else _SENT,
        "CAST(u.stamp AS timestamptz)",
        "CAST(u.deleted AS timestamptz)",
        "CAST(u.versions AS jsonb)",
        "u.shape",
        "CAST(u.arrived AS timestamptz)",
    )


NOW = text("SELECT now()")
"""The database's time, asked only for a stamp that may be in the future."""


def pg_type(column: Column) -> str:
    """The PostgreSQL type of a column; the ERP's own ids are bigint."""
    return "bigint" if column.local else column.kind.pg_type


def names_of(table: Table) -> list[str]:
    """The parameter names of a table's statements, in the order of a row's values."""
    return ["key", *(f"c{at}" for at in range(len(table.columns))), *EXTRA]


def _values(table: Table, missing: frozenset[int] = frozenset()) -> list[str]:
    return [
        f"CAST({'NULL' if at in missing else f'u.c{at}'} AS {pg_type(column)})"
        for at, column in enumerate(table.columns)
    ]


def _sent(table: Table, missing: frozenset[int]) -> list[str]:
    return [name for at, name in enumerate(names_of(table)) if at - 1 not in missing]


@cache
def insert(table: Table, missing: frozenset[int], *, copies: bool) -> RowStatement:
    """Insert new rows. A row that another worker inserted first is kept, and must be read again.

    Columns without a value in any row are not sent; they become NULL, not the ERP's default.
    """
    targets = [table.key, *(column.name for column in table.columns), *(name for name, _ in SYNC_COLUMNS)]
    values = ["u.key", *_values(table, missing), *_extra_values(copies=copies)]
    return RowStatement(
        sql=(
            f"INSERT INTO {table.name} ({', '.join(targets)}, updated_at)\n"
            f"SELECT {', '.join(values)}, now()\n"
            "FROM {rows}\n"
            f"ON CONFLICT ({table.key}) DO NOTHING"
        ),
        names=_sent(table, missing),
        returning=f"{table.key} AS key, CAST(id AS text) AS id",
    )


@cache
def update(table: Table, missing: frozenset[int], *, copies: bool) -> RowStatement:
    """Update rows that we have locked, except the columns that the record does not set."""
    values = _values(table)
    pairs = [
        *(f"{column.name} = {values[at]}" for at, column in enumerate(table.columns) if at not in missing),
        *(
            f"{name} = {value}"
            for (name, _), value in zip(SYNC_COLUMNS, _extra_values(copies=copies), strict=True)
        ),
    ]
    return RowStatement(
        sql=(
            f"UPDATE {table.name} t SET {', '.join(pairs)}, updated_at = now()\n"
            "FROM {rows}\n"
            f"WHERE t.{table.key} = u.key"
        ),
        names=_sent(table, missing),
    )


@cache
def read(table: Table, unique: tuple[int, ...] = ()) -> TextClause:
    """Lock and read the rows of some keys, in key order, with the columns at the positions *unique*.

    A row is *covered* if the new version has the same keys and another stamp: then the stamps alone decide, and the
    stored record is not sent. FOR NO KEY UPDATE still lets other transactions reference the row. Otherwise two workers
    that each lock a product and reference the other one could deadlock.
    """
    covered = (
        "coalesce(t.zoho_shape = n.shape AND t.zoho_versions IS NULL AND t.zoho_deleted_at IS NULL"
        " AND t.zoho_modified_at <> CAST(n.stamp AS timestamptz), false)"
    )
    numbers = "".join(f", CAST(t.{table.columns[at].name} AS text) AS c{at}" for at in unique)
    return text(
        f"SELECT t.{table.key} AS key, CAST(t.id AS text) AS id, t.zoho_modified_at AS stamp{numbers},\n"
        f"    t.synced_at AS arrived, t.zoho_deleted_at AS deleted_at, {covered} AS covered,\n"
        f"    CASE WHEN NOT {covered} THEN CAST(t.zoho_data AS text) END AS data,\n"
        f"    CASE WHEN NOT {covered} THEN CAST(t.zoho_versions AS text) END AS versions\n"
        "FROM unnest(CAST(:key AS text[]), CAST(:stamp AS text[]), CAST(:shape AS text[]))"
        " AS n (key, stamp, shape)\n"
        f"JOIN {table.name} t ON t.{table.key} = n.key\n"
        f"ORDER BY t.{table.key} FOR NO KEY UPDATE OF t"
    )


@cache
def holders(table: Table, unique: tuple[int, ...]) -> TextClause:
    """The records that have some numbers now: the values of the columns at the positions *unique*."""
    named = {at: table.columns[at] for at in unique}
    arrays = ", ".join(f"CAST(:c{at} AS text[])" for at in named)
    equal = " AND ".join(
        f"t.{column.name} = CAST(n.c{at} AS {pg_type(column)})" for at, column in named.items()
    )
    return text(
        f"SELECT t.{table.key} AS key, {', '.join(f'n.c{at}' for at in named)}\n"
        f"FROM unnest({arrays}) AS n ({', '.join(f'c{at}' for at in named)})\n"
        f"JOIN {table.name} t ON {equal}"
    )


@cache
def give_up(table: Table, at: int) -> TextClause:
    """Free the numbers in one column of some records, so that others of the batch can take them."""
    return text(
        f"UPDATE {table.name} t SET {table.columns[at].name} = NULL\n"
        f"FROM unnest(CAST(:key AS text[])) AS n (key) WHERE t.{table.key} = n.key"
    )


@cache
def recognise(table: Table) -> TextClause:
    """Set the source's id in rows of the old code, found by the natural key."""
    return text(
        f"UPDATE {table.name} t SET {table.key} = n.key\n"
        "FROM unnest(CAST(:key AS text[]), CAST(:natural AS text[])) AS n (key, natural_key)\n"
        f"WHERE t.{table.natural_key} = n.natural_key AND t.{table.key} IS NULL\n"
        f"RETURNING t.{table.key} AS key"
    )


@cache
def ids(table: Table) -> TextClause:
    """The ERP's own ids of parent records, including deleted ones."""
    return text(
        f"SELECT {table.key} AS key, CAST(id AS text) AS id FROM {table.name}\n"
        f"WHERE {table.key} = ANY(CAST(:key AS text[]))"
    )


@cache
def delete_lines(child: Child) -> TextClause:
    """Delete the lines of some records, before they are inserted again."""
    return text(f"DELETE FROM {child.name} WHERE {child.link} = ANY(CAST(:ids AS bigint[]))")


@cache
def insert_lines(child: Child) -> RowStatement:
    """Insert the lines of many records at once."""
    targets = [child.link, *(column.name for column in child.columns)]
    values = [f"CAST(u.c{at} AS {pg_type(column)})" for at, column in enumerate(child.columns)]
    names = ["link", *(f"c{at}" for at in range(len(child.columns)))]
    return RowStatement(
        sql=(
            f"INSERT INTO {child.name} ({', '.join(targets)})\n"
            f"SELECT CAST(u.link AS bigint), {', '.join(values)}\n"
            "FROM {rows}"
        ),
        names=names,
    )


@cache
def project(table: Table) -> TextClause:
    """Rows as JSON objects, as they would be stored, without writing them."""
    values = [f"u.key AS {table.key}"]
    values += [
        f"{value} AS {column.name}" for column, value in zip(table.columns, _values(table), strict=True)
    ]
    values += [
        f"{value} AS {name}"
        for (name, _), value in zip(SYNC_COLUMNS, _extra_values(copies=False), strict=True)
    ]
    return text(
        f"SELECT CAST(to_jsonb(r) AS text)\n"
        f"FROM (SELECT {', '.join(values)} FROM {unnest(names_of(table))}) r"
    )


@cache
def project_lines(child: Child) -> TextClause:
    """Lines as JSON objects, as they would be stored, without writing them."""
    values = [
        f"CAST(u.c{at} AS {pg_type(column)}) AS {column.name}" for at, column in enumerate(child.columns)
    ]
    names = ["link", *(f"c{at}" for at in range(len(child.columns)))]
    return text(f"SELECT CAST(to_jsonb(r) AS text) FROM (SELECT {', '.join(values)} FROM {unnest(names)}) r")


@cache
def row(table: Table) -> TextClause:
    """One whole row as a JSON object, the ERP's own columns included."""
    return text(f"SELECT CAST(to_jsonb(t) AS text) FROM {table.name} t WHERE t.{table.key} = :key")


@cache
def remove(table: Table) -> TextClause:
    """Delete one row. Only of the synthetic record: everything else of the ERP is soft-deleted."""
    return text(f"DELETE FROM {table.name} WHERE {table.key} = :key")


@cache
def rows_of(child: Child, key_table: Table) -> TextClause:
    """The stored lines of one record as JSON objects, in their order."""
    return text(
        f"SELECT CAST(to_jsonb(l) AS text)\n"
        f"FROM {child.name} l JOIN {key_table.name} t ON l.{child.link} = t.id\n"
        f"WHERE t.{key_table.key} = :key ORDER BY l.line_no, l.id"
    )


@cache
def known(table: Table) -> TextClause:
    """The stored records of :keys, whole, without locking them."""
    return text(
        f"SELECT {table.key} AS key, zoho_modified_at AS stamp, zoho_deleted_at AS deleted_at,"
        f" CAST(zoho_data AS text) AS data FROM {table.name} WHERE {table.key} = ANY (CAST(:keys AS text[]))"
    )


@cache
def keys_after(table: Table) -> TextClause:
    """The next :limit source ids after :after, of records that are not deleted."""
    return text(
        f"SELECT {table.key} AS key FROM {table.name}"
        f" WHERE {table.key} > :after AND zoho_deleted_at IS NULL ORDER BY {table.key} LIMIT :limit"
    )


@cache
def records(table: Table) -> TextClause:
    """The number of records that are not deleted."""
    return text(f"SELECT count({table.key}) FROM {table.name} WHERE zoho_deleted_at IS NULL")
