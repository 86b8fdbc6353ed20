"""A sync brings the ERP's tables to what the source has, through the queue and the workers."""

from __future__ import annotations

from pathlib import Path

from handlers.errors import ExitCode
from handlers.zoho.runs import Kind, State
from tests.integration.zoho.sources import P, fill, place


async def test_a_full_sync_fills_the_tables(tmp_path: Path, database_url: str) -> None:
    """Every record of the list is read whole, queued, and applied by a worker."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 7)
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.state, done.exit_code) == (State.DONE, ExitCode.GOOD), done.sentence
        assert await here.column(P, "name") == {key: f"item {at}" for at, key in enumerate(keys)}
