"""Applying batches: newest wins, parents first, lines replaced whole, all in the caller's transaction."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.entities.base import Handler
from handlers.entities.compare import differences
from handlers.entities.document import Refusal
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Mapped
from handlers.queue.event import EntityType, Outcome
from tests.integration.entities.events import (
    ARRIVED,
    ID_KEYS,
    applied,
    event,
    lines,
    outcomes,
    parent,
    row,
)

APPLIED, SUPERSEDED, WAITING, REFUSED = Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.WAITING, Outcome.REFUSED
PRODUCT, CUSTOMER, ORDER = EntityType.PRODUCT, EntityType.CUSTOMER, EntityType.SALES_ORDER
INVOICE, PAYMENT, PRICES = EntityType.INVOICE, EntityType.PAYMENT, EntityType.PRICE_LIST


def product(hour: int = 12, key: str = "1", **said: Any) -> dict[str, Any]:
    return {"item_id": key, "last_modified_time": f"2025-11-04T{hour:02d}:00:00+0300", **said}


async def test_an_older_version_never_overwrites_a_newer_one(engine: AsyncEngine) -> None:
    """The stamp decides, also across offsets, and the overtaken event says what overtook it."""
    async with engine.begin() as tx:
        assert await outcomes(tx, event(PRODUCT, product(12, name="new", rate=2))) == [APPLIED]
        older = product(0, name="old", rate=1) | {"last_modified_time": "2025-11-04T10:00:00+0200"}
        (result,) = await applied(tx, [event(PRODUCT, older)])
        assert result.outcome is SUPERSEDED
        assert "newer version of Product 1" in result.reason
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["price"]) == ("new", 2)


async def test_versions_in_one_batch_are_folded(engine: AsyncEngine) -> None:
    """One key twice in a batch: the newest is applied, the others are superseded, whatever their order."""
    batch = [event(PRODUCT, product(hour, name=str(hour))) for hour in (11, 13, 12)]
    async with engine.begin() as tx:
        assert await outcomes(tx, *batch) == [SUPERSEDED, APPLIED, SUPERSEDED]
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert stored["name"] == "13"


async def test_a_partial_payload_leaves_alone_what_it_does_not_mention(engine: AsyncEngine) -> None:
    """Missing keys keep their columns, blank ones are cleared, and the raw record keeps both."""
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(11, name="A", sku="S", rate=5, colour="red"))])
        await applied(tx, [event(PRODUCT, product(12, rate="", sku="T"))])
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["sku"], stored["price"]) == ("A", "T", None)
    assert stored["zoho_data"]["colour"] == "red"


async def test_an_older_fuller_payload_fills_only_the_gaps(engine: AsyncEngine) -> None:
    """A full record that was overtaken by a partial one still says what only it says."""
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(12, rate=2))])
        assert await outcomes(tx, event(PRODUCT, product(11, name="A", rate=1))) == [APPLIED]
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["price"]) == ("A", 2)


async def test_delivered_again_nothing_changes(engine: AsyncEngine) -> None:
    """A second delivery is applied in name only: the row is not even touched."""
    one = event(PRODUCT, product(name="A", rate="1.50"))
    async with engine.begin() as tx:
        await applied(tx, [one])
        before = (await tx.execute(text("SELECT xmin::text, ctid::text FROM products"))).one()
    async with engine.begin() as tx:
        assert await outcomes(tx, one) == [APPLIED]
        assert (await tx.execute(text("SELECT xmin::text, ctid::text FROM products"))).one() == before


async def test_what_is_refused_costs_nothing_to_the_others(engine: AsyncEngine) -> None:
    """A bad record is refused before anything is written, and the rest of the batch is applied."""
    batch = [
        event(PRODUCT, product(key="1", rate="cheap")),
        event(PRODUCT, product(key="2", rate="1.10")),
        event(PRODUCT, {}, key="3", payload="{"),
        event(PRODUCT, product(key="4"), key="5"),
    ]
    async with engine.begin() as tx:
        results = await applied(tx, batch)
        assert [result.outcome for result in results] == [REFUSED, APPLIED, REFUSED, REFUSED]
        assert [result.field for result in results] == ["rate", None, "(body)", "item_id"]
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar() == 1


@pytest.mark.parametrize("entity", EntityType)
async def test_every_kind_refuses_alone(engine: AsyncEngine, entity: EntityType) -> None:
    """A refused event of any kind gets its result, also of those whose rows are recognised by a number."""
    bad = event(entity, {ID_KEYS[entity]: "1", "created_time": "yesterday"})
    good = event(entity, {ID_KEYS[entity]: "2"})
    async with engine.begin() as tx:
        assert await outcomes(tx, bad, good) == [REFUSED, APPLIED]
        assert await outcomes(tx, bad) == [REFUSED]
        assert await row(tx, entity, "1") is None


async def test_a_part_of_a_contact_is_taken_where_the_contact_is(engine: AsyncEngine) -> None:
    """A part without `contact_type` says nothing of what it is: the stored row, or the batch, must say it."""
    whole = {"contact_id": "1", "contact_type": "customer", "contact_name": "A", "phone": "1"}
    part = {"contact_id": "1", "phone": "2", "last_modified_time": "2026-01-01T00:00:00Z"}
    async with engine.begin() as tx:
        (alone,) = await applied(tx, [event(CUSTOMER, part)])
        assert (alone.outcome, alone.field, alone.parents) == (WAITING, "contact_type", ("1",))
        assert await row(tx, CUSTOMER, "1") is None
        assert await outcomes(tx, event(CUSTOMER, part), event(CUSTOMER, whole)) == [APPLIED, APPLIED]
        later = part | {"phone": "3", "last_modified_time": "2026-01-02T00:00:00Z"}
        assert await outcomes(tx, event(CUSTOMER, later)) == [APPLIED]
        assert await outcomes(tx, event(EntityType.VENDOR, part)) == [WAITING]
        blank = await outcomes(tx, event(CUSTOMER, part | {"contact_type": ""}))
        stored = await row(tx, CUSTOMER, "1")
    assert blank == [REFUSED]
    assert stored is not None
    assert (stored["contact_name"], stored["phone"], stored["contact_type"]) == ("A", "3", "customer")


async def test_a_part_of_a_contact_of_the_old_code_is_taken(engine: AsyncEngine) -> None:
    """The table of a stored row confirms the type, even without the raw record."""
    part = {"contact_id": "1", "phone": "2", "last_modified_time": "2026-01-01T00:00:00Z"}
    async with engine.begin() as tx:
        await tx.execute(text("INSERT INTO customers (zoho_contact_id, contact_name) VALUES ('1', 'A')"))
        assert await outcomes(tx, event(CUSTOMER, part)) == [APPLIED]
        later = {"contact_id": "1", "email": "a@example.com", "last_modified_time": "2026-01-02T00:00:00Z"}
        assert await outcomes(tx, event(CUSTOMER, later)) == [APPLIED]
        stored = await row(tx, CUSTOMER, "1")
    assert stored is not None
    assert (stored["contact_name"], stored["phone"], stored["email"]) == ("A", "2", "a@example.com")


async def test_an_event_about_several_records_is_refused(engine: AsyncEngine) -> None:
    """An event is about one record; a list of two would leave one of them unaccounted for."""
    body = '{"items": [{"item_id": "1"}, {"item_id": "2"}]}'
    async with engine.begin() as tx:
        assert await outcomes(tx, event(PRODUCT, {}, key="1", payload=body)) == [REFUSED]


async def test_parents_of_the_same_batch_count(engine: AsyncEngine) -> None:
    """A batch is applied kind by kind, parents first, however it is ordered."""
    batch = [
        event(
            PAYMENT,
            {"payment_id": "9", "customer_id": "5", "invoices": [{"invoice_id": "7", "amount_applied": 1}]},
        ),
        event(
            INVOICE, {"invoice_id": "7", "customer_id": "5", "line_items": [{"item_id": "1", "quantity": 1}]}
        ),
        event(PRODUCT, product()),
        parent(CUSTOMER, "5"),
    ]
    async with engine.begin() as tx:
        assert await outcomes(tx, *batch) == [APPLIED] * 4


async def test_every_kind_of_parent_is_waited_for(engine: AsyncEngine) -> None:
    """Each reference names the kind and the id it waits for, and nothing is written."""
    line = [{"item_id": "1"}]
    cases = [
        (ORDER, {"salesorder_id": "8", "customer_id": "5"}, "Customer 5"),
        (ORDER, {"salesorder_id": "8", "line_items": line}, "Product 1"),
        (INVOICE, {"invoice_id": "8", "customer_id": "5"}, "Customer 5"),
        (INVOICE, {"invoice_id": "8", "line_items": line}, "Product 1"),
        (PAYMENT, {"payment_id": "8", "customer_id": "5"}, "Customer 5"),
        (PAYMENT, {"payment_id": "8", "invoices": [{"invoice_id": "6"}, {"invoice_id": "7"}]}, "Invoice 7"),
        (EntityType.BILL, {"bill_id": "8", "vendor_id": "5"}, "Vendor 5"),
        (EntityType.BILL, {"bill_id": "8", "line_items": line}, "Product 1"),
        (EntityType.CREDIT_NOTE, {"creditnote_id": "8", "customer_id": "5"}, "Customer 5"),
        (EntityType.CREDIT_NOTE, {"creditnote_id": "8", "line_items": line}, "Product 1"),
        (PRICES, {"pricebook_id": "8", "pricebook_items": line}, "Product 1"),
        (EntityType.STOCK_ADJUSTMENT, {"inventory_adjustment_id": "8", "line_items": line}, "Product 1"),
    ]
    async with engine.begin() as tx:
        for entity, record, named in cases:
            (result,) = await applied(tx, [event(entity, record)])
            assert result.outcome is WAITING
            assert named in result.reason
            assert await row(tx, entity, "8") is None


async def test_an_overtaken_event_does_not_wait(engine: AsyncEngine) -> None:
    """A version that would change nothing is superseded even if its parents never came."""
    newer = {
        "invoice_id": "7",
        "customer_id": "",
        "line_items": [],
        "last_modified_time": "2025-11-05T00:00:00Z",
    }
    older = newer | {"customer_id": "5", "last_modified_time": "2025-11-04T00:00:00Z"}
    async with engine.begin() as tx:
        assert await outcomes(tx, event(INVOICE, newer)) == [APPLIED]
        assert await outcomes(tx, event(INVOICE, older)) == [SUPERSEDED]


async def test_a_waiting_version_does_not_hold_up_an_older_one(engine: AsyncEngine) -> None:
    """In one batch the version whose parents are there is applied, the newer one waits."""
    ready = {"invoice_id": "7", "total": 1, "last_modified_time": "2025-11-04T00:00:00Z"}
    waits = ready | {"customer_id": "5", "total": 2, "last_modified_time": "2025-11-05T00:00:00Z"}
    async with engine.begin() as tx:
        assert await outcomes(tx, event(INVOICE, waits), event(INVOICE, ready)) == [WAITING, APPLIED]


async def test_lines_are_replaced_whole_and_only_when_they_are_said(engine: AsyncEngine) -> None:
    """A line that is no longer in the list is gone; a payload without the list leaves the lines alone."""

    def order(hour: int, **said: Any) -> dict[str, Any]:
        return {"salesorder_id": "8", "last_modified_time": f"2025-11-04T{hour:02d}:00:00Z", **said}

    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(key="1")), event(PRODUCT, product(key="2"))])
        for hour, said, wanted in [
            (
                1,
                {"line_items": [{"item_id": "1", "quantity": 1}, {"item_id": "2", "quantity": "1.50"}]},
                ["1", "2"],
            ),
            (2, {"total": 5}, ["1", "2"]),
            (3, {"line_items": [{"item_id": "2", "quantity": 3}]}, ["2"]),
            (4, {"line_items": []}, []),
        ]:
            assert await outcomes(tx, event(ORDER, order(hour, **said))) == [APPLIED]
            stored = await row(tx, ORDER, "8")
            assert stored is not None
            found = await lines(tx, "sales_items", "sales_order_id", stored["id"])
            assert [line["zoho_item_id"] for line in found] == wanted
            for line in found:
                owner = await row(tx, PRODUCT, line["zoho_item_id"])
                assert owner is not None
                assert line["product_id"] == owner["id"]


async def test_an_item_that_left_a_price_list_has_no_price_there(engine: AsyncEngine) -> None:
    """Items just disappear from a list; a list row without items leaves the prices alone."""
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(key=key)) for key in ("1", "2")])
        both = [{"item_id": "1", "pricebook_rate": 1}, {"item_id": "2", "pricebook_rate": 2}]
        for minute, said, wanted in [
            (1, {"pricebook_items": both}, [("1", 1), ("2", 2)]),
            (2, {"name": "Retail "}, [("1", 1), ("2", 2)]),
            (3, {"pricebook_items": both[1:], "currency_code": "IQD"}, [("2", 2)]),
        ]:
            read_at = ARRIVED + timedelta(minutes=minute)
            await applied(tx, [event(PRICES, {"pricebook_id": "8", **said}, created_at=read_at)])
            stored = await row(tx, PRICES, "8")
            assert stored is not None
            found = await lines(tx, "product_prices", "pricelist_id", stored["id"])
            assert [(line["zoho_item_id"], line["price"]) for line in found] == wanted
        assert [line["currency"] for line in found] == ["IQD"]


async def test_a_payment_over_two_invoices_is_one_payment_with_two_rows(engine: AsyncEngine) -> None:
    """Neither amount is lost, and applying it again doubles nothing."""
    payment = event(
        PAYMENT,
        {
            "payment_id": "9",
            "payment_number": "601",
            "amount": "80.00",
            "invoices": [
                {"invoice_id": "6", "amount_applied": 50},
                {"invoice_id": "7", "amount_applied": 30},
            ],
        },
    )
    async with engine.begin() as tx:
        await applied(tx, [parent(INVOICE, "6"), parent(INVOICE, "7")])
        for _ in range(2):
            assert await outcomes(tx, payment) == [APPLIED]
        stored = await row(tx, PAYMENT, "9")
        assert stored is not None
        assert (stored["amount"], stored["sales_invoice_id"]) == (80, None)
        found = await lines(tx, "payment_applications", "payment_id", stored["id"])
        assert [line["amount_applied"] for line in found] == [50, 30]
        assert None not in [line["invoice_id"] for line in found]
        assert (await tx.execute(text("SELECT count(*) FROM invoice_payments"))).scalar() == 1


async def test_adjustments_never_touch_the_stock(engine: AsyncEngine) -> None:
    """Stock comes from the item alone, however often an adjustment is delivered."""
    adjustment = event(
        EntityType.STOCK_ADJUSTMENT,
        {
            "inventory_adjustment_id": "8",
            "status": "adjusted",
            "line_items": [{"item_id": "1", "quantity_adjusted": -2}],
        },
    )
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(stock_on_hand="5.5"))])
        for _ in range(2):
            await applied(tx, [adjustment])
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert stored["stock_quantity"] == Decimal("5.5")


async def test_a_row_of_the_old_code_is_taken_over_by_its_number(engine: AsyncEngine) -> None:
    """The old code stored no id with an order; its row is recognised, and its stale lines go."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO sales_orders (order_number, payment_status, paid_amount)"
                " VALUES ('SO-1', 'PAID', 7)"
            )
        )
        await tx.execute(
            text("INSERT INTO sales_items (sales_order_id, quantity) SELECT id, 99 FROM sales_orders")
        )
        await applied(tx, [event(PRODUCT, product())])
        order = {
            "salesorder_id": "8",
            "salesorder_number": "SO-1",
            "line_items": [{"item_id": "1", "quantity": 2}],
        }
        assert await outcomes(tx, event(ORDER, order)) == [APPLIED]
        stored = await row(tx, ORDER, "8")
        assert stored is not None
        assert (stored["payment_status"], stored["paid_amount"]) == ("PAID", 7)
        assert (await tx.execute(text("SELECT quantity FROM sales_items"))).scalars().all() == [2]


