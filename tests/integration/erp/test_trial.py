"""Trying payloads returns the outcome and the row of each record, and stores nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.erp.trial import Trial, try_bodies
from handlers.errors import DatabaseDown, Refused
from handlers.queue.event import EntityType, Outcome
from tests.integration.entities.events import PAYLOADS, applied, event, parent

PRODUCT, INVOICE = EntityType.PRODUCT, EntityType.INVOICE


async def tried(engine: AsyncEngine, entity: EntityType, *bodies: Any) -> list[Trial]:
    """Try each body as a file of its own, numbered from 0."""
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    return [
        trial
        async for trial in try_bodies(engine, entity, [(str(at), body) for at, body in enumerate(texts)])
    ]


async def test_nothing_is_kept(engine: AsyncEngine) -> None:
    """A trial leaves no row, with any outcome."""
    (trial,) = await tried(engine, PRODUCT, {"item": {"item_id": "1", "name": "A"}})
    assert trial.outcome is Outcome.APPLIED
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar() == 0


async def test_each_record_is_tried_on_its_own(engine: AsyncEngine) -> None:
    """The same record in two files is applied twice over, and a parent in the same call does not count."""
    older = {"item_id": "1", "last_modified_time": "2025-11-04T00:00:00Z"}
    newer = older | {"last_modified_time": "2025-11-05T00:00:00Z"}
    assert [trial.outcome for trial in await tried(engine, PRODUCT, newer, older)] == [Outcome.APPLIED] * 2
    bodies = [{"invoice_id": "7"}, {"invoice_id": "8", "line_items": [{"item_id": "1"}]}]
    assert [trial.outcome for trial in await tried(engine, INVOICE, *bodies)] == [
        Outcome.APPLIED,
        Outcome.WAITING,
    ]


async def test_a_record_that_waits_still_shows_its_row_and_lines(engine: AsyncEngine) -> None:
    """The missing parents are named, and the row is shown without their ids."""
    order = {
        "salesorder_id": "8",
        "customer_id": "5",
        "total": "12.50",
        "line_items": [{"item_id": "1", "quantity": 1.5, "rate": 3}],
    }
    (trial,) = await tried(engine, EntityType.SALES_ORDER, order)
    assert (trial.outcome, trial.key) == (Outcome.WAITING, "8")
    assert "Customer 5" in trial.reason
    assert "Product 1" in trial.reason
    assert trial.row is not None
    assert (trial.row["total_amount"], trial.row["zoho_customer_id"], trial.row["customer_id"]) == (
        12.5,
        "5",
        None,
    )
    assert [(line["zoho_item_id"], line["quantity"]) for line in trial.row["sales_items"]] == [("1", 1.5)]


async def test_against_an_environment_the_row_is_what_would_stand_there(engine: AsyncEngine) -> None:
    """Stored parents and versions count, and a field that is missing keeps its stored value."""
    async with engine.begin() as tx:
        stored = {
            "invoice_id": "7",
            "total": 1,
            "notes": "kept",
            "last_modified_time": "2025-11-04T00:00:00Z",
        }
        await applied(tx, [parent(EntityType.CUSTOMER, "5"), event(INVOICE, stored)])
    invoice = {"invoice_id": "7", "customer_id": "5", "total": 2}
    newer, older, waits = await tried(
        engine,
        INVOICE,
        invoice | {"last_modified_time": "2025-11-05T00:00:00Z"},
        {"invoice_id": "7", "total": 3, "last_modified_time": "2025-11-03T00:00:00Z"},
        invoice | {"customer_id": "6", "last_modified_time": "2025-11-05T00:00:00Z"},
    )
    assert [trial.outcome for trial in (newer, older, waits)] == [
        Outcome.APPLIED,
        Outcome.SUPERSEDED,
        Outcome.WAITING,
    ]
    assert [(trial.row or {})["total"] for trial in (newer, older, waits)] == [2, 1, 2]
    assert {(trial.row or {})["notes"] for trial in (newer, older, waits)} == {"kept"}


@pytest.mark.parametrize(
    ("body", "key", "field"),
    [
        ({"item": {"item_id": "1", "rate": "NaN"}}, "1", "rate"),
        ('{"item": {"item_id": "1", "rate": NaN}}', None, "(body)"),
        (
            '{"item": {"item_id": "1", "locations": [{}, {"other": -Infinity}]}}',
            None,
            "(body)",
        ),
        ('{"item": {"item_id": "1", "item_id": "2"}}', None, "item_id"),
        ({"item": {"item_id": 2.5}}, None, "item_id"),
        ({"item": {"name": "A"}}, None, "item_id"),
        ("not JSON", None, "(body)"),
        ({"items": []}, None, "items"),
        ({"contact": {"contact_id": "1"}}, None, "(body)"),
    ],
)
async def test_a_refusal_names_the_field_and_shows_no_row(
    engine: AsyncEngine, body: Any, key: str | None, field: str
) -> None:
    """Refused with the field and the reason; there is no row to show."""
    (trial,) = await tried(engine, PRODUCT, body)
    assert (trial.outcome, trial.key, trial.field, trial.row) == (Outcome.REFUSED, key, field, None)
    assert field in trial.reason


async def test_a_bad_record_in_a_list_does_not_hide_the_good_ones(engine: AsyncEngine) -> None:
    """Each record of a list has its own line."""
    trials = await tried(
        engine, PRODUCT, {"items": [{"item_id": "1"}, {"item_id": "2", "rate": "x"}, {"item_id": "3"}]}
    )
    assert [(trial.key, trial.outcome) for trial in trials] == [
        ("1", Outcome.APPLIED),
        ("2", Outcome.REFUSED),
        ("3", Outcome.APPLIED),
    ]


async def test_what_only_the_database_refuses_is_refused(engine: AsyncEngine) -> None:
    """A constraint of the ERP is a refusal too, and the next record is tried as if the first had not been tried."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE products ADD CONSTRAINT cheap CHECK (price < 100)"))
    dear, fair = await tried(engine, PRODUCT, {"item_id": "1", "rate": 100}, {"item_id": "2", "rate": 99})
    assert (dear.outcome, dear.field, dear.row) == (Outcome.REFUSED, "cheap", None)
    assert fair.outcome is Outcome.APPLIED


