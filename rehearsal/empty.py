"""An empty database with the ERP's tables, for as long as a command tries payloads on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.erp.adopt import adopt
from rehearsal.postgres import Postgres
from rehearsal.running import in_thread


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[URL]:
    """Start a server in *folder*, make the ERP's tables and our additions, and give SQLAlchemy's address."""
    server = await in_thread(lambda: Postgres.create(folder / "postgres"))
    # From this thread: the server ends with the thread that started it.
    server.spawn()
    try:
        await in_thread(server.wait_ready)
        url = make_url(server.url()).set(drivername="postgresql+asyncpg")
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(files(__package__).joinpath("erp.sql").read_text(encoding="utf-8"))
        finally:
            await connection.close()
        engine = create_async_engine(url)
        try:
            await adopt(engine)
        finally:
            await engine.dispose()
        yield url
    finally:
        server.stop()
