"""Releases whose process is killed, whose database goes away, whose Prefect dies: the ledger says where they go on.

Three targets at once; each goes through one history, and the tests look at what it left behind.
"""

from __future__ import annotations

import asyncio
import os
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

from tests.acceptance.killing import WHY, Place, Point, end, last

pytestmark = pytest.mark.timeout(900)

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
class Told:
    """What a history left behind."""

    codes: dict[str, int] = field(default_factory=dict)
    """The exit code of each command."""
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    """What hosts, queue and ledger showed at named moments."""

    def note(self, name: str, done: subprocess.CompletedProcess[str]) -> None:
        """Keep how a command ended."""
        assert "Traceback" not in done.stderr, done.stderr
        self.codes[name], self.said[name] = done.returncode, last(done)


async def look(place: Place) -> dict[str, Any]:
    """The hosts and the ledger as they are now."""
    return {
        "hosts": set((await place.running()).values()),
        "revisions": place.target.revisions,
        "phases": await place.rows(
            "SELECT phase::text, sentence, extract(epoch FROM finished_at - started_at)::float AS seconds"
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


async def killed_on_the_way(place: Place, told: Told) -> None:
    """Killed four times on its way, its database away during the watch; later rolled back past a host that is down."""
    run = await place.plan()
    where = ("-e", place.environment)
    async with place.live_traffic(run):
        await place.kill_at(run, [SWITCHING])
        told.note("second manager", await place.command("resume", *where, "--json"))
        await place.kill_at(run, [CANARY, IN_A_BATCH, WATCHING], begun=True)
        going = asyncio.create_task(
            place.command("resume", *where, "--take-over", WHY, "--without-prefect", "--json")
        )
        await place.at(Point(name="it goes on", query="SELECT count(*) >= 4 FROM runbook.takeover"))
        place.target.server.stop()
        await asyncio.sleep(8)  # The outage itself.
        place.target.server.restart()
        await place.reconnect()
        told.note("resume", await going)
    told.seen["succeeded"] = await look(place)

    words = ("rollback", *where, "--reason", "customers complain", "--without-prefect", "--json")
    with _unreachable(place):
        told.note("rollback, a host down", await place.command(*words))
    told.seen["half back"] = await place.running()
    told.note("rollback again", await place.command(*words))
    told.seen["back"] = await look(place)
    told.note("released again", await place.command("release", place.target.revision, *where, "--json"))
    lifting = ("lift", place.target.revision[:7], *where, "--by", "ops-b", "--json")
    told.note("lift", await place.command(*lifting))
    told.note("plan after lift", await place.command("plan", place.target.revision, *where, "--json"))


@contextmanager
def _unreachable(place: Place) -> Iterator[None]:
    """The second host cannot be reached by SSH: its port is one where nobody listens."""
    path = place.target.environment_path
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace(f"port = {place.target.hosts[1].door.port}\n", "port = 1\n"), encoding="utf-8"
    )
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


async def killed_on_the_way_back(place: Place, told: Told) -> None:
    """A treacherous revision; killed while its hosts are switched back; two managers at once afterwards."""
    run = await place.plan()
    await place.kill_at(run, [GOING_BACK])
    where = ("-e", place.environment)
    words = ("resume", *where, "--take-over", WHY, "--without-prefect", "--json")
    told.note("resume", await place.command(*words))
    told.seen["back"] = await look(place)
    sick = ("release", place.target.revisions["sick"], *where, "--without-prefect", "--json")
    first, second = await asyncio.gather(*(place.command(*sick, "--by", name) for name in ("ops-a", "ops-b")))
    if first.returncode == 5:
        first, second = second, first
    told.note("winner", first)
    told.note("loser", second)
    told.seen["managers"] = await place.rows(
        "SELECT id, phase::text, reason FROM runbook.release ORDER BY id"
    )


async def prefect_dies(place: Place, told: Told) -> None:
    """Prefect's server is killed while it drains; afterwards each phase by hand on what runs now."""
    run = await place.plan()
    driver = place.drive(run)
    try:
        async with place.live_traffic(run):
            await place.at(DRAINING, driver)
            servers = await asyncio.to_thread(
                subprocess.run, ["pgrep", "-P", str(driver.pid)], capture_output=True, text=True, check=True
            )
            for pid in servers.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            told.codes["driver"] = await asyncio.to_thread(driver.wait, 150)
    finally:
        await end(driver)
    told.seen["succeeded"] = await look(place)
    told.seen["log"] = place.said()
    where = ("-e", place.environment)
    await place.ledger.execute(BURY, 5)
    told.note("drain", await place.command("drain", *where, "--without-prefect", "--json"))
    told.seen["drained by hand"] = await look(place)
    # A payload without a name or a price: no revision can apply it.
    await place.ledger.execute(BURY, 3)
    await place.ledger.execute(
        'UPDATE tds_sync_queue SET validated_payload = \'{"item": {"item_id": "1", "rate": "much"}}\''
        " WHERE status = 'dead_letter'"
    )
    told.note("canary", await place.command("canary", *where, "--without-prefect", "--json"))
    told.seen["held"] = await look(place)
    told.note("abort", await place.command("abort", *where, "--reason", "a test", "--json"))
    text = place.target.environment_path.read_text(encoding="utf-8")
    short = place.home / "short.toml"
    short.write_text(
        text.replace("[watch]\n", "[watch]\nwindow_seconds = 3\ninterval_seconds = 1\n"), encoding="utf-8"
    )
    told.note("watch", await place.command("watch", "-e", str(short), "--without-prefect", "--json"))
    told.seen["hosts"] = set((await place.running()).values())


BURY = """UPDATE tds_sync_queue SET status = 'dead_letter', error_code = 'again' WHERE id IN
  (SELECT event_id FROM runbook.release_event WHERE entity_type = 'Product' ORDER BY position LIMIT $1)"""


SPEED = 60
HISTORIES: dict[str, tuple[str, Callable[[Place, Told], Awaitable[None]]]] = {
    "on the way": ("good", killed_on_the_way),
    "on the way back": ("treacherous", killed_on_the_way_back),
    "prefect": ("good", prefect_dies),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Told]]]:
    """The histories, begun at once; each is there when it has come to its end."""
    with tempfile.TemporaryDirectory(prefix="tds-k-") as folder:

        async def tell(name: str) -> Told:
            story, history = HISTORIES[name]
            home = Path(folder) / name.replace(" ", "-")
            home.mkdir()
            told = Told()
            async with Place.make(home, story, speed=SPEED) as place:
                await history(place, told)
            return told

        running = {name: asyncio.create_task(tell(name)) for name in HISTORIES}

        async def get(name: str) -> Told:
            return await asyncio.shield(running[name])

        yield get
        for task in running.values():
            task.cancel()
        await asyncio.wait(running.values())


