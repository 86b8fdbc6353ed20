"""Changes behind a release: a host obeys another controller, or a plan is outdated."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
import pytest_asyncio

from flows import release, rollback
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.errors import ConfigError, ExitCode, LoginRefused, RunbookError
from handlers.phases import drift
from handlers.release.phase import Conclusion, Phase, Release, Verdict, exit_code
from tests.acceptance.killing import Place, Point, last

pytestmark = pytest.mark.timeout(1800)

TEN_MINUTES_AGO = """UPDATE runbook.release
SET plan = jsonb_set(plan, '{looked_at}', to_jsonb((now() - interval '10 min')::text)) WHERE id = $1"""
THE_OTHERS_ENDED_BEFORE = """UPDATE runbook.release SET finished_at = now() - interval '1 hour'
WHERE id <> $1 AND finished_at IS NOT NULL"""
A_LATER_TOKEN = 99_999_999_999


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One target for all tests; each leaves its hosts on the broken revision."""
    home = tmp_path_factory.mktemp("moved")
    try:
        async with Place.make(home, "good") as place:
            yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def every_revision_may_be_released(place: Place) -> None:
    """Lift the quarantines of the tests before."""
    # Before the first release there is no ledger.
    with contextlib.suppress(asyncpg.UndefinedTableError):
        await place.ledger.execute("UPDATE runbook.quarantine SET lifted_at = now() WHERE lifted_at IS NULL")


def switched(release_id: str) -> Point:
    """A host is switched."""
    query = "SELECT EXISTS (SELECT FROM runbook.operation WHERE kind = 'activate' AND outcome = 'done'"
    return Point(name="a host is switched", query=f"{query} AND release_id = '{release_id}')")


def in_a_switch(release_id: str) -> Point:
    """A host is being switched."""
    query = "SELECT EXISTS (SELECT FROM runbook.operation WHERE kind = 'activate' AND outcome IS NULL"
    return Point(name="a host is being switched", query=f"{query} AND release_id = '{release_id}')")


def proven(release_id: str) -> Point:
    """The probe has passed."""
    query = "SELECT EXISTS (SELECT FROM runbook.phase_record WHERE phase = 'canary'"
    return Point(
        name="the revision is proven on every host", query=f"{query} AND release_id = '{release_id}')"
    )


@contextmanager
def obeying_another(place: Place, number: int) -> Iterator[None]:
    """Let a host obey a controller of another ledger, with a higher token than any of ours."""
    path = place.target.hosts[number].folder / ".tds-runbook" / "token"
    path.parent.mkdir(exist_ok=True)
    before = path.read_text() if path.exists() else "0\n"
    path.write_text(f"{A_LATER_TOKEN}\n")
    try:
        yield
    finally:
        path.write_text(before)


async def test_a_release_that_a_host_refuses_at_once_is_refused(place: Place) -> None:
    """Nothing was changed: refused with 5 and the host's reason, and nothing is left to resume."""
    where = ("-e", place.environment, "--json")
    with obeying_another(place, 0):
        done = await place.command(
            "release", "--yes", place.target.revisions["sick"], *where, "--without-prefect"
        )
    assert done.returncode == 5, done.stdout + done.stderr
    result = last(done)
    assert result["outcome"] == "refused"
    assert "web-1 has obeyed a newer controller" in result["reason"]
    assert result["reason"].endswith("nothing that runs has changed")
    assert await place.rows("SELECT FROM runbook.lock WHERE release_id IS NOT NULL") == []
    assert set((await place.running()).values()) == {place.target.revisions["broken"]}


async def test_a_release_that_a_host_refuses_half_way_is_held_and_rolled_back(place: Place) -> None:
    """One host is switched already: held. A rollback that the host refuses fails; the next one succeeds."""
    run = await place.plan()
    execution = asyncio.create_task(release.execute_by_id(place.environment, run.id))
    await place.at(switched(run.id))
    with obeying_another(place, 1):
        held = await execution
        assert (held.phase, exit_code(held.phase)) == (Phase.HELD, ExitCode.HELD)
        assert "web-2 has obeyed a newer controller" in held.reason
        assert "some hosts may be changed already" in held.reason
        request = {"reason": "who is that?", "requested_by": "ops-a"}
        words = ("rollback", "--yes", "-e", place.environment, "--reason", "who is that?", "--json")
        failed = await place.command(*words)
        assert (failed.returncode, last(failed)["outcome"]) == (3, "rollback_failed"), (
            failed.stdout + failed.stderr
        )
        assert "web-2 has obeyed a newer controller" in last(failed)["reason"]
    # Prefect ran it: a state of Failed is the release's end, and no reason to begin once more without Prefect.
    query = "SELECT FROM runbook.phase_record WHERE release_id = $1 AND phase = 'rolling_back'"
    assert len(await place.rows(query, run.id)) == 1
    assert (await rollback.roll_back(run.environment, **request)).phase is Phase.ROLLED_BACK
    assert set((await place.running()).values()) == {place.target.revisions["broken"]}


async def test_a_database_that_is_away_during_a_switch_costs_the_release_nothing(place: Place) -> None:
    """The operation runs on, its outcome is confirmed late, and no revision is rolled back or quarantined for it."""
    run = await place.plan()
    going = asyncio.create_task(release.execute_by_id(place.environment, run.id))
    await place.at(in_a_switch(run.id))
    place.target.server.stop()
    await asyncio.sleep(3)  # The outage itself.
    place.target.server.restart()
    await place.reconnect()
    await place.at(proven(run.id))
    assert set((await place.running()).values()) == {place.target.revision}
    unconfirmed = "SELECT FROM runbook.operation WHERE outcome IS DISTINCT FROM 'done' AND release_id = $1"
    assert await place.rows(unconfirmed, run.id) == []
    assert await place.rows("SELECT FROM runbook.quarantine WHERE release_id = $1", run.id) == []
    going.cancel()
    await asyncio.wait({going})
    back = await rollback.roll_back(run.environment, reason="the end of a test", requested_by="ops-a")
    assert back.phase is Phase.ROLLED_BACK


