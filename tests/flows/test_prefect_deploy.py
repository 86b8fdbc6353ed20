"""Our own prefect.yaml on a real server, and a release that is started from it on a real target."""

from __future__ import annotations

import asyncio
import os
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
from handlers.release.ledger.records import files, find_quarantine
from handlers.release.phase import FINISHED, Phase, Release
from rehearsal.consistency.check import check
from rehearsal.target import Target
from rehearsal.webhooks.traffic import traffic
from tests.flows.local_prefect import ROOT, Project, marked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are searched for in /proc")

WATCH = "[watch]\nwindow_seconds = 90\ninterval_seconds = 2\n"
"""A release from the page runs in real time, so its watch is short. The gate opens the intake meanwhile, which takes it
a minute from the switch on, and the traffic is enough for a verdict.
"""


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
    """A target with live traffic for the watch; its environment file is rehearsal.toml in *folder*."""
    async with Target.create("good", speed=1) as target:
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
    """Send webhooks once the watch has started: before it the broken revision would make them dead letters."""
    while not stop.is_set():
        run = await releases.latest(engine, "rehearsal")
        if run is not None and run.phase is Phase.WATCHING:
            await traffic(engine, stop, per_second=4)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.2)


async def phase_sentences(engine: AsyncEngine) -> str:
    """The sentence of each phase of the newest release, for a failed assertion."""
    run = await releases.latest(engine, "rehearsal")
    assert run is not None
    records = await releases.phase_records(engine, run)
    return "\n".join(f"{record.phase} {record.sentence}" for record in records)


async def ledger_summary(engine: AsyncEngine) -> dict[str, Any]:
    """What the ledger has of the newest release, reduced to what must be equal for two equal releases."""
    run = await releases.latest(engine, "rehearsal")
    assert run is not None
    records = await releases.phase_records(engine, run)
    events = await dead_letters.events(engine, run)
    operations = await intents.operations(engine, run)
    return {
        "phase": run.phase,
        "phases": [(record.phase, record.verdict) for record in records],
        "events": Counter((event.entity_type, event.batch, event.status) for event in events),
        "operations": Counter(
            (operation.host, operation.kind, operation.outcome) for operation in operations
        ),
        "files": Counter(file.kind for file in await files(engine, run)),
    }


async def look(target: Target) -> dict[str, Any]:
    """The ledger summary of a release that succeeded, through a separate engine."""
    engine = target.engine()
    try:
        summary = await ledger_summary(engine)
        assert summary["phase"] is Phase.SUCCEEDED, await phase_sentences(engine)
        return summary
    finally:
        await engine.dispose()


