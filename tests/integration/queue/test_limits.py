"""Holding the queue back: how many events workers take while a limit is in force, and that it always ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import Refused
from handlers.queue import insert, limits, look
from handlers.queue.claim import claim as claim_events
from handlers.queue.event import EntityType, Event, Status
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import change, event, row

WHY = {"by": "release 7", "reason": "a doubt"}
PRODUCT, INVOICE, BILL = EntityType.PRODUCT, EntityType.INVOICE, EntityType.BILL


async def fill(engine: AsyncEngine, number: int, entity: EntityType = PRODUCT) -> None:
    """*number* pending events of different records."""
    async with engine.begin() as tx:
        for n in range(number):
            await insert.insert_event(tx, entity=entity, key=f"{entity}{n}", payload_text="{}")


async def claim(engine: AsyncEngine, limit: int = 100, owner: str = "a") -> list[Event]:
    async with engine.begin() as tx:
        return await claim_events(tx, owner=owner, limit=limit, lease_seconds=60)


async def forget(engine: AsyncEngine, seconds: float) -> None:
    """Let the limits think that *seconds* have passed since events were taken."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE runbook.intake SET taken_at = ARRAY(SELECT at - make_interval(secs => :seconds) "
                "FROM unnest(taken_at) AS t (at))"
            ),
            {"seconds": seconds},
        )


async def test_only_so_many_are_taken_in_ten_seconds(engine: AsyncEngine) -> None:
    """The limit binds at once; ten seconds after some were taken as many more may be, and not before."""
    await fill(engine, 20)
    await limits.limit(engine, None, per_ten_seconds=3, seconds=60, **WHY)
    assert [len(await claim(engine, limit)) for limit in (2, 100, 100)] == [2, 1, 0]
    await forget(engine, 9)
    assert await claim(engine) == []
    await forget(engine, 1.1)
    assert len(await claim(engine)) == 3


async def test_the_window_slides(engine: AsyncEngine) -> None:
    """No ten seconds hold more than the limit: what was taken late in one window counts in the next."""
    await fill(engine, 20)
    await limits.limit(engine, None, per_ten_seconds=3, seconds=60, **WHY)
    assert len(await claim(engine, 1)) == 1
    await forget(engine, 8)
    assert len(await claim(engine, 2)) == 2
    await forget(engine, 3)
    assert len(await claim(engine)) == 1


async def test_one_kind_is_held_and_the_others_flow(engine: AsyncEngine) -> None:
    """A limit on invoices stops invoices."""
    for entity in (PRODUCT, INVOICE, BILL):
        await fill(engine, 10, entity)
    await limits.limit(engine, INVOICE, per_ten_seconds=2, seconds=60, **WHY)
    assert Counter(each.entity for each in await claim(engine)) == {PRODUCT: 10, INVOICE: 2, BILL: 10}


async def test_limits_of_a_kind_and_of_all_hold_together(engine: AsyncEngine) -> None:
    """Neither is passed by way of the other."""
    for entity in (PRODUCT, INVOICE):
        await fill(engine, 10, entity)
    await limits.limit(engine, INVOICE, per_ten_seconds=2, seconds=60, **WHY)
    await limits.limit(engine, None, per_ten_seconds=5, seconds=60, **WHY)
    assert Counter(each.entity for each in await claim(engine)) == {PRODUCT: 3, INVOICE: 2}
    assert await claim(engine) == []


async def test_the_batch_stays_a_batch(engine: AsyncEngine) -> None:
    """A wide limit does not let a worker take more than it can hold."""
    await fill(engine, 20)
    await limits.limit(engine, PRODUCT, per_ten_seconds=1000, seconds=60, **WHY)
    assert len(await claim(engine, limit=7)) == 7


