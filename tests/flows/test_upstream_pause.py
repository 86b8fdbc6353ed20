"""The drain and the upstream: nothing is redriven while it is away, and what fails then rolls nothing back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.drain import drain_all
from flows.upstream import unless_away
from handlers.environment.load import load_environment
from handlers.queue.event import EntityType
from handlers.release.ledger import dead_letters
from handlers.release.note import HeldBy
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.status import snapshot
from handlers.status.lines import lines
from tests.integration.host.upstreams import UpstreamServer, upstream_server
from tests.integration.queue.events import dead_letter, row
from tests.integration.release.steps import in_phase

_FILE = """name = "staging"
execution = "inline"
[database]
url = "{database}"
[ssh]
user = "x"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
[drain]
poll_seconds = 0.05
settle_seconds = 20
[upstream]
url = "{upstream}"
interval_seconds = 0.05
pause_seconds_max = {pause}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[UpstreamServer]:
    """The upstream, away at first."""
    async with upstream_server(503) as server:
        yield server


async def draining(
    engine: AsyncEngine, url: str, folder: Path, server: UpstreamServer, *, pause: float = 60
) -> tuple[Release, list[UUID]]:
    """A release with two dead letters to drain, and its environment file."""
    path = folder / "staging.toml"
    path.write_text(_FILE.format(database=url, upstream=server.url, pause=pause))
    load_environment(str(path))
    letters = [await dead_letter(engine, f"item-{number}") for number in (1, 2)]
    release = await in_phase(engine, Phase.DRAINING)
    planned = [(number, id_, str(EntityType.PRODUCT), f"item-{number}") for number, id_ in enumerate(letters)]
    await dead_letters.plan_events(engine, release, planned)
    return release, letters


async def statuses(engine: AsyncEngine, letters: list[UUID]) -> list[str]:
    """The status of each event in the queue."""
    return [(await row(engine, id_))["status"] for id_ in letters]


async def seen(engine: AsyncEngine, word: str) -> str:
    """The status view, as soon as *word* is in it."""
    view = ""
    for _ in range(400):
        view = "\n".join(lines(await snapshot.read(engine, "staging"), width=200))
        if word in view:
            break
        await asyncio.sleep(0.05)
    return view


async def test_a_drain_waits_for_the_upstream_and_goes_on(
    engine: AsyncEngine, database_url: str, tmp_path: Path, server: UpstreamServer
) -> None:
    """No dead letter is touched while it is away, the status says what is waited for, and then all are drained."""
    release, letters = await draining(engine, database_url, tmp_path, server)
    drain = asyncio.create_task(drain_all(release))
    view = await seen(engine, "paused")
    asked = server.asked
    for _ in range(400):
        if server.asked >= asked + 4:
            break
        await asyncio.sleep(0.05)
    assert f"paused: the upstream is away: 127.0.0.1:{server.port} answers 503 instead of 200" in view
    assert "upstream asked again in" in view
    assert await statuses(engine, letters) == ["dead_letter"] * 2
    assert not drain.done()
    server.statuses = [200]
    conclusion = await asyncio.wait_for(drain, 20)
    assert conclusion.verdict is Verdict.PASS, conclusion.sentence
    assert await statuses(engine, letters) == ["completed"] * 2
    assert "paused" not in "\n".join(lines(await snapshot.read(engine, "staging"), width=200))


async def test_a_pause_that_takes_too_long_holds_the_release(
    engine: AsyncEngine, database_url: str, tmp_path: Path, server: UpstreamServer
) -> None:
    """It is held with the reason, never rolled back, its dead letters are untouched, and it goes on by itself."""
    release, letters = await draining(engine, database_url, tmp_path, server, pause=0.3)
    conclusion = await asyncio.wait_for(drain_all(release), 20)
    assert (conclusion.verdict, conclusion.held_by) == (Verdict.INCONCLUSIVE, HeldBy.UPSTREAM)
    assert conclusion.sentence.startswith("the upstream is away: ")
    assert await statuses(engine, letters) == ["dead_letter"] * 2


async def test_nothing_waits_when_no_dead_letter_is_left(
    engine: AsyncEngine, database_url: str, tmp_path: Path, server: UpstreamServer
) -> None:
    """An outage after the last batch delays no end of a drain: the upstream is not even asked."""
    path = tmp_path / "staging.toml"
    path.write_text(_FILE.format(database=database_url, upstream=server.url, pause=60))
    load_environment(str(path))
    conclusion = await asyncio.wait_for(drain_all(await in_phase(engine, Phase.DRAINING)), 20)
    assert (conclusion.verdict, conclusion.sentence) == (Verdict.PASS, "no dead letter to drain")
    assert server.asked == 0


async def test_what_fails_while_the_upstream_is_away_rolls_nothing_back(
    engine: AsyncEngine, database_url: str, tmp_path: Path, server: UpstreamServer
) -> None:
    """A batch that fails in an outage is no evidence: a person decides. When the upstream answers, it is a failure."""
    release, _ = await draining(engine, database_url, tmp_path, server)
    failed = Conclusion(verdict=Verdict.FAIL, sentence="1 of 8 completed (12 %)")
    excused = await unless_away(release, failed)
    assert (excused.verdict, excused.held_by) == (Verdict.INCONCLUSIVE, HeldBy.GATE)
    assert excused.sentence.startswith("1 of 8 completed (12 %), but the upstream is away: ")
    server.statuses = [200]
    assert await unless_away(release, failed) == failed
    passed = replace(failed, verdict=Verdict.PASS)
    assert await unless_away(release, passed) == passed
