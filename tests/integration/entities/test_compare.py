"""A canary's row is compared as its columns hold it: rounding by a column's type is no difference."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.compare import differences
from handlers.erp.adopt import adopt, warnings
from handlers.queue.event import EntityType
from tests.integration.entities.events import applied, event

ITEM: dict[str, Any] = {
    "item_id": "460000000000001",
    "name": "Cable",
    "rate": "1234567.895001",
    "stock_on_hand": "7.5",
    "created_time": "2025-11-04T15:20:11.600+0300",
    "last_modified_time": "2025-11-04T15:20:11+0300",
    "locations": [{"location_id": "1", "location_stock_on_hand": "7.125"}],
}


async def told(tx: AsyncConnection, record: dict[str, Any] = ITEM) -> list[str]:
    payload = json.dumps({"item": record})
    return await differences(tx, EntityType.PRODUCT, record["item_id"], payload)


ROUNDED = [
    ("price", "numeric(10,2)"),
    ("price", "numeric(7,-2)"),
    ("price", "real"),
    ("price", "double precision"),
    ("price", "bigint"),
    ("price", "amount"),
    ("stock_quantity", "integer"),
    ("created_time", "timestamp(0)"),
    ("created_time", "timestamptz(0)"),
    ("name", "character(20)"),
]


async def test_what_a_columns_type_rounds_is_no_difference(engine: AsyncEngine) -> None:
    """Whatever the ERP declared: the stored value is the payload's as far as the column holds it."""
    async with engine.connect() as tx:
        await tx.execute(text("CREATE DOMAIN amount AS numeric(10,2)"))
        await tx.execute(text("ALTER TABLE product_stock ALTER stock_on_hand TYPE numeric(10,2)"))
        for column, type_name in ROUNDED:
            tried = await tx.begin_nested()
            await tx.execute(text(f"ALTER TABLE products ALTER {column} TYPE {type_name}"))
            await applied(tx, [event(EntityType.PRODUCT, ITEM)])
            assert await told(tx) == [], type_name
            await tried.rollback()


OTHER = [
    ("numeric(10,2)", "1234567.89"),
    ("real", "1234568.5"),
    ("bigint", "1234567"),
    ("numeric", "1234567.895"),
]


async def test_another_value_is_a_difference_in_every_type(engine: AsyncEngine) -> None:
    """One cent less, the next number of the type, a whole number cut instead of rounded, and a lost digit."""
    async with engine.connect() as tx:
        for type_name, stored in OTHER:
            tried = await tx.begin_nested()
            await tx.execute(text(f"ALTER TABLE products ALTER price TYPE {type_name}"))
            await applied(tx, [event(EntityType.PRODUCT, ITEM)])
            await tx.execute(text(f"UPDATE products SET price = {stored}"))
            (sentence,) = await told(tx)
            assert sentence.startswith("products.price is "), type_name
            assert "the payload has '1234567.895001'" in sentence
            await tried.rollback()


async def test_a_value_that_the_type_cannot_hold_is_a_difference(engine: AsyncEngine) -> None:
    """Another program may have stored what fits: the transaction survives the question."""
    async with engine.connect() as tx:
        await tx.execute(text("ALTER TABLE products ALTER price TYPE numeric(5,2)"))
        await applied(tx, [event(EntityType.PRODUCT, {**ITEM, "rate": "1"})])
        await tx.execute(text("UPDATE products SET price = 999.99"))
        assert [sentence[:14] for sentence in await told(tx)] == ["products.price"]
        await tx.execute(text("SELECT 1"))


async def test_lines_are_compared_by_their_types_as_well(engine: AsyncEngine) -> None:
    """A changed line is named with its number."""
    async with engine.connect() as tx:
        await tx.execute(text("ALTER TABLE product_stock ALTER stock_on_hand TYPE numeric(10,2)"))
        await applied(tx, [event(EntityType.PRODUCT, ITEM)])
        await tx.execute(text("UPDATE product_stock SET stock_on_hand = 7.12"))
        assert [each.split(" is ")[0] for each in await told(tx)] == ["product_stock[0].stock_on_hand"]


async def test_a_difference_behind_many_rounded_values_is_found(engine: AsyncEngine) -> None:
    """The last of a hundred lines: the others are all rounded by their column."""
    places = [{"location_id": str(n), "location_stock_on_hand": f"{n}.125"} for n in range(100)]
    record = {**ITEM, "locations": places}
    async with engine.connect() as tx:
        await tx.execute(text("ALTER TABLE product_stock ALTER stock_on_hand TYPE numeric(10,2)"))
        await applied(tx, [event(EntityType.PRODUCT, record)])
        assert await told(tx, record) == []
        await tx.execute(text("UPDATE product_stock SET stock_on_hand = 7 WHERE place_id = '99'"))
        assert [each.split(" is ")[0] for each in await told(tx, record)] == [
            "product_stock[99].stock_on_hand"
        ]


async def test_adoption_names_columns_that_cannot_hold_every_amount(engine: AsyncEngine) -> None:
    """They are adopted as they are: widening one rewrites its table."""
    assert await warnings(engine) == []
    async with engine.begin() as tx:
        for change in (
            *("invoices ALTER total TYPE real", "bills ALTER total TYPE numeric(10,2)"),
            *("products ALTER price TYPE numeric(12,0)", "sales_items ALTER unit_price TYPE integer"),
            "credit_notes ALTER total TYPE numeric(18,4)",
        ):
            await tx.execute(text(f"ALTER TABLE {change}"))
    assert await adopt(engine, dry_run=True) == []
    sentences = await warnings(engine)
    assert sorted(each.split(" is ")[0] for each in sentences) == [
        *("bills.total", "invoices.total", "products.price", "sales_items.unit_price")
    ]
    assert (
        "bills.total is numeric(10,2), which refuses an amount of more than 8 digits before the point: "
        "ALTER TABLE bills ALTER COLUMN total TYPE numeric"
    ) in sentences
