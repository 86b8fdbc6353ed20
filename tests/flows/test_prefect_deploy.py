"""Our own prefect.yaml on a real server, and a release that is started from it on a real target."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
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
from tests.integration.phases import healing
from tests.integration.worker.steps import until
from tests.integration.zoho import sources

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are searched for in /proc"),
    # The first test waits for the deploy of everything.
    pytest.mark.timeout(900),
]

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
        await asyncio.to_thread(up.says, "Ctrl-C stops it", 600)
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
    (release,) = (deployed for deployed in shown if deployed["entrypoint"] == "flows.production.release")
    form = release["parameter_openapi_schema"]["properties"]
    assert {"environment", "revision", "requested_by", "reason"} <= set(form)
    for deployed in shown:
        for name, field in deployed["parameter_openapi_schema"]["properties"].items():
            assert field.get("description"), f"{deployed['entrypoint']}: {name} has no sentence in the form"
    assert release["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert release["job_variables"] == {"stream_output": False}


async def test_a_deployment_of_one_environment_takes_no_other(project: Project) -> None:
    """Each form of production and of staging has one choice, and the server refuses a run with another environment."""
    good = {
        "revision": "main",
        "requested_by": "x",
        "reason": "y",
        "release_id": "2026-11-30.1",
        "kind": "full",
    }
    good |= {"plan_hash": "abc", "approved_by": "x"}
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        shown = (await http.post("/deployments/filter", json={})).raise_for_status().json()
        fixed = [each for each in shown if each["entrypoint"].split(".")[1] in {"production", "staging"}]
        assert len(fixed) == 2 * 15 + 3, [each["entrypoint"] for each in fixed]
        for each in fixed:
            environment = each["entrypoint"].split(".")[1]
            other = {"production": "staging", "staging": "production"}[environment]
            form = each["parameter_openapi_schema"]["properties"]
            assert form["environment"]["enum"] == [environment]
            assert each["parameters"]["environment"] == environment
            fields = {name: value for name, value in good.items() if name in form}
            path = f"/deployments/{each['id']}/create_flow_run"
            refused = await http.post(path, json={"parameters": fields | {"environment": other}})
            assert refused.status_code == httpx.codes.CONFLICT, (each["entrypoint"], refused.text)
            assert other in refused.text


@pytest.mark.parametrize("deployment", ["hold", "skip", "abort", "rollback"])
async def test_a_decision_needs_a_reason_and_a_name(project: Project, deployment: str) -> None:
    """The server refuses a hold, skip, abort or rollback without a reason, with an empty one, or without a name."""
    good = {"environment": "production", "reason": "the queue grows", "requested_by": "ops-a"}
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        named = f"/deployments/name/{deployment}/production"
        found = (await http.get(named)).raise_for_status().json()
        for bad in (
            {"reason": ""},
            {"reason": "  "},
            {"reason": None},
            {"requested_by": ""},
            {"requested_by": None},
        ):
            fields = {name: value for name, value in (good | bad).items() if value is not None}
            path = f"/deployments/{found['id']}/create_flow_run"
            refused = await http.post(path, json={"parameters": fields})
            assert refused.status_code == httpx.codes.CONFLICT, (bad, refused.text)


async def test_a_refusal_is_a_state_with_its_sentence(project: Project) -> None:
    """A run that the runbook refuses ends as Refused and says why; it does not crash, and shows no traceback."""
    ended = await asyncio.gather(
        run_to_its_end(project, "plan/anywhere", environment="nowhere", revision="main"),
        run_to_its_end(project, "hold/anywhere", environment="nowhere", reason="x", requested_by="y"),
        run_to_its_end(project, "rollback/anywhere", environment="nowhere", reason="x", requested_by="y"),
    )
    for state in ended:
        assert (state["type"], state["name"]) == ("FAILED", "Refused"), state
        assert "nowhere" in state["message"]
        assert "Traceback" not in state["message"]


async def test_an_event_starts_what_prefect_yaml_says(project: Project) -> None:
    """A breach starts `resume-due` for its environment, and a rollback that failed starts `notify`."""
    for event, deployment in (
        ("runbook.breach", "resume-due/on-breach"),
        ("runbook.release.rollback_failed", "notify/on-rollback-failed"),
    ):
        await emit(project, event, environment="nowhere", release="2026-11-30.1")
        run = await started_by(project, deployment)
        assert run["parameters"] == {"environment": "nowhere"}
        ended = await until_state(project, run["id"], {"CANCELLED", "CRASHED", "FAILED", "COMPLETED"})
        # There is no such environment. It says so, and is no crash: that would start the next automation.
        assert ended == "COMPLETED", run


async def emit(project: Project, event: str, **payload: str) -> None:
    """Send an event as a running release does."""
    resource = {"prefect.resource.id": f"runbook.release.{payload['environment']}.{payload['release']}"}
    happened = {"event": event, "resource": resource, "payload": payload, "id": str(uuid.uuid4())}
    happened["occurred"] = datetime.now(UTC).isoformat()
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        (await http.post("/events", json=[happened])).raise_for_status()


async def started_by(project: Project, deployment: str) -> dict[str, Any]:
    """Wait until a deployment has a run, and return it."""
    async with (
        asyncio.timeout(120),
        httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http,
    ):
        found = (await http.get(f"/deployments/name/{deployment}")).raise_for_status().json()
        query = {"deployments": {"id": {"any_": [found["id"]]}}}
        while True:
            runs: list[dict[str, Any]] = (await http.post("/flow_runs/filter", json=query)).json()
            if runs:
                return runs[0]
            await asyncio.sleep(0.1)


async def test_each_minute_somebody_looks_for_what_nobody_carries(project: Project) -> None:
    """The schedule is active, and its flow says for each environment what it found, also where a file is bad."""
    folder = project.folder / "environments"
    folder.mkdir(exist_ok=True)
    (folder / "half-written.toml").write_text('name = "half', encoding="utf-8")
    try:
        # A run that meets the scheduled one is cancelled: only one runs at a time.
        for _ in range(3):
            status = await asyncio.to_thread(project.run_from_the_command_line, "resume-due/every-minute")
            if status == 0:
                break
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


async def test_the_flows_of_schedules_run_on_the_server(project: Project, database_url: str) -> None:
    """The guard, healing and a sync, as their schedules start them: each ends as Completed and says what it did."""
    folder = project.folder / "environments"
    folder.mkdir(exist_ok=True)
    async with sources.place(folder, database_url) as synced:
        keys = sources.fill(synced.source, 3)
        here = healing.Place(core=synced.core)
        await here.letter("1")
        try:
            async with healing.working(database_url):
                ended = await asyncio.gather(
                    run_to_its_end(project, "guard-due/every-minute"),
                    run_to_its_end(project, "heal/every-15-minutes"),
                    run_to_its_end(project, "sync/anywhere", environment="synced", kind="full"),
                )

                async def are_applied() -> bool:
                    return (await synced.column(sources.P, "name")).keys() >= set(keys)

                await until(are_applied, 60)
        finally:
            synced.path.unlink()
    assert [(state["type"], state["name"]) for state in ended] == [
        ("COMPLETED", "NothingDue"),
        ("COMPLETED", "Healed"),
        ("COMPLETED", "Done"),
    ], ended
    assert "synced: no check is due" in ended[0]["message"]
    assert "1 of 1 dead letters completed" in ended[1]["message"]
    assert "3 records found" in ended[2]["message"]


async def test_every_schedule_has_its_next_run(project: Project) -> None:
    """A schedule that the server takes and cannot work out is deployed without a word, and never starts anything."""
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        deployed = [each for each in await rows(http, "deployments") if each["schedules"]]
        assert len(deployed) >= 6

        async def are_planned() -> bool:
            runs = await rows(http, "flow_runs", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
            return {run["deployment_id"] for run in runs} >= {each["id"] for each in deployed}

        await until(are_planned, 240)


async def run_to_its_end(project: Project, deployment: str, **parameters: str) -> dict[str, Any]:
    """Start a deployed flow as a schedule does, and return the state in which it ended.

    Where the schedule itself has a run at this moment, the server cancels the second one: it is started again.
    """
    async with httpx.AsyncClient(base_url=project.api_url, trust_env=False, timeout=20) as http:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            found = (await http.get(f"/deployments/name/{deployment}")).raise_for_status().json()
            path = f"/deployments/{found['id']}/create_flow_run"
            begun = await http.post(path, json={"parameters": parameters})
            if begun.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                await asyncio.sleep(0.5)
                continue
            flow_run = begun.raise_for_status().json()["id"]
            ended = await until_state(project, flow_run, {"CANCELLED", "CRASHED", "FAILED", "COMPLETED"})
            if ended != "CANCELLED":
                break
            await asyncio.sleep(1)
        state: dict[str, Any] = (await http.get(f"/flow_runs/{flow_run}")).raise_for_status().json()["state"]
        return state


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
        await the_page_shows_the_release(http)


async def the_page_shows_the_release(http: httpx.AsyncClient) -> None:
    """Who reads only the page learns what a release does: phases, steps on hosts, sentences, artifacts."""
    runs = await rows(http, "flow_runs", flows={"name": {"any_": ["release"]}})
    [release] = [run for run in runs if run["state_name"] == "Completed"]
    assert re.fullmatch(r"release \d{4}-\d\d-\d\d\.1 [0-9a-f]{7} to rehearsal", release["name"])
    _, id_, revision, *_ = release["name"].split()
    assert {"rehearsal", id_, revision} <= set(release["tags"])
    phases = await rows(http, "flow_runs", flow_runs={"parent_flow_run_id": {"any_": [release["id"]]}})
    names = [phase["name"] for phase in sorted(phases, key=lambda phase: phase["start_time"])]
    assert names == [f"deploy {revision} to rehearsal", "probe", "canary", "drain", "watch"]
    assert all(phase["state_name"] == "Completed" and phase["state"]["message"] for phase in phases)
    assert all({"rehearsal", id_, revision} <= set(phase["tags"]) for phase in phases)
    # On a slow server the run of a phase comes late, and its steps are those of the release.
    steps = await ended_steps(http, [release, *phases])
    assert {
        "Stop workers on web-1",
        "Switch web-2",
        "Redrive the canary",
        "Batch 1: 3 of 3 completed (100 %)",
    } <= steps
    assert any(re.fullmatch(r"Look \d+: \d+ of \d+ records completed.*", step) for step in steps), steps
    assert not [step for step in steps if re.search(r"\._?[a-z]+|-[0-9a-f]{3}$", step.partition(":")[0])], (
        steps
    )
    lines = [
        line["message"] for line in await rows(http, "logs", logs={"flow_run_id": {"any_": [release["id"]]}})
    ]
    assert any("drain done after" in line for line in lines), lines
    assert len([line for line in lines if line.startswith("Finished in state")]) <= 4, lines
    kinds = {
        "plan": "markdown",
        "hosts": "table",
        "batches": "table",
        "drain": "progress",
        "watch": "progress",
    }
    for kind, type_ in (kinds | {"report": "markdown"}).items():
        key = f"{kind}-rehearsal-{id_.replace('.', '-')}"
        shown = await rows(
            http, "artifacts", artifacts={"key": {"any_": [key]}, "flow_run_id": {"any_": [release["id"]]}}
        )
        assert shown, key
        assert {artifact["type"] for artifact in shown} == {type_}
        assert type_ != "progress" or [artifact["data"] for artifact in shown] == [100.0], shown
        assert kind != "report" or "## What to do next" in shown[0]["data"]


async def ended_steps(http: httpx.AsyncClient, runs: list[dict[str, Any]]) -> set[str]:
    """The names of the steps of these runs, once the server has recorded the end of each: it does so afterwards."""
    ids = [run["id"] for run in runs]
    for _ in range(600):
        steps = await rows(http, "task_runs", flow_runs={"id": {"any_": ids}})
        open_steps = [step["name"] for step in steps if step["state_type"] in {"PENDING", "RUNNING"}]
        if not open_steps:
            break
        await asyncio.sleep(0.1)
    assert not open_steps, "the page shows these as running for ever"
    return {step["name"] for step in steps}


async def rows(http: httpx.AsyncClient, what: str, **filters: Any) -> list[dict[str, Any]]:
    """All rows of the server's API that pass the filters."""
    found: list[dict[str, Any]] = []
    while True:
        query = filters | {"limit": 200, "offset": len(found)}
        more = (await http.post(f"/{what}/filter", json=query)).raise_for_status().json()
        found += more
        if len(more) < 200:
            return found


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
            # The automation looks whether anybody carries it. The release is over, so there is nothing to do.
            assert (await started_by(project, "resume-due/on-crash"))["parameters"] == {}
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
