"""The way back while the database is away: by the hosts' own state files, and written down afterwards."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flows import release
from handlers.release.phase import Phase
from tests.acceptance.killing import Place, Point, last

pytestmark = pytest.mark.timeout(1800)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One target for all tests; each leaves its hosts on the broken revision."""
    home = tmp_path_factory.mktemp("no-database")
    try:
        async with Place.make(home, "good") as place:
            yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_hosts_that_no_release_has_changed_name_no_way_back(place: Place) -> None:
    """Refused with 5, and the sentence says what each host says."""
    words = ("rollback", "--yes", "--from-hosts", "-e", place.environment, "--reason", "a wish", "--json")
    done = await place.command(*words)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no host of rehearsal says where it would go back to: web-1: tree" in last(done)["error"]
    assert "web-2: tree" in last(done)["error"]


async def test_the_hosts_are_shown_and_taken_back_and_the_ledger_is_told_afterwards(place: Place) -> None:
    """The controller dies in the canary and the database stops: status and doctor show the hosts, the rollback works,
    and when the database is back the release that stood in the canary ends as rolled back, with no further change.

    A host that is not in the environment file any more goes back with the others.
    """
    file = place.target.environment_path
    whole = file.read_text()
    first, _, second = whole.partition('[[hosts]]\nname = "web-2"')
    broken, fixed = place.target.revisions["broken"], place.target.revision
    run = await place.plan()
    going = asyncio.create_task(release.execute_by_id(place.environment, run.id))
    phase = f"SELECT phase IN ('canary', 'draining', 'watching') FROM runbook.release WHERE id = '{run.id}'"
    await place.at(Point(name="the revision is proven", query=phase))
    going.cancel()
    await asyncio.wait({going})
    where = ("-e", place.environment)
    place.target.server.stop()
    file.write_text(first + second[second.index("[deploy]") :])
    try:
        for command in ("status", "doctor"):
            shown = await place.command(command, *where, "--json")
            assert shown.returncode == 1, shown.stdout + shown.stderr
            view = last(shown)
            assert [host["answers"] for host in view["hosts"]] == [fixed, fixed]
            assert "does not answer" in view["error"]
            assert "rollback --from-hosts" in view["way_back"]
        plain = await place.command("rollback", "--yes", *where, "--reason", "it must go", "--json")
        assert plain.returncode == 1
        assert "rollback --from-hosts" in last(plain)["error"]
        done = await place.command(
            "rollback", "--yes", "--from-hosts", *where, "--reason", "it must go", "--json"
        )
        assert done.returncode == 2, done.stdout + done.stderr
        result = last(done)
        assert [host["back"] for host in result["hosts"]] == [True, True]
        assert (result["to"], result["release"]) == (broken, run.id)
        assert "tell the ledger: runbook rollback" in result["tell_the_ledger"]
        assert set((await place.running()).values()) == {broken}
    finally:
        file.write_text(whole)
        place.target.server.restart()
    await place.reconnect()
    status = last(await place.command("status", *where, "--json"))
    assert status["taken_back"].startswith("web-1, web-2 went back without the ledger at ")
    assert "`runbook rollback` or `runbook resume` records it. The journal is /" in status["taken_back"]
    switched = "SELECT count(*) AS n FROM runbook.operation WHERE kind = 'back-activate'"
    ended = await release.execute_by_id(run.environment, run.id)
    assert ended.phase is Phase.ROLLED_BACK, ended
    assert "web-1, web-2 went back to the previous revision without the ledger" in ended.reason
    assert await place.rows(switched) == [{"n": 0}]
    assert last(await place.command("status", *where, "--json"))["taken_back"] == ""
    open_operations = "SELECT FROM runbook.operation WHERE outcome IS NULL"
    assert await place.rows(open_operations) == []


async def test_a_rollback_goes_on_while_the_database_is_away_and_is_recorded_afterwards(place: Place) -> None:
    """Away from the first operation of the rollback on: the hosts go back meanwhile, and the ledger is told later."""
    bad = place.target.revisions["treacherous"]
    await place.ledger.execute("UPDATE runbook.quarantine SET lifted_at = now() WHERE lifted_at IS NULL")
    run = await place.plan(bad)
    going = asyncio.create_task(release.execute_by_id(place.environment, run.id))
    first = f"SELECT EXISTS (SELECT FROM runbook.operation WHERE release_id = '{run.id}' AND kind = 'back-prepare')"
    await place.at(Point(name="the way back has begun", query=first))
    place.target.server.stop()
    try:
        deadline = time.monotonic() + 60
        while set((await place.running()).values()) != {place.target.revisions["broken"]}:
            assert time.monotonic() < deadline, await place.running()
            await asyncio.sleep(0.2)
    finally:
        place.target.server.restart()
    await place.reconnect()
    ended = await going
    assert ended.phase is Phase.ROLLED_BACK, ended
    kinds = await place.rows(
        "SELECT kind, outcome::text, count(*) AS n FROM runbook.operation "
        "WHERE release_id = $1 AND kind LIKE 'back-%' GROUP BY 1, 2 ORDER BY 1",
        run.id,
    )
    steps = ("back-activate", "back-prepare", "back-start-workers", "back-stop-workers")
    assert kinds == [{"kind": kind, "outcome": "done", "n": 2} for kind in steps]
    [quarantine] = await place.rows("SELECT revision FROM runbook.quarantine WHERE release_id = $1", run.id)
    assert quarantine["revision"] == bad
