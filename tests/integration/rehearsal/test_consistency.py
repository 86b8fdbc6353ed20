"""The check of a rehearsal sees each way in which hosts, ledger and queue can disagree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.entities.apply import apply_events
from handlers.queue import insert
from handlers.queue.event import EntityType
from handlers.queue.redrive import redrive
from handlers.queue.throttle import gate_of, throttle
from handlers.release import lock
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.phase import Phase, Release
from rehearsal.consistency import hosts, ledger, queue
from rehearsal.consistency.audit import install_audit
from rehearsal.consistency.hosts import HostState
from rehearsal.postgres import Postgres
from rehearsal.webhooks import backlog
from tests.conftest import engine_for
from tests.integration.release.steps import deploying, plan_of
from tests.integration.worker.steps import worker

OLD, NEW = "a" * 40, "b" * 40
DRAINED = 5
ONE_DRAINED = "id = (SELECT event_id FROM runbook.release_event WHERE batch = 0 ORDER BY position LIMIT 1)"
ONE_LEFT = "id = (SELECT event_id FROM runbook.release_event WHERE batch IS NULL ORDER BY position LIMIT 1)"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A database with a release that has drained some of the dead letters, and left the others as they were."""

    engine: AsyncEngine
    run: Release


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ground(postgres: Postgres, adopted_template: str) -> AsyncIterator[Ground]:
    """One for all tests: each undoes what it has changed."""
    url = await postgres.create_database("consistency", template=adopted_template)
    engine = engine_for(url)
    await backlog.seed(engine, "good")
    await install_audit(engine)
    run = await deploying(engine)
    async with engine.begin() as tx:
        products = text(
            "SELECT id FROM tds_sync_queue WHERE status = 'dead_letter' AND entity_type = 'product' ORDER BY id"
        )
        ids = list((await tx.execute(products)).scalars())
        await dead_letters.plan_events(tx, run, [(n, id_, "Product", "x") for n, id_ in enumerate(ids)])
        await dead_letters.record_batch(tx, run, 0, await redrive(tx, ids[:DRAINED]))
    await worker(engine, apply_events).step()
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.release_event SET status = 'completed' WHERE batch = 0"))
    yield Ground(engine=engine, run=run)
    await engine.dispose()
    await postgres.drop_database("consistency")


@pytest_asyncio.fixture(loop_scope="session")
async def tx(ground: Ground) -> AsyncIterator[AsyncConnection]:
    """A transaction that is rolled back after the test."""
    async with ground.engine.connect() as connection:
        yield connection


async def in_queue(
    tx: AsyncConnection, ground: Ground, *, is_good: bool = True, sent: Sequence[UUID] = ()
) -> str:
    """The disagreements of the queue."""
    return "; ".join(await queue.disagreements(tx, ground.run.id, sent, is_finished=True, is_good=is_good))


async def test_a_release_that_did_what_it_says_is_consistent(tx: AsyncConnection, ground: Ground) -> None:
    """Drained events are applied once, the others are the dead letters that they were."""
    assert await in_queue(tx, ground) == ""


@pytest.mark.parametrize(
    ("statement", "needle"),
    [
        (f"DELETE FROM tds_sync_queue WHERE {ONE_LEFT}", "1 events are lost"),
        (
            f"UPDATE tds_sync_queue SET status = 'processing' WHERE {ONE_LEFT}",
            "1 events are still in processing",
        ),
        (
            "INSERT INTO runbook.in_hand (batch, owner, ids, bytes)"
            f" SELECT 1, 'killed-1-0123abcd', array_agg(id), 1 FROM tds_sync_queue WHERE {ONE_LEFT}",
            "1 events are still in processing",
        ),
        (f"UPDATE tds_sync_queue SET status = 'completed' WHERE {ONE_LEFT}", "was never sent to the workers"),
        (f"UPDATE tds_sync_queue SET attempt_count = 9 WHERE {ONE_LEFT}", "after 9 attempts"),
        (f"UPDATE tds_sync_queue SET error_code = '' WHERE {ONE_LEFT}", "was never sent to the workers"),
        (f"UPDATE tds_sync_queue SET status = 'pending' WHERE {ONE_DRAINED}", "have not come to rest"),
        (f"UPDATE tds_sync_queue SET status = 'dead_letter' WHERE {ONE_DRAINED}", "recorded as completed"),
        ("UPDATE products SET price = price + 1 WHERE zoho_item_id LIKE '%114%'", "in the ERP instead of"),
        ("UPDATE products SET last_modified_time = now() WHERE zoho_item_id LIKE '%114%'", "in the ERP"),
        ("DELETE FROM products WHERE zoho_item_id LIKE '%114%'", "is None in the ERP"),
        (
            f"UPDATE tds_sync_queue SET status = 'dead_letter', error_message = 'x' WHERE {ONE_LEFT}",
            "became dead letters, although nothing is wrong with the revision",
        ),
    ],
)
async def test_what_became_of_an_event_is_seen(
    tx: AsyncConnection, ground: Ground, statement: str, needle: str
) -> None:
    """Lost, held by a worker, touched without a record, unsettled, buried, or with another row in the ERP."""
    await tx.execute(text(statement))
    assert needle in await in_queue(tx, ground)


