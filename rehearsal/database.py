"""The ERP's database of a rehearsal: its tables, our additions, the ledger, and what is in the queue."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.database.migrate import upgrade
from handlers.erp.adopt import adopt
from rehearsal import cues, sentinels
from rehearsal.consistency.audit import install_audit
from rehearsal.pace import Pace
from rehearsal.postgres import Postgres
from rehearsal.story import Story
from rehearsal.webhooks import backlog


async def make_database(
    server: Postgres, story: Story, pace: Pace, *, password: str, password_file: Path
) -> str:
    """Make role, database, tables and backlog on *server*; returns the address, password included."""
    admin = await asyncpg.connect(server.url())
    try:
        await admin.execute(f"CREATE ROLE erp LOGIN PASSWORD '{password}'")
        await admin.execute("CREATE DATABASE erp OWNER erp")
    finally:
        await admin.close()
    sentinels.write_secret(password_file, password)
    url = f"postgresql://erp:{password}@127.0.0.1:{server.port}/erp"
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(files(__package__).joinpath("erp.sql").read_text(encoding="utf-8"))
    finally:
        await owner.close()
    engine = engine_of(url)
    try:
        await adopt(engine)
        await upgrade(engine)
        await backlog.seed(engine, story.variant, slowest_seconds=pace.slowest_seconds)
        await install_audit(engine)
        if story.plot.turn is not None and story.plot.turn.blip_seconds is not None:
            await cues.install_blip(engine)
    finally:
        await engine.dispose()
    return url


def engine_of(url: str) -> AsyncEngine:
    """A new engine on the ERP's database; the caller disposes of it."""
    return create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
