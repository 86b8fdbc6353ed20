"""A test webhook through a real receiver and a real worker: what is followed, what is removed, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.database import clock
from handlers.environment.load import load_environment
from handlers.errors import Refused
from handlers.measurements import window
from handlers.measurements.window import Window
from handlers.phases import receiver_check, sent_webhook, synthetic
from handlers.phases.sent_webhook import SentWebhook
from handlers.queue import arrivals, listing
from handlers.queue.event import EntityType
from handlers.release.phase import Phase
from handlers.worker.worker import Worker, new_owner
from tests.integration.phases.looks import FILE
from tests.integration.queue.events import change, event, row
from tests.integration.receiver.calls import SECRET, receiver
from tests.integration.release.steps import in_phase
from tests.integration.worker.steps import until

CLOSED = "http://127.0.0.1:1/webhooks/items"


@asynccontextmanager
async def core_of(folder: Path, url: str, address: str = "", secret: str = SECRET) -> AsyncIterator[Core]:
    """The core of an environment whose webhooks go to *address*; without one it has no receiver."""
    (folder / "secret").write_text(secret)
    table = f'[receiver]\nproduct_url = "{address}"\nsecret = "file:{folder / "secret"}"\n' if address else ""
    path = folder / "staging.toml"
    shown = make_url(url).render_as_string(hide_password=False)
    path.write_text(FILE.format(name="staging", url=shown, more="") + table, encoding="utf-8")
    async with open_core(load_environment(str(path))) as core:
        yield core


@asynccontextmanager
async def working(engine: AsyncEngine) -> AsyncIterator[None]:
    """A worker with the real handlers, until the end of the block."""
    stop = asyncio.Event()
    worker = Worker(engine, owner=new_owner("test"), revision="c" * 40, poll_seconds=0.05)
    running = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def counts(engine: AsyncEngine) -> tuple[int, int, int]:
    """The rows of queue, inbox and products."""
    query = "SELECT (SELECT count(*) FROM tds_sync_queue), (SELECT count(*) FROM tds_inbox_events), "
    async with engine.connect() as tx:
        found = (await tx.execute(text(query + "(SELECT count(*) FROM products)"))).one()
    return found[0], found[1], found[2]


@asynccontextmanager
async def received_at(
    engine: AsyncEngine,
    folder: Path,
    url: str,
    *,
    path: str = "/webhooks/items",
    query: str = "",
    secret: str = SECRET,
) -> AsyncIterator[Core]:
    """The core of an environment whose webhooks go to a real receiver, which writes to *engine*'s database."""
    async with receiver(engine, secret=SECRET) as client:
        address = f"{client.base_url}{path}{query}"
        async with core_of(folder, url, address, secret) as core:
            yield core


async def sent_through(
    folder: Path, url: str, engine: AsyncEngine, *, limit: float = 20, query: str = "?event=edited"
) -> SentWebhook:
    """What becomes of a test webhook that is sent to a real receiver."""
    async with received_at(engine, folder, url, query=query) as core:
        return await sent_webhook.send(core, limit)


