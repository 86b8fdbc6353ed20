"""What only the database refuses: the server itself names every bad record, and the worker tries again without them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue import insert
from handlers.queue.diagnose import RowsRefused, diagnose
from handlers.queue.event import EntityType, Event, Outcome, Result
from handlers.worker.worker import Worker, new_owner
from tests.integration.entities.events import applied, event, lines, outcomes, parent, row
from tests.integration.queue.events import row as queue_row

PRODUCT, INVOICE, CUSTOMER = EntityType.PRODUCT, EntityType.INVOICE, EntityType.CUSTOMER


def product(key: str, hour: int = 12, **said: Any) -> dict[str, Any]:
    return {"item_id": key, "last_modified_time": f"2025-11-04T{hour:02d}:00:00+0300", **said}


def invoice(key: str, quantity: object) -> dict[str, Any]:
    line = {"line_item_id": f"{key}1", "item_id": "700", "quantity": quantity, "rate": 1}
    stamp = "2025-11-04T12:00:00+0300"
    return {"invoice_id": key, "customer_id": "5", "last_modified_time": stamp, "line_items": [line]}


async def rule(engine: AsyncEngine, *statements: str) -> None:
    """Rules that only the ERP's database knows."""
    async with engine.begin() as tx:
        for statement in statements:
            await tx.execute(text(statement))


CHEAP = "ALTER TABLE products ADD CONSTRAINT cheap CHECK (price < 100)"
SMALL = "ALTER TABLE products ALTER COLUMN reorder_level TYPE numeric(4, 2)"


async def receive(engine: AsyncEngine, entity: EntityType, key: str, record: dict[str, Any]) -> UUID:
    payload = event(entity, record).payload
    async with engine.begin() as tx:
        return await insert.insert_event(tx, entity=entity, key=key, payload_text=payload)


class Counted:
    """The handlers, and how often they were asked to apply how many events."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def __call__(self, tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
        self.calls.append(len(events))
        return await apply_events(tx, events)


async def work(engine: AsyncEngine, apply: Counted | None = None) -> None:
    apply = apply or Counted()
    await Worker(engine, owner=new_owner("test"), revision="r1", apply=apply).step()


async def told(engine: AsyncEngine, id_: UUID) -> tuple[str, str | None, str | None]:
    """Status, SQLSTATE and field of an event."""
    found = await queue_row(engine, id_)
    result = found["processing_result"] or {}
    return found["status"], result.get("sqlstate"), result.get("field")


async def test_every_bad_record_is_named_at_once(engine: AsyncEngine) -> None:
    """New rows and rows that are there, each with its own error; the good ones are not among them."""
    await rule(engine, CHEAP, SMALL)
    async with engine.begin() as tx:
        await outcomes(tx, *(event(PRODUCT, product(str(key), 9)) for key in range(10)))
    batch = [event(PRODUCT, product(str(key), rate=5)) for key in range(20)]
    batch[3] = event(PRODUCT, product("3", rate=500))
    batch[4] = event(PRODUCT, product("4", reorder_level=12345))
    batch[15] = event(PRODUCT, product("15", rate=500))
    with pytest.raises(RowsRefused) as caught:
        async with engine.begin() as tx:
            await applied(tx, batch)
    said = {key: diagnose(error) for key, error in caught.value.errors.items()}
    assert {key: each.code for key, each in said.items()} == {"3": "23514", "4": "22003", "15": "23514"}
    assert said["15"].field == "cheap"
    assert "Failing row contains" in said["15"].message


async def test_nothing_stays_of_a_batch_that_is_refused(engine: AsyncEngine) -> None:
    """Rows that were written to find the bad ones are gone with the caller's transaction."""
    await rule(engine, CHEAP)
    with pytest.raises(RowsRefused):
        async with engine.begin() as tx:
            await applied(tx, [event(PRODUCT, product("1", rate=1)), event(PRODUCT, product("2", rate=100))])
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM products"))).scalar() == 0


async def test_an_event_alone_is_refused_in_the_databases_own_words(engine: AsyncEngine) -> None:
    """A single event is not isolated: no second query."""
    await rule(engine, CHEAP)
    with pytest.raises(DBAPIError, match="cheap"):
        async with engine.begin() as tx:
            await applied(tx, [event(PRODUCT, product("1", rate=100))])


