"""The DDL that adds to the ERP's tables what the handlers need.

It is generated from the same declarations as the writes. Nothing is dropped or renamed, no type is changed and no table
is rewritten. Only two statements change existing columns. One drops NOT NULL where the source may leave a field blank.
The other sets a default where the ERP always wrote the same constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handlers.entities.base import Handlers
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Child, Table
from handlers.entities.statements import SYNC_COLUMNS, pg_type
from handlers.erp.catalog import KINDS, Catalog, ExistingColumn
from handlers.errors import Refused

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
"""The column types that accept each type that we write, by PostgreSQL's assignment casts."""

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
"""The constants that the ERP's own handlers write into columns that the source does not have. They become defaults
where one is needed, and never change an existing row."""


QUEUE = "tds_sync_queue"
_WAITING_INDEX = "ix_tds_sync_queue_waiting_for"
_QUEUE_INDEXES = {
    "ix_tds_sync_queue_pending": "(priority, created_at, id) WHERE status = 'pending'",
    "ix_tds_sync_queue_retries": "(next_retry_at, created_at, id) WHERE status = 'retry'",
    # By it a parent finds the events that wait for it.
    _WAITING_INDEX: "USING gin ((processing_result -> 'parents')) WITH (fastupdate = off)"
    " WHERE error_code = 'missing_parent'",
}
"""Partial indexes of the queue: without them a claim still works, and reads more."""


@dataclass(frozen=True, kw_only=True)
class _WantedTable:
    """A table as it is declared."""

    name: str
    columns: dict[str, str]
    """Our columns and their types, in order."""
    key: str | None = None
    """The column that must be unique."""
    link: str | None = None
    """The column of a child table that refers to the parent. It must be indexed."""
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """One statement, and the table that it changes."""

    table: str
    statement: str

    @property
    def waits_for_transactions(self) -> bool:
        """CREATE INDEX CONCURRENTLY waits for all open transactions and blocks no writes; such statements run last."""
        return "INDEX CONCURRENTLY" in self.statement


def keys(handlers: Handlers) -> dict[str, str | None]:
    """Every table that the handlers write, with the column that must be unique; None for a table without one."""
    return {**{wanted.name: wanted.key for wanted in _wanted(handlers)}, QUEUE: None}


def ddl(catalog: Catalog, handlers: Handlers = HANDLERS) -> list[SchemaChange]:
    """The statements that the database of *catalog* needs. Raises Refused with every obstacle, if there are any."""
    obstacles: list[str] = []
    changes: list[SchemaChange] = []
    for wanted in _wanted(handlers):
        name = wanted.name
        relation = catalog.relations[name]
        existing = catalog.tables.get(name)
        if relation.elsewhere is not None:
            obstacles.append(
                f"{name} is not on the search path, but there is {relation.elsewhere}: add its schema to search_path"
            )
        elif relation.kind in KINDS:
            obstacles.append(f"{name} is {KINDS[relation.kind]}: rows can only be written to a table")
        elif existing is None:
            changes.append(SchemaChange(table=name, statement=_create(wanted)))
        else:
            obstacles += _obstacles(wanted, existing)
            changes += [
                SchemaChange(table=name, statement=statement) for statement in _extend(wanted, existing)
            ]
        if wanted.key is not None and (name, wanted.key) not in catalog.unique:
            changes.append(
                _index(catalog, name, f"uq_{name}_{wanted.key}", f"({wanted.key})", unique="UNIQUE ")
            )
            if relation.kind == "p":
                obstacles.append(
                    f"{name} is partitioned and {wanted.key} is not unique: create a unique index on it yourself"
                )
        if wanted.link is not None and (name, wanted.link) not in catalog.indexed:
            changes.append(_index(catalog, name, f"ix_{name}_{wanted.link}", f"({wanted.link})"))
    changes += _queue_indexes(catalog)
    for (table, column), value in catalog.duplicates.items():
        obstacles.append(
            f"{table}.{column} must be unique, but {value} is a duplicate: keep only one of its rows"
        )
    if obstacles:
        raise Refused("these tables cannot be adopted as they are: " + "; ".join(obstacles))
    return sorted(changes, key=lambda change: change.waits_for_transactions)


