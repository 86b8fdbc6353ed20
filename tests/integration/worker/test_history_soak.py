"""A long history in order and in permutations, by one worker and by four that are killed: the same tables."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from handlers.queue.event import EntityType, Event
from rehearsal.postgres import Postgres
from tests.integration.entities.test_any_order import arriving, history, outcome, work
from tests.integration.worker.test_race import Crowd, apart, put

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3300)]

WORLDS = int(os.environ.get("HISTORY_WORLDS", "270"))
"""Histories of some 370 events side by side: together 100 000."""
WAVES, WORKERS, SECONDS = 20, 4, 1500
NUMBERS = {EntityType.SALES_ORDER: "salesorder_number", EntityType.PAYMENT: "payment_number"}


def worlds(chance: random.Random) -> list[Event]:
    """Many histories, each with ids and numbers of its own, in the order in which they arrived."""
    events = []
    for world in range(1, WORLDS + 1):
        for one in history(chance):
            said = apart(json.loads(one.payload), world)
            number = NUMBERS.get(one.entity)
            if number in said:
                said[number] = f"{world}-{said[number]}"
            events.append(one._replace(key=f"{world}00{one.key}", payload=json.dumps(said)))
    return sorted(events, key=lambda one: (one.created_at, one.id))


def shuffled(events: Sequence[Event], chance: random.Random) -> list[Event]:
    """In any order of processing, each at the time at which it arrived."""
    return chance.sample(events, len(events))


def reverse(events: Sequence[Event], _: random.Random) -> list[Event]:
    return list(reversed(events))


@pytest_asyncio.fixture(loop_scope="session")
async def databases(postgres: Postgres, adopted_template: str) -> AsyncIterator[list[str]]:
    names = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(4)]
    yield [await postgres.create_database(name, template=adopted_template) for name in names]
    for name in names:
        await postgres.drop_database(name)


async def killed_workers(
    url: str, events: Sequence[Event], chance: random.Random, log: Path
) -> dict[str, int]:
    """Feed *events* in waves to four workers, of which one is killed in each wave; how all of them ended."""
    crowd = Crowd(url=url, log=log)
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + SECONDS
    try:
        for _ in range(WORKERS):
            await crowd.add()
        for wave in range(WAVES):
            size = -(-len(events) // WAVES)
            await put(url, events[wave * size : (wave + 1) * size])
            await crowd.kill_a_holder(chance)
        while True:
            rows = await connection.fetch("SELECT status::text, count(*) FROM tds_sync_queue GROUP BY 1")
            found = {row[0]: row[1] for row in rows}
            if not found.keys() - {"completed", "dead_letter"}:
                assert crowd.killed >= WAVES // 4
                return found
            assert time.monotonic() < deadline, f"not settled in time: {found}"
            await asyncio.sleep(0.5)
    finally:
        await connection.close()
        await crowd.clear()


async def test_a_long_history_has_one_outcome(databases: list[str], tmp_path: Path) -> None:
    """Equal tables with their local links, all events completed, nothing redriven."""
    chance = random.Random(int(os.environ.get("HISTORY_SEED", "7")))
    events = worlds(chance)
    in_order, other_arrival, *fed = databases
    await put(in_order, events)
    await work(in_order, workers=1, batch_size=1000, seconds=SECONDS)
    expected, dead = await outcome(in_order)
    assert dead == []
    await put(other_arrival, arriving(events, chance))
    await work(other_arrival, workers=1, batch_size=300, seconds=SECONDS)
    assert await outcome(other_arrival) == (expected, [])
    orders: list[Callable[[Sequence[Event], random.Random], list[Event]]] = [shuffled, reverse]
    for url, order in zip(fed, orders, strict=True):
        ended = await killed_workers(url, order(events, chance), chance, tmp_path / "workers.log")
        assert ended == {"completed": len(events)}
        found, _ = await outcome(url)
        assert {name: rows for name, rows in found.items() if rows != expected[name]} == {}
    print(f"{len(events)} events, four outcomes, all equal")
