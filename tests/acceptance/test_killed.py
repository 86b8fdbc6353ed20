"""Releases whose process is killed, whose database goes down, or whose Prefect dies: they continue from the ledger.

Two targets run concurrently, a third one in the soak. Each goes through one scenario, and the tests check its results.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.killing import Place, Point, end, killing_at, last

pytestmark = pytest.mark.timeout(1800)

BACKLOG = 58


def _is(name: str, query: str) -> Point:
    return Point(name=name, query=f"SELECT EXISTS ({query})")


SWITCHING = _is(
    "a host is being switched", "SELECT FROM runbook.operation WHERE kind = 'activate' AND outcome IS NULL"
)
CANARY = _is("the canary is under way", "SELECT FROM runbook.batch WHERE number = 0")
IN_A_BATCH = _is("a batch is under way", "SELECT FROM runbook.batch WHERE number = 3")
WATCHING = Point(
    name="it watches", query="SELECT count(*) >= 3 FROM runbook.judgement WHERE phase = 'watching'"
)
GOING_BACK = _is(
    "a host is being switched back",
    "SELECT FROM runbook.operation WHERE kind = 'back-activate' AND outcome IS NULL",
)
DRAINING = _is("it drains", "SELECT FROM runbook.batch WHERE number = 1")


@dataclass(kw_only=True)
class Results:
    """The results of a scenario."""

    codes: dict[str, int] = field(default_factory=dict)
    """The exit code of each command."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The JSON of each command."""
    snapshots: dict[str, Any] = field(default_factory=dict)
    """The state of hosts, queue and ledger at named moments."""

    def note(self, name: str, done: subprocess.CompletedProcess[str]) -> None:
        """Store the exit code and the JSON of a command."""
        assert "Traceback" not in done.stderr, done.stderr
        self.codes[name], self.outputs[name] = done.returncode, last(done)


async def look(place: Place) -> dict[str, Any]:
    """The current state of the hosts and the ledger."""
    return {
        "hosts": set((await place.running()).values()),
        "revisions": place.target.revisions,
        "phases": await place.rows(
            "SELECT phase::text, sentence, (detail ->> 'watched_seconds')::float AS watched"
            " FROM runbook.phase_record ORDER BY id"
        ),
        "operations": await place.rows("SELECT id, host, kind, outcome::text, token FROM runbook.operation"),
        "batches": await place.rows(
            "SELECT number, size, completed, failed FROM runbook.batch ORDER BY number"
        ),
        "events": await place.rows(
            "SELECT e.status, e.batch, q.status::text AS now, q.error_code FROM runbook.release_event e"
            " JOIN tds_sync_queue q ON q.id = e.event_id"
        ),
        "judged": await place.rows("SELECT finding::text FROM runbook.judgement WHERE phase = 'watching'"),
        "takeovers": await place.rows("SELECT reason FROM runbook.takeover"),
    }


