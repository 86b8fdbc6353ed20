"""The watch lasts as long as it should, whatever clocks are set and controllers are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy.engine import make_url

from flows.watch import watch_window
from handlers.core import Core, open_core
from handlers.environment.load import load_environment
from handlers.phases import looking, watch
from handlers.release.ledger import releases
from handlers.release.note import HeldBy
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.status import snapshot
from tests.integration.host.test_health import Web
from tests.integration.queue.events import event
from tests.integration.release.steps import deploying, plan_of
from tests.integration.set_clock import set_clock

FILE = """
name = "watched"
[database]
url = "{url}"
[ssh]
user = "nobody"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
[watch]
window_seconds = 2
interval_seconds = 0.2
"""


@contextmanager
def timed() -> Iterator[list[float]]:
    """How long the block took, by the monotonic clock."""
    began, seconds = monotonic(), [0.0]
    yield seconds
    seconds[0] = monotonic() - began


async def watching(core: Core) -> Release:
    """A release of the revision that runs already, in its watch."""
    plan = plan_of("watched", to_revision="a" * 40)
    planned = await releases.begin(core.database, plan=plan, requested_by="ops-a")
    run = await deploying(core.database, release=planned)
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING):
        run = await releases.enter(core.database, run, phase, verdict=Verdict.PASS)
    return run


@pytest.fixture
def file(tmp_path: Path, database_url: str) -> str:
    """The environment file, with a watch of two seconds."""
    url = make_url(database_url).render_as_string(hide_password=False)
    path = tmp_path / "watched.toml"
    path.write_text(FILE.format(url=url))
    load_environment(str(path))
    return str(path)


async def test_a_killed_watch_continues_with_what_it_has_watched(file: str) -> None:
    """Two controllers together watch for the whole window; the time between them does not count, nor is it shown."""
    async with open_core(load_environment(file)) as core:
        run = await watching(core)
        with timed() as first:
            killed = asyncio.create_task(watch_window(run))
            await asyncio.sleep(1)  # A part of the window.
            killed.cancel()
            await asyncio.wait({killed})
        await asyncio.sleep(1.5)  # Nobody watches.
        view = await snapshot.read(core.database, "watched")
        assert view.running_seconds is not None
        assert view.running_seconds <= first[0] + 0.2
        with timed() as second:
            conclusion = await watch_window(run)
    assert first[0] + second[0] >= 2
    # What the first had watched since its last look is watched once more, and no more than that.
    assert second[0] < 2
    assert conclusion.verdict is Verdict.INCONCLUSIVE
    assert conclusion.sentence.startswith("after 2 s: NO_DATA")


@pytest.mark.parametrize("seconds", [2400.0, -45.0])
async def test_a_set_clock_of_the_database_does_not_end_a_watch(
    file: str, database_url: str, seconds: float
) -> None:
    """Set forward by 40 min, or back within the release: the watch takes its time, and says what it was."""
    async with open_core(load_environment(file)) as core:
        run = await watching(core)
        # The release began long ago, so that the clock that was set back is still behind its start.
        async with core.database.begin() as tx:
            await tx.exec_driver_sql(
                "UPDATE runbook.phase_record SET started_at = started_at - interval '5 min'"
            )
        with timed() as took:
            going = asyncio.create_task(watch_window(run))
            await asyncio.sleep(0.5)  # In the middle of the watch.
            await set_clock(database_url, seconds)
            conclusion = await going
    assert 2 <= took[0] < 30
    noted = "(the database's clock was set forward by 40 min meanwhile)" in conclusion.sentence
    assert noted is (seconds > 0)
    assert conclusion.sentence.startswith("after 2 s")


async def test_a_clock_that_is_behind_the_release_holds_it(file: str, database_url: str) -> None:
    """New events would have times before the switch: nothing can be judged, and nothing is rolled back."""
    async with open_core(load_environment(file)) as core:
        run = await watching(core)
    await set_clock(database_url, -1620)
    with timed() as took:
        conclusion = await watch_window(run)
    assert conclusion.verdict is Verdict.INCONCLUSIVE
    assert "the database's clock was set back: it is 27 min before the time" in conclusion.sentence
    assert took[0] < 2


async def concluded(file: str, health_url: str) -> Conclusion:
    """The conclusion of a watch in which enough events were applied."""
    text = Path(file).read_text(encoding="utf-8").replace("http://127.0.0.1:1/", health_url)
    probe = "[probe]\nconsecutive = 2\ninterval_seconds = 0.05\nlimit_seconds = 1\nanswer_seconds = 0.5\n"
    Path(file).write_text(f"{text}{probe}", encoding="utf-8")
    async with open_core(load_environment(file)) as core:
        run = await watching(core)
        for number in range(25):
            await event(core.database, f"{number}", status="completed", completed_at="sql:now()")
        looker = await looking.begin(core, run)
        window = await watch.begin(core, run, looker)
        over = replace(window, watched_seconds=window.seconds)
        return await watch.conclude(core, run, over, looker)


async def test_a_host_that_restarts_as_the_watch_ends_does_not_hold_the_release(file: str) -> None:
    """It is proven as after a deploy: for some answers in a row, within the limit of a probe."""
    async with Web() as web:
        web.answers = lambda call: (200 if call > 3 else 503, {"revision": "a" * 40, "database": "ok"})
        assert (await concluded(file, web.url)).verdict is Verdict.PASS


async def test_a_host_that_is_away_as_the_watch_ends_holds_the_release_until_it_is_back(file: str) -> None:
    """Neither a pass nor a breach; the hold is the host's, so that it goes on without a person."""
    conclusion = await concluded(file, "http://127.0.0.1:1/")
    assert (conclusion.verdict, conclusion.held_by) == (Verdict.INCONCLUSIVE, HeldBy.HOST)
    assert "web-1: nothing listens at its health address" in conclusion.sentence
