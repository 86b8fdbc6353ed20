"""The single statement that bounds every worker: claim, map, upsert and complete in SQL alone, in one transaction.

It is generated from the handlers' own declarations, so that it fills the same columns, but it does nothing of what a
worker owes beyond speed: no strict reading (a bad value fails its whole batch), no lease that others can see, no
order of events, no missing parents, no versions of single keys.
"""

from __future__ import annotations

from handlers.entities.base import Handler
from handlers.entities.kinds.items import PRODUCT
from handlers.entities.parse import BOOLEAN, INSTANT, NUMBER, TEXT
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Child, Column, Table, column, columns
from handlers.entities.statements import SYNC_COLUMNS, pg_type
from handlers.queue.event import EntityType

NARROW = Handler(
    entity=EntityType.PRODUCT,
    id_keys=PRODUCT.id_keys,
    wrappers=PRODUCT.wrappers,
    table=Table(
        name="bench_products",
        key="zoho_item_id",
        columns=(
            *columns("name sku description", TEXT),
            column("price", NUMBER, "rate"),
            *columns("stock_on_hand available_stock purchase_rate", NUMBER),
            *columns("unit item_type product_type status brand", TEXT),
            *columns("is_taxable", BOOLEAN),
            *columns("created_time last_modified_time", INSTANT),
        ),
    ),
)
"""A product of fifteen columns in a table of its own: what the facts about queues were measured with."""

NARROW_HANDLERS = {**HANDLERS, EntityType.PRODUCT: NARROW}

NARROW_TABLE = (
    "CREATE TABLE bench_products (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, zoho_item_id text UNIQUE, "
    + ", ".join(f"{one.name} {pg_type(one)}" for one in NARROW.table.columns)
    + ", "
    + ", ".join(f"{name} {kind}" for name, kind in SYNC_COLUMNS)
    + ", updated_at timestamptz, CHECK (price >= 0))",
    "CREATE INDEX ON bench_products (sku)",
)

_CLAIMED = """
claimed AS MATERIALIZED (
    SELECT q.id, q.source_entity_id AS key, q.validated_payload AS p
    FROM tds_sync_queue q
    WHERE q.status = 'pending'
    ORDER BY q.priority, q.created_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)"""

_COMPLETED = """
UPDATE tds_sync_queue q
SET status = 'completed', attempt_count = q.attempt_count + 1, started_at = now(), completed_at = clock_timestamp(),
    target_entity_id = w.id::text, processing_result = jsonb_build_object('outcome', 'applied', 'worker', 'floor')
FROM claimed c
JOIN written w ON w.key = c.key
WHERE q.id = c.id"""


def drain(handler: Handler, *, whole: bool) -> str:
    """Settle up to $1 pending events of one kind. *whole* keeps the raw record and writes lines, as a worker does."""
    table = handler.table
    steps = [
        _CLAIMED,
        f"written AS (\n{_upsert(table, whole=whole)}\n    RETURNING t.id, t.{table.key} AS key\n)",
    ]
    if whole:
        for number, child in enumerate(table.children):
            steps += [_gone(child, number), _lines(child, number)]
    return "WITH " + ",\n".join(steps) + _COMPLETED


def one_row(handler: Handler) -> str:
    """Upsert the one record $2 with the key $1: the handler that the other queues are given."""
    source = "(SELECT CAST($1 AS text) AS key, CAST($2 AS jsonb) AS p) c"
    return _upsert(handler.table, whole=False, source=source)


def _upsert(table: Table, *, whole: bool, source: str = "claimed c") -> str:
    targets = [table.key, *(one.name for one in table.columns), "zoho_modified_at", "synced_at", "updated_at"]
    keys = sorted({key for one in table.columns for key in one.keys} | {"last_modified_time"})
    values = [_value(one) for one in table.columns]
    values += ["CAST(r.last_modified_time AS timestamptz)", "now()", "now()"]
    if whole:
        targets.append("zoho_data")
        values.append("c.p")
    record = ", ".join(f'"{key}" {"jsonb" if key == "package_details" else "text"}' for key in keys)
    sets = ", ".join(f"{name} = excluded.{name}" for name in targets[1:])
    return (
        f"    INSERT INTO {table.name} AS t ({', '.join(targets)})\n"
        f"    SELECT c.key, {', '.join(values)}\n"
        f"    FROM {source}, jsonb_to_record(c.p) AS r ({record})\n"
        f"    ORDER BY c.key\n"
        f"    ON CONFLICT ({table.key}) DO UPDATE SET {sets}\n"
        f"    WHERE t.zoho_modified_at IS NULL OR t.zoho_modified_at <= excluded.zoho_modified_at"
    )


def _value(one: Column) -> str:
    if one.name == "is_active":
        return "coalesce(lower(r.status) = 'active', CAST(nullif(r.is_active, '') AS boolean))"
    found = [f"nullif(r.\"{key}\", '')" for key in one.keys if key != "package_details"]
    if "package_details" in one.keys:
        found.append(f"nullif(r.package_details ->> '{one.name}', '')")
    value = found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"
    return value if pg_type(one) == "text" else f"CAST({value} AS {pg_type(one)})"


def _gone(child: Child, number: int) -> str:
    return f"gone{number} AS (DELETE FROM {child.name} l USING written w WHERE l.{child.link} = w.id)"


def _lines(child: Child, number: int) -> str:
    """The lines of all records. Line numbers come from the list; places have two sets of names."""
    targets, values = [child.link], ["w.id"]
    for one in child.columns:
        targets.append(one.name)
        if not one.keys:
            values.append("e.n")
            continue
        key = one.keys[0]
        found = f"nullif(e.line ->> '{key}', '')"
        if key.startswith("place_"):
            other = key.removeprefix("place_")
            found = f"coalesce(nullif(e.line ->> 'location_{other}', ''), nullif(e.line ->> 'warehouse_{other}', ''))"
        values.append(found if pg_type(one) == "text" else f"CAST({found} AS {pg_type(one)})")
    lists = ", ".join(f"c.p -> '{key}'" for key in child.keys)
    return (
        f"lines{number} AS (\n    INSERT INTO {child.name} ({', '.join(targets)})\n"
        f"    SELECT {', '.join(values)}\n"
        f"    FROM claimed c JOIN written w ON w.key = c.key,\n"
        f"        jsonb_array_elements(coalesce({lists})) WITH ORDINALITY AS e (line, n)\n)"
    )