async def killed_on_the_way(place: Place, results: Results) -> None:
    """Killed four times, with a database outage during the watch; then rolled back, first with one host down."""
    _try_for_seconds(place, 6)
    run = await place.plan()
    where = ("-e", place.environment)
    async with place.live_traffic():
        driver = place.drive(run, "--without-prefect")
        try:
            await place.at(SWITCHING, driver)
            os.kill(driver.pid, signal.SIGSTOP)  # It must still be there when the second manager comes.
            results.note("second manager", await place.command("resume", *where, "--json"))
        finally:
            await end(driver)
        await place.kill_at(run, [CANARY, IN_A_BATCH, WATCHING])
        results.note("status", await place.command("status", *where, "--json"))
        results.note("doctor", await place.command("doctor", *where, "--json"))
        [before] = await place.rows("SELECT token FROM runbook.lock")
        due = [asyncio.create_task(place.command("resume", "--due", *where, "--json")) for _ in range(2)]
        await place.at(
            Point(name="it continues", query=f"SELECT token > {before['token']} FROM runbook.lock")
        )
        place.target.server.stop()
        await asyncio.sleep(8)  # The outage itself.
        place.target.server.restart()
        await place.reconnect()
        one, other = sorted(await asyncio.gather(*due), key=lambda done: '"due": true' not in done.stdout)
        results.note("resume", one)
        results.note("the other --due", other)
    results.note("nothing is due", await place.command("resume", "--due", *where, "--json"))
    results.snapshots["succeeded"] = await look(place)

    words = ("rollback", "--yes", *where, "--reason", "customers complain", "--without-prefect", "--json")
    with _unreachable(place), _killed_once(place, "step tasks.rollback.candidate"):
        done = await place.command(*words)
    results.note("rollback, a host down", done)
    results.snapshots["its stderr"] = done.stderr
    results.snapshots["half rolled back"] = await place.running()
    results.note("rollback again", await place.command(*words))
    results.snapshots["back"] = await look(place)
    results.note(
        "released again", await place.command("release", "--yes", place.target.revision, *where, "--json")
    )
    lifting = ("unblock", place.target.revision[:7], *where, "--by", "ops-b", "--json")
    results.note("lift", await place.command(*lifting))
    results.note("plan after lift", await place.command("plan", place.target.revision, *where, "--json"))


@contextmanager
def _killed_once(place: Place, point: str) -> Iterator[None]:
    """Kill the next driver at *point*; the ones after it pass."""
    place.extra = killing_at(point, place.home)
    try:
        yield
    finally:
        place.extra = {}


@contextmanager
def _unreachable(place: Place) -> Iterator[None]:
    """Make the second host unreachable by SSH: its server is suspended, and answers no new connection."""
    server = place.target.hosts[1].door.process.pid
    os.kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server, signal.SIGCONT)


def _try_for_seconds(place: Place, seconds: int) -> None:
    """Let a rollback give a host up so soon."""
    path = place.target.environment_path
    text = re.sub(r"(?m)^keep_trying_seconds = .*$", f"keep_trying_seconds = {seconds}", path.read_text())
    path.write_text(text, encoding="utf-8")


async def killed_on_the_way_back(place: Place, results: Results) -> None:
    """A treacherous revision, killed during the rollback; then two managers at the same time."""
    run = await place.plan()
    await place.kill_at(run, [GOING_BACK])
    where = ("-e", place.environment)
    words = ("resume", *where, "--without-prefect", "--json")
    results.note("resume", await place.command(*words))
    results.snapshots["back"] = await look(place)
    sick = ("release", "--yes", place.target.revisions["sick"], *where, "--without-prefect", "--json")
    first, second = await asyncio.gather(*(place.command(*sick, "--by", name) for name in ("ops-a", "ops-b")))
    if first.returncode == 5:
        first, second = second, first
    results.note("winner", first)
    results.note("loser", second)
    results.snapshots["managers"] = await place.rows(
        "SELECT id, phase::text, reason FROM runbook.release ORDER BY id"
    )


async def prefect_dies(place: Place, results: Results) -> None:
    """Prefect's server is killed during the drain; then single phases with the running revision."""
    run = await place.plan()
    driver = place.drive(run)
    try:
        async with place.live_traffic():
            await place.at(DRAINING, driver)
            servers = await asyncio.to_thread(
                subprocess.run, ["pgrep", "-P", str(driver.pid)], capture_output=True, text=True, check=True
            )
            for pid in servers.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            results.codes["driver"] = await asyncio.to_thread(driver.wait, 900)
    finally:
        await end(driver)
    results.snapshots["succeeded"] = await look(place)
    results.snapshots["log"] = place.driver_log()
    where = ("-e", place.environment)
    await place.ledger.execute(BURY, 5)
    results.note("drain", await place.command("drain", "--yes", *where, "--without-prefect", "--json"))
    results.snapshots["drained by hand"] = await look(place)
    # A payload without a name or a price: no revision can apply it.
    await place.ledger.execute(BURY, 3)
    await place.ledger.execute(
        'UPDATE tds_sync_queue SET validated_payload = \'{"item": {"item_id": "1", "rate": "much"}}\''
        " WHERE status = 'dead_letter'"
    )
    results.note("canary", await place.command("canary", "--yes", *where, "--without-prefect", "--json"))
    results.snapshots["held"] = await look(place)
    results.note("abort", await place.command("abort", *where, "--reason", "a test", "--json"))
    text = place.target.environment_path.read_text(encoding="utf-8")
    short = place.home / "short.toml"
    short.write_text(
        text.replace("[watch]\n", "[watch]\nwindow_seconds = 3\ninterval_seconds = 1\n"), encoding="utf-8"
    )
    results.note(
        "watch", await place.command("watch", "--yes", "-e", str(short), "--without-prefect", "--json")
    )
    results.snapshots["hosts"] = set((await place.running()).values())


