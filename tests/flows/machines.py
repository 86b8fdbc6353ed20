"""Machines of one Prefect: each with a server, the services and workers of its own, as deploy/prefect/ starts them."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flows.local.server import child_environment
from rehearsal import postgres
from rehearsal.postgres import Postgres, free_port
from tests.flows.local_prefect import ROOT, marked, until

RECIPE = ROOT / "deploy" / "prefect"


def contrib() -> Path | None:
    """The programs of an installed PostgreSQL that has pg_trgm, which Prefect's tables need."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        share = Path("/usr/share/postgresql") / folder.parent.name / "extension" / "pg_trgm.control"
        if share.exists():
            return folder
    return None


MISSING = [
    name
    for name, there in (
        ("PostgreSQL with pg_trgm (Debian: postgresql)", contrib()),
        ("redis-server (Debian: redis-server)", shutil.which("redis-server")),
        ("prefect-redis (the extra machines)", importlib.util.find_spec("prefect_redis")),
    )
    if not there
]
"""What this machine lacks for several of them."""


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """An empty database of an installed PostgreSQL; its address."""
    before = os.environ.get(postgres.BINARIES_VARIABLE)
    os.environ[postgres.BINARIES_VARIABLE] = str(contrib())
    postgres.binaries.cache_clear()
    try:
        server = Postgres.start(folder)
    finally:
        # Other servers of this process are those that the rehearsal brings.
        if before is None:
            del os.environ[postgres.BINARIES_VARIABLE]
        else:
            os.environ[postgres.BINARIES_VARIABLE] = before
        postgres.binaries.cache_clear()
    try:
        yield server.url("postgres")
    finally:
        server.stop()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis on loopback that keeps nothing; its address without the number of the database."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


def recipe(database_url: str, redis_url: str) -> dict[str, str]:
    """The variables of deploy/prefect/prefect.env, with the addresses of ours."""
    text = (RECIPE / "prefect.env").read_text(encoding="utf-8")
    address = database_url.replace("postgresql://", "postgresql+asyncpg://")
    text = re.sub(r"(?<==)postgresql\S+", lambda _: address, text)
    text = re.sub(r"(?<==)redis://[^/]+", redis_url, text)
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@dataclass(kw_only=True)
class Machine:
    """One machine: its own folders and its own server; files of the checkout are the same everywhere."""

    name: str
    folder: Path
    settings: dict[str, str]
    environments: Path
    port: int = field(default_factory=free_port)
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api_url(self) -> str:
        """The address of its server."""
        return f"http://127.0.0.1:{self.port}/api"

    def environment(self) -> dict[str, str]:
        """What its units have."""
        ours = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "RUNBOOK_ENVIRONMENTS": str(self.environments),
            "MACHINE": self.marker,
        }
        return child_environment(self.settings) | ours

    def prefect(self, *words: str, timeout: float = 300) -> None:
        """Run a command of Prefect to its end."""
        command = [str(Path(sys.executable).with_name("prefect")), *words]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, unit: str, instance: str = "") -> None:
        """Start what a unit of the recipe starts."""
        parsed = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
        parsed.read_string((RECIPE / f"tds-runbook-prefect-{unit}.service").read_text(encoding="utf-8"))
        text = parsed["Service"]["ExecStart"].replace("%i", instance).replace("%H", self.name)
        text = text.replace("/opt/tds-runbook/.venv/bin/", f"{Path(sys.executable).parent}/")
        words = shlex.split(text.replace("--port 4200", f"--port {self.port}"))
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{unit}{instance}.log").open("ab") as log:
            self.started[unit + instance] = subprocess.Popen(
                words, cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )

    def start_all(self, workers: int) -> None:
        """Server, services and workers, in their order."""
        self.start("server")
        until(self.answers, f"the server of {self.name} answers", 120)
        self.start("services")
        for number in range(1, workers + 1):
            self.start("worker@", str(number))

    def answers(self) -> bool:
        """Whether its server does."""
        try:
            return httpx.get(f"{self.api_url}/health", trust_env=False, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def kill(self, name: str) -> None:
        """SIGKILL of one of its units."""
        self.started[name].kill()
        self.started.pop(name).wait()

    def lose(self) -> None:
        """Everything on it is gone in one moment: units, runs and controllers."""
        while lines := marked(self.marker):
            for line in lines:
                try:
                    os.kill(int(line.split()[0]), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for process in self.started.values():
                process.wait()
        self.started.clear()

    def log(self) -> str:
        """The end of each of its logs."""
        ends = [
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in self.folder.glob("*.log")
        ]
        return "\n".join(ends)