async def test_a_bad_line_names_its_record(engine: AsyncEngine) -> None:
    """An order is as good as its lines: the record is refused, not the line."""
    await rule(engine, "ALTER TABLE invoice_items ADD CONSTRAINT few CHECK (quantity < 10)")
    async with engine.begin() as tx:
        await outcomes(tx, parent(CUSTOMER, "5"), parent(PRODUCT, "700"))
    batch = [event(INVOICE, invoice(f"90{n}", 50 if n == 2 else n)) for n in range(4)]
    with pytest.raises(RowsRefused) as caught:
        async with engine.begin() as tx:
            await applied(tx, batch)
    assert (caught.value.entity, list(caught.value.errors)) == (INVOICE, ["902"])


async def test_the_worker_completes_all_others_with_one_more_call(engine: AsyncEngine) -> None:
    """Three bad ones among three hundred: the batch, and once more without them."""
    await rule(engine, CHEAP, SMALL)
    ids = [await receive(engine, PRODUCT, str(n), product(str(n), rate=5)) for n in range(297)]
    # The last by its key: the server looks at so many rows in parts.
    dear = await receive(engine, PRODUCT, "999", product("999", rate=100))
    large = await receive(engine, PRODUCT, "501", product("501", reorder_level=1000))
    odd = await receive(engine, PRODUCT, "502", product("502", rate="five"))
    apply = Counted()
    await work(engine, apply)
    assert apply.calls == [300, 298]
    assert Counter([(await told(engine, id_))[0] for id_ in ids]) == {"completed": 297}
    assert await told(engine, dear) == ("dead_letter", "23514", "cheap")
    assert await told(engine, large) == ("dead_letter", "22003", None)
    assert await told(engine, odd) == ("dead_letter", None, "rate")


async def test_bad_rows_and_bad_lines_are_found_one_after_the_other(engine: AsyncEngine) -> None:
    """What could not be seen behind the first refusal is found by the next."""
    await rule(
        engine,
        "ALTER TABLE invoice_items ADD CONSTRAINT few CHECK (quantity < 10)",
        "ALTER TABLE invoices ADD CONSTRAINT not_this CHECK (zoho_invoice_id <> '903')",
    )
    for kind, key in ((CUSTOMER, "5"), (PRODUCT, "700")):
        await receive(engine, kind, key, {"contact_id": key, "item_id": key, "contact_type": "customer"})
    ids = {
        n: await receive(engine, INVOICE, f"90{n}", invoice(f"90{n}", 50 if n == 2 else n)) for n in range(6)
    }
    await work(engine)
    assert await told(engine, ids.pop(2)) == ("dead_letter", "23514", "few")
    assert await told(engine, ids.pop(3)) == ("dead_letter", "23514", "not_this")
    assert {(await told(engine, id_))[0] for id_ in ids.values()} == {"completed"}
    async with engine.connect() as tx:
        assert await row(tx, INVOICE, "902") is None
        stored = await row(tx, INVOICE, "905")
        assert stored is not None
        assert len(await lines(tx, "invoice_items", "invoice_id", stored["id"])) == 1


async def test_the_good_version_of_a_record_outlives_the_bad_one(engine: AsyncEngine) -> None:
    """Of two events of a refused record only the bad one is buried; a superseded bad event has no effect."""
    await rule(engine, CHEAP)
    good = await receive(engine, PRODUCT, "1", product("1", 10, rate=5))
    bad = await receive(engine, PRODUCT, "1", product("1", 11, rate=500))
    overtaken = await receive(engine, PRODUCT, "2", product("2", 10, rate=500))
    newer = await receive(engine, PRODUCT, "2", product("2", 11, rate=7))
    others = [await receive(engine, PRODUCT, str(n), product(str(n), rate=5)) for n in range(10, 20)]
    await work(engine)
    statuses = [(await told(engine, id_))[0] for id_ in (good, bad, overtaken, newer)]
    assert statuses == ["completed", "dead_letter", "completed", "completed"]
    assert {(await told(engine, id_))[0] for id_ in others} == {"completed"}
    async with engine.connect() as tx:
        prices = [(await row(tx, PRODUCT, key) or {})["price"] for key in ("1", "2")]
    assert prices == [5, 7]