BURY = """UPDATE tds_sync_queue SET status = 'dead_letter', error_code = 'again' WHERE id IN
  (SELECT event_id FROM runbook.release_event WHERE entity_type = 'Product' ORDER BY position LIMIT $1)"""


SPEED = 60
SCENARIOS: dict[str, tuple[str, Callable[[Place, Results], Awaitable[None]]]] = {
    "on the way": ("good", killed_on_the_way),
    "on the way back": ("treacherous", killed_on_the_way_back),
    "prefect": ("good", prefect_dies),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def results_of(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Results]]]:
    """All scenarios, run concurrently to their end; a scenario that failed raises its error in its tests.

    They end before the first test starts: a target sets signal handlers, and no test may change these.
    """
    with tempfile.TemporaryDirectory(prefix="tds-k-") as folder:

        async def run_scenario(name: str) -> Results:
            story, scenario = SCENARIOS[name]
            home = Path(folder) / name.replace(" ", "-")
            home.mkdir()
            results = Results()
            async with Place.make(home, story, speed=SPEED) as place:
                await scenario(place, results)
            return results

        ours = [item for item in request.session.items if item.path == request.path]
        soaked = {bool(item.get_closest_marker("soak")) for item in ours}
        running = {
            name: asyncio.create_task(run_scenario(name))
            for name in SCENARIOS
            if (name == "on the way back") in soaked
        }

        async def get(name: str) -> Results:
            return running[name].result()

        try:
            await asyncio.wait(running.values())
            yield get
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.wait(running.values())


Get = Callable[[str], Awaitable[Results]]


def assert_each_event_ended_once(snapshot: dict[str, Any]) -> None:
    """Every planned event is in exactly one batch and completed; the sums show that none was sent twice."""
    assert len(snapshot["events"]) == BACKLOG
    assert {(event["status"], event["now"]) for event in snapshot["events"]} == {("completed", "completed")}
    for batch in snapshot["batches"]:
        inside = sum(event["batch"] == batch["number"] for event in snapshot["events"])
        assert (batch["size"], batch["completed"], batch["failed"]) == (inside, inside, 0)
    assert sum(batch["size"] for batch in snapshot["batches"]) == BACKLOG


def assert_operations_ran_once(snapshot: dict[str, Any], hosts: int = 2) -> None:
    """Each kind of change ran once on each host and is done, whichever controller started it."""
    kinds = {operation["kind"] for operation in snapshot["operations"]}
    assert len(snapshot["operations"]) == hosts * len(kinds), snapshot["operations"]
    assert {operation["outcome"] for operation in snapshot["operations"]} == {"done"}


async def test_a_release_that_is_killed_in_each_phase_ends_normally(results_of: Get) -> None:
    """Killed during switch, canary, batch and watch, it still succeeds, on the revision in the ledger."""
    results = await results_of("on the way")
    snapshot = results.snapshots["succeeded"]
    assert results.codes["resume"] == 0, results.outputs
    [carried] = results.outputs["resume"]["environments"]
    assert (carried["due"], carried["outcome"]["outcome"]) == (True, "succeeded"), results.outputs
    assert snapshot["hosts"] == {snapshot["revisions"]["fixed"]}
    assert [record["phase"] for record in snapshot["phases"]] == [
        "planned", "approved", "deploying", "probing", "canary", "draining", "watching", "succeeded",
    ]  # fmt: skip
    assert_each_event_ended_once(snapshot)
    assert_operations_ran_once(snapshot)
    # The lock of a dead process on this machine is free: nobody took it by force.
    assert snapshot["takeovers"] == []