async def test_a_row_of_the_old_code_keeps_what_the_payload_does_not_mention(engine: AsyncEngine) -> None:
    """The version of an old row is unknown: the first payload wins, column by column."""
    async with engine.begin() as tx:
        await tx.execute(text("INSERT INTO products (zoho_item_id, name, sku) VALUES ('1', 'old', 'S')"))
        assert await outcomes(tx, event(PRODUCT, product(name="new"))) == [APPLIED]
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["sku"]) == ("new", "S")


async def test_everything_happens_in_the_callers_transaction(engine: AsyncEngine) -> None:
    """After a rollback nothing is left: no parents and no lines were committed."""
    async with engine.connect() as tx:
        assert set(await outcomes(tx, parent(CUSTOMER, "5"), event(PRODUCT, product()))) == {APPLIED}
        await tx.rollback()
    async with engine.connect() as tx:
        for table in ("customers", "products"):
            assert (await tx.execute(text(f"SELECT count(*) FROM {table}"))).scalar() == 0


async def test_a_statement_of_a_handler_joins_the_transaction(engine: AsyncEngine) -> None:
    """`execute_with_context` runs in a transaction that has begun already, and ends none."""
    async with engine.connect() as tx:
        await tx.execute(text("SELECT 1"))
        one = HANDLERS[PRODUCT]
        for _ in range(2):
            await one.execute_with_context(
                tx, text("INSERT INTO products (zoho_item_id) VALUES (gen_random_uuid())")
            )
        assert tx.in_transaction()
        await tx.rollback()
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar() == 0


