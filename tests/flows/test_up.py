"""`runbook up` as a real process: what it starts, what it leaves behind, and which runs it waits for."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flows.local.server import child_environment, prefect_settings, temporary_server
from flows.local.up import api_url_if_running
from handlers.errors import RunbookError
from tests.flows.local_prefect import ROOT, Project, Running, marked, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are searched for in /proc")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def empty_database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The database that a first start creates."""
    folder = tmp_path_factory.mktemp("empty")
    async with temporary_server(folder / "first", template=folder):
        pass
    yield next(folder.glob("prefect-*.db"))


@dataclass(frozen=True, kw_only=True)
class Shared:
    """An `up` that several tests share; each must leave it running."""

    project: Project
    up: Running
    database: Path
    """Its database right after the deploy; other tests start with a copy."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Shared]:
    """The project deployed by `up --deploy`, once."""
    project = Project.make(tmp_path_factory.mktemp("shared"), empty_database)
    try:
        up = project.up(deploy=True)
        up.says("Ctrl-C stops it")
        copy = project.folder / "deployed.db"
        with (
            closing(sqlite3.connect(project.state / "prefect.db")) as old,
            closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
        yield Shared(project=project, up=up, database=copy)
    finally:
        project.end()


@pytest.fixture
def project(tmp_path: Path, shared: Shared) -> Iterator[Project]:
    """A separate project for one test, with the flow deployed and nothing running."""
    project = Project.make(tmp_path, shared.database)
    yield project
    project.end()


def events_of(project: Project, name: str) -> list[dict[str, Any]]:
    """The events with this name on the project's server."""
    wanted = {"filter": {"event": {"name": [name]}}}
    with httpx.Client(base_url=project.api_url, trust_env=False, timeout=20) as http:
        events: list[dict[str, Any]] = (
            http.post("/events/filter", json=wanted).raise_for_status().json()["events"]
        )
        return events


def test_a_host_that_is_not_back_is_an_event_on_the_server(shared: Shared) -> None:
    """An automation can page for it: the event has the release as its resource, and names the host."""
    shared.project.begin_run("announced", seconds=3)

    def arrived() -> bool:
        found = [event["payload"] for event in events_of(shared.project, "runbook.host.not-back")]
        about = {"environment": "small", "release": "2025-11-14.3", "host": "announced", "tries": 3}
        return any(payload.items() >= about.items() for payload in found)

    until(arrived, "the event is on the server")
    [resource] = {
        event["resource"]["prefect.resource.id"]
        for event in events_of(shared.project, "runbook.host.not-back")
    }
    assert resource == "runbook.release.small.2025-11-14.3"


def state_of_the_run(project: Project) -> str:
    """The state of the only run, from the database."""
    with closing(sqlite3.connect(project.state / "prefect.db")) as database:
        rows = database.execute("SELECT state_type FROM flow_run").fetchall()
    assert len(rows) == 1
    return str(rows[0][0])


def test_a_deployed_flow_runs_here(shared: Shared) -> None:
    """A flow that is started from its deployment runs in our worker and finds the environment files."""
    folder = shared.project.folder
    assert api_url_if_running(shared.project.state) == shared.project.api_url
    assert shared.project.run_from_the_command_line("small/here", out=str(folder / "a")) == 0
    assert (folder / "a.begun").read_text() == str(folder / "environments")
    assert (folder / "a.ended").read_text() == str(folder)


def test_a_second_up_is_refused_and_says_which_is_there(shared: Shared) -> None:
    """Two servers over one database would conflict, so the second names the address of the first."""
    second = shared.project.up()
    assert second.ended() == 5
    page = f"http://127.0.0.1:{shared.project.port}"
    assert f"already runs here (process {shared.up.process.pid}, page {page})" in second.text()
    assert shared.up.process.poll() is None


@pytest.mark.parametrize("name", ["worker", "server"])
def test_a_process_that_crashes_is_restarted(shared: Shared, name: str) -> None:
    """The crash of the server or the worker does not end `up`: it is restarted, and runs continue."""
    former = shared.project.pid(name)
    os.kill(former, signal.SIGKILL)
    shared.up.says(f"the {name} crashed")
    shared.up.says(f"the {name} runs again")
    assert shared.project.pid(name) not in {0, former}
    shared.project.run(f"after-{name}")


def test_stopping_waits_for_the_unfinished_run(project: Project) -> None:
    """A run that has started ends normally, and no process is left."""
    up = project.up()
    up.says("Ctrl-C stops it")
    project.begin_run("a", seconds=3)
    up.signal(signal.SIGTERM)
    assert up.ended() == 0, up.text()
    assert project.has("a.ended")
    assert state_of_the_run(project) == "COMPLETED"
    assert marked(project.marker) == []
    assert api_url_if_running(project.state) is None
    with socket.create_server(("127.0.0.1", project.port)):
        pass


def test_a_run_that_is_stopped_is_marked_crashed(project: Project) -> None:
    """After the timeout the run is stopped and marked as crashed, so that it frees its slot."""
    up = project.up(stop_seconds=0.5)
    up.says("Ctrl-C stops it")
    project.begin_run("a", seconds=300)
    up.signal(signal.SIGTERM)
    assert up.ended() == 0, up.text()
    assert "Continue its release with `runbook resume`." in up.text()
    assert state_of_the_run(project) == "CRASHED"
    assert marked(project.marker) == []


