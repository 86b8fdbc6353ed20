"""A small project with one flow, and `runbook up` as a real process over it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flows.local.process import holder
from flows.local.server import child_environment, prefect_settings

ROOT = Path(__file__).parent.parent.parent

FLOW = '''
import asyncio, os
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from flows.announce import announce
from handlers.release.phase import Phase, Release

RUN = Release(
    id="2025-11-14.3", environment="small", from_revision="a", to_revision="b", requested_by="ops-a",
    phase=Phase.ROLLING_BACK, resume_phase=None, token=1, speed=1.0, reason="", finished_at=None,
    created_at=datetime(2025, 11, 14, tzinfo=UTC),
)


@flow(name="small")
async def small(out: str, seconds: float = 0) -> None:
    """Write a file at the start, sleep, and write a file at the end."""
    announce("host.not-back", RUN, host=Path(out).name, tries=3)
    Path(out + ".begun").write_text(os.environ["RUNBOOK_ENVIRONMENTS"])
    await asyncio.sleep(seconds)
    Path(out + ".ended").write_text(os.getcwd())
'''

DEPLOYMENTS = """
name: small
deployments:
  - name: here
    entrypoint: small_flow.small
    work_pool: {name: runbook, job_variables: {stream_output: false}}
"""

DRIVER = """
import asyncio, os, sys
from pathlib import Path
from flows.local.up import up
from handlers.errors import RunbookError

state, port, deploy, seconds = sys.argv[1:]
print_line = lambda line: print(line, flush=True)
try:
    options = {"state": Path(state), "port": int(port), "deploy": deploy == "deploy"}
    options["database"] = os.environ.get("UP_DATABASE", "")
    asyncio.run(up(**options, stop_seconds=float(seconds), print_line=print_line))
except RunbookError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll until the condition *true* holds, with a timeout."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def marked(marker: str) -> list[str]:
    """The command lines of running processes with *marker* in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            carries = marker.encode() in (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if carries and command:
            found.append(f"{process.name} {command}")
    return found


@dataclass(kw_only=True)
class Project:
    """A folder with the flow, the state folder of `up`, and the processes that were started over them."""

    folder: Path
    checkout: Path | None = None
    """Where prefect.yaml is; without it, in the folder."""
    variables: dict[str, str] = field(default_factory=dict)
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, database: Path | None = None) -> Project:
        """Write the project, with a copy of a prepared *database* so that its server starts faster."""
        (folder / "small_flow.py").write_text(FLOW, encoding="utf-8")
        (folder / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
        (folder / "state").mkdir(mode=0o700)
        if database is not None:
            shutil.copyfile(database, folder / "state" / "prefect.db")
        return cls(folder=folder)

    @property
    def state(self) -> Path:
        """The state folder of `up`."""
        return self.folder / "state"

    @property
    def api_url(self) -> str:
        """The address of the server's API; one without a server before the first start."""
        address = self.state / "address"
        return address.read_text(encoding="utf-8") if address.exists() else "http://127.0.0.1:1/api"

    @property
    def port(self) -> int:
        """The server's port."""
        return int(self.api_url.removesuffix("/api").rpartition(":")[2])

    def environment(self) -> dict[str, str]:
        """What a person's shell would have, and the marker."""
        ours = child_environment(prefect_settings(self.folder / "client", self.api_url))
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        return ours | {"PYTHONPATH": path, "UP_MARKER": self.marker} | self.variables

    def up(self, *, deploy: bool = False, stop_seconds: float = 30, port: int = 0) -> Running:
        """Start `up` as a process of its own, on any port that is free."""
        output = self.folder / f"up-{len(self.started)}.out"
        options = [
            str(self.state),
            str(port),
            "deploy" if deploy else "plain",
            str(stop_seconds),
        ]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *options],
                cwd=self.checkout or self.folder,
                env=self.environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return Running(process=process, output=output)

    def run_from_the_command_line(self, deployment: str, **parameters: str) -> int:
        """Start a deployed flow as a person does, and wait for its end; the exit status."""
        options = [f"--param={name}={value}" for name, value in parameters.items()]
        prefect = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *options]
        return subprocess.run(
            [*prefect, "--watch", "--watch-timeout", "390"],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            timeout=400,
            check=False,
        ).returncode

    def begin_run(self, out: str, *, seconds: float = 0) -> None:
        """Start the deployed flow as the page does, and wait until it has begun."""
        with httpx.Client(base_url=self.api_url, trust_env=False, timeout=20) as http:
            deployment = http.get("/deployments/name/small/here").raise_for_status().json()["id"]
            parameters: dict[str, object] = {"out": str(self.folder / out), "seconds": seconds}
            # 503 means that the database is busy (a server that has just restarted); Prefect's own client retries.
            until(lambda: self._accepts(http, deployment, parameters), f"the server accepts run {out}")
        until(lambda: self.has(f"{out}.begun"), f"run {out} begins")

    @staticmethod
    def _accepts(http: httpx.Client, deployment: str, parameters: dict[str, object]) -> bool:
        """Request a run once; false when the server is busy."""
        answer = http.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return False
        answer.raise_for_status()
        return True

    def run(self, out: str) -> None:
        """Start the deployed flow and wait for its end."""
        self.begin_run(out)
        until(lambda: self.has(f"{out}.ended"), f"run {out} ends")

    def has(self, name: str) -> bool:
        """Whether the flow has left this mark."""
        return (self.folder / name).exists()

    def pid(self, name: str) -> int:
        """The process id of the server or the worker."""
        return int(holder(self.state / f"{name}.lock") or 0)

    def end(self) -> None:
        """Kill what a failed test left running: only processes with our own marker."""
        for line in marked(self.marker):
            os.kill(int(line.split()[0]), signal.SIGKILL)
        for process in self.started:
            process.wait()


@dataclass(kw_only=True)
class Running:
    """One `up`."""

    process: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        """Its output so far."""
        return self.output.read_text(encoding="utf-8")

    def says(self, words: str, seconds: float = 90) -> None:
        """Wait until its output contains *words*."""
        until(lambda: words in self.text() or self.process.poll() is not None, words, seconds)
        assert words in self.text(), self.text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = 60) -> int:
        """Wait until it has ended, and return its exit status."""
        return self.process.wait(seconds)
