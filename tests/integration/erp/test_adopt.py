"""Adopting an ERP's tables adds what is missing, is idempotent, and refuses what would not work."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities.registry import HANDLERS
from handlers.erp.adopt import adopt
from handlers.errors import Refused
from handlers.queue.event import EntityType, Outcome
from tests.conftest import engine_for
from tests.integration.entities.events import applied, event, example_records, parents_of, row

_COLUMNS = text(
    "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public' ORDER BY 1, 2"
)


@pytest_asyncio.fixture(loop_scope="session")
async def erp(erp_url: str) -> AsyncIterator[AsyncEngine]:
    """The ERP's own tables, before an adoption."""
    engine = engine_for(erp_url)
    yield engine
    await engine.dispose()


async def columns(engine: AsyncEngine) -> set[tuple[object, ...]]:
    async with engine.connect() as tx:
        return {tuple(row) for row in await tx.execute(_COLUMNS)}


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as tx:
        for statement in statements:
            await tx.execute(text(statement))


async def test_adopting_twice_has_nothing_to_do_the_second_time(erp: AsyncEngine) -> None:
    """The first adoption returns its statements, the second has none."""
    assert await adopt(erp)
    assert await adopt(erp) == []


async def test_a_dry_run_says_the_same_and_changes_nothing(erp: AsyncEngine) -> None:
    """A dry run returns exactly the statements that the adoption runs."""
    before = await columns(erp)
    statements = await adopt(erp, dry_run=True)
    assert await columns(erp) == before
    assert await adopt(erp) == statements


async def test_adopting_only_adds(erp: AsyncEngine) -> None:
    """No column of the ERP's goes, changes its type or loses its default."""
    before = await columns(erp)
    statements = await adopt(erp)
    after = {(table, name): (kind, default) for table, name, kind, _, default in await columns(erp)}
    for table, name, kind, _, default in before:
        assert after[table, name] == (kind, default), (table, name)
    words = " ".join(statements)
    assert not re.search(
        r"\b(DROP (TABLE|COLUMN|INDEX|DEFAULT|CONSTRAINT)|RENAME|TYPE|DELETE|TRUNCATE)\b", words
    )


async def test_two_adoptions_at_once_do_no_harm(erp: AsyncEngine) -> None:
    """They wait for each other; one of them has nothing left to do."""
    both = await asyncio.gather(adopt(erp), adopt(erp))
    assert sorted(map(bool, both)) == [False, True]


async def test_an_empty_database_is_adopted_too(postgres_engine: AsyncEngine) -> None:
    """Where there are no tables of an ERP they are made, and all eleven kinds can be written."""
    await adopt(postgres_engine)
    written = set()
    async with postgres_engine.begin() as tx:
        for file, entity, record in example_records():
            if file == "payment/6.json":
                continue
            await applied(tx, parents_of(entity, record))
            (result,) = await applied(tx, [event(entity, record)])
            assert result.outcome in (Outcome.APPLIED, Outcome.SUPERSEDED), (file, result)
            written.add(entity)
    assert written == set(HANDLERS)


