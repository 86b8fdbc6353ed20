"""Events and rows for the tests of the entities, made without the mapper's own readers."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities.apply import apply_events
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Column
from handlers.queue.event import EntityType, Event, Operation, Outcome, Result

PAYLOADS = Path(__file__).parents[2] / "payloads"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
ARRIVED = datetime(2025, 11, 5, 9, tzinfo=UTC)

ID_KEYS = {
    EntityType.PRODUCT: "item_id",
    EntityType.CUSTOMER: "contact_id",
    EntityType.VENDOR: "contact_id",
    EntityType.INVOICE: "invoice_id",
    EntityType.SALES_ORDER: "salesorder_id",
    EntityType.PAYMENT: "payment_id",
    EntityType.USER: "user_id",
    EntityType.BILL: "bill_id",
    EntityType.CREDIT_NOTE: "creditnote_id",
    EntityType.STOCK_ADJUSTMENT: "inventory_adjustment_id",
    EntityType.PRICE_LIST: "pricebook_id",
}


class _Exact(float):
    """A number that prints as it was read."""

    def __new__(cls, literal: str) -> _Exact:
        self = super().__new__(cls, literal)
        self.literal = literal
        return self

    literal: str

    def __repr__(self) -> str:
        return self.literal


def event(
    entity: EntityType,
    record: dict[str, Any],
    *,
    operation: Operation = Operation.UPSERT,
    created_at: datetime = ARRIVED,
    payload: str | None = None,
    key: str | None = None,
) -> Event:
    """An event about *record*, wrapped as a webhook wraps it unless *payload* says otherwise."""
    return Event(
        id=uuid.uuid4(),
        entity=entity,
        key=key if key is not None else str(record[ID_KEYS[entity]]),
        operation=operation,
        payload=payload if payload is not None else json.dumps(record),
        attempt=1,
        attempts_max=3,
        created_at=created_at,
    )


def example_records() -> list[tuple[str, EntityType, dict[str, Any]]]:
    """Every record of every example payload: (file, kind, record), numbers as they are printed."""
    manifest = json.loads((PAYLOADS / "MANIFEST.json").read_text(encoding="utf-8"))
    found = []
    for entry in manifest["files"]:
        if entry["entity"] == "_transport":
            continue
        body = json.loads((PAYLOADS / entry["file"]).read_text(encoding="utf-8"), parse_float=_Exact)
        value = body[entry["envelope_key"]] if entry["envelope_key"] else body
        for record in value if isinstance(value, list) else [value]:
            found.append((entry["file"], EntityType(entry["entity"]), record))
    return found


def parents_of(entity: EntityType, record: dict[str, Any]) -> list[Event]:
    """The least that must be there before *record*, as events that are older than anything."""
    wanted: set[tuple[EntityType, str]] = set()
    if entity in (EntityType.INVOICE, EntityType.SALES_ORDER, EntityType.PAYMENT, EntityType.CREDIT_NOTE):
        wanted.add((EntityType.CUSTOMER, str(record["customer_id"])))
    if entity is EntityType.BILL:
        wanted.add((EntityType.VENDOR, str(record["vendor_id"])))
    for line in record.get("line_items") or record.get("pricebook_items") or []:
        if line.get("item_id"):
            wanted.add((EntityType.PRODUCT, str(line["item_id"])))
    if entity is EntityType.PAYMENT:
        wanted |= {(EntityType.INVOICE, str(line["invoice_id"])) for line in record["invoices"]}
    return [parent(kind, key) for kind, key in sorted(wanted)]


def parent(entity: EntityType, key: str) -> Event:
    """A record that says nothing but that it exists."""
    record: dict[str, Any] = {ID_KEYS[entity]: key}
    if entity in (EntityType.CUSTOMER, EntityType.VENDOR):
        record["contact_type"] = entity.value.lower()
    return event(entity, record, created_at=LONG_AGO)


async def applied(tx: AsyncConnection, events: Iterable[Event]) -> list[Result]:
    """Apply *events* as one batch; their results in order."""
    batch = list(events)
    results = await apply_events(tx, batch)
    assert set(results) == {each.id for each in batch}
    return [results[each.id] for each in batch]


async def outcomes(tx: AsyncConnection, *events: Event) -> list[Outcome]:
    """Apply *events* as one batch and tell what became of each."""
    return [result.outcome for result in await applied(tx, events)]


async def row(tx: AsyncConnection, entity: EntityType, key: str) -> dict[str, Any] | None:
    """The stored row of a record, read without the code under test."""
    table = HANDLERS[entity].table
    statement = text(f"SELECT to_jsonb(t)::text FROM {table.name} t WHERE {table.key} = :key")
    found = (await tx.execute(statement, {"key": key})).scalar()
    return json.loads(found, parse_float=Decimal) if found is not None else None


async def lines(tx: AsyncConnection, table: str, link: str, own_id: int) -> list[dict[str, Any]]:
    """The stored lines of a record in their order."""
    statement = text(f"SELECT to_jsonb(t)::text FROM {table} t WHERE {link} = :id ORDER BY line_no")
    return [
        json.loads(found, parse_float=Decimal)
        for found in (await tx.execute(statement, {"id": own_id})).scalars()
    ]


async def tables(tx: AsyncConnection) -> dict[str, list[str]]:
    """Everything the handlers write, without the times of writing; local links as the source's id of their record."""
    shown: dict[str, list[str]] = {}
    for one in HANDLERS.values():
        table = one.table
        statement = text(
            f"SELECT (to_jsonb(t) - CAST(:leave AS text[]) || {_links(table.columns, 't')})::text"
            f" FROM {table.name} t ORDER BY {table.key}"
        )
        leave = ["id", "synced_at", "updated_at", "created_at"]
        shown[table.name] = _without_arrivals((await tx.execute(statement, {"leave": leave})).scalars())
        for child in table.children:
            statement = text(
                f"SELECT t.{table.key} || (to_jsonb(l) - CAST(:leave AS text[]) || {_links(child.columns, 'l')})::text"
                f" FROM {child.name} l JOIN {table.name} t ON t.id = l.{child.link} ORDER BY t.{table.key}, l.line_no"
            )
            leave = ["id", "updated_at", child.link]
            shown[child.name] = list((await tx.execute(statement, {"leave": leave})).scalars())
    return shown


_ARRIVED = re.compile(r"""(?<=[0-9a-f]{24}) \d{4}-[^"\\]*|(?<=\[)\\"\d{4}-[^"\\]*\\",(?=\{)""")
"""The times of arrival in `zoho_versions`."""


def _without_arrivals(rows: Iterable[str]) -> list[str]:
    return [_ARRIVED.sub("", one) for one in rows]


def _links(columns: Sequence[Column], alias: str) -> str:
    """SQL: the local links of a row as a JSON object, each with the id of the record that it leads to."""
    pairs = []
    for column in columns:
        if column.local and column.parent is not None:
            parent_table = HANDLERS[column.parent].table
            led_to = f"(SELECT {parent_table.key} FROM {parent_table.name} WHERE id = {alias}.{column.name})"
            pairs.append(f"'{column.name}', {led_to}")
    return f"jsonb_build_object({', '.join(pairs)})"