async def test_an_erp_may_bring_its_own_handler(engine: AsyncEngine) -> None:
    """A deployed ERP replaces one handler by its own, and the others stay as they are."""

    class Cautious(Handler):
        def map(self, record: dict[str, Any]) -> Mapped:
            if not record.get("sku"):
                raise Refusal("sku", "is missing")
            return super().map(record)

    core = HANDLERS[PRODUCT]
    ours = Cautious(**{field.name: getattr(core, field.name) for field in fields(core)})
    bad, good, other = (
        event(PRODUCT, product(key="1")),
        event(PRODUCT, product(key="2", sku="S")),
        parent(CUSTOMER, "5"),
    )
    async with engine.begin() as tx:
        results = await apply_events(tx, [bad, good, other], handlers={**HANDLERS, PRODUCT: ours})
    assert [results[each.id].outcome for each in (bad, good, other)] == [REFUSED, APPLIED, APPLIED]


async def test_marks_in_values_survive(engine: AsyncEngine) -> None:
    """Values may hold the very characters that travel between values."""
    name = 'soft\x1fhyphen\x1e and \x1d \x1c \ue000 {"a",NULL}\\'
    async with engine.begin() as tx:
        await applied(
            tx, [event(PRODUCT, product(key="1", name=name)), event(PRODUCT, product(key="2", name=None))]
        )
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert stored["name"] == name


