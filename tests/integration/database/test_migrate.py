"""Migrations: from nothing, twice, two at once, from a newer runbook, without rights, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.database.migrate import newest, pending, upgrade
from handlers.errors import DatabaseDown, Refused
from handlers.release.phase import LIVE, Phase
from rehearsal.postgres import Postgres

_TABLES = text("SELECT count(*) FROM pg_tables WHERE schemaname = 'runbook'")


@pytest_asyncio.fixture(loop_scope="session")
async def bare(erp_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without a ledger."""
    engine = create_async_engine(make_url(erp_url).set(drivername="postgresql+asyncpg"))
    yield engine
    await engine.dispose()


async def test_pending_names_the_steps_and_changes_nothing(bare: AsyncEngine) -> None:
    """`pending` only reads: it does not create the schema."""
    missing = await pending(bare)
    assert (missing[0], missing[-1]) == ("0001_ledger", newest())
    async with bare.connect() as tx:
        assert (await tx.execute(text("SELECT to_regnamespace('runbook')"))).scalar() is None


async def test_upgrading_twice_is_the_same_as_once(bare: AsyncEngine) -> None:
    """The first upgrade returns the applied steps, the second an empty list."""
    missing = await pending(bare)
    assert await upgrade(bare) == missing
    assert await upgrade(bare) == []
    assert await pending(bare) == []


async def test_two_upgrades_at_once_are_one(bare: AsyncEngine) -> None:
    """Concurrent upgrades wait for one lock: one applies everything, the others find nothing to do."""
    missing = await pending(bare)
    applied = await asyncio.gather(*(upgrade(bare) for _ in range(4)))
    assert sorted(applied, key=len) == [[], [], [], missing]


async def test_upgrades_of_two_databases_in_one_process_do_not_meet(
    bare: AsyncEngine, postgres: Postgres, erp_template: str
) -> None:
    """Upgrades of two databases in one process do not mix: Alembic's module globals are protected by a lock."""
    url = make_url(await postgres.create_database("migrate_other", template=erp_template))
    other = create_async_engine(url.set(drivername="postgresql+asyncpg"))
    try:
        await asyncio.gather(upgrade(bare), upgrade(other))
        for engine in (bare, other):
            async with engine.connect() as tx:
                assert (await tx.execute(_TABLES)).scalar_one() > 5
    finally:
        await other.dispose()
        await postgres.drop_database("migrate_other")


async def test_an_upgrade_that_breaks_leaves_nothing_behind(bare: AsyncEngine) -> None:
    """All steps run in one transaction: when the last table cannot be created, none is."""
    async with bare.begin() as tx:
        await tx.execute(text("CREATE SCHEMA runbook"))
        await tx.execute(text("CREATE TABLE runbook.worker (in_the_way integer)"))
    with pytest.raises(Exception, match="already exists"):
        await upgrade(bare)
    async with bare.connect() as tx:
        assert (await tx.execute(_TABLES)).scalar() == 1


async def test_a_ledger_of_a_newer_runbook_is_refused(bare: AsyncEngine) -> None:
    """An older program refuses a ledger with unknown steps."""
    await upgrade(bare)
    async with bare.begin() as tx:
        await tx.execute(text("UPDATE runbook.alembic_version SET version_num = '9999_later'"))
    for call in (pending, upgrade):
        with pytest.raises(Refused, match=r"migrated by a newer runbook .*9999_later"):
            await call(bare)


async def test_a_user_without_rights_reads_what_to_grant(bare: AsyncEngine) -> None:
    """Without the privilege to create the schema, the message has the GRANT statement."""
    name = "nobody_" + (bare.url.database or "")
    async with bare.begin() as tx:
        await tx.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x'"))
    poor = create_async_engine(bare.url.set(username=name, password="x"))
    try:
        with pytest.raises(Refused, match="GRANT CREATE ON DATABASE"):
            await upgrade(poor)
    finally:
        await poor.dispose()
        async with bare.begin() as tx:
            await tx.execute(text(f"DROP ROLE {name}"))


async def test_a_wrong_password_is_refused_without_showing_it(bare: AsyncEngine) -> None:
    """The message names the keys to check, and no secret."""
    wrong = create_async_engine(bare.url.set(password="open-sesame"))
    with pytest.raises(Refused, match=r"database\.password") as caught:
        await pending(wrong)
    assert "open-sesame" not in str(caught.value)
    await wrong.dispose()


async def test_a_database_that_is_down_can_be_asked_again(bare: AsyncEngine) -> None:
    """A database that does not answer raises TryAgain, not Refused."""
    gone = create_async_engine(bare.url.set(port=1))
    with pytest.raises(DatabaseDown, match="does not answer"):
        await upgrade(gone)
    await gone.dispose()


async def test_the_database_knows_the_same_phases_as_the_code(engine: AsyncEngine) -> None:
    """The enum, its order and the index of live releases agree with `handlers.release`."""
    async with engine.connect() as tx:
        phases = await tx.execute(text("SELECT unnest(enum_range(NULL::runbook.phase))::text"))
        index = await tx.execute(text("SELECT pg_get_indexdef('runbook.one_live_release'::regclass)"))
        definition = str(index.scalar())
        assert list(phases.scalars()) == [phase.value for phase in Phase]
    assert {phase for phase in Phase if f"'{phase}'" in definition} == LIVE
