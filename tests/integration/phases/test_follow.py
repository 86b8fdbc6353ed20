"""Following events: the limit is for the workers, and stands still while a person holds the queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.phases import follow
from handlers.phases.follow import until_settled
from handlers.queue import limits, throttle
from handlers.queue.event import EntityType, Status
from tests.integration.phases.test_watch import FILE
from tests.integration.queue.events import change, event

LIMIT_SECONDS = 0.4


async def followed(
    tmp_path: Path, database_url: str, id_: UUID, *, execution: str = "workers"
) -> list[Status]:
    """The states when the following ends."""
    file = tmp_path / "watched.toml"
    url = make_url(database_url).render_as_string(hide_password=False)
    text = FILE.format(url=url).replace("[database]", f'execution = "{execution}"\n[database]')
    file.write_text(text, encoding="utf-8")
    async with open_core(load_environment(str(file))) as core:
        found = await until_settled(
            core, [id_], limit_seconds=LIMIT_SECONDS, poll_seconds=0.02, revision="a" * 40
        )
    return [state.status for state in found]


@pytest.mark.parametrize("limited", [None, EntityType.PRODUCT])
async def test_the_time_stands_still_while_a_limit_holds_the_event(
    engine: AsyncEngine, database_url: str, tmp_path: Path, limited: EntityType | None
) -> None:
    """Held for several times the limit, and completed after that: it is followed to its end."""
    id_ = await event(engine, "1")
    await limits.limit(engine, limited, per_ten_seconds=0, seconds=60, by="ops-b", reason="test")
    following = asyncio.create_task(followed(tmp_path, database_url, id_))
    done, _ = await asyncio.wait({following}, timeout=4 * LIMIT_SECONDS)
    assert not done
    await change(engine, id_, status="completed")
    assert await asyncio.wait_for(following, 10) == [Status.COMPLETED]


@pytest.mark.parametrize(
    ("limited", "columns"),
    [
        (EntityType.INVOICE, {}),
        (None, {"status": "processing", "lock_expires_at": "sql:now() + interval '1 hour'"}),
    ],
    ids=["another type", "a worker has it"],
)
async def test_a_limit_that_holds_something_else_gives_no_more_time(
    engine: AsyncEngine,
    database_url: str,
    tmp_path: Path,
    limited: EntityType | None,
    columns: dict[str, str],
) -> None:
    """The workers are not excused by a limit that does not hold this event."""
    id_ = await event(engine, "1", **columns)
    await limits.limit(engine, limited, per_ten_seconds=0, seconds=60, by="ops-b", reason="test")
    (status,) = await asyncio.wait_for(followed(tmp_path, database_url, id_), 20)
    assert status in (Status.PENDING, Status.PROCESSING)


async def test_without_workers_of_its_own_the_event_is_applied_after_the_hold(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    """The hold outlasts the limit: this process, which applies the event, tries again when it may."""
    id_ = await event(engine, "1")
    await limits.limit(engine, None, per_ten_seconds=0, seconds=3 * LIMIT_SECONDS, by="ops-b", reason="test")
    found = await asyncio.wait_for(followed(tmp_path, database_url, id_, execution="inline"), 20)
    assert found == [Status.COMPLETED]


async def test_a_hold_that_ends_gives_the_time_that_was_left(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    """No worker takes it after that either: the following ends, with the event open."""
    id_ = await event(engine, "1")
    await limits.limit(engine, None, per_ten_seconds=0, seconds=1, by="ops-b", reason="test")
    assert await asyncio.wait_for(followed(tmp_path, database_url, id_), 20) == [Status.PENDING]
    assert await limits.limits(engine) == []


async def test_workers_that_take_nothing_of_what_a_gate_lets_through_get_no_more_time(
    engine: AsyncEngine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead workers look like a held queue: the gate holds it because nothing is answered."""
    monkeypatch.setattr(follow, "GATE_SECONDS", 4 * LIMIT_SECONDS)
    id_ = await event(engine, "1")
    await throttle.throttle(
        engine, {None: 3}, by=throttle.gate_of("1"), seconds=60, tick_seconds=10, reason="test"
    )
    following = asyncio.create_task(followed(tmp_path, database_url, id_))
    done, _ = await asyncio.wait({following}, timeout=2 * LIMIT_SECONDS)
    assert not done
    assert await asyncio.wait_for(following, 10) == [Status.PENDING]
