"""Adopting while the application works, after a kill, and where a table is none or belongs to another role."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.erp.adopt import adopt, required_statements
from handlers.errors import Refused, TryAgain
from tests.conftest import engine_for

INDEX = "ix_tds_sync_queue_waiting_for"
IN_A_PROCESS = """
import asyncio, os
from tests.conftest import engine_for
from handlers.erp.adopt import adopt
asyncio.run(adopt(engine_for(os.environ["ERP_URL"])))
"""


@pytest_asyncio.fixture(loop_scope="session")
async def erp(erp_url: str) -> AsyncIterator[AsyncEngine]:
    """The ERP's own tables, before an adoption."""
    engine = engine_for(erp_url)
    yield engine
    await engine.dispose()


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as tx:
        for statement in statements:
            await tx.execute(text(statement))


async def ask(engine: AsyncEngine, question: str) -> list[tuple[object, ...]]:
    async with engine.connect() as tx:
        return [tuple(row) for row in await tx.execute(text(question))]


async def until(engine: AsyncEngine, question: str, seconds: float = 15) -> None:
    """Wait until *question* has an answer."""
    deadline = time.monotonic() + seconds
    while not await ask(engine, question):
        assert time.monotonic() < deadline, f"never true: {question}"
        await asyncio.sleep(0.02)


