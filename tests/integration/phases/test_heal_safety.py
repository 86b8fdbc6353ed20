"""Healing is safe to kill, to start twice, and to try: nothing is lost, and a dry run changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from handlers.errors import DatabaseDown, ExitCode, LockLost
from handlers.phases import heal_batch
from handlers.phases.heal_preview import preview
from handlers.queue.event import Status
from handlers.release.ledger import heals
from rehearsal.hosts.cable import Relay
from tests.integration.phases.healing import CUSTOMER, NAME, Place, place, working
from tests.integration.phases.looks import FILE
from tests.integration.queue.events import bytes_of, event, row
from tests.integration.worker.steps import statuses, until
from tests.integration.worker.test_process import fill, in_work, process

ROOT = Path(__file__).parents[3]
LOST = {"status": "processing", "locked_by": "worker-1", "lock_expires_at": "sql:now()"}


def command(folder: Path, database_url: str, *words: str) -> list[str]:
    """The command line of `runbook heal` in this environment."""
    url = make_url(database_url).render_as_string(hide_password=False)
    path = folder / f"{NAME}.toml"
    path.write_text(FILE.format(name=NAME, url=url, more=""), encoding="utf-8")
    return [sys.executable, "-m", "flows.cli", "heal", "-e", str(path), *words]


def run(folder: Path, database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(folder, database_url, *words),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
    )


async def is_out(here: Place) -> bool:
    return await heals.out(here.engine, NAME) is not None


async def claim_ends(here: Place) -> None:
    """The time of a claim passes."""
    await here.execute("UPDATE runbook.heal SET claimed_until = now()")


async def test_a_dry_run_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """No row of any table, also of the ledger; it says what would be done to which events, and by whom."""
    async with place(database_url) as here:
        lost = await event(here.engine, "9", **LOST)
        next_ = [await here.letter("1"), await here.letter("2", CUSTOMER)]
        later = await here.letter("3")
        await here.beat("ours-1-00000000")
        before = await here.tables()
        found = await preview(here.core)
        done = await asyncio.to_thread(run, tmp_path, database_url, "--dry-run", "--json")
        text = await asyncio.to_thread(run, tmp_path, database_url, "--dry-run")
        assert await here.tables() == before
        assert [(line.id, line.who) for line in found.taken_back] == [(str(lost), "a worker's housekeeping")]
        assert {line.id for line in found.next} == {str(id_) for id_ in next_}
        assert {line.id for line in found.letters} == {str(id_) for id_ in (*next_, later)}
        assert str(lost) in done.stdout
        assert done.returncode == text.returncode == found.exit_code, text.stderr
        assert f"{next_[0]}  Product 1" in text.stdout
        assert "by healing: try 1 of 3" in text.stdout
        assert max(map(len, text.stdout.splitlines())) <= 80


async def test_two_runs_at_once_heal_once(database_url: str) -> None:
    """One says that the other heals; no letter is sent back twice."""
    async with place(database_url) as here, place(database_url) as there:
        for n in range(5):
            await here.letter(str(n))
        async with working(database_url):
            healed = await asyncio.gather(here.heal(), there.heal())
        assert sorted(each.sentence for each in healed) == [
            "5 of 5 dead letters completed",
            "another run heals it now",
        ]
        assert len(await here.events()) == 5


async def test_a_run_that_is_killed_with_a_batch_out_loses_nothing(database_url: str, tmp_path: Path) -> None:
    """The next run, after the end of its claim, judges the batch: each letter was tried once."""
    async with place(database_url) as here:
        ids = [await here.letter("1"), await here.letter("2", CUSTOMER), await here.letter("3")]
        await here.beat()
        process = await asyncio.create_subprocess_exec(*command(tmp_path, database_url), cwd=ROOT)
        await until(lambda: is_out(here), 60)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert (await here.heal()).sentence == "another run heals it now"
        await claim_ends(here)
        async with working(database_url):
            healed = await here.heal()
        assert healed.exit_code is ExitCode.GOOD
        assert healed.healed == "3 of 3 dead letters completed"
        assert await statuses(here.engine, ids) == [Status.COMPLETED] * 3
        assert sorted(each.event_id for each in await here.events()) == sorted(ids)
        assert await here.sizes() == [2, 1]


async def test_who_has_lost_the_claim_stops(database_url: str) -> None:
    """A run that stood still for too long changes nothing any more."""
    async with place(database_url) as here:
        letter = await here.letter("1")
        await here.beat()
        old = await heals.claim(here.engine, NAME, by="old", seconds=60)
        assert old is not None
        await claim_ends(here)
        assert await heals.claim(here.engine, NAME, by="new", seconds=60) is not None
        before = await row(here.engine, letter)
        with pytest.raises(LockLost, match="another run heals healed now"):
            await heal_batch.send(here.core, old)
        assert await row(here.engine, letter) == before
        await heals.free(here.engine, old)
        assert (await heals.state(here.engine, NAME)).claimed_by == "new"


async def test_the_database_away_in_a_run_leaves_nothing_half_done(database_url: str, tmp_path: Path) -> None:
    """One sentence and exit code 1; the next run goes on with the batch that was out."""
    relay = Relay(make_url(database_url).port or 5432)
    await relay.works()
    behind_it = make_url(database_url).set(port=relay.port).render_as_string(hide_password=False)
    async with place(database_url) as here:
        ids = [await here.letter("1"), await here.letter("2", CUSTOMER)]
        await here.beat()
        running = await asyncio.create_subprocess_exec(
            *command(tmp_path, behind_it),
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await until(lambda: is_out(here), 60)
        await relay.refuses()
        _, errors = await asyncio.wait_for(running.communicate(), 60)
        assert running.returncode == ExitCode.OWN_ERROR, errors
        [line] = errors.decode().splitlines()
        assert line.startswith("runbook: the database ")
        assert await statuses(here.engine, ids) == [Status.PENDING] * 2
        await claim_ends(here)
        async with working(database_url):
            assert (await here.heal()).healed == "2 of 2 dead letters completed"
        assert len(await here.events()) == 2
    relay.end()


async def test_a_database_that_is_away_is_said_as_such(database_url: str) -> None:
    """For whoever calls a run from a program."""
    url = make_url(database_url).set(port=1).render_as_string(False)
    async with place(url) as nowhere:
        with pytest.raises(DatabaseDown):
            await nowhere.heal()


async def test_what_a_live_worker_holds_is_never_touched(database_url: str) -> None:
    """A lease that runs, and what was begun a moment ago. What is lost comes back, and what came is told once."""
    async with place(database_url) as here:
        held = [
            await event(
                here.engine,
                "1",
                status="processing",
                locked_by="a-1-00000000",
                lock_expires_at="sql:now() + interval '1 minute'",
            ),
            await event(here.engine, "2", status="processing", started_at="sql:now()"),
        ]
        lost = [
            await event(here.engine, "3", **LOST),
            await event(
                here.engine, "4", status="processing", started_at="sql:now() - interval '2 hours'", age=8000
            ),
        ]
        before = await bytes_of(here.engine, held)
        healed = await here.heal()
        assert healed.taken_back == "2 events of dead workers are back in the queue"
        assert await bytes_of(here.engine, held) == before
        assert await statuses(here.engine, lost) == [Status.RETRY] * 2
        [action] = await here.actions()
        assert (action.kind, action.events) == ("taken_back", 2)
        assert (await here.heal()).taken_back == ""


async def test_what_a_killed_worker_left_comes_back_where_no_worker_runs(database_url: str) -> None:
    """A worker process in the middle of its batch: untouched while it lives, back in pieces when it was killed."""
    async with place(database_url) as here:
        ids = await fill(here.engine, 20)
        async with process(database_url, seconds=0.2, batch=20) as worker:
            await until(lambda: in_work(here.engine), 60)
            assert (await here.heal()).taken_back == ""
            worker.kill()
            await worker.wait()
        async with here.engine.begin() as tx:
            # A minute without a sign passes.
            await tx.execute(text("UPDATE runbook.worker SET beat_at = beat_at - interval '61 seconds'"))
        taken: list[str] = []

        async def is_back() -> bool:
            # The server ends the transaction of a killed client when it speaks to it again.
            taken.append((await here.heal()).taken_back)
            return bool(taken[-1])

        await until(is_back, 60)
        assert taken[-1] == "20 events of dead workers are back in the queue"
        assert await statuses(here.engine, ids) == [Status.RETRY] * 20
        assert {(await row(here.engine, id_))["attempt_count"] for id_ in ids} == {0}