async def test_what_the_previous_revision_fails_after_a_rollback_is_its_own(
    tx: AsyncConnection, ground: Ground
) -> None:
    """Live webhooks that die under it are no fault of the release, under its error only."""
    bury = "UPDATE tds_sync_queue SET status = 'dead_letter', error_message = 'y', error_code = '{}' WHERE "
    await tx.execute(text(bury.format("xd2s") + ONE_DRAINED))
    await tx.execute(text("UPDATE runbook.release_event SET status = NULL"))
    await tx.execute(text("DELETE FROM rehearsal.change"))
    seen = {}
    for old in (False, True):
        found = await queue.disagreements(
            tx, ground.run.id, (), is_finished=True, is_good=True, is_old_running=old
        )
        seen[old] = "became dead letters" in "; ".join(found)
    assert seen == {False: True, True: False}
    await tx.execute(text(bury.format("other") + ONE_DRAINED))
    found = await queue.disagreements(
        tx, ground.run.id, (), is_finished=True, is_good=True, is_old_running=True
    )
    assert "became dead letters" in "; ".join(found)


async def test_an_event_that_was_applied_twice_is_seen(tx: AsyncConnection, ground: Ground) -> None:
    """Also where the second time changes no row."""
    for status in ("pending", "completed"):
        await tx.execute(text(f"UPDATE tds_sync_queue SET status = '{status}' WHERE {ONE_DRAINED}"))
    assert (await in_queue(tx, ground)).startswith("1 events were completed twice: ")


async def test_a_webhook_that_was_received_and_is_not_in_the_queue_is_lost(
    tx: AsyncConnection, ground: Ground
) -> None:
    """Live webhooks count too."""
    assert "1 events are lost" in await in_queue(tx, ground, sent=[uuid4()])


TAKEN = "INSERT INTO rehearsal.taken (event_id, owner) VALUES (:id, 'new-1-0123abcd')"
IN_HAND = (
    "INSERT INTO runbook.in_hand (batch, owner, ids, bytes)"
    " VALUES (1, 'new-1-0123abcd', ARRAY[CAST(:id AS uuid)], 1)"
)
LEASED = "UPDATE tds_sync_queue SET status = 'processing', locked_by = 'new-1-0123abcd' WHERE id = :id"
ENDED = "UPDATE tds_sync_queue SET status = '{}', error_code = {}, processing_result = '{}' WHERE id = :id"
OURS = '{"outcome": "applied", "revision": "' + NEW + '"}'
FAILED = '{"class": "permanent", "revision": "' + NEW + '"}'


@pytest.mark.parametrize(
    ("statements", "is_damaged"),
    [
        ((), False),
        ((TAKEN,), True),
        ((IN_HAND,), True),
        ((LEASED, ENDED.format("pending", "NULL", "null")), True),
        ((IN_HAND, ENDED.format("completed", "NULL", OURS)), False),
        ((IN_HAND, ENDED.format("dead_letter", "'x'", FAILED)), True),
        ((IN_HAND, ENDED.format("retry", "'x'", FAILED)), True),
        # The previous revision has completed what the released one could not.
        ((IN_HAND, ENDED.format("completed", "'x'", FAILED)), True),
        ((IN_HAND, ENDED.format("retry", "'missing_parent'", FAILED)), False),
        ((TAKEN.replace("new-", "old-"), ENDED.format("dead_letter", "'x'", "{}")), False),
    ],
)
async def test_what_the_released_workers_took_and_never_completed_is_damaged(
    tx: AsyncConnection, ground: Ground, statements: Sequence[str], is_damaged: bool
) -> None:
    """Dead, in retry, or given back; not what waits for a parent, and not what they did not take."""
    live = await insert.insert_event(tx, entity=EntityType.PRODUCT, key="live", payload_text="{}")
    for owner, revision in (("new-1-0123abcd", NEW), ("old-1-0123abcd", OLD)):
        worker_row = (
            "INSERT INTO runbook.worker (owner, host, pid, revision) VALUES (:owner, 'h', 1, :revision)"
        )
        await tx.execute(text(worker_row), {"owner": owner, "revision": revision})
    for statement in statements:
        await tx.execute(text(statement), {"id": live})
    assert await queue.damaged(tx, [live], NEW) == ([live] if is_damaged else [])
    assert await queue.damaged(tx, [], NEW) == []