@pytest.mark.parametrize("first", [10, 12])
async def test_two_workers_with_the_same_new_record_end_with_the_newest(
    engine: AsyncEngine, first: int
) -> None:
    """Both saw no row; the second waits for the first, looks again, and folds into what it finds."""

    async def work(tx: AsyncConnection, hour: int, **said: Any) -> Outcome:
        (outcome,) = await outcomes(tx, event(PRODUCT, product(hour, **said)))
        return outcome

    async with engine.connect() as one, engine.connect() as other:
        assert await work(one, first, name="first", sku="S") is APPLIED
        second = asyncio.create_task(work(other, 11, name="second", upc="U"))
        await _until_waiting(engine)
        await one.commit()
        assert await second is APPLIED
        await other.commit()
    async with engine.connect() as tx:
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["sku"], stored["upc"]) == ("first" if first == 12 else "second", "S", "U")


async def test_a_record_being_written_can_be_pointed_at(engine: AsyncEngine) -> None:
    """An order does not wait for another worker's transaction on its product, so the two cannot deadlock."""
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(10))])
    async with engine.connect() as one, engine.connect() as other:
        assert await outcomes(one, event(PRODUCT, product(11, name="A"))) == [APPLIED]
        order = event(ORDER, {"salesorder_id": "8", "line_items": [{"item_id": "1"}]})
        async with asyncio.timeout(5):
            assert await outcomes(other, order) == [APPLIED]
        await other.rollback()
        await one.rollback()


