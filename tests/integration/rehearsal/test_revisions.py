"""The revisions of the sample ERP: each fails as its story needs it to, on a target of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from rehearsal import lifecycle
from rehearsal.hosts.host import WORKERS_UNIT
from rehearsal.target import Target
from rehearsal.webhooks import backlog, traffic
from rehearsal.webhooks.backlog import Seed
from tests.integration.rehearsal.target_steps import answers, folders, health, rows, statuses, switch


@pytest.fixture
def parent(short_folder: Path) -> Iterator[Path]:
    """A folder for the folders of rehearsals; whatever a failed test left in it is ended."""
    yield short_folder
    for folder in folders(short_folder):
        lifecycle.end(folder.name.removeprefix("tds-rehearsal-"), short_folder)


@pytest_asyncio.fixture(loop_scope="session")
async def target(parent: Path) -> AsyncIterator[Target]:
    """One target for this test alone."""
    async with Target.create("good", folder=parent) as target:
        yield target


async def test_broken_revision_buries_every_webhook_about_something_new(target: Target) -> None:
    """The real bug: SQLAlchemy itself raises MissingGreenlet, and the event is dead without a retry."""
    engine = target.engine()
    now = datetime.now(UTC)
    events = [
        Seed(entity=letter.entity, record=letter.record, created_at=now)
        for letter in backlog.dead_letters(now)[-12:]
    ]
    for event in events:
        await traffic.send(engine, event)
    await engine.dispose()
    query = (
        "SELECT error_message, error_code, attempt_count, started_at FROM tds_sync_queue"
        " WHERE status = 'dead_letter' AND created_at > now() - interval '1 minute'"
    )
    deadline = time.monotonic() + 20
    while len(found := await rows(target, query)) < len(events):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert all("greenlet_spawn has not been called" in str(row[0]) and row[1] == "xd2s" for row in found)
    assert all(row[3] is None for row in found), "the state write that was swallowed is the cause"
    log = (target.hosts[0].folder / "log" / f"{WORKERS_UNIT}.log").read_text()
    log += (target.hosts[1].folder / "log" / f"{WORKERS_UNIT}.log").read_text()
    assert "Unconsumed column names: processing_started_at" in log
    assert "sqlalchemy.exc.MissingGreenlet" in log


async def test_sick_revision_starts_and_says_503(target: Target) -> None:
    """Its processes run, its units are active, and it does not serve."""
    host = target.hosts[0]
    await switch(target, host, "sick")
    deadline = time.monotonic() + 20
    while (answer := await health(host))[1].get("revision") != target.revisions["sick"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert answer[0] == 503
    assert "tax_rates" in str(answer[1]["reason"])
    assert host.systemctl("is-active", "tsh-erp").stdout == "active\n"


async def test_slow_revision_looks_alive_and_does_nothing(target: Target) -> None:
    """Health is good, the workers' heartbeat is fresh, and a pending event stays pending."""
    for host in target.hosts:
        await switch(target, host, "slow")
        assert (await answers(host, target.revisions["slow"]))[0] == 200
    await redrive_all(target)
    await asyncio.sleep(2)
    assert await statuses(target) == {"pending": 58}


async def test_treacherous_revision_passes_the_canary_and_fails_the_most(target: Target) -> None:
    """The oldest dead letter, which any canary would take, is applied; most of the others are not."""
    for host in target.hosts:
        await switch(target, host, "treacherous")
        assert (await answers(host, target.revisions["treacherous"]))[0] == 200
    oldest = "SELECT id, status::text FROM tds_sync_queue WHERE source_entity_id = '2646610000000114000'"
    await redrive_all(target)
    await until_settled(target, {"completed", "dead_letter", "retry"})
    assert [row[1] for row in await rows(target, oldest)] == ["completed"]
    seen = await statuses(target)
    assert seen["dead_letter"] > seen["completed"]


async def test_fixed_revision_applies_everything(target: Target) -> None:
    """Our core behind `runbook worker` completes the whole backlog."""
    for host in target.hosts:
        await switch(target, host, "fixed")
        assert (await answers(host, target.revisions["fixed"]))[0] == 200
    await redrive_all(target)
    await until_settled(target)
    assert await statuses(target) == {"completed": 58}
    workers = await rows(target, "SELECT DISTINCT revision FROM runbook.worker WHERE stopped_at IS NULL")
    assert workers == [(target.revisions["fixed"],)]


async def redrive_all(target: Target) -> None:
    engine = target.engine()
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE tds_sync_queue SET status = 'pending', attempt_count = 0, error_message = NULL,"
                " error_code = NULL WHERE status = 'dead_letter'"
            )
        )
        await tx.execute(text("SELECT pg_notify('tds_sync_queue', '')"))
    await engine.dispose()


async def until_settled(target: Target, settled: Collection[str] = ("completed", "dead_letter")) -> None:
    deadline = time.monotonic() + 30
    while set(seen := await statuses(target)) - set(settled):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.1)
