"""The worker with the real handlers on the ERP's real tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue.event import EntityType, Status
from handlers.queue.insert import insert_event
from handlers.queue.redrive import redrive
from handlers.worker.worker import Worker, new_owner
from rehearsal.webhooks import payloads
from tests.integration.queue.events import change, row

AT = datetime(2025, 11, 10, 9, tzinfo=UTC)


async def receive(
    engine: AsyncEngine, entity: EntityType, key: str, wrapper: str, record: dict[str, Any]
) -> UUID:
    async with engine.begin() as tx:
        body = json.dumps({wrapper: record})
        return await insert_event(tx, entity=entity, key=key, payload_text=body)


async def product(engine: AsyncEngine, number: int, at: datetime = AT, **changes: Any) -> UUID:
    record = payloads.product(number, at) | changes
    return await receive(engine, EntityType.PRODUCT, record["item_id"], "item", record)


def worker(engine: AsyncEngine) -> Worker:
    return Worker(engine, owner=new_owner("test"), revision="r1")


async def statuses(engine: AsyncEngine, *ids: UUID) -> list[Status]:
    return [Status((await row(engine, id_))["status"]) for id_ in ids]


async def names(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as tx:
        return set((await tx.execute(text("SELECT zoho_item_id FROM products"))).scalars())


async def test_one_refused_and_one_that_only_the_database_refuses(engine: AsyncEngine) -> None:
    """The mapper names the payload's field, the database its constraint; all others are applied."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE products ADD CONSTRAINT no_gold CHECK (price < 1000000)"))
    good = [await product(engine, n) for n in range(20)]
    refused = await product(engine, 20, rate="twelve")
    gold = await product(engine, 21, rate=5_000_000)
    await worker(engine).step()
    assert set(await statuses(engine, *good)) == {Status.COMPLETED}
    assert len(await names(engine)) == 20
    first, second = await row(engine, refused), await row(engine, gold)
    assert (first["status"], first["error_code"]) == ("dead_letter", "refused")
    assert "rate" in first["error_message"]
    assert (second["status"], second["error_code"]) == ("dead_letter", "23514")
    assert second["processing_result"]["field"] == "no_gold"


async def test_an_invoice_before_its_customer_waits_and_is_woken(engine: AsyncEngine) -> None:
    """Child first: it waits and names its parents; when the last of them comes, it is applied at once."""
    item = payloads.product(1, AT)
    record = payloads.invoice(1, AT, customer_number=1, item=item)
    invoice = await receive(engine, EntityType.INVOICE, record["invoice_id"], "invoice", record)
    one = worker(engine)
    await one.step()
    waits = await row(engine, invoice)
    assert (waits["status"], waits["error_code"]) == ("retry", "missing_parent")
    assert record["customer_id"] in waits["error_message"]
    customer = payloads.customer(1, AT)
    ids = [
        await receive(engine, EntityType.CUSTOMER, customer["contact_id"], "contact", customer),
        await receive(engine, EntityType.PRODUCT, item["item_id"], "item", item),
    ]
    await one.step()
    await one.step()
    assert await statuses(engine, invoice, *ids) == [Status.COMPLETED] * 3


async def test_an_overtaken_dead_letter_ends_as_superseded(engine: AsyncEngine) -> None:
    """A dead letter with an old payload is closed when it is redriven, and writes nothing over newer data."""
    old = await product(engine, 1, AT - timedelta(days=3), name="old name")
    await change(engine, old, status="dead_letter", error_code="xd2s", attempt_count=3)
    await product(engine, 1, AT, name="new name")
    one = worker(engine)
    await one.step()
    async with engine.begin() as tx:
        await redrive(tx, [old])
    await one.step()
    settled = await row(engine, old)
    assert (settled["status"], settled["processing_result"]["outcome"]) == ("completed", "superseded")
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT name FROM products"))).scalar_one() == "new name"


async def test_a_payload_that_is_no_record_is_refused_and_not_retried(engine: AsyncEngine) -> None:
    """A list, a text, an empty object, another record's body: permanent, each with a reason."""
    ids = []
    for number, body in enumerate(
        ("[]", '"text"', "{}", '{"item": {"item_id": "other", "name": "x"}}', "null")
    ):
        async with engine.begin() as tx:
            ids.append(
                await insert_event(tx, entity=EntityType.PRODUCT, key=f"77{number}", payload_text=body)
            )
    await worker(engine).step()
    for id_ in ids:
        now = await row(engine, id_)
        assert (now["status"], now["attempt_count"]) == ("dead_letter", 1)
        assert now["error_message"]
    assert await names(engine) == set()


async def test_a_target_that_is_there_is_named(engine: AsyncEngine) -> None:
    """A completed event carries the ERP row's own id."""
    id_ = await product(engine, 1)
    await worker(engine).step()
    async with engine.connect() as tx:
        own = (await tx.execute(text("SELECT id FROM products"))).scalar_one()
    assert (await row(engine, id_))["target_entity_id"] == str(own)


async def test_an_event_is_found_by_each_of_its_parents_however_many(engine: AsyncEngine) -> None:
    """Its reason names five of them, for people; who wakes it must know all."""
    items = [{"item_id": str(n), "pricebook_rate": 1} for n in range(7)]
    record = {"pricebook_id": "900", "name": "Retail", "pricebook_items": items}
    id_ = await receive(engine, EntityType.PRICE_LIST, "900", "pricebook", record)
    await worker(engine).step()
    told = await row(engine, id_)
    assert told["status"] == "retry"
    assert "and 2 more" in told["error_message"]
    assert told["processing_result"]["parents"] == [str(n) for n in range(7)]


RECORD = {
    "item_id": "9",
    "name": "nine",
    "rate": 12.50,
    "note": 'a "quoted" {brace} ٣',
    "tags": [1, {"a": None}],
}
BODIES = {
    "flat": json.dumps(RECORD),
    "wrapped": json.dumps({"item": RECORD}),
    "JSON text in a field": json.dumps({"JSONString": json.dumps({"item": RECORD})}),
    "JSON text as a body": json.dumps(json.dumps({"item": RECORD})),
    "large enough to be compressed": json.dumps({"item": RECORD | {"description": "x" * 60_000}}),
}


@pytest.mark.parametrize("form", BODIES)
async def test_the_raw_record_is_kept_whatever_the_form_of_its_body(engine: AsyncEngine, form: str) -> None:
    """Copied inside the server from the queue where it is there as it is, sent where it is text in a text."""
    wanted = RECORD | ({"description": "x" * 60_000} if "compressed" in form else {})
    for version in (1, 2):
        body = BODIES[form].replace("nine", f"nine {version}")
        async with engine.begin() as tx:
            await insert_event(tx, entity=EntityType.PRODUCT, key="9", payload_text=body)
        await worker(engine).step()
        async with engine.connect() as tx:
            (kept,) = (await tx.execute(text("SELECT zoho_data::text FROM products"))).scalars()
        assert json.loads(kept) == wanted | {"name": f"nine {version}"}
        assert '"rate": 12.5' in kept
