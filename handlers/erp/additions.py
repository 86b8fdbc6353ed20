"""The statements that add to the ERP's tables what the handlers need beside what is there.

They are generated from the same declarations as the writes. Nothing is dropped or renamed, and no type is changed; the
two things that touch what is there are making a column nullable that the source may leave blank, and giving
a default to one that the ERP always filled with the same constant. No statement rewrites a table.
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


QUEUE = "tds_sync_queue"
_QUEUE_INDEX = "ix_tds_sync_queue_waiting_for"
"""By it a parent finds the events that wait for it; without it they are all read, which is slower and no less right."""


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


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """One statement, and the table that it touches."""

    table: str
    statement: str

    @property
    def waits_for_all(self) -> bool:
        """It holds up nobody, and ends only when every transaction that is open now has ended: such come last."""
        return "INDEX CONCURRENTLY" in self.statement


def keys(handlers: Handlers) -> dict[str, str | None]:
    """Every table that the core writes, with the column of each that must be unique."""
    return {**{wanted.name: wanted.key for wanted in _wanted(handlers)}, QUEUE: None}


def ddl(catalog: Catalog, handlers: Handlers = HANDLERS) -> list[SchemaChange]:
    """The statements that *catalog* needs. Raises Refused, naming everything that cannot be adopted."""
    obstacles: list[str] = []
    changes: list[SchemaChange] = []
    for wanted in _wanted(handlers):
        name = wanted.name
        place = catalog.places[name]
        there = catalog.tables.get(name)
        if place.elsewhere is not None:
            obstacles.append(
                f"{name} is not on the search path, but there is {place.elsewhere}: put its schema there"
            )
        elif place.kind in KINDS:
            obstacles.append(f"{name} is {KINDS[place.kind]}: rows can only be written to a table")
        elif there is None:
            changes.append(SchemaChange(table=name, statement=_create(wanted)))
        else:
            obstacles += _obstacles(wanted, there)
            changes += [SchemaChange(table=name, statement=statement) for statement in _extend(wanted, there)]
        if wanted.key is not None and (name, wanted.key) not in catalog.unique:
            changes.append(
                _index(catalog, name, f"uq_{name}_{wanted.key}", f"({wanted.key})", unique="UNIQUE ")
            )
            if place.kind == "p":
                obstacles.append(
                    f"{name} is partitioned and {wanted.key} not unique: make that index yourself"
                )
        if wanted.link is not None and (name, wanted.link) not in catalog.indexed:
            changes.append(_index(catalog, name, f"ix_{name}_{wanted.link}", f"({wanted.link})"))
    changes += _queue_index(catalog)
    for (table, column), value in catalog.twice.items():
        obstacles.append(f"{table}.{column} must be unique, but {value} stands twice: decide which row is it")
    if obstacles:
        raise Refused("these tables cannot be adopted as they are: " + "; ".join(obstacles))
    return sorted(changes, key=lambda change: change.waits_for_all)


def _index(catalog: Catalog, table: str, name: str, on: str, unique: str = "") -> SchemaChange:
    """Make an index, beside the application's writes where the table is there already, or finish one cut short."""
    if catalog.names.get(name) is False:
        return SchemaChange(table=table, statement=f"REINDEX INDEX CONCURRENTLY {name}")
    beside = "CONCURRENTLY " if catalog.places[table].kind == "r" else ""
    return SchemaChange(
        table=table, statement=f"CREATE {unique}INDEX {beside}IF NOT EXISTS {name} ON {table} {on}"
    )


def _queue_index(catalog: Catalog) -> list[SchemaChange]:
    """The one thing that the queue gets: only over events that wait for a parent, so that others hardly pay for it."""
    result = catalog.tables.get(QUEUE, {}).get("processing_result")
    possible = catalog.places[QUEUE].kind == "r" and result is not None and result.type_name == "jsonb"
    if not possible or catalog.names.get(_QUEUE_INDEX):
        return []
    on = "USING gin ((processing_result -> 'parents')) WITH (fastupdate = off) WHERE error_code = 'missing_parent'"
    return [_index(catalog, QUEUE, _QUEUE_INDEX, on)]


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


def _extend(wanted: _Wanted, there: dict[str, ExistingColumn]) -> list[str]:
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


def _obstacles(wanted: _Wanted, there: dict[str, ExistingColumn]) -> list[str]:
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
