"""The faulty workers of the sample ERP, as processes on a database: each does what its story needs, no more."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from rehearsal import cues, erp
from rehearsal.consistency.audit import install_audit
from rehearsal.webhooks import backlog, known, traffic
from rehearsal.webhooks.backlog import Seed

PROJECT = Path(__file__).parents[3]
ENOUGH_SECONDS = 30


@pytest.fixture
def folder(short_folder: Path) -> Path:
    """The folder of the workers and of their cues."""
    return short_folder


@asynccontextmanager
async def workers(name: str, folder: Path, database_url: str, **variables: str) -> AsyncIterator[Process]:
    """The workers of a revision, until SIGTERM; killed if they do not end by it."""
    for path, content in erp.sources(name).items():
        (folder / path).write_bytes(content)
    (folder / "REVISION").write_text(name)
    command = folder / "runbook"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m flows.cli "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "ERP_DATABASE_URL": database_url,
        "ERP_CUES": str(folder / "cues"),
        **variables,
    }
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(folder / "workers.py"), env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        await ended(process)


async def ended(process: Process) -> None:
    """Tell the workers to end, and wait until they have."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), ENOUGH_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


async def until(true: Callable[[], Awaitable[object]]) -> None:
    """Poll until it holds; the bound only ends a test that has failed."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not await true():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.05)


async def send(engine: AsyncEngine, kind: str, number: int = 0) -> str:
    """Receive a webhook about a known record; returns the event's id."""
    now = datetime.now(UTC)
    event = Seed(entity=kind, record=known.record(kind, number, now), created_at=now)
    await traffic.send(engine, event)
    return str(event.id)


async def outcome(engine: AsyncEngine, event: str) -> tuple[str, str | None]:
    """An event's status and error code."""
    query = text("SELECT status::text, error_code FROM tds_sync_queue WHERE id = :id")
    async with engine.connect() as tx:
        row = (await tx.execute(query, {"id": event})).one()
    return row[0], row[1]


async def settled(engine: AsyncEngine, event: str) -> tuple[str, str | None]:
    """The same, once a worker has tried it."""

    async def is_tried() -> bool:
        return (await outcome(engine, event))[0] not in ("pending", "processing")

    await until(is_tried)
    return await outcome(engine, event)


async def test_late_workers_apply_everything_until_their_cue_and_nothing_after_it(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """The fault comes by its cue alone. From then on each event dies at once: no retry can help."""
    await backlog.seed(engine, "empty")
    async with workers("late", folder, database_url):
        for kind in ("product", "invoice", "order"):
            assert await settled(engine, await send(engine, kind)) == ("completed", None)
        cues.give(folder / "cues", "late")
        for kind in ("product", "invoice", "order"):
            assert await settled(engine, await send(engine, kind)) == ("dead_letter", "LookupError")


async def test_stalled_workers_take_events_and_never_finish_them(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """From their cue on an event stays in hand. They still end when they are told, and give it back unharmed."""
    await backlog.seed(engine, "empty")
    await install_audit(engine)

    async def is_taken(event: str) -> bool:
        async with engine.connect() as tx:
            taken = text("SELECT EXISTS (SELECT FROM rehearsal.taken WHERE event_id = :id)")
            return bool((await tx.execute(taken, {"id": event})).scalar_one())

    async with workers("stall", folder, database_url) as process:
        assert await settled(engine, await send(engine, "product")) == ("completed", None)
        cues.give(folder / "cues", "stall")
        event = await send(engine, "product", 1)
        await until(lambda: is_taken(event))
        await ended(process)
        assert await outcome(engine, event) == ("pending", None)


async def test_of_one_type_every_event_dies_and_of_the_others_none(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """Payments die of an error that no retry cures."""
    await backlog.seed(engine, "empty")
    async with workers("one_type", folder, database_url):
        for number in range(2):
            assert await settled(engine, await send(engine, "PAYMENT", number)) == (
                "dead_letter",
                "KeyError",
            )
            for kind in ("product", "customer", "invoice", "order"):
                assert await settled(engine, await send(engine, kind, number)) == ("completed", None)


async def test_a_known_record_succeeds_once_and_then_always_dies(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """Whichever process applied it. Another record still succeeds."""
    await backlog.seed(engine, "empty")
    async with workers("known", folder, database_url):
        assert await settled(engine, await send(engine, "product")) == ("completed", None)
    async with workers("known", folder, database_url):
        for _ in range(2):
            assert await settled(engine, await send(engine, "product")) == ("dead_letter", "AttributeError")
        assert await settled(engine, await send(engine, "product", 1)) == ("completed", None)


async def test_a_blip_refuses_most_types_and_a_retry_cures_it(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """The workers wait as long as they are told before a retry, and the blip ends by itself."""
    await backlog.seed(engine, "empty")
    await install_audit(engine)
    await cues.install_blip(engine)
    async with workers("fixed", folder, database_url, ERP_BACKOFF_SECONDS="1", ERP_BACKOFF_CAP_SECONDS="1"):
        assert await settled(engine, await send(engine, "product")) == ("completed", None)
        await cues.blip(engine, 3600)
        events = [await send(engine, kind, 1) for kind in ("product", "invoice", "order", "PAYMENT")]
        for event in events:
            assert await settled(engine, event) == ("retry", "40001")
        assert await settled(engine, await send(engine, "customer", 1)) == ("completed", None)
        async with engine.begin() as tx:
            await tx.execute(text("UPDATE rehearsal.blip SET until = clock_timestamp()"))

        async def is_cured() -> bool:
            return {(await outcome(engine, event))[0] for event in events} == {"completed"}

        await until(is_cured)


async def test_the_broken_workers_apply_what_the_erp_knows_and_bury_what_is_new(
    engine: AsyncEngine, database_url: str, folder: Path
) -> None:
    """Live traffic passes them unharmed, with each kind that is in it. New items and invoices meet the real bug."""
    await backlog.seed(engine, "good")
    chance = random.Random(7)
    events = [traffic.webhook(number, chance) for number in range(40)]
    async with workers("broken", folder, database_url):
        for event in events:
            await traffic.send(engine, event)
        for event in events:
            assert (await settled(engine, str(event.id)))[0] == "completed"
        now = datetime.now(UTC)
        new = backlog.dead_letters(now)
        for letter in (new[3], new[-1]):
            again = Seed(entity=letter.entity, record=letter.record, created_at=now)
            await traffic.send(engine, again)
            assert await settled(engine, str(again.id)) == ("dead_letter", "xd2s")