Get = Callable[[str], Awaitable[Told]]


def assert_each_event_ended_once(seen: dict[str, Any]) -> None:
    """Every planned event is in exactly one batch and completed; the batches add up, so none was sent twice."""
    assert len(seen["events"]) == BACKLOG
    assert {(event["status"], event["now"]) for event in seen["events"]} == {("completed", "completed")}
    for batch in seen["batches"]:
        inside = sum(event["batch"] == batch["number"] for event in seen["events"])
        assert (batch["size"], batch["completed"], batch["failed"]) == (inside, inside, 0)
    assert sum(batch["size"] for batch in seen["batches"]) == BACKLOG


def assert_operations_ran_once(seen: dict[str, Any], hosts: int = 2) -> None:
    """Each kind of change was made once on each host and ended well, whoever began it."""
    kinds = {operation["kind"] for operation in seen["operations"]}
    assert len(seen["operations"]) == hosts * len(kinds), seen["operations"]
    assert {operation["outcome"] for operation in seen["operations"]} == {"done"}


async def test_a_release_that_is_killed_in_each_phase_ends_as_if_nobody_had(told: Get) -> None:
    """Killed in mid switch, canary, batch and watch: succeeded, on the revision that the ledger names."""
    history = await told("on the way")
    seen = history.seen["succeeded"]
    assert (history.codes["resume"], history.said["resume"]["outcome"]) == (0, "succeeded"), history.said
    assert seen["hosts"] == {seen["revisions"]["fixed"]}
    assert [record["phase"] for record in seen["phases"]] == [
        "planned", "approved", "deploying", "probing", "canary", "draining", "watching", "succeeded",
    ]  # fmt: skip
    assert_each_event_ended_once(seen)
    assert_operations_ran_once(seen)
    # At least: the last one's database went away so early that it may have had to take the lock twice.
    assert len(seen["takeovers"]) >= 4
    assert {takeover["reason"] for takeover in seen["takeovers"]} == {WHY}


async def test_a_watch_goes_on_where_it_stood(told: Get) -> None:
    """One watch of the window's length, not two: what was killed, and the outage, are part of it."""
    seen = (await told("on the way")).seen["succeeded"]
    [watch] = [record for record in seen["phases"] if record["phase"] == "watching"]
    window = 1800 / SPEED
    assert window <= watch["seconds"] < 2 * window


async def test_a_database_that_is_away_during_the_watch_is_no_breach(told: Get) -> None:
    """Eight seconds without it: the release waits and succeeds, and no judgement calls it unhealthy."""
    history = await told("on the way")
    assert history.codes["resume"] == 0
    assert "UNHEALTHY" not in {judgement["finding"] for judgement in history.seen["succeeded"]["judged"]}


