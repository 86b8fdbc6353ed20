"""A whole target on this machine: database, queue, hosts with the sample ERP, and its environment file.

    async with Target.create("good") as target:
        ...  # release target.revision into target.environment_path

Nothing of it is left behind: not after an error, Ctrl-C or SIGTERM, also in the middle of the start. What a
SIGKILL leaves, the next start of any rehearsal clears away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.process import cancelled_by_sigterm, signals_ignored
from rehearsal import erp, lifecycle, processes, sentinels
from rehearsal.database import engine_of, make_database
from rehearsal.environment import write_environment
from rehearsal.hosts import disk
from rehearsal.hosts.host import RehearsalHost, Strategy
from rehearsal.hosts.network import Network
from rehearsal.hosts.sshd import Kind, make_key
from rehearsal.pace import SPEED, Pace
from rehearsal.postgres import Postgres
from rehearsal.running import in_thread, together
from rehearsal.sentinels import Remote
from rehearsal.story import Story

HOSTS = 2
HOSTS_MAX = 50
WORKING_HOSTS = 4
"""Hosts whose workers take events. Those of further hosts only start, show their revision, and stop."""
_STARTING_MAX = 8
"""Hosts whose ERP starts at the same time. More would only slow each other down."""
_HEALTHY_SECONDS = 30.0


def host_names(count: int) -> tuple[str, ...]:
    """The names of the hosts of a target."""
    return tuple(f"web-{number}" for number in range(1, count + 1))


class TargetError(RuntimeError):
    """The target did not come up; says which part and why."""


Beside = Callable[["Target"], Coroutine[None, None, None]]
"""Something else to start at the same time, such as a Prefect server with its files in the folder."""


@dataclass(kw_only=True)
class Target:
    """A running target."""

    id: str
    folder: Path
    story: Story
    keep: bool
    strategy: Strategy = "checkout"
    pace: Pace = field(default_factory=Pace)
    revisions: dict[str, str] = field(default_factory=dict)
    """Commit of each revision of the sample ERP by its name."""
    hosts: tuple[RehearsalHost, ...] = ()
    network: Network | None = None
    """The cables of the hosts, where they are to be cut."""
    remote: Remote | None = None
    """The origin behind HTTP, where secrets are planted."""
    postgres: Postgres | None = None
    database_url: str = field(default="", repr=False)
    """The ERP's database, password included: never print it."""
    started_at: float = field(default_factory=time.monotonic)
    start_seconds: float = 0.0
    """How long the slowest host took to bring the ERP up: how fast this machine is, beside its other work."""

    @property
    def age_seconds(self) -> float:
        """The time since its start began."""
        return time.monotonic() - self.started_at

    @property
    def environment_path(self) -> Path:
        """The environment file, as `--environment` takes it."""
        return self.folder / "rehearsal.toml"

    @property
    def cues(self) -> Path:
        """The folder in which the ERP sees what happens in the world (`rehearsal.cues`)."""
        return self.folder / "cues"

    @property
    def revision(self) -> str:
        """The commit that the story releases."""
        return self.revisions[self.story.revision_name]

    @classmethod
    @contextlib.asynccontextmanager
    async def create(
        cls,
        story: str = "good",
        *,
        folder: Path | None = None,
        keep: bool = False,
        ssh: Kind | None = None,
        beside: Beside | None = None,
        hosts: int = HOSTS,
        cables: bool = False,
        small_disks: bool = False,
        strategy: Strategy = "checkout",
        speed: float = SPEED,
    ) -> AsyncIterator[Target]:
        """Make a target for *story*, and take it away at the end unless it is to be kept.

        *folder* is where its folder is made (without it, the machine's temp folder), *ssh* the kind of SSH
        server (without it, the machine's own first), *hosts* how many there are. With *cables* each host can be cut
        off, with *small_disks* its disk can be filled (after `disk.separate`). *strategy* is how revisions get onto
        them, and *speed* how many runbook seconds will pass in a real one. SIGTERM ends it like Ctrl-C.
        """
        # The handler first: from the moment the folder exists, it must be removed at the end.
        with cancelled_by_sigterm():
            rehearsal_id, own = lifecycle.make(folder)
            target = cls(
                id=rehearsal_id,
                folder=own,
                story=Story(story),
                keep=keep,
                strategy=strategy,
                pace=Pace(speed=speed),
            )
            staying = False
            try:
                await target._start(ssh, beside, hosts, cables=cables, small_disks=small_disks)
                yield target
                staying = keep
            except Exception:
                staying = keep and target.environment_path.exists()
                raise
            finally:
                with signals_ignored():
                    if staying:
                        lifecycle.keep(rehearsal_id, own)
                        for host in target.hosts:
                            host.reserved.close()
                    else:
                        target._clear()

    def describe(self) -> str:
        """How to look at a target that was kept, and how to end it."""
        lines = [
            f"rehearsal {self.id} is running in {self.folder}",
            f"  status    runbook status -e {self.environment_path}",
            f"  database  psql postgresql://erp@127.0.0.1:{self.server.port}/erp"
            f"   (password in {self.folder}/secrets/database)",
        ]
        for host in self.hosts:
            lines += [
                f"  {host.name}     {host.health_url}   logs in {host.folder}/log",
                f"            ssh -i {self.folder}/secrets/key -p {host.ssh_port}"
                f" -o UserKnownHostsFile={self.folder}/secrets/known_hosts {host.door.user}@127.0.0.1",
            ]
        return "\n".join([*lines, f"  end it    runbook rehearse --end {self.id}"])

    async def _start(
        self, ssh: Kind | None, beside: Beside | None, hosts: int, *, cables: bool, small_disks: bool
    ) -> None:
        """Start the independent parts at the same time, then what needs them."""
        key = self.folder / "secrets" / "key"
        key.parent.mkdir(mode=0o700)
        make_key(key)
        self.hosts = tuple(
            RehearsalHost.make(
                name,
                self.folder / name,
                rehearsal_id=self.id,
                small_disk=small_disks,
                strategy=self.strategy,
            )
            for name in host_names(hosts)
        )
        await together(
            self._start_database(),
            self._write_origin(),
            *(host.open_door(key_file=key, kind=ssh, tied=not self.keep) for host in self.hosts),
            *((beside(self),) if beside is not None else ()),
        )
        if cables:
            await self._lay_cables()
        if sentinels.wanted():
            self.remote = Remote.serve(self.folder / "origin.git")
            sentinels.lock_key(key)
        turns = asyncio.Semaphore(_STARTING_MAX)
        await together(*(self._start_erp(host, turns) for host in self.hosts))
        write_environment(
            self.environment_path,
            database_port=self.server.port,
            secrets=key.parent,
            hosts=self.hosts,
            pace=self.pace,
            start_seconds=self.start_seconds,
        )

    async def _lay_cables(self) -> None:
        ports = {host.name: (host.door.port, host.http_port) for host in self.hosts}
        self.network = await Network.start(ports, rehearsal_id=self.id, tied=not self.keep)
        for host in self.hosts:
            ssh, http = self.network.ports(host.name)
            host.published = (ssh, http)

    async def _start_database(self) -> None:
        """Start PostgreSQL and make the ERP's database."""
        self.postgres = await in_thread(
            lambda: Postgres.create(self.folder / "postgres", tied=not self.keep, environment=self._marked())
        )
        # From this thread: a tied server ends with the thread that started it.
        self.postgres.spawn()
        await in_thread(self.postgres.wait_ready)
        password = sentinels.make("database") if sentinels.wanted() else secrets.token_urlsafe(18)
        self.database_url = await make_database(
            self.postgres,
            self.story,
            self.pace,
            password=password,
            password_file=self.folder / "secrets" / "database",
        )

    def engine(self) -> AsyncEngine:
        """A new engine on the ERP's database, for traffic or for queries; the caller disposes of it."""
        return engine_of(self.database_url)

    async def _write_origin(self) -> None:
        self.revisions = await in_thread(lambda: erp.write_origin(self.folder / "origin.git"))

    async def _start_erp(self, host: RehearsalHost, turns: asyncio.Semaphore) -> None:
        """Bring the broken revision up on *host* and wait until it says so itself."""
        async with turns:
            await self._install_erp(host)

    async def _install_erp(self, host: RehearsalHost) -> None:
        broken = self.revisions["broken"]
        idle = self.hosts.index(host) >= WORKING_HOSTS
        await in_thread(
            lambda: host.install_erp(
                self.folder / "origin.git",
                broken,
                database_url=self.database_url,
                idle=idle,
                pace=self.pace,
                cues=self.cues,
            )
        )
        if self.remote is not None:
            sentinels.plant(host, self.remote, make_url(self.database_url).password or "")
        await in_thread(host.start_units)
        began = time.monotonic()
        deadline = began + _HEALTHY_SECONDS
        seen = "no answer"
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(host.health_url)
                    seen = answer.text
                    if answer.status_code == 200 and answer.json()["workers"]["revisions"] == [broken]:
                        self.start_seconds = max(self.start_seconds, time.monotonic() - began)
                        return
                await asyncio.sleep(0.05)
        raise TargetError(f"{host.name} did not come up: {seen}; {host.log_end()}")

    @property
    def server(self) -> Postgres:
        """The database server, to look at or to break."""
        if self.postgres is None:
            raise TargetError("the database server does not run yet")
        return self.postgres

    def _marked(self) -> dict[str, str]:
        return os.environ | {processes.MARKER: self.id}

    def _clear(self) -> None:
        """End what we know the kind way, then whatever else there is."""
        for host in self.hosts:
            host.close_door()
        for part in (self.network, self.remote):
            if part is not None:
                part.stop()
        if self.postgres is not None:
            self.postgres.stop(signal.SIGQUIT)
        for host in self.hosts:
            disk.unmount(host.folder)
        lifecycle.clear(self.id, self.folder)
