"""Two environments on a server of their own, with something of everything, and a board on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import asyncpg
import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from board.application import application
from board.place import Place, open_places
from board.serve import Listen, server_config
from handlers.database.migrate import upgrade
from handlers.erp.adopt import adopt
from handlers.queue import limits
from handlers.queue.event import EntityType
from handlers.release.ledger import heals, outbox, releases
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import Phase, Verdict
from handlers.release.topic import Topic
from handlers.zoho import runs
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.phases.looks import FILE
from tests.integration.queue.events import dead_letter, event
from tests.integration.release.steps import deploying, in_phase

TOKEN = "a-token-of-more-than-twenty"
SENTINEL = "s3ntinel-passw0rd"
"""A secret that stands in a sentence, and must be in no answer."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The server, its database, and the files of the environments `production` and `staging`."""

    server: Postgres
    url: str
    engine: AsyncEngine
    folder: Path

    @property
    def files(self) -> list[str]:
        """The environment files."""
        return [str(self.folder / f"{name}.toml") for name in ("production", "staging")]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """An environment that is guarded, one that watches a release, and their queue."""
    server = Postgres.start(folder / "postgres")
    url = await server.create_database("erp")
    connection = await asyncpg.connect(url)
    await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    await connection.close()
    engine = engine_for(url)
    try:
        await adopt(engine)
        await upgrade(engine)
        await _fill(engine)
        secret = folder / "password"
        secret.write_text(make_url(url).password or "")
        hook = folder / "hook"
        hook.write_text(SENTINEL)
        shown = make_url(url).render_as_string(hide_password=False)
        more = f'[notify]\n[[notify.addresses]]\nname = "chat"\nurl = "file:{hook}"\n'
        for name in ("production", "staging"):
            path = folder / f"{name}.toml"
            path.write_text(FILE.format(name=name, url=shown, more="") + more, encoding="utf-8")
        yield World(server=server, url=url, engine=engine, folder=folder)
    finally:
        await engine.dispose()
        server.stop()


async def _fill(engine: AsyncEngine) -> None:
    done = {
        "status": "completed",
        "started_at": "sql:created_at",
        "completed_at": "sql:created_at + interval '4 s'",
    }
    for number in range(25):
        await event(engine, f"now {number}", entity=EntityType.INVOICE, age=120, **done)
        await event(engine, f"before {number}", age=1.5 * 86_400, **done)
    for number in range(3):
        await dead_letter(engine, f"4711{number}", error_message=f"no rate for item 4711{number}")
    await event(engine, "open")
    await in_phase(engine, Phase.SUCCEEDED, "production")
    run = await deploying(engine, "staging")
    host = HostNote(have="b" * 40, ok=True)
    await releases.note(engine, run, PhaseNote(hosts={"web-1": host}, looked=f"asked with {SENTINEL}"))
    run = await releases.enter(
        engine, run, Phase.PROBING, verdict=Verdict.PASS, sentence=f"1 of 1 hosts, {SENTINEL}"
    )
    await limits.limit(engine, None, per_ten_seconds=50, seconds=3600, by="ops-a", reason="slow disk")
    await outbox.write(engine, "staging", Topic.UPSTREAM_AWAY, "it answers with 503", release_id=run.id)
    healing = await heals.claim(engine, "production", by="ops-a", seconds=60)
    assert healing is not None
    await heals.free(engine, healing, sentence="nothing to heal")
    sync = await runs.begin(engine, "production", runs.Kind.FULL, [EntityType.PRODUCT], by="ops-a")
    await runs.settle(engine, sync, runs.State.DONE, "12 records")
    await runs.begin(engine, "production", runs.Kind.FULL, [EntityType.PRODUCT], by="ops-a")
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE runbook.guard_check SET taken_at = clock_timestamp(), finding = 'HEALTHY', sentence = 'good' "
                "WHERE number = 1"
            )
        )
        await tx.execute(
            text(
                "INSERT INTO runbook.worker (owner, host, pid, revision) "
                "VALUES ('w-1', 'web-1', 1, :new), ('w-2', 'web-1', 2, :old)"
            ),
            {"new": "b" * 40, "old": "a" * 40},
        )


class Server(uvicorn.Server):
    """A server inside the tests' own loop, which leaves their signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(places: dict[str, Place], token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a board of these environments."""
    app = application(places, SecretStr(token) if token else None)
    # uvicorn mutes this logger for the whole process, in which other tests run as well.
    access_log = logging.getLogger("uvicorn.access")
    propagated = access_log.propagate
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(server_config(app, Listen()))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        port = listening.getsockname()[1]
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30
            ) as client:
                yield client
        finally:
            server.should_exit = True
            await task
            access_log.propagate = propagated


@asynccontextmanager
async def board_of(names: list[str], token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh board, which has read nothing yet."""
    async with open_places(names) as places, serving(places, token) as client:
        yield client