async def test_nothing_goes_through_a_limit_of_nothing(engine: AsyncEngine) -> None:
    """Zero holds all, also an event that is asked for by its id."""
    id_ = await event(engine, "1")
    await limits.limit(engine, None, per_ten_seconds=0, seconds=60, **WHY)
    assert await claim(engine) == []
    async with engine.begin() as tx:
        assert await claim_events(tx, owner="a", limit=1, lease_seconds=60, ids=[id_]) == []


async def test_a_held_event_is_as_it_was(engine: AsyncEngine) -> None:
    """Not attempted, not failed, not leased, not delayed: nothing about it changes while workers look at it."""
    ids = [await event(engine, "1"), await event(engine, "2", status="retry", next_retry_at="sql:now()")]
    before = [await row(engine, id_) for id_ in ids]
    await limits.limit(engine, None, per_ten_seconds=0, seconds=60, **WHY)
    worker = Worker(engine, owner=new_owner(), revision="r1", poll_seconds=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(0.5)
    stop.set()
    await running
    assert [await row(engine, id_) for id_ in ids] == before
    assert not worker.tally


async def test_what_a_limit_holds_back_is_not_locked(engine: AsyncEngine) -> None:
    """A worker that may take nothing locks no rows that others could take, not even until its transaction ends."""
    await fill(engine, 3)
    await limits.limit(engine, None, per_ten_seconds=0, seconds=60, **WHY)
    async with engine.connect() as tx, engine.connect() as other:
        assert await claim_events(tx, owner="a", limit=9, lease_seconds=60) == []
        free = await other.execute(text("SELECT id FROM tds_sync_queue FOR UPDATE NOWAIT"))
        assert len(free.all()) == 3


async def test_a_limit_is_obeyed_from_its_commit_on(engine: AsyncEngine) -> None:
    """A claim in a transaction that began before the limit was set takes nothing after it."""
    await fill(engine, 3)
    async with engine.connect() as tx:
        assert len(await claim_events(tx, owner="a", limit=1, lease_seconds=60)) == 1
        await limits.limit(engine, None, per_ten_seconds=0, seconds=60, **WHY)
        assert await claim_events(tx, owner="a", limit=9, lease_seconds=60) == []


async def test_several_workers_share_one_limit(engine: AsyncEngine) -> None:
    """Eight that claim at the same moment, again and again, take together what one might."""
    await fill(engine, 60)
    await limits.limit(engine, None, per_ten_seconds=11, seconds=60, **WHY)
    taken = await asyncio.gather(*(claim(engine, 3, owner=f"w{n}") for n in range(24)))
    assert sum(map(len, taken)) == 11
    ids = [each.id for events in taken for each in events]
    assert len(set(ids)) == 11


async def test_it_ends_by_itself_and_by_the_databases_clock(engine: AsyncEngine) -> None:
    """The controller that set it is dead and its clock is wrong: a worker goes on within a second of the end."""
    await fill(engine, 5)
    set_ = await limits.limit(engine, None, per_ten_seconds=0, seconds=1.5, **WHY)
    worker = Worker(engine, owner=new_owner(), revision="r1", poll_seconds=0.5)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        while not worker.tally:
            assert datetime.now(UTC) < set_.until + timedelta(seconds=10)
            await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running
    async with engine.connect() as tx:
        first = (await tx.execute(text("SELECT min(started_at) FROM tds_sync_queue"))).scalar_one()
    assert set_.until <= first <= set_.until + timedelta(seconds=5)
    assert await limits.limits(engine) == []


async def test_a_limit_that_has_ended_does_not_hold_beside_one_that_has_not(engine: AsyncEngine) -> None:
    """Each limit has an end of its own, also while others keep the claim from its short way."""
    for entity in (PRODUCT, INVOICE):
        await fill(engine, 3, entity)
    await limits.limit(engine, PRODUCT, per_ten_seconds=0, seconds=0.01, **WHY)
    await limits.limit(engine, INVOICE, per_ten_seconds=1, seconds=60, **WHY)
    await asyncio.sleep(0.05)
    assert Counter(each.entity for each in await claim(engine)) == {PRODUCT: 3, INVOICE: 1}


async def test_a_change_takes_effect_at_once(engine: AsyncEngine) -> None:
    """The very next claim, of a connection that has claimed before, obeys; a lifted limit wakes idle workers."""
    await fill(engine, 5)
    assert len(await claim(engine, 1)) == 1
    await limits.limit(engine, None, per_ten_seconds=0, seconds=60, **WHY)
    assert await claim(engine) == []
    worker = Worker(engine, owner=new_owner(), revision="r1", poll_seconds=30)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await asyncio.sleep(0.5)
        assert not worker.tally
        began = time.monotonic()
        while not worker.tally:
            await limits.lift_all(engine)
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.1)
    finally:
        stop.set()
        await running