async def test_it_goes_to_the_row_and_leaves_nothing(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Signed, taken by a worker, compared with its row; then queue, inbox and products are as before."""
    real = await event(engine, "4711", age=30)
    before = await row(engine, real)
    async with working(engine):
        await until_applied(engine, real)
        sent = await sent_through(tmp_path, database_url, engine)
    assert sent.good, sent
    assert [stage.name for stage in sent.stages] == [
        "answered", "queued", "taken", "completed", "row", "removed"
    ]  # fmt: skip
    assert sent.left == []
    assert await counts(engine) == (1, 1, 1)
    assert (await row(engine, real))["id"] == before["id"]


async def until_applied(engine: AsyncEngine, id_: UUID) -> None:
    """Wait until the worker has applied a real event."""

    async def applied() -> bool:
        return bool((await row(engine, id_))["status"] == "completed")

    await until(applied, 30)


async def until_queued(engine: AsyncEngine) -> None:
    """Wait until the test webhook is in the queue."""

    async def queued() -> bool:
        return (await counts(engine))[0] > 0

    await until(queued, 30)


async def test_the_same_again_and_after_a_canary_works_as_well(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The soft-deleted row of an earlier canary is no newer version that hides the test."""
    async with working(engine):
        async with engine.begin() as tx:
            await synthetic.insert(tx, "r1")
            last = await synthetic.remove(tx, "r1")
        await until_applied(engine, last)
        for _ in range(2):
            sent = await sent_through(tmp_path, database_url, engine)
            assert sent.good, sent


async def test_nobody_counts_it_as_traffic(tmp_path: Path, database_url: str, engine: AsyncEngine) -> None:
    """While it is in the queue, neither the checks, nor the counts since a time, nor who waits for a webhook see it."""
    async with engine.begin() as tx:
        since = await clock.now(tx) - timedelta(minutes=1)
    async with received_at(engine, tmp_path, database_url) as core:
        sending = asyncio.create_task(sent_webhook.send(core, 60))
        try:
            await until_queued(engine)
            async with engine.connect() as tx:
                bars = core.environment.bars
                found = await window.read(tx, bars, Window.of(core.clock, await clock.now(tx), since), None)
                seen = {each.name: each.value for each in found}
                assert (seen["queue_depth"], seen["oldest"]) == (0, 0)
                assert set((await listing.counts_since(tx, since)).values()) == {0}
                assert await arrivals.first_after(tx, since, EntityType.PRODUCT) is None
            async with working(engine):
                assert (await sending).good
        finally:
            sending.cancel()
    assert await counts(engine) == (0, 0, 0)


@pytest.mark.parametrize(
    ("secret", "query", "what"),
    [("another secret", "", "refused it with 401"), (SECRET, "?event=bent", "refused it with 400")],
)
async def test_a_refusal_of_the_receiver_is_told(
    tmp_path: Path, database_url: str, engine: AsyncEngine, secret: str, query: str, what: str
) -> None:
    """A wrong secret or a wrong address: its status and its reason, and nothing was queued."""
    async with received_at(engine, tmp_path, database_url, query=query, secret=secret) as core:
        sent = await sent_webhook.send(core, 5)
    assert (sent.good, what in sent.sentence, sent.stages) == (False, True, []), sent
    assert secret not in sent.sentence
    assert await counts(engine) == (0, 0, 0)


async def test_a_receiver_that_is_away_is_told(tmp_path: Path, database_url: str) -> None:
    """Nobody listens at the address."""
    async with core_of(tmp_path, database_url, CLOSED) as core:
        sent = await sent_webhook.send(core, 5)
    assert "does not answer" in sent.sentence


async def test_without_a_worker_it_is_removed_all_the_same(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Nobody takes it in time: that is said, and it does not stay for the next worker."""
    sent = await sent_through(tmp_path, database_url, engine, limit=0.5)
    assert (sent.good, "no worker took it within 0.5 s" in sent.sentence) == (False, True), sent
    assert await counts(engine) == (0, 0, 0)


async def test_a_receiver_of_another_database_is_noticed(
    tmp_path: Path, database_url: str, erp_url: str
) -> None:
    """It answers well, and this queue never sees the event."""
    from handlers.erp.adopt import adopt
    from tests.conftest import engine_for

    other = engine_for(erp_url)
    try:
        await adopt(other)
        async with received_at(other, tmp_path, database_url) as core:
            sent = await sent_webhook.send(core, 0.5)
        assert "does the receiver write to another database?" in sent.sentence
    finally:
        await other.dispose()


async def test_what_a_worker_has_in_hand_stays_and_is_named(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A worker hangs on it: its row is not pulled away, and the result says that it is left behind."""
    async with received_at(engine, tmp_path, database_url) as core:
        sending = asyncio.create_task(sent_webhook.send(core, 2))
        await until_queued(engine)
        async with engine.connect() as tx:
            id_ = (await tx.execute(text("SELECT id FROM tds_sync_queue"))).scalar_one()
        lease = {"locked_by": "w", "lock_expires_at": "sql:now() + interval '1 hour'"}
        await change(engine, id_, status="processing", started_at="sql:now()", **lease)
        sent = await sending
    assert (sent.good, str(id_) in sent.sentence, len(sent.left)) == (False, True, 1), sent
    assert (await counts(engine))[:2] == (1, 1)


async def test_before_anything_is_sent_it_is_refused(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """No receiver configured, another synthetic event that is open, or a release whose canary may need the record."""
    async with core_of(tmp_path, database_url) as core:
        with pytest.raises(Refused, match=r"has no \[receiver\]"):
            await sent_webhook.send(core, 1)
    async with core_of(tmp_path, database_url, CLOSED) as core:
        async with engine.begin() as tx:
            id_ = await synthetic.insert(tx, "r1")
        with pytest.raises(Refused, match=f"another synthetic event is pending: `runbook queue show {id_}`"):
            await sent_webhook.send(core, 1)
        await in_phase(engine, Phase.CANARY)
        with pytest.raises(Refused, match="is canary, and its canary may use the same"):
            await sent_webhook.send(core, 1)


async def test_without_the_right_to_remove_it_none_is_sent(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A user who may not delete would leave it in the customer's queue: the sentence says what to grant."""
    async with engine.begin() as tx:
        for line in (
            "CREATE ROLE sender LOGIN PASSWORD 'sender'",
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO sender",
        ):
            await tx.execute(text(line))
    try:
        url = make_url(database_url).set(username="sender", password="sender")
        shown = url.render_as_string(hide_password=False)
        async with core_of(tmp_path, shown, CLOSED) as core:
            with pytest.raises(Refused, match="none was sent: the user sender may not DELETE"):
                await sent_webhook.send(core, 1)
    finally:
        async with engine.begin() as tx:
            await tx.execute(text("DROP OWNED BY sender"))
            await tx.execute(text("DROP ROLE sender"))


async def test_a_check_before_a_release_asks_the_receiver_and_stores_nothing(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It answers, has no such address, or is away: only a warning, for a release may be planned before it is back."""
    async with received_at(engine, tmp_path, database_url) as core:
        good = await receiver_check.check(core)
        assert (good is not None and good.good and not good.warns) is True
    async with received_at(engine, tmp_path, database_url, path="/webhooks/itmes") as core:
        address = await receiver_check.check(core)
    async with core_of(tmp_path, database_url, CLOSED) as core:
        away = await receiver_check.check(core)
    async with core_of(tmp_path, database_url) as core:
        assert await receiver_check.check(core) is None
    for found, what in ((address, "answers 404"), (away, "does not answer")):
        assert found is not None
        assert (found.good, found.warns, what in found.sentence) == (True, True, True), found
    assert await counts(engine) == (0, 0, 0)
