"""Where a benchmark runs: a PostgreSQL of its own, a database cloned anew for each run, and what work cost.

Cost is processor time (user and system) of the server's and of the clients' processes, not the wall clock: a busy
machine makes a run longer but hardly dearer.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from rehearsal.postgres import Postgres

ROOM_BYTES = 6 * 2**30
"""So much a whole run may need in the RAM disk."""

_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "1GB", "max_wal_size": "8GB"}
_CHILD = Path(__file__).with_name("_child.py")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run took."""

    jobs: int
    server_us: float
    """Processor time of the server a job."""
    client_us: float
    wall_seconds: float
    peak_mb: float
    """The largest client's largest resident memory."""
    rows: int = 0
    """Rows of the ERP's tables that were inserted or updated."""

    @property
    def us(self) -> float:
        return self.server_us + self.client_us

    @property
    def wall_us(self) -> float:
        return self.wall_seconds / self.jobs * 1e6

    @property
    def us_a_row(self) -> float:
        return self.us * self.jobs / max(self.rows, 1)


@dataclass(kw_only=True)
class Place:
    """The server of a whole run, and the databases in it."""

    server: Postgres
    on_ram: bool
    _clones: int = 0

    async def clone(self, template: str) -> str:
        """A fresh copy of *template*, with everything written to disk before the run begins."""
        self._clones += 1
        url = await self.server.create_database(f"run_{self._clones}", template=template)
        await self.execute("CHECKPOINT")
        return url

    async def take(self, template: str) -> str:
        """*template* itself, where a copy would be too large: its run is its end."""
        await self.execute("CHECKPOINT")
        return self.server.url(template)

    async def drop(self, url: str) -> None:
        await self.server.drop_database(url.rpartition("/")[2])

    async def execute(self, *statements: str) -> None:
        """Run *statements* as the superuser, outside any benchmark's database."""
        await execute(self.server.url(), *statements)

    def cpu_seconds(self) -> float:
        """Processor time of the server's processes so far, ended ones included."""
        assert self.server.process is not None
        top = psutil.Process(self.server.process.pid)
        total = sum(top.cpu_times()[:4])
        for child in top.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
        return total


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    """A server with its data on the RAM disk where there is room, else on the ordinary temporary disk."""
    ram = Path("/dev/shm")
    on_ram = ram.is_dir() and shutil.disk_usage(ram).free > ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="tds-bench-", dir=ram if on_ram else None))
    server = Postgres.create(folder / "postgres", settings=_DURABLE)
    try:
        server.launch()
        yield Place(server=server, on_ram=on_ram)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def execute(url: str, *statements: str) -> None:
    """Run *statements* one after the other, each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def run(place: Place, url: str, clients: Sequence[Mapping[str, Any]], jobs: int) -> Cost:
    """Let *clients* finish *jobs* on the database *url*, and say what that cost.

    Each client is a process that gets ready, waits for the word, and counts aloud. When they have counted to *jobs*
    together the meters are read: getting ready and taking leave cost nothing here.
    """
    async with clients_ready(url, clients, jobs) as processes:
        rows_before = await rows_written(url)
        meters = [psutil.Process(process.pid) for process in processes]
        clients_before = sum(sum(meter.cpu_times()[:2]) for meter in meters)
        server_before, began = place.cpu_seconds(), time.perf_counter()
        for process in processes:
            say(process)
        _count(processes, jobs)
        wall = time.perf_counter() - began
        clients_after = sum(sum(meter.cpu_times()[:2]) for meter in meters)
        server_after = place.cpu_seconds()
        peaks = [_peak_mb(process.pid) for process in processes]
    return Cost(
        jobs=jobs,
        server_us=(server_after - server_before) / jobs * 1e6,
        client_us=(clients_after - clients_before) / jobs * 1e6,
        wall_seconds=wall,
        peak_mb=max(peaks),
        rows=await rows_written(url) - rows_before,
    )


@contextlib.asynccontextmanager
async def clients_ready(
    url: str, clients: Sequence[Mapping[str, Any]], jobs: int
) -> AsyncIterator[list[subprocess.Popen[str]]]:
    """The clients' processes, ready to begin; told to end, and gone, at the end."""
    processes = [_start({**client, "url": url, "jobs": jobs}) for client in clients]
    try:
        for process in processes:
            hear(process, "ready")
        yield processes
        for process in processes:
            say(process)
            process.wait(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def _start(task: Mapping[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_CHILD), json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


async def rows_written(url: str) -> int:
    """Rows inserted or updated so far in the ERP's entity tables: everything but the queue and its kin."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return int(
            await connection.fetchval(
                "SELECT coalesce(sum(n_tup_ins + n_tup_upd), 0) FROM pg_stat_user_tables"
                " WHERE schemaname = 'public' AND relname !~ '^(tds_|bench_source|procrastinate|pgqueuer)'"
            )
        )
    finally:
        await connection.close()


def _count(processes: Sequence[subprocess.Popen[str]], jobs: int) -> None:
    """Add up what the clients count aloud until all jobs are done."""
    done = dict.fromkeys(range(len(processes)), 0)
    with selectors.DefaultSelector() as selector:
        for number, process in enumerate(processes):
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            selector.register(process.stdout, selectors.EVENT_READ, number)
        while sum(done.values()) < jobs:
            for key, _ in selector.select(timeout=600):
                data = os.read(key.fd, 65536).decode()
                if not data:
                    raise RuntimeError(f"a client ended after {sum(done.values())} of {jobs} jobs")
                done[key.data] = int(data.split()[-1])


def hear(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    heard = process.stdout.readline().strip()
    if heard != word:
        raise RuntimeError(f"a client said {heard!r} instead of {word!r}")


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()


def _peak_mb(pid: int) -> float:
    """The high-water mark of a process's own memory; `ru_maxrss` would begin with its parent's."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