async def test_setting_a_limit_again_is_no_way_to_take_more(engine: AsyncEngine) -> None:
    """A limit that is renewed every second does not let more events through each time."""
    await fill(engine, 20)
    for _ in range(4):
        await limits.limit(engine, PRODUCT, per_ten_seconds=3, seconds=60, **WHY)
        await claim(engine)
    async with engine.connect() as tx:
        assert (await look.counts(tx))[Status.PROCESSING] == 3
    await limits.limit(engine, PRODUCT, per_ten_seconds=5, seconds=60, **WHY)
    assert len(await claim(engine)) == 2


async def test_a_claim_that_is_rolled_back_took_nothing(engine: AsyncEngine) -> None:
    """A worker that dies in its claim costs no place under the limit."""
    await fill(engine, 5)
    await limits.limit(engine, None, per_ten_seconds=2, seconds=60, **WHY)
    async with engine.connect() as tx:
        assert len(await claim_events(tx, owner="dying", limit=9, lease_seconds=60)) == 2
        await tx.rollback()
    assert len(await claim(engine)) == 2


async def test_order_within_a_record_holds_under_a_limit(engine: AsyncEngine) -> None:
    """The newer event of a record does not go first because the older one had no place."""
    older = await event(engine, "1", age=10)
    newer = await event(engine, "1", age=5)
    await limits.limit(engine, None, per_ten_seconds=1, seconds=60, **WHY)
    assert [each.id for each in await claim(engine)] == [older]
    await limits.lift(engine, None)
    assert await claim(engine) == []
    await change(engine, older, status="completed", locked_by=None, lock_expires_at=None)
    assert [each.id for each in await claim(engine)] == [newer]


async def test_a_ledger_without_limits_still_works(engine: AsyncEngine) -> None:
    """A worker may be newer than the ledger, or have none; once the table is there, it is obeyed."""
    await fill(engine, 10)
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE runbook.intake RENAME TO hidden"))
    assert len(await claim(engine, 2)) == 2
    assert await limits.limits(engine) == []
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE runbook.hidden RENAME TO intake"))
    await limits.limit(engine, None, per_ten_seconds=1, seconds=60, **WHY)
    await asyncio.sleep(1.1)
    assert len(await claim(engine)) == 1


async def test_a_database_without_any_ledger_still_works(erp_url: str) -> None:
    """The ERP's tables alone are enough for a claim."""
    from tests.conftest import engine_for

    engine = engine_for(erp_url)
    try:
        await fill(engine, 3)
        assert len(await claim(engine)) == 3
    finally:
        await engine.dispose()


async def test_limits_can_be_seen_and_lifted(engine: AsyncEngine) -> None:
    """Who, why, how much and until when; lifting says what was in force."""
    await limits.limit(engine, INVOICE, per_ten_seconds=2, seconds=60, **WHY)
    await limits.limit(engine, None, per_ten_seconds=5, seconds=60, by="ops-a", reason="a look")
    both = await limits.limits(engine)
    assert [(each.entity, each.per_ten_seconds, each.set_by) for each in both] == [
        (None, 5, "ops-a"),
        (INVOICE, 2, "release 7"),
    ]
    assert await limits.lift(engine, BILL) == []
    assert [each.entity for each in await limits.lift(engine, None)] == [None]
    assert [each.entity for each in await limits.lift_all(engine)] == [INVOICE]
    assert await limits.limits(engine) == []


