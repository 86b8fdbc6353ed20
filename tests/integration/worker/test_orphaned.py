"""Leases of workers that were killed: they end a minute after the last sign, and those of the living never do."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.queue import in_hand, settle
from handlers.queue.event import Status
from handlers.worker.worker import Worker
from tests.integration.queue.events import claim, complete, event, row
from tests.integration.worker.steps import effects, make_effect, until, worker, write

OWNER = "web-1-77-0123abcd"


async def beat(engine: AsyncEngine, owner: str = OWNER, seconds_ago: int = 61) -> None:
    """The worker's last sign is so old."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.worker (owner, host, pid, revision, beat_at)"
                " VALUES (:owner, 'web-1', 77, 'r1', now() - make_interval(secs => :ago))"
                " ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at"
            ),
            {"owner": owner, "ago": seconds_ago},
        )


async def expired(engine: AsyncEngine) -> dict[UUID, Status]:
    async with engine.begin() as tx:
        return await settle.expire_leases(tx)


async def is_alive(engine: AsyncEngine, owner: str) -> bool:
    """Whether a connection holds the worker's lock. Looked up, as our own connection may be the one that holds it."""
    async with engine.connect() as tx:
        held = await tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
                " AND (CAST(classid AS bigint) << 32) | CAST(objid AS bigint) = hashtextextended(:owner, 0))"
            ),
            {"owner": owner},
        )
        return bool(held.scalar_one())


async def test_the_leases_of_a_killed_worker_end_before_they_run_out(engine: AsyncEngine) -> None:
    """No attempt counts, once only, and the killed worker could not complete them any more."""
    id_ = await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine)
    async with engine.begin() as first, engine.begin() as second:
        taken = await asyncio.gather(settle.expire_leases(first), settle.expire_leases(second))
    assert sorted(map(len, taken)) == [0, 1]
    now = await row(engine, id_)
    assert (now["status"], now["attempt_count"], now["error_code"]) == ("retry", 0, "lease_expired")
    assert await complete(engine, OWNER, [id_]) == set()


async def test_a_worker_that_is_silent_and_connected_keeps_its_leases(engine: AsyncEngine) -> None:
    """It is in a long batch: no beat is sent meanwhile."""
    await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine, seconds_ago=250)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await in_hand.live(connection, OWNER)
        assert await expired(engine) == {}
        await in_hand.ended(connection, OWNER)
    assert len(await expired(engine)) == 1


async def test_a_worker_that_has_just_sent_a_beat_keeps_its_leases(engine: AsyncEngine) -> None:
    """Its connection broke, and it connects again; or it is of a version that holds no lock."""
    await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine, seconds_ago=30)
    assert await expired(engine) == {}


async def test_who_sends_no_beats_keeps_its_leases(engine: AsyncEngine) -> None:
    """The steps of a release, and the ERP's own workers: their leases run out, as before."""
    await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine, "another")
    assert await expired(engine) == {}


@pytest.mark.parametrize("change", ["DROP TABLE runbook.worker", "DROP SCHEMA runbook CASCADE"])
async def test_leases_run_out_without_the_ledger(engine: AsyncEngine, change: str) -> None:
    """A database that has the queue alone is served as before."""
    await event(engine, "1")
    await claim(engine, OWNER)
    async with engine.begin() as tx:
        await tx.execute(text(change))
    await engine.dispose()  # A yes is cached for a connection.
    assert await expired(engine) == {}


async def _run(each: Worker, stop: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(each.run(stop))


async def test_a_worker_shows_that_it_lives_until_it_ends(engine: AsyncEngine) -> None:
    """From its start, after a broken connection again, and not after its end: the connection goes back to the pool."""
    await make_effect(engine)
    each, stop = worker(engine, poll_seconds=0.05), asyncio.Event()
    task = await _run(each, stop)
    await until(lambda: is_alive(engine, each.owner))
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        )
    await until(lambda: is_alive(engine, each.owner))
    stop.set()
    await asyncio.wait_for(task, 20)
    assert not await is_alive(engine, each.owner)


async def test_another_worker_takes_over_what_a_killed_one_had_leased(engine: AsyncEngine) -> None:
    """By itself, within its next look, and not after five minutes."""
    await make_effect(engine)
    id_ = await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine)
    each, stop = worker(engine, write, poll_seconds=0.05), asyncio.Event()
    task = await _run(each, stop)
    await until(lambda: _is_completed(engine, id_))
    stop.set()
    await asyncio.wait_for(task, 20)
    assert await effects(engine) == [id_]


async def _is_completed(engine: AsyncEngine, id_: UUID) -> bool:
    return bool((await row(engine, id_))["status"] == "completed")


async def test_a_locked_name_costs_no_other_worker_its_lease(engine: AsyncEngine) -> None:
    """One is dead, the other lives: each by its own name."""
    await event(engine, "1")
    await claim(engine, OWNER)
    await beat(engine)
    kept = await event(engine, "2")
    await claim(engine, "web-2-78-0123abcd")
    await beat(engine, "web-2-78-0123abcd")

    async def other_lives(connection: AsyncConnection) -> None:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await in_hand.live(connection, "web-2-78-0123abcd")

    async with engine.connect() as connection:
        await other_lives(connection)
        assert kept not in await expired(engine)
        await in_hand.ended(connection, "web-2-78-0123abcd")