async def test_a_second_manager_is_refused_while_the_lock_is_held(told: Get) -> None:
    """Until the first one's lock has run out, and without a reason to take it over: who has it, and 5."""
    history = await told("on the way")
    assert history.codes["second manager"] == 5
    assert "is locked by" in history.said["second manager"]["error"]


async def test_a_host_that_is_down_does_not_keep_the_others_from_going_back(told: Get) -> None:
    """Rolled back by hand with one host unreachable: 3, the other is back, and the sentence names the one."""
    history = await told("on the way")
    revisions = history.seen["back"]["revisions"]
    assert history.codes["rollback, a host down"] == 3
    assert history.said["rollback, a host down"]["outcome"] == "rollback_failed"
    assert "web-2" in history.said["rollback, a host down"]["reason"]
    assert history.seen["half back"] == {"web-1": revisions["broken"], "web-2": revisions["fixed"]}


async def test_a_failed_rollback_can_be_asked_for_again(told: Get) -> None:
    """With the host back, the same command ends with 2 and both hosts on the former revision."""
    history = await told("on the way")
    assert (history.codes["rollback again"], history.said["rollback again"]["outcome"]) == (2, "rolled_back")
    assert history.seen["back"]["hosts"] == {history.seen["back"]["revisions"]["broken"]}


async def test_a_revision_that_was_left_comes_back_only_by_a_named_person(told: Get) -> None:
    """Refused until it is lifted; afterwards the plan of the same revision passes."""
    history = await told("on the way")
    assert history.codes["released again"] == 5
    assert "is in quarantine: release" in history.said["released again"]["error"]
    assert (history.codes["lift"], history.said["lift"]["lifted_by"]) == (0, "ops-b")
    assert history.codes["plan after lift"] == 0


async def test_a_rollback_that_is_killed_is_finished_by_the_next(told: Get) -> None:
    """Killed while the hosts are switched back: back on both, each step once, every dead letter at its end."""
    history = await told("on the way back")
    seen = history.seen["back"]
    assert (history.codes["resume"], history.said["resume"]["outcome"]) == (2, "rolled_back")
    assert seen["hosts"] == {seen["revisions"]["broken"]}
    assert_operations_ran_once(seen)
    for event in seen["events"]:
        assert event["now"] in ("completed", "dead_letter")
        if event["batch"] is None:
            assert event["error_code"] == "xd2s"


async def test_of_two_managers_at_once_one_is_refused_and_leaves_nothing(told: Get) -> None:
    """One release runs to its end; the other is refused for good, with the reason, and has changed nothing."""
    history = await told("on the way back")
    assert history.codes["winner"] == 2, history.said["winner"]
    assert history.codes["loser"] == 5
    phases = [release["phase"] for release in history.seen["managers"]]
    assert phases.count("rolled_back") == 2
    assert set(phases) <= {"rolled_back", "refused"}
    assert history.said["loser"]["error"]


async def test_a_release_outlives_prefects_server(told: Get) -> None:
    """Its server is killed in mid drain: the release succeeds, and its process is gone soon after."""
    history = await told("prefect")
    seen = history.seen["succeeded"]
    assert seen["phases"][-1]["phase"] == "succeeded", history.seen["log"]
    assert history.codes["driver"] == 0
    assert_each_event_ended_once(seen)
    assert_operations_ran_once(seen)


async def test_dead_letters_can_be_drained_by_hand(told: Get) -> None:
    """`runbook drain` proves what runs and drains what has died since, without deploying anything."""
    history = await told("prefect")
    assert (history.codes["drain"], history.said["drain"]["outcome"]) == (0, "succeeded"), history.said[
        "drain"
    ]
    assert "completed" in history.said["drain"]["reason"], "how it ended is what its own last phase said"
    seen = history.seen["drained by hand"]
    assert len(seen["operations"]) == len(history.seen["succeeded"]["operations"])
    assert len(seen["events"]) == BACKLOG + 5


async def test_a_breach_by_hand_holds_because_there_is_nothing_to_go_back_to(told: Get) -> None:
    """A canary that fails, and a watch without data, are held with 4; the hosts stay as they are."""
    history = await told("prefect")
    assert (history.codes["canary"], history.said["canary"]["outcome"]) == (4, "held"), history.said["canary"]
    assert history.codes["abort"] == 0
    assert (history.codes["watch"], history.said["watch"]["outcome"]) == (4, "held"), history.said["watch"]
    assert history.seen["hosts"] == {history.seen["held"]["revisions"]["fixed"]}
    assert len(history.seen["held"]["operations"]) == len(history.seen["succeeded"]["operations"])