@pytest.mark.parametrize(("number", "seconds"), [(-1, 60), (1, 0), (1, -5), (1, 86_401), (1, float("nan"))])
async def test_a_limit_that_is_none_is_refused(engine: AsyncEngine, number: int, seconds: float) -> None:
    """A negative number, no time, and a permanent limit are refused."""
    with pytest.raises(Refused):
        await limits.limit(engine, None, per_ten_seconds=number, seconds=seconds, **WHY)


async def test_the_database_refuses_a_limit_for_good(engine: AsyncEngine) -> None:
    """A row written by hand cannot stop the queue permanently either."""
    with pytest.raises(IntegrityError, match="never_for_good"):
        async with engine.begin() as tx:
            await tx.execute(
                text(
                    "INSERT INTO runbook.intake (entity_type, per_ten_seconds, until, set_by, reason) "
                    "VALUES ('*', 0, 'infinity', 'x', 'y')"
                )
            )


async def runbook_queue(folder: Path, url: str, *words: str) -> tuple[int | None, str]:
    """Exit code and stdout of `runbook queue …` in an environment with the database *url*."""
    (folder / "key").touch()
    (folder / "place.toml").write_text(
        'name = "place"\n[database]\nurl = "env:PLACE_URL"\n'
        f'[ssh]\nuser = "x"\nkey_file = "{folder}/key"\nknown_hosts_file = "{folder}/key"\n'
        '[[hosts]]\nname = "a"\naddress = "127.0.0.1"\nhealth_url = "http://127.0.0.1:1/health"\n'
        '[deploy]\ndirectory = "/srv/erp"\n[services]\n',
        encoding="utf-8",
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "flows.cli", "queue", *words, "-e", "place"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PLACE_URL": url, "RUNBOOK_ENVIRONMENTS": str(folder)},
    )
    out, _ = await child.communicate()
    return child.returncode, out.decode()


async def test_from_the_command_line(engine: AsyncEngine, database_url: str, tmp_path: Path) -> None:
    """`runbook queue throttle` and `show`, as a person types them, and a name of before; no limit without a reason."""

    async def runbook(*words: str) -> tuple[int | None, str]:
        status, out = await runbook_queue(tmp_path, database_url, *words, "--json")
        return status, out.splitlines()[-1]

    status, _ = await runbook("throttle", "--per-ten-seconds", "2")
    assert status == 5
    assert await limits.limits(engine) == []
    status, told = await runbook(
        "throttle", "--per-ten-seconds", "2", "--entity", "invoice", "--reason", "why", "--by", "me"
    )
    assert (status, json.loads(told)["per_ten_seconds"]) == (0, 2)
    (found,) = await limits.limits(engine)
    assert (found.entity, found.set_by, found.reason) == (INVOICE, "me", "why")
    _, told = await runbook("show")
    assert json.loads(told)["limits"][0]["reason"] == "why"
    status, told = await runbook("unlimit")
    assert (status, len(json.loads(told)["lifted"])) == (0, 1)
    assert await limits.limits(engine) == []


async def test_a_limit_costs_nothing_when_there_is_none(engine: AsyncEngine, database_url: str) -> None:
    """A claim that finds work is a setting and one statement, as it was before there were limits."""
    await fill(engine, 3)
    await claim(engine, 1)
    from sqlalchemy import event as sqlalchemy_event

    statements: list[str] = []
    sqlalchemy_event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *words: statements.append(words[2])
    )
    async with engine.begin() as tx:
        tx.info["intake"] = True
        assert len(await claim_events(tx, owner="a", limit=1, lease_seconds=60)) == 1
    assert len(statements) == 2