@contextmanager
def adopting(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that adopts; gone at the end."""
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS], cwd=root, env=os.environ | {"ERP_URL": url}
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(10)


WAITS_FOR_VENDORS = "SELECT 1 FROM pg_locks WHERE relation = 'vendors'::regclass AND NOT granted"
FREE = """
    SELECT 1 WHERE NOT EXISTS (
        SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND d.datname = current_database())
"""


async def test_a_table_in_use_is_not_waited_for_long(
    erp: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application has priority: adoption ends, its finished statements stay, and the next one does the rest."""
    monkeypatch.setattr("handlers.erp.adopt.LOCK_TRIES", 2)
    monkeypatch.setattr("handlers.erp.adopt.LOCK_WAIT_SECONDS", 0.1)
    wanted = await adopt(erp, dry_run=True)
    async with erp.connect() as application:
        await application.execute(text("SELECT 1 FROM vendors"))
        with pytest.raises(TryAgain, match="vendors"):
            await adopt(erp)
    left = await adopt(erp)
    assert 0 < len(left) < len(wanted)
    assert await adopt(erp) == []


async def test_the_application_waits_for_no_longer_than_one_try(erp: AsyncEngine) -> None:
    """While an adoption waits for a long reader, a writer of that table gets its lock between two tries."""
    async with erp.connect() as reader:
        await reader.execute(text("SELECT 1 FROM vendors"))
        adoption = asyncio.create_task(adopt(erp))
        await until(erp, WAITS_FOR_VENDORS)
        began = time.monotonic()
        await run(erp, "INSERT INTO vendors (zoho_vendor_id, vendor_name) VALUES ('1', 'a')")
        assert time.monotonic() - began < 3
        assert await ask(erp, "SELECT 1 FROM pg_locks WHERE relation = 'products'::regclass") == []
        await reader.rollback()
        assert await adoption
    assert await adopt(erp) == []


async def test_killed_in_the_middle_it_is_finished_by_the_next(erp: AsyncEngine, erp_url: str) -> None:
    """After SIGKILL the next adoption does the rest, and does not wait for the dead one."""
    wanted = await adopt(erp, dry_run=True)
    async with erp.connect() as reader:
        await reader.execute(text("SELECT 1 FROM vendors"))
        with adopting(erp_url) as child:
            await until(erp, WAITS_FOR_VENDORS)
            child.send_signal(signal.SIGKILL)
            assert child.wait(10) == -signal.SIGKILL
        await reader.rollback()
    await until(erp, FREE)
    left = await adopt(erp)
    assert 0 < len(left) < len(wanted)
    assert await adopt(erp) == []


async def test_an_index_that_was_cut_short_is_finished(erp: AsyncEngine) -> None:
    """An interrupted build leaves an invalid index of that name, which IF NOT EXISTS would skip."""
    await adopt(erp)
    await run(erp, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass")
    assert await adopt(erp) == [f"REINDEX INDEX CONCURRENTLY {INDEX}"]
    assert await adopt(erp) == []


async def test_an_index_waits_a_bounded_time_for_open_transactions(
    erp: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is left open keeps an index from being finished; once it has ended, the next adoption finishes it."""
    await adopt(erp)
    await run(erp, f"DROP INDEX {INDEX}")
    monkeypatch.setattr("handlers.erp.adopt.INDEX_WAIT_SECONDS", 0.2)
    async with erp.connect() as forgotten:
        await forgotten.execute(text("SELECT 1 FROM tds_sync_queue"))
        with pytest.raises(TryAgain, match=INDEX):
            await adopt(erp)
        await run(erp, "UPDATE tds_sync_queue SET priority = 1")
    assert await adopt(erp) == [f"REINDEX INDEX CONCURRENTLY {INDEX}"]
    assert await adopt(erp) == []


async def test_a_key_that_becomes_double_while_its_index_is_made(erp: AsyncEngine) -> None:
    """The refusal says which; once a person has decided, the next adoption finishes the index."""
    await run(
        erp,
        "ALTER TABLE products DROP CONSTRAINT products_zoho_item_id_key",
        "INSERT INTO products (zoho_item_id) VALUES ('7')",
    )
    async with erp.connect() as application:
        await application.execute(text("INSERT INTO products (zoho_item_id) VALUES ('7')"))
        adoption = asyncio.create_task(adopt(erp))
        await until(erp, "SELECT 1 FROM pg_locks WHERE relation = 'products'::regclass AND NOT granted")
        await application.commit()
    with pytest.raises(Refused, match="uq_products_zoho_item_id"):
        await adoption
    await run(erp, "DELETE FROM products")
    assert await adopt(erp)
    assert await adopt(erp) == []


async def test_nothing_is_rewritten(erp: AsyncEngine) -> None:
    """With five million rows a table that is copied is an outage: every table keeps its file."""
    files = "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    before = set(await ask(erp, files))
    statements = await adopt(erp)
    assert before <= set(await ask(erp, files))
    existing = [
        statement
        for statement in statements
        if statement.startswith("CREATE") and "INDEX" in statement.split("\n")[0]
    ]
    new = {statement.split()[5] for statement in statements if statement.startswith("CREATE TABLE")}
    for statement in existing:
        table = re.search(r" ON (\w+)", statement)
        assert table is not None
        assert ("CONCURRENTLY" in statement) == (table[1] not in new), statement


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            ("ALTER TABLE vendors RENAME TO v", "CREATE VIEW vendors AS SELECT * FROM v"),
            "vendors is a view: rows can only be written to a table",
        ),
        (
            ("ALTER TABLE vendors RENAME TO v", "CREATE MATERIALIZED VIEW vendors AS SELECT * FROM v"),
            "vendors is a materialized view",
        ),
        (
            ("DROP TABLE vendors", "CREATE SEQUENCE vendors"),
            "vendors is a sequence",
        ),
        (
            ("CREATE SCHEMA erp", "ALTER TABLE vendors SET SCHEMA erp"),
            "vendors is not on the search path, but there is erp.vendors",
        ),
        (
            (
                "DROP TABLE vendors",
                "CREATE TABLE vendors (id bigint GENERATED ALWAYS AS IDENTITY, zoho_vendor_id text)"
                " PARTITION BY HASH (id)",
            ),
            "vendors is partitioned and zoho_vendor_id is not unique",
        ),
    ],
)
async def test_a_name_that_is_no_table_of_ours_is_refused(
    erp: AsyncEngine, changes: tuple[str, ...], sentence: str
) -> None:
    """A relation that is no table, or is in another schema, is named, also by a dry run."""
    await run(erp, *changes)
    for dry_run in (True, False):
        with pytest.raises(Refused, match=re.escape(sentence)):
            await adopt(erp, dry_run=dry_run)


async def test_tables_in_a_schema_of_their_own_are_adopted_there(erp: AsyncEngine, erp_url: str) -> None:
    """With the schema on the search path all is added where the ERP's tables are, and nothing elsewhere."""
    await run(erp, "ALTER SCHEMA public RENAME TO erp", "CREATE SCHEMA public")
    name = erp.url.database
    await run(erp, f'ALTER DATABASE "{name}" SET search_path = erp, public')
    other = engine_for(erp_url)
    try:
        assert await adopt(other)
        assert await adopt(other) == []
    finally:
        await other.dispose()
    assert await ask(erp, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


async def test_one_table_of_another_owner_is_told_before_anything_is_done(erp: AsyncEngine) -> None:
    """No statement runs when a later one is not permitted; a dry run still lists them."""
    role = f"other_{uuid.uuid4().hex[:8]}"
    await run(
        erp,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"ALTER TABLE products OWNER TO {role}",
    )
    engine = engine_for(erp.url.set(username=role, password="x").render_as_string(hide_password=False))
    try:
        statements = await adopt(engine, dry_run=True)
        with pytest.raises(Refused, match="not the owner of table vendors"):
            await adopt(engine)
        assert await adopt(engine, dry_run=True) == statements
        await run(
            erp,
            f"REVOKE SELECT ON products FROM {role}",
            f"REVOKE SELECT ON vendors FROM {role}",
            "ALTER TABLE vendors DROP CONSTRAINT vendors_zoho_vendor_id_key",
        )
        with pytest.raises(Refused, match="permission denied for table vendors"):
            await adopt(engine, dry_run=True)
    finally:
        await engine.dispose()
        await run(
            erp, "ALTER TABLE products OWNER TO CURRENT_USER", f"DROP OWNED BY {role}", f"DROP ROLE {role}"
        )


async def test_a_database_adopted_before_works_without_the_queues_index(erp: AsyncEngine) -> None:
    """An index that only makes waking faster is no reason to refuse a release."""
    await adopt(erp)
    await run(erp, f"DROP INDEX {INDEX}")
    assert await required_statements(erp) == []
    (statement,) = await adopt(erp)
    assert statement.startswith(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON tds_sync_queue ")


async def test_the_settings_of_an_adoption_end_with_it(erp: AsyncEngine) -> None:
    """Its lock_timeout and its advisory lock must not stay on a pooled connection."""
    await adopt(erp)
    assert await ask(erp, "SELECT current_setting('lock_timeout')") == [("0",)]
    assert await ask(erp, FREE)
    with pytest.raises(DBAPIError):
        await run(erp, "INSERT INTO vendors (id) VALUES (DEFAULT)", "SELECT 1/0")
    assert await ask(erp, "SELECT id FROM vendors") == []