def _index(catalog: Catalog, table: str, name: str, on: str, unique: str = "") -> SchemaChange:
    """Create an index, concurrently where the table exists. An invalid one is rebuilt: its creation was interrupted."""
    if catalog.index_is_valid.get(name) is False:
        return SchemaChange(table=table, statement=f"REINDEX INDEX CONCURRENTLY {name}")
    concurrently = "CONCURRENTLY " if catalog.relations[table].kind == "r" else ""
    return SchemaChange(
        table=table, statement=f"CREATE {unique}INDEX {concurrently}IF NOT EXISTS {name} ON {table} {on}"
    )


def _queue_indexes(catalog: Catalog) -> list[SchemaChange]:
    """The only changes of the queue: partial indexes over the few events that are in a state."""
    result = catalog.tables.get(QUEUE, {}).get("processing_result")
    if catalog.relations[QUEUE].kind != "r" or result is None:
        return []
    return [
        _index(catalog, QUEUE, name, on)
        for name, on in _QUEUE_INDEXES.items()
        if not catalog.index_is_valid.get(name) and (name != _WAITING_INDEX or result.type_name == "jsonb")
    ]


def _wanted(handlers: Handlers) -> Iterable[_WantedTable]:
    for handler in handlers.values():
        table = handler.table
        yield _wanted_table(table)
        for child in table.children:
            yield _wanted_child(child, table)


def _wanted_table(table: Table) -> _WantedTable:
    columns = {table.key: "text", **{column.name: pg_type(column) for column in table.columns}}
    return _WantedTable(
        name=table.name, columns={**columns, **dict(SYNC_COLUMNS), "updated_at": "timestamptz"}, key=table.key
    )


def _wanted_child(child: Child, table: Table) -> _WantedTable:
    columns = {child.link: "bigint", **{column.name: pg_type(column) for column in child.columns}}
    return _WantedTable(name=child.name, columns=columns, link=child.link, parent=table.name)


def _create(wanted: _WantedTable) -> str:
    parts = ["id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"]
    for name, type_name in wanted.columns.items():
        never_null = " NOT NULL" if name in (wanted.key, wanted.link) else ""
        parts.append(f"{name} {type_name}{never_null}")
    return f"CREATE TABLE IF NOT EXISTS {wanted.name} (\n    " + ",\n    ".join(parts) + "\n)"


def _extend(wanted: _WantedTable, existing: dict[str, ExistingColumn]) -> list[str]:
    """Add missing columns, drop NOT NULL where the source may leave a field blank, and set defaults."""
    changes = [
        f"ADD COLUMN IF NOT EXISTS {name} {type_name}"
        for name, type_name in wanted.columns.items()
        if name not in existing
    ]
    changes += [
        f"ALTER COLUMN {name} DROP NOT NULL"
        for name in wanted.columns
        if name in existing and existing[name].not_null and name not in (wanted.key, wanted.link)
    ]
    for name, column in existing.items():
        constant = _default(wanted.name, name)
        if name not in wanted.columns and column.not_null and not column.has_default and constant is not None:
            changes.append(f"ALTER COLUMN {name} SET DEFAULT {constant}")
    return [f"ALTER TABLE {wanted.name}\n    " + ",\n    ".join(changes)] if changes else []


def _default(table: str, column: str) -> str | None:
    return "now()" if column == "created_at" else _CONSTANTS.get((table, column))


def _obstacles(wanted: _WantedTable, existing: dict[str, ExistingColumn]) -> list[str]:
    """Why the handlers cannot write to an existing table, one sentence for each obstacle."""
    obstacles = []
    id_column = existing.get("id")
    if id_column is None or id_column.type_name not in _WHOLE or not id_column.has_default:
        obstacles.append(f"{wanted.name}.id must be an integer with a default (identity or sequence)")
    for name, type_name in wanted.columns.items():
        column = existing.get(name)
        if column is not None and column.type_name not in _FITS[type_name]:
            obstacles.append(
                f"{wanted.name}.{name} is {column.type_name}, and {type_name} cannot be written to it"
            )
    for name, column in existing.items():
        unfilled = column.not_null and not column.has_default and name not in wanted.columns and name != "id"
        if unfilled and _default(wanted.name, name) is None:
            obstacles.append(
                f"{wanted.name}.{name} must not be NULL and no payload fills it: give it a default"
            )
    return obstacles
