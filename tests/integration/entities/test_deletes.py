"""Deletes are soft: what a record that is gone leaves behind, in whatever order its events come."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.compare import differences
from handlers.queue.event import EntityType, Operation, Outcome
from tests.integration.entities.events import (
    ARRIVED,
    ID_KEYS,
    applied,
    event,
    outcomes,
    parent,
    row,
)

APPLIED, SUPERSEDED, WAITING, REFUSED = Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.WAITING, Outcome.REFUSED
PRODUCT, CUSTOMER, ORDER = EntityType.PRODUCT, EntityType.CUSTOMER, EntityType.SALES_ORDER
INVOICE, PAYMENT, PRICES = EntityType.INVOICE, EntityType.PAYMENT, EntityType.PRICE_LIST


def product(hour: int = 12, key: str = "1", **said: Any) -> dict[str, Any]:
    return {"item_id": key, "last_modified_time": f"2025-11-04T{hour:02d}:00:00+0300", **said}


async def test_a_deleted_parent_was_there(engine: AsyncEngine) -> None:
    """A record that references a deleted record is applied: otherwise it would wait forever."""
    async with engine.begin() as tx:
        await applied(tx, [event(CUSTOMER, {"contact_id": "5"}, operation=Operation.DELETE)])
        assert await outcomes(tx, event(INVOICE, {"invoice_id": "7", "customer_id": "5"})) == [APPLIED]


async def test_a_delete_keeps_the_row_and_says_when(engine: AsyncEngine) -> None:
    """Deletes are soft, and later deliveries of older versions do not bring the record back."""
    async with engine.begin() as tx:
        await applied(tx, [event(PRODUCT, product(11, name="A"))])
        assert await outcomes(tx, event(PRODUCT, product(11, name="A"), operation=Operation.DELETE)) == [
            APPLIED
        ]
        assert await outcomes(tx, event(PRODUCT, product(10, name="older"))) == [SUPERSEDED]
        assert await outcomes(tx, event(PRODUCT, product(11, name="A"))) == [SUPERSEDED]
        stored = await row(tx, PRODUCT, "1")
        assert stored is not None
        assert (stored["name"], stored["zoho_deleted_at"]) == ("A", "2025-11-04T08:00:00+00:00")
        assert await outcomes(tx, event(PRODUCT, product(12, name="B"))) == [APPLIED]
        stored = await row(tx, PRODUCT, "1")
        assert stored is not None
        assert (stored["name"], stored["zoho_deleted_at"]) == ("B", None)


@pytest.mark.parametrize(
    "payload", ["{}", '{"code": 0, "message": "The item has been deleted."}', '{"item_id": "1"}']
)
async def test_a_delete_before_its_create_leaves_a_tombstone(engine: AsyncEngine, payload: str) -> None:
    """The late create does not bring the record back, even if the delete said nothing but the id."""
    async with engine.begin() as tx:
        gone = event(PRODUCT, {}, key="1", payload=payload, operation=Operation.DELETE)
        assert await outcomes(tx, gone) == [APPLIED]
        assert await outcomes(tx, event(PRODUCT, product(11, name="A"))) == [SUPERSEDED]
        stored = await row(tx, PRODUCT, "1")
    assert stored is not None
    assert (stored["name"], stored["zoho_deleted_at"]) == ("A", ARRIVED.isoformat())


@pytest.mark.parametrize(
    ("entity", "key", "column"),
    [(ORDER, "salesorder_number", "order_number"), (PAYMENT, "payment_number", "payment_number")],
)
async def test_the_number_of_a_deleted_record_is_free_again(
    engine: AsyncEngine, entity: EntityType, key: str, column: str
) -> None:
    """The ERP has each number once; the source may give that of a deleted record to another one."""
    old = {ID_KEYS[entity]: "1", key: "N-7", "last_modified_time": "2025-11-04T11:00:00Z"}
    new = {ID_KEYS[entity]: "2", key: "N-7", "last_modified_time": "2025-11-04T12:00:00Z"}
    gone = event(entity, old, operation=Operation.DELETE)
    async with engine.begin() as tx:
        assert await outcomes(tx, event(entity, old)) == [APPLIED]
        assert await outcomes(tx, gone) == [APPLIED]
        assert await outcomes(tx, event(entity, new)) == [APPLIED]
        assert await outcomes(tx, event(entity, old), gone) == [SUPERSEDED, APPLIED]
        first, second = await row(tx, entity, "1"), await row(tx, entity, "2")
        assert await differences(tx, entity, "1", gone.payload) == []
        back = old | {"last_modified_time": "2025-11-04T13:00:00Z", key: "N-8"}
        assert await outcomes(tx, event(entity, back)) == [APPLIED]
        again = await row(tx, entity, "1")
    assert first is not None
    assert second is not None
    assert again is not None
    assert (first[column], first["zoho_data"][key], second[column]) == (None, "N-7", "N-7")
    assert again[column] == "N-8"


async def test_a_tombstone_before_its_create_holds_no_number(engine: AsyncEngine) -> None:
    """In any order, a deleted record does not block an existing one with the same number."""
    old = {"salesorder_id": "1", "salesorder_number": "N-7"}
    async with engine.begin() as tx:
        assert await outcomes(tx, event(ORDER, old | {"salesorder_id": "2"})) == [APPLIED]
        assert await outcomes(tx, event(ORDER, old, operation=Operation.DELETE)) == [APPLIED]


async def test_a_delete_does_not_wait_with_its_tombstone(engine: AsyncEngine) -> None:
    """The record is deleted at once; only the references of its last version wait for their parents."""
    gone = {"salesorder_id": "8", "customer_id": "5", "line_items": [{"item_id": "1"}]}
    delete = event(ORDER, gone, operation=Operation.DELETE)
    async with engine.begin() as tx:
        (result,) = await applied(tx, [delete])
        assert (result.outcome, result.parents) == (WAITING, ("5", "1"))
        stored = await row(tx, ORDER, "8")
        assert stored is not None
        assert (stored["zoho_deleted_at"] is not None, stored["customer_id"]) == (True, None)
        await applied(tx, [parent(CUSTOMER, "5"), parent(PRODUCT, "1")])
        assert await outcomes(tx, delete) == [APPLIED]
        stored, customer = await row(tx, ORDER, "8"), await row(tx, CUSTOMER, "5")
    assert stored is not None
    assert customer is not None
    assert stored["customer_id"] == customer["id"]


async def test_a_delete_that_comes_after_a_newer_one_waits_as_well(engine: AsyncEngine) -> None:
    """The newer one says nothing but that the record is gone: its last version is still the older one's."""
    said = {"salesorder_id": "8", "customer_id": "5", "last_modified_time": "2025-11-04T12:00:00Z"}
    older = event(ORDER, said, operation=Operation.DELETE)
    newer = {"salesorder_id": "8", "last_modified_time": "2025-11-04T13:00:00Z"}
    async with engine.begin() as tx:
        assert await outcomes(tx, event(ORDER, newer, operation=Operation.DELETE)) == [APPLIED]
        assert await outcomes(tx, older) == [WAITING]
        await applied(tx, [parent(CUSTOMER, "5")])
        assert await outcomes(tx, older) == [SUPERSEDED]
        stored, customer = await row(tx, ORDER, "8"), await row(tx, CUSTOMER, "5")
    assert stored is not None
    assert customer is not None
    assert stored["customer_id"] == customer["id"]