def test_a_second_signal_ends_the_waiting(project: Project) -> None:
    """A second Ctrl-C does not wait for a watch of half an hour."""
    up = project.up(stop_seconds=3600)
    up.says("Ctrl-C stops it")
    project.begin_run("a", seconds=300)
    up.signal(signal.SIGINT)
    up.says("Ctrl-C again skips the wait")
    up.signal(signal.SIGINT)
    assert up.ended() == 0, up.text()
    assert marked(project.marker) == []


def test_the_orphans_of_a_killed_up_are_stopped_by_the_next(project: Project) -> None:
    """SIGKILL of `up` leaves server and worker running, so its release continues; the next start stops them."""
    killed = project.up()
    killed.says("Ctrl-C stops it")
    left = {project.pid("server"), project.pid("worker")}
    project.begin_run("a", seconds=3)
    killed.signal(signal.SIGKILL)
    killed.ended()
    assert api_url_if_running(project.state) is None
    up = project.up()
    up.says("Ctrl-C stops it")
    assert "an earlier `runbook up` was killed" in up.text()
    assert project.has("a.ended"), "the next start waits for the unfinished run"
    assert left.isdisjoint({project.pid("server"), project.pid("worker")})
    project.run("b")
    up.signal(signal.SIGTERM)
    assert up.ended() == 0
    assert marked(project.marker) == []


def test_sigterm_while_starting_leaves_nothing(project: Project) -> None:
    """SIGTERM during the start leaves no process behind."""
    up = project.up()
    up.says("starting the Prefect server")
    until(lambda: project.pid("server") > 0, "the server has a process")
    up.signal(signal.SIGTERM)
    assert up.ended() == 0, up.text()
    assert marked(project.marker) == []


def test_a_taken_port_is_refused(project: Project) -> None:
    """A port in use is named, with the option to change it, before anything is started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        up = project.up(port=port)
        assert up.ended() == 5
    assert f"port {port} of 127.0.0.1 is in use" in up.text()
    assert "--port" in up.text()


def test_the_port_is_taken_before_the_server_runs(project: Project) -> None:
    """A server needs seconds to start; until then no other process gets the port."""
    up = project.up()
    until((project.state / "address").exists, "the port is chosen")
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("127.0.0.1", project.port))
    up.says("Ctrl-C stops it")
    up.signal(signal.SIGTERM)
    assert up.ended() == 0, up.text()


def test_a_deploy_that_fails_says_why_and_stops(project: Project) -> None:
    """A prefect.yaml with an unknown flow ends `up` with the reason, and leaves no process."""
    file = project.folder / "prefect.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(".small", ".absent"), encoding="utf-8")
    up = project.up(deploy=True)
    assert up.ended(90) == 1
    assert "prefect deploy failed" in up.text()
    assert "absent" in up.text()
    assert marked(project.marker) == []


async def answers(api_url: str) -> bool:
    """Whether a server answers."""
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            return (await http.get(f"{api_url}/health")).status_code == 200
        except httpx.ConnectError:
            return False


async def test_a_temporary_server_answers_and_is_gone_afterwards(
    tmp_path: Path, empty_database: Path
) -> None:
    """A run without `up` has its own server until it ends, with the server's files in the given folder."""
    async with temporary_server(tmp_path / "server", template=empty_database.parent) as api_url:
        assert await answers(api_url)
    assert not await answers(api_url)
    assert (tmp_path / "server" / "prefect.db").is_file()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error names a broken database file, instead of a wait until the timeout."""
    (tmp_path / "prefect.db").write_bytes(b"this is no database, and it is longer than its header" * 10)
    with pytest.raises(RunbookError, match=r"ended while starting: .*database"):
        async with temporary_server(tmp_path):
            pass


def test_a_temporary_server_dies_with_a_killed_run(project: Project) -> None:
    """A killed process cannot stop its server, so the kernel does."""
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom flows.local.server import temporary_server\n"
        "async def main():\n"
        "    async with temporary_server(Path(sys.argv[1])):\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(project.state)]
    with subprocess.Popen(command, env=project.environment(), cwd=ROOT, stdout=subprocess.PIPE) as run:
        project.started.append(run)
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        assert len(marked(project.marker)) == 2
        run.kill()
    until(lambda: marked(project.marker) == [], "the server ends", 20)


def test_prefect_understands_our_settings(tmp_path: Path) -> None:
    """Each setting has the name that this Prefect version reads: no analytics, no private database."""
    script = (
        "from prefect.settings import get_current_settings as s; s = s(); import json;"
        "print(json.dumps([s.server.analytics_enabled, s.server.ephemeral.enabled, str(s.home), s.api.url,"
        " s.server.concurrency.lease_storage, s.worker.query_seconds, s.worker.heartbeat_seconds,"
        " s.flows.heartbeat_frequency, s.client.max_retries, s.worker.webserver.host,"
        " s.logging.extra_loggers]))"
    )
    settings = prefect_settings(tmp_path, "http://127.0.0.1:1/api")
    assert settings["DO_NOT_TRACK"] == "1"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env=child_environment(settings),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(shown) == [
        False,
        False,
        str(tmp_path),
        "http://127.0.0.1:1/api",
        "prefect.server.concurrency.lease_storage.filesystem",
        1,
        30,
        30,
        7,
        "127.0.0.1",
        ["handlers"],
    ]


def test_a_stray_setting_does_not_reach_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of another Prefect does not change our database; other variables are passed on."""
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////elsewhere.db")
    monkeypatch.setenv("TDS_REHEARSAL", "some-id")
    environment = child_environment({"PREFECT_HOME": "/somewhere"})
    assert {k: v for k, v in environment.items() if k.startswith("PREFECT_")} == {
        "PREFECT_HOME": "/somewhere"
    }
    assert environment["TDS_REHEARSAL"] == "some-id"