async def test_every_view_says_that_nobody_carries_a_release_whose_process_died(results_of: Get) -> None:
    """`status` and `doctor` know it at once, since when, and the command; the minutes of the watch stand still."""
    results = await results_of("on the way")
    status = results.outputs["status"]
    assert (status["carried"], status["due"], status["next_at"]) == (False, True, None)
    assert "nobody carries this since" in status["care"]
    assert status["running_seconds"] <= status["window_seconds"]
    [problem] = [each for each in results.outputs["doctor"]["findings"] if each["name"] == "release"]
    assert "runbook resume --due -e" in problem["sentence"]


async def test_of_two_that_find_a_release_due_one_carries_it_and_the_other_says_who_does(
    results_of: Get,
) -> None:
    """Both start at the same moment: one goes to the end, the other exits with 0 and names the carrier."""
    results = await results_of("on the way")
    [result] = results.outputs["the other --due"]["environments"]
    assert (results.codes["the other --due"], result["due"]) == (0, False), results.outputs
    assert "carries it" in result["sentence"]


async def test_what_has_ended_is_not_due(results_of: Get) -> None:
    """Run each minute, it finds nothing, says so, and exits with 0."""
    results = await results_of("on the way")
    assert results.codes["nothing is due"] == 0
    assert results.outputs["nothing is due"]["environments"][0]["sentence"] == "nothing is due"


async def test_a_killed_watch_continues_its_window(results_of: Get) -> None:
    """The watch takes one window of watching, not two: what was watched before the kill counts."""
    snapshot = (await results_of("on the way")).snapshots["succeeded"]
    [watch] = [record for record in snapshot["phases"] if record["phase"] == "watching"]
    assert 1800 <= watch["watched"] < 2 * 1800


async def test_a_database_outage_during_the_watch_is_no_breach(results_of: Get) -> None:
    """After an outage of eight seconds the release succeeds, and no judgement is UNHEALTHY."""
    results = await results_of("on the way")
    assert results.codes["resume"] == 0
    assert "UNHEALTHY" not in {judgement["finding"] for judgement in results.snapshots["succeeded"]["judged"]}


async def test_a_second_manager_is_refused_while_the_lock_is_held(results_of: Get) -> None:
    """Until the lock expires, and without --take-over, the message names its holder; exit code 5."""
    results = await results_of("on the way")
    assert results.codes["second manager"] == 5
    assert "is locked by" in results.outputs["second manager"]["error"]


async def test_a_driver_that_dies_before_it_has_begun_is_replaced(results_of: Get) -> None:
    """The succeeded release is not the outcome of the rollback that was asked for."""
    results = await results_of("on the way")
    assert results.outputs["rollback, a host down"].get("outcome") == "rollback_failed", results
    assert "was killed by SIGKILL before it began" in results.snapshots["its stderr"]
    assert "a new one continues (1 of 3)" in results.snapshots["its stderr"]


async def test_a_host_that_is_down_does_not_stop_the_rollback_of_the_others(results_of: Get) -> None:
    """With one host unreachable the rollback ends with 3: the other host is back, and the sentence names the first."""
    results = await results_of("on the way")
    revisions = results.snapshots["back"]["revisions"]
    assert results.codes["rollback, a host down"] == 3
    assert results.outputs["rollback, a host down"]["outcome"] == "rollback_failed"
    assert "web-2" in results.outputs["rollback, a host down"]["reason"]
    assert results.snapshots["half rolled back"] == {
        "web-1": revisions["broken"],
        "web-2": revisions["fixed"],
    }


