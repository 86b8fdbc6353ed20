"""What the benchmarks work on: databases with a backlog, made once and cloned for each run."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
from _place import Place
from _sql import NARROW_TABLE
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.database.migrate import upgrade
from handlers.erp.adopt import adopt
from handlers.queue.event import QUEUE_NAMES, EntityType
from rehearsal.webhooks import payloads

Work = tuple[EntityType, str, str]
"""Kind, the record's id, and the record as JSON text."""

NOW = datetime(2025, 11, 5, 9, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[1] / "tests" / "payloads"


async def prepare(place: Place, name: str) -> str:
    """A database with the ERP's own tables, adopted, and the ledger: the template of all others."""
    url = await place.server.create_database(name)
    connection = await asyncpg.connect(url)
    await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    await connection.close()
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    await adopt(engine)
    await upgrade(engine)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    for statement in NARROW_TABLE:
        await connection.execute(statement)
    # A rule that only the ERP's database knows: no mapper can see it coming.
    await connection.execute("ALTER TABLE products ADD CONSTRAINT price_is_sane CHECK (price < 1000000000)")
    await connection.close()
    return name


async def backlog(
    place: Place,
    name: str,
    template: str,
    work: Iterable[Work],
    *,
    status: str = "pending",
    existing: bool = False,
    analyzed: bool = True,
) -> str:
    """A copy of *template* with *work* in its queue; with *existing* every second product has a row already.

    Without *analyzed* the planner knows nothing of the work, as right after a burst.
    """
    url = await place.server.create_database(name, template=template)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "CREATE UNLOGGED TABLE bench_source (seq bigserial, kind text, key text, p text)"
        )
        batch: list[tuple[str, str, str]] = []
        for kind, key, text in work:
            batch.append((QUEUE_NAMES[kind], key, text))
            if len(batch) >= 20_000:
                await _copy(connection, batch)
                batch = []
        await _copy(connection, batch)
        await connection.execute(
            "INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload,"
            " idempotency_key, content_hash, webhook_headers, signature_verified, is_valid, moved_to_queue)"
            " SELECT md5($1 || seq)::uuid, 'zoho', CAST(kind AS tds_entity_type), key, '{}', $1 || seq, md5(key),"
            " '{}', true, true, true FROM bench_source",
            name,
        )
        await connection.execute(
            "INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type,"
            " validated_payload, status, priority, created_at, completed_at)"
            " SELECT gen_random_uuid(), md5($1 || seq)::uuid, CAST(kind AS tds_entity_type), key, 'update', p::jsonb,"
            " CAST($2 AS tds_event_status), 5, now() - interval '1 day' + seq * interval '1 millisecond',"
            " CASE WHEN $2 = 'completed' THEN now() - interval '1 hour' END FROM bench_source ORDER BY seq",
            name,
            status,
        )
        if existing:
            await connection.execute(
                "INSERT INTO products (zoho_item_id, name, sku, price, zoho_modified_at)"
                " SELECT key, 'as it was', 'old', 1, '2025-01-01' FROM bench_source WHERE seq % 2 = 0"
            )
            await connection.execute(
                "INSERT INTO bench_products (zoho_item_id, name, sku, price, zoho_modified_at)"
                " SELECT key, 'as it was', 'old', 1, '2025-01-01' FROM bench_source WHERE seq % 2 = 0"
            )
        await connection.execute("DROP TABLE bench_source")
        if analyzed:
            await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()
    return name


async def _copy(connection: asyncpg.Connection, batch: list[tuple[str, str, str]]) -> None:
    await connection.copy_records_to_table("bench_source", records=batch, columns=["kind", "key", "p"])


def products(number: int, *, first: int = 0) -> Iterator[Work]:
    """Items like one real item of 1.6 KB, each another record, in no order of their keys."""
    template = payloads.product(0, NOW, series=700)
    order = list(range(first, first + number))
    random.Random(1).shuffle(order)
    for at in order:
        key = payloads.zoho_id(7_000_000, at)
        record = template | {
            "item_id": key,
            "sku": f"B-{at:07d}",
            "name": f"{template['name'][:30]} {at}",
            "created_time": payloads.stamp(NOW - timedelta(days=300, seconds=at)),
            "last_modified_time": payloads.stamp(NOW - timedelta(seconds=at % 1_000_000)),
        }
        yield EntityType.PRODUCT, key, json.dumps(record, ensure_ascii=False)


def invoices(number: int) -> Iterator[Work]:
    """Invoices that nobody applies: they wait behind a limit."""
    for at in range(number):
        yield EntityType.INVOICE, payloads.zoho_id(9_000_000, at), "{}"


def spoilt(work: Iterable[Work], *, every: int, seen_by: str) -> Iterator[Work]:
    """Every so manieth product is bad: the mapper can see it, or only the database can."""
    for at, (kind, key, text) in enumerate(work):
        if at % every == every // 2:
            bad = "many" if seen_by == "mapper" else 5_000_000_000
            text = json.dumps(json.loads(text) | {"rate": bad})
        yield kind, key, text


def mixed(number: int) -> list[Work]:
    """All eleven kinds in equal parts, each document with its lines and with parents from the same backlog."""
    each = number // len(EntityType)
    made: list[Work] = []
    for at in range(each):
        item = payloads.product(4 * at, NOW, series=900)
        customer = payloads.contact_id(at)
        vendor = payloads.contact_id(at, kind="vendor")
        invoice = payloads.invoice(at, NOW, customer_number=at, item=item)
        records: dict[EntityType, dict[str, Any]] = {
            EntityType.PRODUCT: item,
            EntityType.CUSTOMER: payloads.customer(at, NOW),
            EntityType.VENDOR: payloads.customer(at, NOW, kind="vendor"),
            EntityType.USER: payloads.user(at, NOW),
            EntityType.INVOICE: invoice,
            EntityType.SALES_ORDER: payloads.order(at, NOW, customer_number=at, items=[item, item]),
            EntityType.PAYMENT: payloads.payment(at, NOW, customer_number=at, invoice_numbers=[at]),
            EntityType.BILL: _example("bill/1.json", "bill", at, item) | {"vendor_id": vendor},
            EntityType.CREDIT_NOTE: _example("creditnote/1.json", "creditnote", at, item)
            | {"customer_id": customer},
            EntityType.STOCK_ADJUSTMENT: _example("stockadjustment/1.json", "inventory_adjustment", at, item),
            EntityType.PRICE_LIST: _example("pricelist/1.json", "pricebooks", at, item),
        }
        made += [(kind, _key(kind, record), json.dumps(record)) for kind, record in records.items()]
    return made


_IDS = {
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


def _key(kind: EntityType, record: dict[str, Any]) -> str:
    return str(record[_IDS[kind]])


def _example(path: str, wrapper: str, number: int, item: dict[str, Any]) -> dict[str, Any]:
    """A published example as record *number*, about *item*."""
    found = _load(path)[wrapper]
    record: dict[str, Any] = copy.deepcopy(found[0] if isinstance(found, list) else found)
    for name in ("bill_id", "creditnote_id", "inventory_adjustment_id", "pricebook_id"):
        if name in record and wrapper.startswith(name[:-3].split("_")[0]):
            record[name] = payloads.zoho_id(810_000, number)
    for name in ("line_items", "pricebook_items"):
        record[name] = [line | {"item_id": item["item_id"]} for line in record.get(name, [])]
    return record


@cache
def _load(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EXAMPLES / path).read_text(encoding="utf-8"))
    return loaded