async def test_a_part_that_restores_a_record_waits_for_the_parents_of_all_of_it(engine: AsyncEngine) -> None:
    """It says nothing of the customer, but the deleted record that it restores does."""
    last = {"salesorder_id": "8", "customer_id": "5", "last_modified_time": "2025-11-04T12:00:00Z"}
    delete = event(ORDER, last, operation=Operation.DELETE)
    part = event(
        ORDER, {"salesorder_id": "8", "status": "open", "last_modified_time": "2025-11-04T12:30:00Z"}
    )
    async with engine.begin() as tx:
        assert await outcomes(tx, delete) == [WAITING]
        (result,) = await applied(tx, [part])
        assert (result.outcome, result.parents) == (WAITING, ("5",))
        await applied(tx, [parent(CUSTOMER, "5")])
        assert await outcomes(tx, part) == [APPLIED]
        stored, customer = await row(tx, ORDER, "8"), await row(tx, CUSTOMER, "5")
    assert stored is not None
    assert customer is not None
    assert (stored["customer_id"], stored["zoho_deleted_at"]) == (customer["id"], None)


async def test_only_a_delete_may_come_without_a_record(engine: AsyncEngine) -> None:
    """An empty body is a record only for a delete."""
    async with engine.begin() as tx:
        assert await outcomes(tx, event(PRODUCT, {}, key="1", payload="{}")) == [REFUSED]