async def test_a_failed_rollback_can_be_repeated(results_of: Get) -> None:
    """With the host up again, the same command ends with 2, and both hosts are on the previous revision."""
    results = await results_of("on the way")
    assert (results.codes["rollback again"], results.outputs["rollback again"]["outcome"]) == (
        2,
        "rolled_back",
    )
    assert results.snapshots["back"]["hosts"] == {results.snapshots["back"]["revisions"]["broken"]}


async def test_only_a_named_person_lifts_the_quarantine_of_a_revision(results_of: Get) -> None:
    """The revision is refused until the quarantine is lifted; then its plan passes."""
    results = await results_of("on the way")
    assert results.codes["released again"] == 5
    assert "is in quarantine: release" in results.outputs["released again"]["error"]
    assert (results.codes["lift"], results.outputs["lift"]["lifted_by"]) == (0, "ops-b")
    assert results.codes["plan after lift"] == 0


@pytest.mark.soak
async def test_a_rollback_that_is_killed_is_finished_by_the_next(results_of: Get) -> None:
    """Killed during the switch back: both hosts are back, each step ran once, every event has settled."""
    results = await results_of("on the way back")
    snapshot = results.snapshots["back"]
    assert (results.codes["resume"], results.outputs["resume"]["outcome"]) == (2, "rolled_back")
    assert snapshot["hosts"] == {snapshot["revisions"]["broken"]}
    assert_operations_ran_once(snapshot)
    for event in snapshot["events"]:
        assert event["now"] in ("completed", "dead_letter")
        if event["batch"] is None:
            assert event["error_code"] == "xd2s"


@pytest.mark.soak
async def test_of_two_managers_at_once_one_is_refused_and_changes_nothing(results_of: Get) -> None:
    """One release runs to its end; the other is refused permanently, with the reason."""
    results = await results_of("on the way back")
    assert results.codes["winner"] == 2, results.outputs["winner"]
    assert results.codes["loser"] == 5
    phases = [release["phase"] for release in results.snapshots["managers"]]
    assert phases.count("rolled_back") == 2
    assert set(phases) <= {"rolled_back", "refused"}
    assert results.outputs["loser"]["error"]


async def test_a_release_outlives_prefects_server(results_of: Get) -> None:
    """Its server is killed in mid drain: the release succeeds, and its process is gone soon after."""
    results = await results_of("prefect")
    snapshot = results.snapshots["succeeded"]
    assert snapshot["phases"][-1]["phase"] == "succeeded", results.snapshots["log"]
    assert results.codes["driver"] == 0
    assert_each_event_ended_once(snapshot)
    assert_operations_ran_once(snapshot)


async def test_dead_letters_can_be_drained_by_hand(results_of: Get) -> None:
    """`runbook drain` proves what runs and drains what has died since, without deploying anything."""
    results = await results_of("prefect")
    assert (results.codes["drain"], results.outputs["drain"]["outcome"]) == (0, "succeeded"), results.outputs[
        "drain"
    ]
    assert "completed" in results.outputs["drain"]["reason"], (
        "the outcome has the sentence of the last phase that ran"
    )
    snapshot = results.snapshots["drained by hand"]
    assert len(snapshot["operations"]) == len(results.snapshots["succeeded"]["operations"])
    assert len(snapshot["events"]) == BACKLOG + 5


async def test_a_breach_by_hand_holds_because_there_is_nothing_to_go_back_to(results_of: Get) -> None:
    """A canary that fails, and a watch without data, are held with 4; the hosts stay as they are."""
    results = await results_of("prefect")
    assert (results.codes["canary"], results.outputs["canary"]["outcome"]) == (4, "held"), results.outputs[
        "canary"
    ]
    assert results.codes["abort"] == 0
    assert (results.codes["watch"], results.outputs["watch"]["outcome"]) == (4, "held"), results.outputs[
        "watch"
    ]
    assert results.snapshots["hosts"] == {results.snapshots["held"]["revisions"]["fixed"]}
    assert len(results.snapshots["held"]["operations"]) == len(results.snapshots["succeeded"]["operations"])