async def test_tables_that_are_not_adopted_are_no_fault_of_a_record(engine: AsyncEngine) -> None:
    """A missing column is reported once, with the command to run, and not as a refusal of each record."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE products DROP COLUMN zoho_shape"))
    with pytest.raises(Refused, match="runbook db adopt"):
        await tried(engine, PRODUCT, {"item_id": "1"})


async def test_a_database_that_is_away_is_said_to_be() -> None:
    """No traceback, but which database does not answer."""
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseDown, match="does not answer"):
        await tried(engine, PRODUCT, {"item_id": "1"})
    await engine.dispose()


async def test_numbers_keep_every_digit(engine: AsyncEngine) -> None:
    """A JSON number where a double prints the same decimal, text where it would not."""
    body = '{"item_id": "1", "rate": 12500.10, "purchase_rate": 0.12345678901234567890, "stock_on_hand": -3}'
    (trial,) = await tried(engine, PRODUCT, body)
    assert trial.row is not None
    assert (trial.row["price"], trial.row["purchase_rate"]) == (12500.1, "0.12345678901234567890")
    assert trial.row["stock_on_hand"] == -3
    json.dumps(trial.row, allow_nan=False)


async def test_every_example_has_a_line_for_each_record(engine: AsyncEngine) -> None:
    """Tried alone, every example is applied, waits with its row, or is refused with a reason."""
    for entity in EntityType:
        for path in sorted((PAYLOADS / entity.value.lower()).glob("*.json")):
            trials = await tried(engine, entity, path.read_text(encoding="utf-8"))
            assert trials
            for trial in trials:
                refused = (path.parent.name, path.name) == ("payment", "6.json")
                assert (trial.outcome is Outcome.REFUSED) == refused, (path.name, trial.reason)
                assert (trial.row is None) == refused
                assert bool(trial.reason) == (trial.outcome is not Outcome.APPLIED)