def judged(release_id: str, count: int) -> Point:
    """The watch has been judged so many times."""
    query = "SELECT count(*) FROM runbook.judgement WHERE phase = 'watching'"
    return Point(
        name=f"the watch is judged {count} times",
        query=f"SELECT ({query} AND release_id = '{release_id}') >= {count}",
    )


async def test_an_environment_file_that_moves_changes_nothing_under_way(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted in a switch, half written in the watch, then without a host and with another gate: the release goes on
    with its own settings. The differences are named, and the rollback takes both hosts back."""
    monkeypatch.setattr(place, "speed", 60.0)  # The watch takes half a minute.
    file = place.target.environment_path
    whole = file.read_text()
    first, _, second = whole.partition('[[hosts]]\nname = "web-2"')
    run = await place.plan(scope=(Phase.DEPLOYING, Phase.WATCHING))
    going = asyncio.create_task(release.execute_by_id(place.environment, run.id))
    try:
        await place.at(in_a_switch(run.id))
        file.unlink()
        await place.at(judged(run.id, 1))
        file.write_text(whole[: len(whole) // 2])
        await place.at(judged(run.id, 2))
        file.write_text(
            first + second[second.index("[deploy]") :].replace("[gate]", "[gate]\ngood_percent = 90")
        )
        await place.at(judged(run.id, 3))
        going.cancel()
        await asyncio.wait({going})
        bars = (
            "SELECT DISTINCT 100 * (inputs -> 'parameters' ->> 'ok')::float AS percent FROM runbook.judgement"
            " WHERE release_id = $1 AND inputs ->> 'rule' = 'sequential'"
        )
        assert await place.rows(bars, run.id) == [{"percent": 95}]
        differences = [
            "hosts: web-2 is not in the file now, this release keeps it",
            "gate.good_percent is 90 now, this release keeps 95",
        ]
        where = ("-e", place.environment, "--json")
        status = last(await place.command("status", *where))
        assert status["differences"] == differences
        assert [host["name"] for host in status["hosts"]] == ["web-1", "web-2"]
        back = await place.command(
            "rollback", "--yes", *where, "--reason", "the end of a test", "--without-prefect"
        )
        assert back.returncode == 2, back.stdout + back.stderr
        assert all(sentence in back.stderr for sentence in differences)
        assert set((await place.running()).values()) == {place.target.revisions["broken"]}
    finally:
        file.write_text(whole)


@pytest.mark.parametrize("error", [ConfigError("here.toml is not valid TOML"), LoginRefused("the login")])
@pytest.mark.parametrize("phase", release.STEPS)
async def test_a_fault_of_our_own_file_is_never_a_verdict(phase: Phase, error: RunbookError) -> None:
    """In no phase: it says nothing about the revision, so nothing is rolled back for it, and the release is held."""

    async def fails(_run: Release) -> Conclusion:
        raise error

    run = Release(
        id="1", environment="here", from_revision="a", to_revision="b", requested_by="x", phase=phase,
        resume_phase=None, token=1, speed=1.0, reason="", created_at=datetime.now(UTC), finished_at=None,
    )  # fmt: skip
    conclusion = await release._run_step(fails, run)
    assert conclusion.verdict is Verdict.INCONCLUSIVE
    assert str(error) in conclusion.sentence


async def test_a_plan_whose_file_was_edited_is_refused(place: Place) -> None:
    """Nothing has started: the release is refused at once, and the sentence names the difference."""
    file = place.target.environment_path
    whole = file.read_text()
    run = await place.plan()
    file.write_text(whole.replace("[gate]", "[gate]\ngood_percent = 90"))
    try:
        ended = await release.execute_by_id(place.environment, run.id)
    finally:
        file.write_text(whole)
    assert ended.phase is Phase.REFUSED
    assert "gate.good_percent is 90 now, the plan has 95; nothing was changed" in ended.reason


async def test_an_outdated_plan_is_refused(place: Place) -> None:
    """A planned dead letter was handled elsewhere: the release is refused, and the sentence names the change."""
    run = await place.plan(place.target.revisions["treacherous"])
    await place.ledger.execute(TEN_MINUTES_AGO, run.id)
    # Those of the tests before this one. Otherwise they ran in between.
    await place.ledger.execute(THE_OTHERS_ENDED_BEFORE, run.id)
    async with open_core(load_environment(place.environment)) as core:
        assert await drift.since_planned(core, run) == ""
    [gone] = await place.rows("SELECT id FROM tds_sync_queue WHERE status = 'dead_letter' LIMIT 1")
    await place.ledger.execute("UPDATE tds_sync_queue SET status = 'completed' WHERE id = $1", gone["id"])
    try:
        done = await place.command("resume", "-e", place.environment, "--json", "--without-prefect")
    finally:
        await place.ledger.execute(
            "UPDATE tds_sync_queue SET status = 'dead_letter' WHERE id = $1", gone["id"]
        )
    assert (done.returncode, last(done)["outcome"]) == (5, "refused"), done.stdout + done.stderr
    assert "min ago: 1 of 58 planned dead letters were handled elsewhere" in last(done)["reason"]
    assert await place.rows("SELECT FROM runbook.operation WHERE release_id = $1", run.id) == []
