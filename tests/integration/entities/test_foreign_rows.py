"""Rows of the ERP's own workers: compared with the payload where possible, otherwise reported."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.compare import differences, uncomparable
from handlers.gate.rules import judge_canary
from handlers.gate.values import CanaryMeasurement, Thresholds
from handlers.queue.event import EntityType

PRODUCT = json.dumps({"item_id": "1", "name": "A", "sku": "", "rate": "", "status": "active"})
INVOICE = json.dumps({"invoice_id": "7", "total": 3, "line_items": [{"line_item_id": "8", "quantity": 1}]})
NARROW = (
    """
    CREATE TABLE products (
        id serial PRIMARY KEY, zoho_item_id text UNIQUE, name text, sku text, price double precision, is_active bool
    )
    """,
    "INSERT INTO products (zoho_item_id, name, sku, price, is_active) VALUES ('1', 'A', '', 0, true)",
    "CREATE TABLE invoices (id serial PRIMARY KEY, zoho_invoice_id text UNIQUE, total double precision)",
    "INSERT INTO invoices (zoho_invoice_id, total) VALUES ('7', 3)",
)


@pytest.fixture
async def tx(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A database with the few tables that an ERP with workers of its own may have; nothing is kept."""
    async with engine.connect() as connection:
        await connection.execute(text("CREATE SCHEMA narrow"))
        await connection.execute(text("SET search_path = narrow"))
        for statement in NARROW:
            await connection.execute(text(statement))
        yield connection
        await connection.rollback()


async def test_defaults_of_another_mapping_are_no_difference(tx: AsyncConnection) -> None:
    """Where the payload says nothing, the ERP's own worker may write 0 or ""; ours may not."""
    assert await differences(tx, EntityType.PRODUCT, "1", PRODUCT, by_us=False) == []
    assert len(await differences(tx, EntityType.PRODUCT, "1", PRODUCT)) == 2


async def test_what_we_work_out_may_be_worked_out_otherwise(tx: AsyncConnection) -> None:
    """Many an ERP takes every product for active, and none trims what Zoho pads."""
    inactive = PRODUCT.replace('"active"', '"inactive"').replace('"A"', '"A "')
    await tx.execute(text("UPDATE products SET name = 'A '"))
    assert await differences(tx, EntityType.PRODUCT, "1", inactive, by_us=False) == []
    assert await differences(tx, EntityType.PRODUCT, "1", inactive) != []


async def test_what_the_payload_does_say_must_stand_in_any_row(tx: AsyncConnection) -> None:
    """Another mapping may have defaults, but it may not lose a name."""
    await tx.execute(text("UPDATE products SET name = ''"))
    (said,) = await differences(tx, EntityType.PRODUCT, "1", PRODUCT, by_us=False)
    assert said == "products.name is '', the payload has 'A'"


async def test_a_row_that_is_missing_is_a_difference_whoever_writes(tx: AsyncConnection) -> None:
    """Completed without a row is the one thing that no mapping may do."""
    await tx.execute(text("DELETE FROM products"))
    (said,) = await differences(tx, EntityType.PRODUCT, "1", PRODUCT, by_us=False)
    assert said == "products has no row for Product 1"


async def test_lines_are_not_asked_for_where_the_erp_keeps_none(tx: AsyncConnection) -> None:
    """An ERP may keep an invoice without a table for its lines."""
    assert await uncomparable(tx, EntityType.INVOICE, "7", INVOICE) is None
    assert await differences(tx, EntityType.INVOICE, "7", INVOICE, by_us=False) == []


@pytest.mark.parametrize(
    ("change", "payload", "why"),
    [
        ("ALTER TABLE products RENAME TO articles", PRODUCT, "there is no table products"),
        ("ALTER TABLE products RENAME zoho_item_id TO ref", PRODUCT, "products has no column zoho_item_id"),
        ("SELECT", '{"reference": 1}', "our mapping refuses its payload"),
    ],
)
async def test_a_row_that_cannot_be_compared_is_told_and_not_blamed(
    tx: AsyncConnection, change: str, payload: str, why: str
) -> None:
    """An ERP with other tables, or with payloads that only its own workers read, is no broken revision."""
    await tx.execute(text(change))
    assert why in (await uncomparable(tx, EntityType.PRODUCT, "1", payload) or "")


async def test_a_table_that_we_may_not_read_is_told(tx: AsyncConnection) -> None:
    """A missing grant must not look like a missing row."""
    await tx.execute(text("CREATE ROLE no_reader"))
    await tx.execute(text("GRANT USAGE ON SCHEMA narrow TO no_reader"))
    await tx.execute(text("SET LOCAL ROLE no_reader"))
    why = await uncomparable(tx, EntityType.PRODUCT, "1", PRODUCT)
    assert why == "our user may not read products"


def test_a_canary_says_that_its_row_was_not_compared() -> None:
    """Less was proven then, and the report must show it."""
    seen = CanaryMeasurement(
        entity="Product",
        key="1",
        status="completed",
        seconds=1,
        limit_seconds=60,
        wanted_revision="9f3c2e1",
        not_compared="there is no table products",
    )
    said = judge_canary(seen, Thresholds()).sentence
    assert said == "Product 1 completed, 1.0 s; its row was not compared: there is no table products"