async def test_every_flow_is_on_the_page(project: Project) -> None:
    """One `prefect deploy --all --no-prompt` on a fresh server deploys all of prefect.yaml, with its forms."""
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        shown = (await http.post("/deployments/filter", json={})).raise_for_status().json()
    assert sorted((deployed["entrypoint"], deployed["name"]) for deployed in shown) == sorted(
        (deployment["entrypoint"], deployment["name"]) for deployment in wanted
    )
    (release,) = (
        deployed
        for deployed in shown
        if deployed["entrypoint"] == "flows.release.release" and deployed["name"] == "production"
    )
    form = release["parameter_openapi_schema"]["properties"]
    assert {"environment", "revision", "requested_by", "reason"} <= set(form)
    assert all(field.get("description") for field in form.values()), "each field of the form has its sentence"
    assert release["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert release["job_variables"] == {"stream_output": False}


async def test_each_minute_somebody_looks_for_what_nobody_carries(project: Project) -> None:
    """The schedule is active, and its flow says for each environment what it found, also where a file is bad."""
    folder = project.folder / "environments"
    folder.mkdir(exist_ok=True)
    (folder / "half-written.toml").write_text('name = "half', encoding="utf-8")
    try:
        status = await asyncio.to_thread(project.run_from_the_command_line, "resume-due/every-minute")
    finally:
        (folder / "half-written.toml").unlink()
    assert status == 0
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        named = "/deployments/name/resume-due/every-minute"
        [schedule] = (await http.get(named)).raise_for_status().json()["schedules"]
        runs = (await http.post("/flow_runs/filter", json={})).raise_for_status().json()
    assert (schedule["active"], schedule["schedule"]["interval"]) == (True, 60)
    assert await scheduled(project), "the server's scheduler has made no run of it"
    ended = [run["state"] for run in runs if run["state"]["name"] == "NothingDue"]
    assert any("half-written.toml is not valid TOML" in state["message"] for state in ended), runs


async def scheduled(project: Project) -> list[Any]:
    """The runs that the server's scheduler has made; it looks for new deployments each few seconds."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        for _ in range(600):
            runs = (await http.post("/flow_runs/filter", json=wanted)).raise_for_status().json()
            if made := [run for run in runs if run["auto_scheduled"]]:
                return made
            await asyncio.sleep(0.1)
    return []


@pytest.mark.timeout(900)
async def test_a_release_from_its_deployment_gives_the_ledger_of_the_command_line(project: Project) -> None:
    """A release from the Prefect page and one from the command line leave the same records in the ledger."""
    async with (
        place(project.folder / "environments") as for_the_page,
        place(project.folder / "other") as for_the_command,
    ):
        status, _ = await asyncio.gather(
            asyncio.to_thread(
                project.run_from_the_command_line,
                "release/anywhere",
                environment="rehearsal",
                revision=for_the_page.revision,
                requested_by="somebody",
                reason="the dead letters",
            ),
            asyncio.to_thread(release_by_command, project, for_the_command.revision),
        )
        from_the_page, from_the_command_line = await look(for_the_page), await look(for_the_command)
    assert status == 0
    assert sum(from_the_page["events"].values()) == 58
    assert from_the_page == from_the_command_line
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        query = {"artifacts": {"key": {"any_": ["report-rehearsal"]}}}
        shown = (await http.post("/artifacts/filter", json=query)).raise_for_status().json()
    # The page shows the report of the release.
    assert shown
    assert all(artifact["type"] == "markdown" for artifact in shown)
    assert any("## What to do next" in artifact["data"] for artifact in shown)


@pytest.mark.timeout(600)
async def test_cancel_on_the_page_takes_the_hosts_back(project: Project) -> None:
    """Prefect's worker ends a cancelled run by a signal: the release goes back, and both say why."""
    async with place(project.folder / "environments") as target:
        engine = target.engine()
        try:
            flow_run = await begin_release(project, target.revision)
            await until_phase(engine, frozenset({Phase.DRAINING}), seconds=180)
            await cancel(project, flow_run)
            run = await until_phase(engine, FINISHED, seconds=180)
            assert run.phase is Phase.ROLLED_BACK, await phase_sentences(engine)
            assert "cancelled on the Prefect page while it was" in run.reason
            assert await find_quarantine(engine, "rehearsal", target.revision) is None
            state = await until_state(project, flow_run, {"CANCELLED", "CRASHED", "FAILED", "COMPLETED"})
            assert state == "CANCELLED"
            seen = await check(target, engine, run.id, sent=(), window_seconds=6)
            assert seen.disagreements == ()
        finally:
            await engine.dispose()


async def cancel(project: Project, flow_run: str) -> None:
    """Do what the button Cancel of the page does."""
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        answer = await http.post(
            f"/flow_runs/{flow_run}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}}
        )
        answer.raise_for_status()


async def until_state(project: Project, flow_run: str, types: set[str]) -> str:
    """Wait until the run has ended in one of these states, and return it."""
    async with (
        asyncio.timeout(120),
        httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http,
    ):
        while True:
            state: str = (await http.get(f"/flow_runs/{flow_run}")).raise_for_status().json()["state_type"]
            if state in types:
                return state
            await asyncio.sleep(0.2)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_release_whose_worker_and_run_are_killed_is_carried_on_by_the_schedule(
    project: Project,
) -> None:
    """SIGKILL of the Prefect worker and of the run during the drain: the schedule of each minute ends the release."""
    async with place(project.folder / "environments") as target:
        engine = target.engine()
        try:
            await begin_release(project, target.revision)
            run = await until_phase(engine, frozenset({Phase.DRAINING}), seconds=180)
            os.kill(project.pid("worker"), signal.SIGKILL)
            for line in marked(project.marker):
                if "-m prefect.engine" in line:
                    os.kill(int(line.split()[0]), signal.SIGKILL)
            await until_phase(engine, FINISHED, seconds=300)
            seen = await check(target, engine, run.id, sent=(), window_seconds=6)
            assert seen.disagreements == ()
            assert (await releases.get(engine, run.id)).phase is Phase.SUCCEEDED, await phase_sentences(
                engine
            )
        finally:
            await engine.dispose()


async def begin_release(project: Project, revision: str) -> str:
    """Start a release as the page does, and return the id of its run."""
    parameters = {"environment": "rehearsal", "revision": revision, "requested_by": "x", "reason": "y"}
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        deployment = (await http.get("/deployments/name/release/anywhere")).raise_for_status().json()["id"]
        path = f"/deployments/{deployment}/create_flow_run"
        for _ in range(60):
            begun = await http.post(path, json={"parameters": parameters})
            if begun.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            # A busy server asks its clients to come again.
            await asyncio.sleep(0.5)
        begun.raise_for_status()
        flow_run: str = begun.json()["id"]
        return flow_run


async def until_phase(engine: AsyncEngine, phases: frozenset[Phase], *, seconds: float) -> Release:
    """Wait until the newest release is in one of *phases*."""
    async with asyncio.timeout(seconds):
        while True:
            run = await releases.latest(engine, "rehearsal")
            if run is not None and run.phase in phases:
                return run
            await asyncio.sleep(0.05)


def release_by_command(project: Project, revision: str) -> None:
    """Run `runbook release` as a user does while `runbook up` runs."""
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


async def test_an_invalid_parameter_is_refused_at_the_form(project: Project) -> None:
    """An environment's name that is a path never reaches a worker."""
    status = await asyncio.to_thread(
        project.run_from_the_command_line, "release/anywhere", environment="../etc/passwd", revision="main"
    )
    assert status != 0
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False) as http:
        runs = (await http.post("/flow_runs/filter", json={})).raise_for_status().json()
    assert not any(re.search("passwd", str(run["parameters"])) for run in runs)
