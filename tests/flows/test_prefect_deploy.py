"""Our own prefect.yaml on a real server, and a release that is started from it on a real target."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release.ledger import dead_letters, intents, releases
from handlers.release.ledger.records import files
from handlers.release.phase import Phase
from rehearsal.target import Target
from rehearsal.traffic import traffic
from tests.flows.local_prefect import ROOT, Project, marked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leftovers are looked for in /proc")

WATCH = "[watch]\nwindow_seconds = 6\ninterval_seconds = 1\n"
"""A page cannot compress time, so this place watches briefly; it has enough traffic for a verdict."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def project(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """A fresh server and worker with everything in prefect.yaml deployed from the checkout."""
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "state").mkdir(mode=0o700)
    variables = {"RUNBOOK_ENVIRONMENTS": str(folder / "environments")}
    project = Project(folder=folder, checkout=ROOT, variables=variables)
    try:
        up = project.up(deploy=True)
        await asyncio.to_thread(up.says, "Ctrl-C stops it")
        yield project
        up.signal(signal.SIGTERM)
        assert await asyncio.to_thread(up.ended) == 0, up.text()
        assert marked(project.marker) == []
    finally:
        project.end()


def watch_briefly(environment: Path, folder: Path) -> None:
    """Copy an environment file to *folder*, with a short watch."""
    folder.mkdir(exist_ok=True)
    text = environment.read_text(encoding="utf-8")
    (folder / "rehearsal.toml").write_text(text.replace("[watch]\n", WATCH), encoding="utf-8")


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Target]:
    """A target whose environment file lies in *folder* as rehearsal.toml, with live traffic to watch."""
    async with Target.create("good") as target:
        watch_briefly(target.environment_path, folder)
        engine, stop = target.engine(), asyncio.Event()
        sending = asyncio.create_task(traffic_to_watch(engine, stop))
        try:
            yield target
        finally:
            stop.set()
            await sending
            await engine.dispose()


async def traffic_to_watch(engine: AsyncEngine, stop: asyncio.Event) -> None:
    """Send webhooks from the watch on: before it the broken revision would make dead letters of them."""
    while not stop.is_set():
        run = await releases.latest(engine, "rehearsal")
        if run is not None and run.phase is Phase.WATCHING:
            await traffic(engine, stop, per_second=8)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.2)


async def told(engine: AsyncEngine) -> str:
    """What each phase of the newest release said, for an assertion that fails."""
    run = await releases.latest(engine, "rehearsal")
    assert run is not None
    return "\n".join(f"{each.phase} {each.sentence}" for each in await releases.phase_records(engine, run))


async def record(engine: AsyncEngine) -> dict[str, Any]:
    """What the ledger says of the newest release, as far as two releases of one kind must agree."""
    run = await releases.latest(engine, "rehearsal")
    assert run is not None
    records = await releases.phase_records(engine, run)
    events = await dead_letters.events(engine, run)
    operations = await intents.operations(engine, run)
    return {
        "phase": run.phase,
        "phases": [(each.phase, each.verdict) for each in records],
        "events": Counter((event.entity_type, event.batch, event.status) for event in events),
        "operations": Counter((each.host, each.kind, each.outcome) for each in operations),
        "files": Counter(each.kind for each in await files(engine, run)),
    }


async def look(target: Target) -> dict[str, Any]:
    """The record of a release that succeeded, through an engine of our own."""
    engine = target.engine()
    try:
        seen = await record(engine)
        assert seen["phase"] is Phase.SUCCEEDED, await told(engine)
        return seen
    finally:
        await engine.dispose()


async def test_every_flow_is_on_the_page(project: Project) -> None:
    """One `prefect deploy --all --no-prompt` on a fresh server brings all of prefect.yaml, with its forms."""
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        shown = (await http.post("/deployments/filter", json={})).raise_for_status().json()
    assert sorted((each["entrypoint"], each["name"]) for each in shown) == sorted(
        (each["entrypoint"], each["name"]) for each in wanted
    )
    (release,) = (
        each
        for each in shown
        if each["entrypoint"] == "flows.release.release" and each["name"] == "production"
    )
    form = release["parameter_openapi_schema"]["properties"]
    assert {"environment", "revision", "requested_by", "reason"} <= set(form)
    assert all(field.get("description") for field in form.values()), "each field of the form has its sentence"
    assert release["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert release["job_variables"] == {"stream_output": False}


@pytest.mark.timeout(900)
async def test_a_release_from_its_deployment_gives_the_ledger_of_the_command_line(project: Project) -> None:
    """The page and the command line are two doors into one release: what is written down is the same."""
    async with place(project.folder / "environments") as target:
        status = await asyncio.to_thread(
            project.run_from_the_command_line,
            "release/anywhere",
            environment="rehearsal",
            revision=target.revision,
            requested_by="somebody",
            reason="the dead letters",
        )
        from_the_page = await look(target)
    assert status == 0
    assert sum(from_the_page["events"].values()) == 58
    async with place(project.folder / "other") as target:
        await asyncio.to_thread(release_by_command, project, target.revision)
        from_the_command_line = await look(target)
    assert from_the_page == from_the_command_line


def release_by_command(project: Project, revision: str) -> None:
    """`runbook release`, as a person types it while `runbook up` runs."""
    environment = project.environment() | {"RUNBOOK_ENVIRONMENTS": str(project.folder / "other")}
    command = "from flows.cli import main; main()"
    runbook = [sys.executable, "-c", command, "release", "-e", "rehearsal", revision, "--yes"]
    ended = subprocess.run(
        [*runbook, "--reason", "the dead letters"],
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout.decode()


async def test_a_parameter_that_cannot_be_is_refused_at_the_form(project: Project) -> None:
    """An environment's name that is a path never reaches a worker."""
    status = await asyncio.to_thread(
        project.run_from_the_command_line, "release/anywhere", environment="../etc/passwd", revision="main"
    )
    assert status != 0
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        runs = (await http.post("/flow_runs/filter", json={})).raise_for_status().json()
    assert not any(re.search("passwd", str(run["parameters"])) for run in runs)
