"""A pooler that lends sessions out by the transaction is refused; one in session mode is like none."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import (
    controller_engine,
    raise_if_impossible,
    receiver_engine,
    worker_engine,
)
from handlers.database.transaction import transaction
from handlers.environment.model import Database
from handlers.errors import DatabaseDown, Refused
from handlers.queue.event import Status
from rehearsal.postgres import free_port
from tests.integration.queue.events import event
from tests.integration.worker.steps import make_effect, statuses, until, worker

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
IGNORED = "ignore_startup_parameters = plan_cache_mode,idle_in_transaction_session_timeout,enable_seqscan"


@contextmanager
def pgbouncer(url: str, *settings: str) -> Iterator[str]:
    """A pgbouncer in front of *url* with these lines in its file; yields its address."""
    assert PGBOUNCER is not None
    place, port = make_url(url), free_port()
    lines = [
        "[databases]",
        f"erp = host={place.host} port={place.port} dbname={place.database} user={place.username}"
        f" password={place.password}",
        "[pgbouncer]",
        *("listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =", "auth_type = any"),
        *("default_pool_size = 5", *settings),
        # It does not run as root.
        *(["user = nobody"] if os.getuid() == 0 else []),
    ]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text("\n".join(lines))
    process = subprocess.Popen([PGBOUNCER, "-q", folder / "pgbouncer.ini"], stderr=subprocess.DEVNULL)
    try:
        yield f"postgresql://someone@127.0.0.1:{port}/erp"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def runbook(url: str, *words: str) -> tuple[int, str]:
    """A command on the database at *url*: its exit code, and what it shows, in one line."""
    command = [str(Path(sys.executable).with_name("runbook")), *words, "--database-url", "env:PLACE"]
    environment = os.environ | {"PLACE": url}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).decode().split())


@asynccontextmanager
async def disposed(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        yield engine
    finally:
        await engine.dispose()


async def answer(engine: AsyncEngine) -> None:
    """Ask *engine* for its first connection, until the pooler listens."""
    ends = time.monotonic() + 10
    while True:
        try:
            async with transaction(engine) as tx:
                await tx.execute(text("SELECT 1"))
        except DatabaseDown as error:
            if "Connect call failed" not in str(error) or time.monotonic() > ends:
                raise
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["plain", "ignoring"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_worker_receiver_and_controller_refuse_a_shared_session(
    database_url: str, mode: str, ignored: str
) -> None:
    """The usual cure, to ignore our settings, changes nothing: locks and LISTEN would still be lost."""
    with pgbouncer(database_url, f"pool_mode = {mode}", ignored) as url:
        place = Database(url=url)
        for engine in (worker_engine(url), receiver_engine(place), controller_engine(place)):
            async with disposed(engine):
                with pytest.raises(Refused, match=r"pooler in transaction mode.*address of the database"):
                    await answer(engine)


async def test_a_shared_session_is_found_whichever_one_is_lent_next(database_url: str) -> None:
    """Also when the pooler takes its sessions in turn."""
    turns = ("server_round_robin = 1", "min_pool_size = 4", IGNORED)
    with pgbouncer(database_url, "pool_mode = transaction", *turns) as url:
        async with disposed(worker_engine(url)) as engine:
            with pytest.raises(Refused, match="pooler in transaction mode"):
                await answer(engine)


async def test_the_commands_end_with_that_sentence(database_url: str) -> None:
    """Neither worker nor receiver waits for a database that is there, and neither shows a traceback."""
    with pgbouncer(database_url, "pool_mode = transaction") as url:
        async with disposed(worker_engine(url)) as engine:
            with pytest.raises(Refused):
                await answer(engine)
        words = ["worker"], ["receive", "--no-signature", "--port", "0"]
        for code, shown in await asyncio.gather(*(asyncio.to_thread(runbook, url, *each) for each in words)):
            assert code == 5
            assert "pooler in transaction mode" in shown
            assert "Traceback" not in shown


@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["plain", "ignoring"])
async def test_a_pooler_in_session_mode_is_like_no_pooler(
    engine: AsyncEngine, database_url: str, ignored: str
) -> None:
    """Settings, prepared statements and LISTEN work: a worker hears of an event at once."""
    await make_effect(engine)
    with pgbouncer(database_url, "pool_mode = session", ignored) as url:
        async with disposed(worker_engine(url)) as own:
            await answer(own)
            async with transaction(own) as tx:
                shown = (await tx.execute(text("SHOW plan_cache_mode"))).scalar_one()
            assert shown == "force_custom_plan"
            stop = asyncio.Event()
            running = asyncio.create_task(worker(own, poll_seconds=0.2).run(stop))
            id_ = await event(engine, "1")

            async def done() -> bool:
                return await statuses(engine, [id_]) == [Status.COMPLETED]

            await until(done)
            stop.set()
            await asyncio.wait_for(running, 10)


async def test_a_pooler_whose_server_is_away_is_waited_for(database_url: str) -> None:
    """Its code is that of a wrong protocol: only its words tell a refusal from an absence."""
    gone = make_url(database_url).set(port=1).render_as_string(hide_password=False)
    with pgbouncer(gone, "pool_mode = session", IGNORED, "query_wait_timeout = 1") as url:
        async with disposed(worker_engine(url)) as engine:
            with pytest.raises(DatabaseDown):
                await answer(engine)
            await raise_if_impossible(engine)
