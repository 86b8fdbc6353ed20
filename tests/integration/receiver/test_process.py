"""The receiver as a process: how it starts and refuses to, and what is left when it or its database is killed."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.receiver.calls import ITEM, SECRET, body, rows, signed

ROOT = Path(__file__).parents[3]


async def start(url: str, *words: str) -> Process:
    """`runbook receive` with the database's address and a secret in its environment."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "flows.cli", "receive", "--database-url", "env:PLACE_URL", *words),
        env=os.environ | {"PLACE_URL": url, "PLACE_SECRET": SECRET, "PLACE_SHORT": "short"},
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )


@asynccontextmanager
async def receiving(url: str, *words: str) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """A running receiver and a client of it; killed at the end if it still lives."""
    process = await start(url, "--port", "0", *words)
    try:
        port = await port_of(process)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
        ) as client:
            limit = time.monotonic() + 60
            while True:
                assert process.returncode is None
                assert time.monotonic() < limit
                try:
                    await client.get("/metrics")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def port_of(process: Process) -> int:
    """The port that the receiver took, as its log names it."""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        async for line in process.stderr:
            said += line
            if found := re.search(rb"running on http://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
    raise AssertionError(said.decode())


class Sender:
    """Sends one record after the other, several at a time, and remembers which were accepted."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        self.stopped = False
        self._client = client
        self._number = 0

    async def run(self, *, patient: bool) -> None:
        """Send until stopped; a *patient* one sends what was not accepted again, as the source does."""
        while not self.stopped:
            self._number += 1
            key = str(self._number)
            for _ in range(2000 if patient else 1):
                if await self._sent(key):
                    break
                await asyncio.sleep(0.05 if patient else 0)

    async def _sent(self, key: str) -> bool:
        raw = body(ITEM | {"item_id": key})
        try:
            answer = await self._client.post("/webhooks/products", content=raw, headers=signed(raw))
        except httpx.TransportError:
            return False
        self.statuses.add(answer.status_code)
        if answer.status_code == 200:
            self.accepted.append(key)
        return answer.status_code == 200


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until the condition holds."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        await asyncio.sleep(0.01)


async def keys(engine: AsyncEngine) -> list[str]:
    return [row["source_entity_id"] for row in await rows(engine)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--secret"),
        (("--no-signature", "--secret", "env:PLACE_SECRET"), "--secret"),
        (("--no-signature", "--host", "0.0.0.0"), "only this machine"),
        (("--secret", "env:PLACE_NOTHING"), "PLACE_NOTHING is not set"),
        (("--secret", SECRET), "must be a reference"),
        (("--secret", "env:PLACE_SHORT"), "at least 12"),
    ],
)
async def test_without_a_proper_secret_it_does_not_start(words: tuple[str, ...], said: str) -> None:
    """Failing closed, in one sentence, and without ever saying a secret."""
    process = await start("postgresql://nobody@127.0.0.1:1/none", "--port", "0", *words)
    out, err = await process.communicate()
    assert process.returncode == 5
    assert said in err.decode()
    assert "Traceback" not in err.decode()
    assert SECRET not in (out + err).decode()


async def test_a_port_that_is_taken_is_said(database_url: str) -> None:
    """One sentence that names the port."""
    async with receiving(database_url, "--no-signature") as (_, client):
        process = await start(database_url, "--no-signature", "--port", str(client.base_url.port))
        _, err = await process.communicate()
        assert process.returncode == 5
        assert str(client.base_url.port) in err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_what_was_answered_is_written_however_it_ends(
    engine: AsyncEngine, database_url: str, number: signal.Signals
) -> None:
    """After SIGTERM it answers the calls in progress and exits with 0; after SIGKILL all answered calls are stored."""
    async with receiving(database_url, "--secret", "env:PLACE_SECRET") as (process, client):
        sender = Sender(client)
        sending = [asyncio.create_task(sender.run(patient=False)) for _ in range(8)]
        await until(lambda: len(sender.accepted) >= 40)
        process.send_signal(number)
        began = time.monotonic()
        _, err = await process.communicate()
        assert time.monotonic() - began < 20
        sender.stopped = True
        await asyncio.gather(*sending)
        assert process.returncode == (-9 if number is signal.SIGKILL else 0)
    found = await keys(engine)
    assert set(sender.accepted) <= set(found)
    assert len(found) == len(set(found))
    assert sender.statuses <= {200, 503}
    assert "Traceback" not in err.decode()
    assert SECRET not in err.decode()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many connections as the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_idle_connections_do_not_close_the_door(database_url: str) -> None:
    """The source is served among them, they cost little memory, and the shutdown does not wait for them."""
    async with receiving(database_url, "--secret", "env:PLACE_SECRET") as (process, client):
        port = client.base_url.port
        assert port is not None
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        # On a connection of its own: the client's is idle longest, and may be the one that is closed for the others.
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=client.base_url) as source:
            answer = await source.post("/webhooks/products", content=body(ITEM), headers=signed(body(ITEM)))
        assert answer.status_code == 200
        told = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        (peak,) = (int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM"))
        assert peak < 200 * 1024
        process.terminate()
        async with asyncio.timeout(10):
            _, err = await process.communicate()
        assert process.returncode == 0
        assert "Traceback" not in err.decode()
        for _, writer in idle:
            writer.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Postgres]:
    """A server that this test may break."""
    server = Postgres.start(tmp_path / "postgres")
    yield server
    server.stop()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_database_that_goes_away_loses_nothing(own_server: Postgres, how: signal.Signals) -> None:
    """503 with a time to come back while it is away; what is then sent again is there once, and nothing is missing."""
    url = await own_server.create_database("erp")
    connection = await asyncpg.connect(url)
    await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    await connection.close()
    engine = engine_for(url)
    async with receiving(url, "--secret", "env:PLACE_SECRET") as (_, client):
        sender = Sender(client)
        sending = [asyncio.create_task(sender.run(patient=True)) for _ in range(4)]
        await until(lambda: len(sender.accepted) >= 20)
        await asyncio.to_thread(own_server.stop, how)
        await until(lambda: 503 in sender.statuses)
        answer = await client.post("/webhooks/products", content=body(ITEM), headers=signed(body(ITEM)))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/health")).status_code == 503
        before = len(sender.accepted)
        own_server.restart()
        await until(lambda: len(sender.accepted) >= before + 20)
        sender.stopped = True
        await asyncio.gather(*sending)
    found = await keys(engine)
    await engine.dispose()
    assert sorted(found) == sorted(sender.accepted)
    assert sender.statuses == {200, 503}


async def test_it_starts_before_its_database_and_waits_for_it(own_server: Postgres) -> None:
    """No database at the start is no reason to end: calls are refused until it is there."""
    url = await own_server.create_database("erp")
    own_server.stop()
    async with receiving(url, "--no-signature") as (_, client):
        assert (await client.post("/webhooks/products", content=body(ITEM))).status_code == 503
        own_server.restart()
        connection = await asyncpg.connect(url)
        await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
        await connection.close()
        limit = time.monotonic() + 20
        while (await client.get("/health")).status_code != 200:
            assert time.monotonic() < limit
            await asyncio.sleep(0.1)
        assert (await client.post("/webhooks/products", content=body(ITEM))).status_code == 200


async def test_the_secret_is_not_in_the_list_of_processes(database_url: str) -> None:
    """Its arguments name where the secret is, and not what it is."""
    async with receiving(database_url, "--secret", "env:PLACE_SECRET") as (process, _):
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert b"env:PLACE_SECRET" in arguments
    assert SECRET.encode() not in arguments