async def test_of_two_new_records_with_one_number_one_is_written(engine: AsyncEngine) -> None:
    """Each row would do alone; together they cannot both stay, and the older one waits for the other."""
    await rule(engine, "CREATE UNIQUE INDEX one_sku ON products (sku)")
    ids = [await receive(engine, PRODUCT, str(n), product(str(n), sku=f"S{n % 9}")) for n in range(10)]
    apply = Counted()
    await work(engine, apply)
    found = Counter([(await told(engine, id_))[:2] for id_ in ids])
    assert found == {("completed", None): 9, ("retry", None): 1}
    assert apply.calls == [10]


async def test_what_no_single_row_explains_is_found_in_pieces(engine: AsyncEngine) -> None:
    """A rule about a whole statement: each row alone is good, and all of them are applied."""
    await rule(
        engine,
        "CREATE FUNCTION not_many() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN IF (SELECT count(*) FROM fresh) > 5 THEN RAISE 'too many at once' USING ERRCODE = '23514'; END IF;"
        " RETURN NULL; END $$",
        "CREATE TRIGGER not_many AFTER INSERT ON products REFERENCING NEW TABLE AS fresh"
        " FOR EACH STATEMENT EXECUTE FUNCTION not_many()",
    )
    ids = [await receive(engine, PRODUCT, str(n), product(str(n))) for n in range(20)]
    await work(engine)
    assert {(await told(engine, id_))[0] for id_ in ids} == {"completed"}


async def test_a_child_of_a_refused_record_waits_for_it(engine: AsyncEngine) -> None:
    """It must not point at a row that was written only to find the bad ones."""
    await rule(engine, CHEAP)
    await receive(engine, CUSTOMER, "5", {"contact_id": "5", "contact_type": "customer"})
    bad = await receive(engine, PRODUCT, "700", product("700", rate=100))
    good = await receive(engine, PRODUCT, "701", product("701", rate=1))
    child = await receive(engine, INVOICE, "900", invoice("900", 1))
    await work(engine)
    assert [(await told(engine, id_))[0] for id_ in (bad, good, child)] == [
        "dead_letter",
        "completed",
        "retry",
    ]
    assert "Product 700" in (await queue_row(engine, child))["error_message"]


async def test_values_of_customers_are_in_no_log_line(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's words about a bad row hold the row: only the dead letter may show them."""
    await rule(engine, CHEAP)
    await receive(engine, PRODUCT, "1", product("1", rate=100, name="Layla's order"))
    await receive(engine, PRODUCT, "2", product("2", rate=1))
    with caplog.at_level(logging.DEBUG, logger="handlers"):
        await work(engine)
    assert "23514" in caplog.text
    assert "Layla" not in caplog.text


async def test_the_blocks_settings_end_with_their_transaction(engine: AsyncEngine) -> None:
    """Payloads stay in no session, and statements are planned as before."""
    await rule(engine, CHEAP)
    async with engine.connect() as tx:
        before = (await tx.execute(text("SHOW plan_cache_mode"))).scalar_one()
        await tx.rollback()
        with pytest.raises(RowsRefused):
            await applied(tx, [event(PRODUCT, product("1", rate=100)), event(PRODUCT, product("2", rate=1))])
        await tx.rollback()
        kept = await tx.execute(
            text("SELECT current_setting('runbook.rows', true), current_setting('plan_cache_mode')")
        )
        assert kept.one() == ("", before)


async def test_a_mix_of_kinds_loses_only_the_bad(engine: AsyncEngine) -> None:
    """The outcome of the others is what it would have been without the bad ones."""
    await rule(engine, CHEAP)
    batch = [parent(CUSTOMER, "5"), event(PRODUCT, product("700", rate=1)), event(INVOICE, invoice("900", 1))]
    bad = event(PRODUCT, product("701", rate=100))
    async with engine.begin() as tx:
        savepoint = await tx.begin_nested()
        with pytest.raises(RowsRefused) as caught:
            await applied(tx, [*batch, bad])
        await savepoint.rollback()
        assert list(caught.value.errors) == ["701"]
        assert await outcomes(tx, *batch) == [Outcome.APPLIED] * 3