@pytest_asyncio.fixture(loop_scope="session")
async def postgres_engine(erp: AsyncEngine) -> AsyncEngine:
    """A database with no tables at all."""
    await run(erp, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return erp


async def test_the_original_ways_of_the_erp_are_adopted(erp: AsyncEngine) -> None:
    """Whole numbers for stock, doubles for money, times without a zone, NOT NULL where a blank may come."""
    await run(
        erp,
        "ALTER TABLE products ALTER stock_quantity TYPE integer, ALTER price TYPE double precision",
        "ALTER TABLE products ALTER sku SET NOT NULL, ALTER sku DROP DEFAULT",
        "ALTER TABLE products ALTER created_at DROP DEFAULT, ALTER updated_at TYPE timestamp",
        "ALTER TABLE sales_orders ALTER branch_id DROP DEFAULT, ALTER created_by DROP DEFAULT",
        "ALTER TABLE sales_orders ALTER status TYPE varchar(50)",
        "ALTER TABLE products DROP CONSTRAINT products_zoho_item_id_key",
    )
    await adopt(erp)
    assert await adopt(erp) == []
    async with erp.begin() as tx:
        item = event(EntityType.PRODUCT, {"item_id": "1", "sku": "", "rate": "1.50", "stock_on_hand": 5.7})
        order = event(EntityType.SALES_ORDER, {"salesorder_id": "8", "status": "draft"})
        assert {result.outcome for result in await applied(tx, [item, order])} == {Outcome.APPLIED}
        stored, ordered = await row(tx, EntityType.PRODUCT, "1"), await row(tx, EntityType.SALES_ORDER, "8")
    assert stored is not None
    assert ordered is not None
    assert (stored["stock_quantity"], float(stored["stock_on_hand"]), stored["sku"]) == (6, 5.7, None)
    assert (ordered["branch_id"], ordered["status"], ordered["payment_status"]) == (1, "draft", "PENDING")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE products ADD category_id_nn integer NOT NULL", "products.category_id_nn"),
        ("ALTER TABLE products DROP COLUMN zoho_item_id, ADD zoho_item_id bigint", "products.zoho_item_id"),
        ("CREATE TYPE s AS ENUM ('DRAFT'); ALTER TABLE bills ALTER status TYPE s USING NULL", "bills.status"),
        ("ALTER TABLE vendors DROP COLUMN id", "vendors.id"),
        ("ALTER TABLE vendors DROP COLUMN id, ADD id uuid DEFAULT gen_random_uuid()", "vendors.id"),
        ("ALTER TABLE vendors ALTER id DROP DEFAULT", "vendors.id"),
        ("ALTER TABLE invoices ALTER total TYPE boolean USING NULL", "invoices.total"),
    ],
)
async def test_what_cannot_be_adopted_is_refused_by_name(erp: AsyncEngine, change: str, named: str) -> None:
    """A table that the handlers could not write to is named, and nothing at all is changed."""
    await run(erp, *change.split("; "))
    before = await columns(erp)
    with pytest.raises(Refused, match=re.escape(named)):
        await adopt(erp)
    assert await columns(erp) == before


async def test_a_duplicate_key_is_refused_by_name(erp: AsyncEngine) -> None:
    """Only a person can decide which of two rows with one id to keep."""
    await run(
        erp,
        "ALTER TABLE products DROP CONSTRAINT products_zoho_item_id_key",
        "INSERT INTO products (zoho_item_id) VALUES ('7'), ('7')",
    )
    with pytest.raises(Refused, match=r"products\.zoho_item_id"):
        await adopt(erp)


async def test_rows_of_the_old_code_survive_adoption(erp: AsyncEngine) -> None:
    """What was there before is there afterwards, and the next payload takes it over."""
    await run(erp, "INSERT INTO products (zoho_item_id, name, price) VALUES ('1', 'old', 3)")
    await adopt(erp)
    async with erp.begin() as tx:
        kept = await row(tx, EntityType.PRODUCT, "1")
        assert kept is not None
        assert (kept["name"], kept["price"], kept["zoho_data"]) == ("old", 3, None)
        await applied(tx, [event(EntityType.PRODUCT, {"item_id": "1", "rate": 4})])
        taken = await row(tx, EntityType.PRODUCT, "1")
        assert taken is not None
        assert (taken["id"], taken["name"], taken["price"]) == (kept["id"], "old", 4)


async def test_a_role_that_does_not_own_the_tables_is_refused(erp: AsyncEngine) -> None:
    """Adding columns needs the owner; the refusal says that and changes nothing."""
    role = f"reader_{uuid.uuid4().hex[:8]}"
    await run(
        erp,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    url = erp.url.set(username=role, password="x").render_as_string(hide_password=False)
    reader = engine_for(url)
    try:
        with pytest.raises(Refused, match="owner of table"):
            await adopt(reader)
    finally:
        await reader.dispose()
        await run(erp, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
