"""Taking over the ERP's tables: what the handlers need beside what is there, added and never changed.

The statements are generated from the same declarations as the writes. They can be repeated: a second
adoption of the same database has nothing to do. Nothing is dropped or renamed, and no type is changed; the
two things that touch what is there are making a column nullable that the source may leave blank, and giving
a default to one that the ERP always filled with the same constant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database import begin, said, sqlstate
from handlers.entities import HANDLERS, Handlers
from handlers.entities.spec import Child, Table
from handlers.entities.statements import SYNC_COLUMNS, pg_type
from handlers.errors import Refused, TryAgain
from handlers.sql import queries

_TEXTS = frozenset({"text", "varchar", "bpchar"})
_WHOLE = frozenset({"int2", "int4", "int8"})
_FITS: dict[str, frozenset[str]] = {
    "text": _TEXTS,
    "numeric": frozenset({"numeric", "float4", "float8"}) | _WHOLE,
    "integer": frozenset({"numeric", "float8"}) | _WHOLE | _TEXTS,
    "bigint": _WHOLE | {"numeric"},
    "boolean": frozenset({"bool"}),
    "date": frozenset({"date", "timestamp", "timestamptz"}),
    "timestamptz": frozenset({"timestamp", "timestamptz"}),
    "jsonb": frozenset({"jsonb", "json"}) | _TEXTS,
}
"""Which types of column can take what we write, by an assignment that PostgreSQL makes itself."""

_CONSTANTS: dict[tuple[str, str], str] = {
    ("sales_orders", "branch_id"): "1",
    ("sales_orders", "warehouse_id"): "1",
    ("sales_orders", "created_by"): "1",
    ("sales_orders", "payment_status"): "'PENDING'",
    ("sales_orders", "paid_amount"): "0",
    ("sales_orders", "tax_percentage"): "0",
    ("invoice_payments", "currency_id"): "1",
    ("invoice_payments", "created_by"): "1",
}
"""What the ERP's own handlers put into columns that the source knows nothing of. It becomes their default,
where they need one, and is never written to a row that is there."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """A column as it is in the database."""

    type_name: str
    not_null: bool
    has_default: bool


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What the database has: columns by table, and the columns that lead an index."""

    tables: dict[str, dict[str, Existing]]
    indexed: frozenset[tuple[str, str]]
    unique: frozenset[tuple[str, str]]
    twice: dict[tuple[str, str], str]
    """For columns that must be unique and are not yet: a value that stands twice."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A table as the declarations want it."""

    name: str
    columns: dict[str, str]
    """Our columns and their types, in order."""
    key: str | None = None
    """The column that must be unique."""
    link: str | None = None
    """The column by which lines are found, which must be indexed."""
    parent: str | None = None


async def adopt(engine: AsyncEngine, *, dry_run: bool = False, handlers: Handlers = HANDLERS) -> list[str]:
    """Add what is missing, in one transaction, and give the statements; with *dry_run* only give them.

    Raises Refused, and changes nothing, where a table is made in a way that the handlers cannot write to.
    """
    async with begin(engine) as tx:
        await tx.execute(queries("adopt")["one_at_a_time"])
        statements = ddl(await read_catalog(tx, handlers), handlers)
        if not dry_run:
            for statement in statements:
                await _run(tx, statement)
    return statements


async def _run(tx: AsyncConnection, statement: str) -> None:
    try:
        await tx.execute(text(statement))
    except DBAPIError as error:
        first = statement.partition("\n")[0]
        if sqlstate(error) == "55P03":
            raise TryAgain(f"the application holds a table too long, nothing was changed: {first}") from error
        if sqlstate(error) == "42501":
            raise Refused(f"{said(error)}: adopt as the role that owns the ERP's tables ({first})") from error
        raise


async def read_catalog(tx: AsyncConnection, handlers: Handlers = HANDLERS) -> Catalog:
    """Read what the database has of the tables that the handlers write."""
    names = {"tables": [wanted.name for wanted in _wanted(handlers)]}
    tables: dict[str, dict[str, Existing]] = defaultdict(dict)
    for row in await tx.execute(queries("adopt")["columns"], names):
        tables[row.table_name][row.column_name] = Existing(
            type_name=row.type_name, not_null=row.not_null, has_default=row.has_default
        )
    indexes = (await tx.execute(queries("adopt")["indexes"], names)).all()
    unique = frozenset((row.table_name, row.column_name) for row in indexes if row.is_unique)
    twice = {}
    for wanted in _wanted(handlers):
        key = wanted.key
        if key is not None and key in tables[wanted.name] and (wanted.name, key) not in unique:
            value = (await tx.execute(_twice(wanted.name, key))).scalar()
            if value is not None:
                twice[wanted.name, key] = value
    return Catalog(
        tables={name: columns for name, columns in tables.items() if columns},
        indexed=frozenset((row.table_name, row.column_name) for row in indexes),
        unique=unique,
        twice=twice,
    )


