"""Two keys for one thing: the newer version's key counts, whichever of them is usually better."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue.event import EntityType
from tests.integration.entities.events import ID_KEYS, applied, event, lines, parent, row

PRODUCT, ORDER, CUSTOMER = EntityType.PRODUCT, EntityType.SALES_ORDER, EntityType.CUSTOMER


def version(entity: EntityType, hour: int, **said: Any) -> dict[str, Any]:
    return {ID_KEYS[entity]: "1", "last_modified_time": f"2025-11-04T{hour:02d}:00:00+0300", **said}


async def left_by(
    engine: AsyncEngine, entity: EntityType, versions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The row after *versions* in every order, each in a batch of its own; always the same one, or this fails."""
    rows = []
    for order in permutations(versions):
        async with engine.connect() as tx:
            await applied(tx, [parent(CUSTOMER, "5")])
            for each in order:
                await applied(tx, [event(entity, each)])
            stored = await row(tx, entity, "1")
            assert stored is not None
            rows.append({**stored, "stock": await stock(tx, stored["id"]) if entity is PRODUCT else []})
            await tx.rollback()
    return rows


async def stock(tx: AsyncConnection, own_id: int) -> list[str]:
    return [line["place_id"] for line in await lines(tx, "product_stock", "product_id", own_id)]


@pytest.mark.parametrize(
    ("entity", "old", "new", "column", "wanted"),
    [
        (PRODUCT, {"name": "old"}, {"item_name": "new"}, "name", "new"),
        (PRODUCT, {"item_name": "old"}, {"name": "new"}, "name", "new"),
        (PRODUCT, {"status": "active"}, {"is_active": False}, "is_active", False),
        (PRODUCT, {"length": 1}, {"package_details": {"length": 2}}, "length", 2),
        (
            PRODUCT,
            {"locations": [{"location_id": "7"}]},
            {"warehouses": [{"warehouse_id": "8"}]},
            "stock",
            ["8"],
        ),
        (ORDER, {"location_id": "7"}, {"warehouse_id": "8"}, "location_id", "8"),
        (ORDER, {"warehouse_id": "7"}, {"location_id": ""}, "location_id", None),
        (ORDER, {"discount": "10%"}, {"discount_percent": 5}, "discount_percentage", 5),
    ],
)
async def test_the_newer_key_fills_the_column(
    engine: AsyncEngine,
    entity: EntityType,
    old: dict[str, Any],
    new: dict[str, Any],
    column: str,
    wanted: object,
) -> None:
    """A list's row and a single record of the source call the same thing by two names; a blank one counts as well."""
    also = {"customer_id": "5"} if entity is ORDER else {}
    rows = await left_by(engine, entity, [version(entity, 9, **old, **also), version(entity, 10, **new)])
    assert [found[column] for found in rows] == [wanted, wanted]


async def test_the_better_key_counts_within_one_version(engine: AsyncEngine) -> None:
    """A record that says both is read as before, also when an older version said one of them."""
    both = version(PRODUCT, 10, name="better", item_name="other")
    rows = await left_by(engine, PRODUCT, [version(PRODUCT, 9, item_name="old", unit="pcs"), both])
    assert [(found["name"], found["unit"]) for found in rows] == [("better", "pcs")] * 2


async def test_of_three_versions_the_last_that_says_it_counts(engine: AsyncEngine) -> None:
    """Neither the first nor the one that came last but says nothing of it."""
    versions = [
        version(PRODUCT, 9, name="first"),
        version(PRODUCT, 10, item_name="second"),
        version(PRODUCT, 11, sku="S-1"),
    ]
    rows = await left_by(engine, PRODUCT, versions)
    assert {(found["name"], found["sku"]) for found in rows} == {("second", "S-1")}
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar_one() == 0


async def test_versions_that_are_good_alone_are_not_refused_together(engine: AsyncEngine) -> None:
    """Whichever came last would be refused, and the order would decide what the row says."""
    said = [
        {"vendor_id": "9", "customer_id": "5", "amount": 10},
        {"customer_id": "", "reference_number": "R"},
    ]
    versions = [version(EntityType.PAYMENT, 9 + at, **each) for at, each in enumerate(said)]
    first, second = await left_by(engine, EntityType.PAYMENT, versions)
    told = {name: first[name] for name in ("amount", "reference_number")}
    assert told == {"amount": 10, "reference_number": "R"}
    clocks = dict.fromkeys(("id", "created_at", "updated_at", "synced_at"))
    assert second | clocks == first | clocks