async def test_a_letter_that_dies_of_what_it_had_died_of_was_not_restored_wrongly(
    tx: AsyncConnection, ground: Ground
) -> None:
    """Its attempts are those of the release. Without a worker's word for it, it should be as it was."""
    again = (
        "UPDATE tds_sync_queue q SET status = 'dead_letter', error_message = s.error_message, attempt_count = 9,"
        " processing_result = CAST(:result AS jsonb) FROM rehearsal.seeded s WHERE s.id = q.id AND q."
    )
    await tx.execute(text("UPDATE runbook.release_event SET status = NULL"))
    to_revision = (await tx.execute(text("SELECT to_revision FROM runbook.release"))).scalar_one()
    await tx.execute(text(again + ONE_DRAINED), {"result": '{"revision": "' + to_revision + '"}'})
    assert "is not as it was" not in await in_queue(tx, ground)
    await tx.execute(text(again + ONE_DRAINED), {"result": "{}"})
    assert "was restored, and is not as it was" in await in_queue(tx, ground)


async def test_rows_of_the_erps_own_workers_need_no_stamp(tx: AsyncConnection, ground: Ground) -> None:
    """They write none. What they write must be right all the same."""
    await tx.execute(text("UPDATE tds_sync_queue SET processing_result = NULL WHERE status = 'completed'"))
    await tx.execute(
        text("UPDATE products SET last_modified_time = NULL WHERE zoho_item_id LIKE '2646610000000114%'")
    )
    assert "in the ERP instead of" not in await in_queue(tx, ground)
    await tx.execute(
        text("UPDATE products SET price = price + 1 WHERE zoho_item_id LIKE '2646610000000114%'")
    )
    assert "in the ERP instead of" in await in_queue(tx, ground)


async def in_ledger(tx: AsyncConnection, run: Release, *, is_good: bool = True) -> str:
    """The disagreements of the ledger."""
    record = await ledger.read(tx, run.id)
    return "; ".join(ledger.disagreements(record, window_seconds=10, is_good=is_good))


async def intend(tx: AsyncConnection, run: Release) -> None:
    """Record an operation before it is sent."""
    await tx.execute(
        text(
            "INSERT INTO runbook.operation (id, release_id, phase, host, kind, command, token)"
            " VALUES ('op', :id, 'deploying', 'web-1', 'activate', 'true', 1)"
        ),
        {"id": run.id},
    )


async def test_a_running_release_agrees_with_itself(tx: AsyncConnection, ground: Ground) -> None:
    """It has a lock, an open phase, and may have operations without an outcome."""
    await intend(tx, ground.run)
    assert await in_ledger(tx, ground.run) == ""


async def test_what_a_finished_release_leaves_open_is_seen(tx: AsyncConnection, ground: Ground) -> None:
    """An operation without an outcome, a batch that was not settled, a watch that was too short, a quarantine."""
    await intend(tx, ground.run)
    run = ground.run
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED):
        run = await releases.enter(tx, run, phase)
    await records.quarantine(tx, run, "a reason")
    limit = {None: 3, EntityType.PRODUCT: 1}
    await throttle(tx, limit, by=gate_of(run.id), seconds=60, tick_seconds=10, reason="suspicion")
    seen = await in_ledger(tx, run)
    for needle in (
        "no outcome: op",
        "batches 0 are not settled",
        "instead of 10.0 s",
        "in quarantine",
        "still held all types, product",
    ):
        assert needle in seen
    assert "in quarantine" not in await in_ledger(tx, run, is_good=False)


async def test_a_lock_that_was_not_given_back_and_another_release_are_seen(
    tx: AsyncConnection, ground: Ground
) -> None:
    """Nobody else can release anything as long as one of them stays."""
    held = await releases.hold(tx, ground.run, "a question")
    await lock.take(tx, held.environment, held.id, "ops-a:1")
    await releases.begin(tx, plan=plan_of(), requested_by="ops-b")
    seen = await in_ledger(tx, held)
    assert "its lock is not free" in seen
    assert "another release has not ended: " in seen


GOOD = HostState(
    name="web-1", web=NEW, workers=(NEW,), tree=NEW, dirt="", inactive=(), current=NEW, is_busy=False
)  # fmt: skip


@pytest.mark.parametrize(
    ("state", "needle"),
    [
        (replace(GOOD, web=None), "does not answer"),
        (replace(GOOD, web=OLD, workers=(OLD,), tree=OLD, current=OLD), "which the ledger does not name"),
        (replace(GOOD, workers=(OLD,)), "its workers are of: aaaaaaa"),
        (replace(GOOD, workers=()), "its workers are of: none"),
        (replace(GOOD, tree=OLD), "its tree is aaaaaaa"),
        (replace(GOOD, dirt=" M web.py"), "has changes:  M web.py"),
        (replace(GOOD, inactive=("tsh-erp-workers",)), "do not run: tsh-erp-workers"),
        (replace(GOOD, current=OLD), "the state file of web-1 names aaaaaaa"),
        (replace(GOOD, is_busy=True), "an operation still runs"),
    ],
)
def test_a_host_that_is_not_as_a_whole_on_one_revision_is_seen(state: HostState, needle: str) -> None:
    """Web process, workers, tree and state file are of one revision that the ledger names, and nothing is under way."""
    assert hosts.disagreements(GOOD, {NEW}) == []
    assert needle in "; ".join(hosts.disagreements(state, {NEW}))