async def _until_waiting(engine: AsyncEngine) -> None:
    """Until a backend waits for another one's transaction; 10 seconds at most."""
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    for _ in range(200):
        async with engine.connect() as tx:
            if (await tx.execute(waiting)).scalar():
                return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody came to wait")


async def test_a_row_that_says_something_else_is_told_apart(engine: AsyncEngine) -> None:
    """The proof of a canary names each column that differs, and takes a newer row for no difference."""
    one = event(PRODUCT, product(name="A", rate="1.50"))
    async with engine.begin() as tx:
        assert await differences(tx, PRODUCT, "1", one.payload) == ["products has no row for Product 1"]
        await applied(tx, [one])
        assert await differences(tx, PRODUCT, "1", one.payload) == []
        await tx.execute(text("UPDATE products SET price = 1.49, name = 'B'"))
        found = await differences(tx, PRODUCT, "1", one.payload)
        assert [sentence.split(" ")[0] for sentence in found] == ["products.name", "products.price"]
        await applied(tx, [event(PRODUCT, product(13, name="C"))])
        assert await differences(tx, PRODUCT, "1", one.payload) == []


async def test_a_record_without_a_stamp_is_compared_as_of_its_event(engine: AsyncEngine) -> None:
    """A later reading of a user is a newer version; without the event's time an older one looks like a loss."""
    old = event(EntityType.USER, {"user_id": "1", "name": "old"})
    new = event(EntityType.USER, {"user_id": "1", "name": "new"}, created_at=ARRIVED + timedelta(hours=1))
    async with engine.begin() as tx:
        assert await outcomes(tx, old, new) == [SUPERSEDED, APPLIED]
        assert await differences(tx, EntityType.USER, "1", old.payload, read_at=old.created_at) == []
        assert await differences(tx, EntityType.USER, "1", new.payload, read_at=new.created_at) == []
        (found,) = await differences(tx, EntityType.USER, "1", old.payload)
    assert "zoho_users.name" in found


async def test_lines_that_are_lost_are_a_difference(engine: AsyncEngine) -> None:
    """A row without its lines does not say what its payload says."""
    one = event(INVOICE, {"invoice_id": "7", "line_items": [{"item_id": "", "quantity": 1}]})
    async with engine.begin() as tx:
        await applied(tx, [one])
        await tx.execute(text("DELETE FROM invoice_items"))
        assert await differences(tx, INVOICE, "7", one.payload) == [
            "invoice_items has 0 rows, the payload has 1"
        ]