def _twice(table: str, column: str) -> TextClause:
    """A value that stands twice in a column."""
    return text(
        f"SELECT CAST({column} AS text) FROM {table} WHERE {column} IS NOT NULL"
        f" GROUP BY {column} HAVING count(*) > 1 LIMIT 1"
    )


def ddl(catalog: Catalog, handlers: Handlers = HANDLERS) -> list[str]:
    """The statements that *catalog* needs. Raises Refused, naming everything that cannot be adopted."""
    obstacles: list[str] = []
    statements: list[str] = []
    for wanted in _wanted(handlers):
        there = catalog.tables.get(wanted.name)
        if there is None:
            statements.append(_create(wanted))
        else:
            obstacles += _obstacles(wanted, there)
            statements += _extend(wanted, there)
        name = wanted.name
        if wanted.key is not None and (name, wanted.key) not in catalog.unique:
            statements.append(
                f"CREATE UNIQUE INDEX IF NOT EXISTS uq_{name}_{wanted.key} ON {name} ({wanted.key})"
            )
        if wanted.link is not None and (name, wanted.link) not in catalog.indexed:
            statements.append(f"CREATE INDEX IF NOT EXISTS ix_{name}_{wanted.link} ON {name} ({wanted.link})")
    for (table, column), value in catalog.twice.items():
        obstacles.append(f"{table}.{column} must be unique, but {value} stands twice: decide which row is it")
    if obstacles:
        raise Refused("these tables cannot be adopted as they are: " + "; ".join(obstacles))
    return statements


def _wanted(handlers: Handlers) -> Iterable[_Wanted]:
    for handler in handlers.values():
        table = handler.table
        yield _wanted_table(table)
        for child in table.children:
            yield _wanted_child(child, table)


def _wanted_table(table: Table) -> _Wanted:
    columns = {table.key: "text", **{column.name: pg_type(column) for column in table.columns}}
    return _Wanted(
        name=table.name, columns={**columns, **dict(SYNC_COLUMNS), "updated_at": "timestamptz"}, key=table.key
    )


def _wanted_child(child: Child, table: Table) -> _Wanted:
    columns = {child.link: "bigint", **{column.name: pg_type(column) for column in child.columns}}
    return _Wanted(name=child.name, columns=columns, link=child.link, parent=table.name)


def _create(wanted: _Wanted) -> str:
    parts = ["id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"]
    for name, type_name in wanted.columns.items():
        never_null = " NOT NULL" if name in (wanted.key, wanted.link) else ""
        parts.append(f"{name} {type_name}{never_null}")
    return f"CREATE TABLE IF NOT EXISTS {wanted.name} (\n    " + ",\n    ".join(parts) + "\n)"


def _extend(wanted: _Wanted, there: dict[str, Existing]) -> list[str]:
    """Add columns that are missing, and let those be NULL that the source may leave blank."""
    changes = [
        f"ADD COLUMN IF NOT EXISTS {name} {type_name}"
        for name, type_name in wanted.columns.items()
        if name not in there
    ]
    changes += [
        f"ALTER COLUMN {name} DROP NOT NULL"
        for name in wanted.columns
        if name in there and there[name].not_null and name not in (wanted.key, wanted.link)
    ]
    for name, column in there.items():
        constant = _default(wanted.name, name)
        if name not in wanted.columns and column.not_null and not column.has_default and constant is not None:
            changes.append(f"ALTER COLUMN {name} SET DEFAULT {constant}")
    return [f"ALTER TABLE {wanted.name}\n    " + ",\n    ".join(changes)] if changes else []


def _default(table: str, column: str) -> str | None:
    return "now()" if column == "created_at" else _CONSTANTS.get((table, column))


def _obstacles(wanted: _Wanted, there: dict[str, Existing]) -> list[str]:
    """What stands in the way of writing to a table, each as a sentence."""
    found = []
    own = there.get("id")
    if own is None or own.type_name not in _WHOLE or not own.has_default:
        found.append(f"{wanted.name}.id must be a whole number that the database gives by itself")
    for name, type_name in wanted.columns.items():
        column = there.get(name)
        if column is not None and column.type_name not in _FITS[type_name]:
            found.append(
                f"{wanted.name}.{name} is {column.type_name}, and {type_name} cannot be written to it"
            )
    for name, column in there.items():
        unfilled = column.not_null and not column.has_default and name not in wanted.columns and name != "id"
        if unfilled and _default(wanted.name, name) is None:
            found.append(f"{wanted.name}.{name} must not be NULL and no payload fills it: give it a default")
    return found
