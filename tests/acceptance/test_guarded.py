"""A release that succeeds, and the hours after it: takers on the command line, one of them killed, and a breach."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue import insert
from handlers.queue.event import EntityType
from handlers.release.ledger import guards
from tests.acceptance.killing import Place, killing_at, last
from tests.integration.hours import before_hours_pass, let_pass

pytestmark = pytest.mark.timeout(1800)

SPEED = 150.0
AFTER_CLAIM = "after commit handlers.release.ledger.guards.claim"
BEFORE_BACK = "before commit handlers.release.ledger.releases.enter_phase[rolling_back]"
DUE = ("guard", "--due", "--json", "--without-prefect")
BROKEN = 12


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-u-") as folder:
        yield Path(folder).resolve()


async def until(place: Place, query: str) -> None:
    """Wait until the query returns true."""
    for _ in range(600):
        if await place.ledger.fetchval(query):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"never true: {query}")


async def kill_a_taker(place: Place, home: Path, point: str) -> None:
    """A taker comes, and dies at this point."""
    (home / "kill" / "killed").unlink(missing_ok=True)
    place.extra = killing_at(point, home)
    killed = await place.command(*DUE, "-e", place.environment)
    place.extra = {}
    assert killed.returncode == -signal.SIGKILL, (killed.stdout, killed.stderr)


async def break_records(engine: AsyncEngine) -> None:
    """Webhooks that the released workers cannot apply."""
    async with engine.begin() as tx:
        for number in range(BROKEN):
            await insert.insert_event(
                tx, entity=EntityType.INVOICE, key=f"broken-{number}", payload_text='{"broken": true}'
            )


async def test_a_breach_hours_after_a_release_takes_its_hosts_back(home: Path) -> None:
    """Nobody is at the keyboard: the timer's command alone sees it, rolls back, and proves it on every host."""
    async with Place.make(home, "good", speed=SPEED) as place:
        run = await place.plan()
        async with place.live_traffic():
            driver = place.drive(run, "--without-prefect")
            assert await asyncio.to_thread(driver.wait, 200) == 0, place.driver_log()
        [ended] = await place.rows("SELECT phase::text FROM runbook.release")
        assert ended["phase"] == "succeeded", place.driver_log()
        url = place.target.database_url
        await before_hours_pass(url)
        await let_pass(url, 400 / SPEED)
        words = (*DUE, "-e", place.environment)

        await kill_a_taker(place, home, AFTER_CLAIM)
        beside = await place.command(*words)
        assert (beside.returncode, last(beside)["environments"][0]["due"]) == (0, False), beside.stdout
        await let_pass(url, guards.CLAIM_SECONDS + 1)

        async with place.live_traffic():
            await until(place, "SELECT count(*) > 5 FROM tds_sync_queue WHERE status = 'completed'")
        both = await asyncio.gather(place.command(*words), place.command(*words))
        assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
        looks = await place.rows("SELECT finding::text FROM runbook.guard_check WHERE finding IS NOT NULL")
        assert len(looks) == 1
        assert looks[0]["finding"] != "UNHEALTHY"

        await let_pass(url, 3600 / SPEED)
        engine = place.target.engine()
        await break_records(engine)
        await engine.dispose()
        dead = "SELECT count(*) = 12 FROM tds_sync_queue WHERE status = 'dead_letter'"
        await until(place, f"{dead} AND source_entity_id LIKE 'broken-%'")
        await kill_a_taker(place, home, BEFORE_BACK)
        assert set((await place.running()).values()) == {run.to_revision}
        await let_pass(url, guards.CLAIM_SECONDS + 1)
        back = await place.command(*words)
        assert back.returncode == 2, (back.stdout, back.stderr, place.driver_log())
        assert set((await place.running()).values()) == {run.from_revision}
        [release] = await place.rows("SELECT phase::text, reason FROM runbook.release")
        assert release["phase"] == "rolled_back"
        assert await place.rows("SELECT FROM runbook.quarantine WHERE lifted_at IS NULL") != []
        kinds = {row["kind"] for row in await place.rows("SELECT kind FROM runbook.file")}
        assert {"report"} < kinds
        [guard] = await place.rows("SELECT ended FROM runbook.guard")
        assert guard["ended"].startswith("the release goes back: in the hours after it: ")

        shown = await place.command("guard", "--plain", "-e", place.environment)
        assert shown.returncode == 0, shown.stderr
        assert "UNHEALTHY: " in shown.stdout
        assert "[skipped]" in shown.stdout
        stopped = await place.command("guard", "--stop", "--reason", "late", "-e", place.environment)
        assert stopped.returncode == 5
        assert "has ended: the release goes back" in stopped.stderr
        again = await place.command("replay", run.id, "-e", place.environment)
        assert (again.returncode, "same decisions" in again.stdout) == (0, True), again.stdout
