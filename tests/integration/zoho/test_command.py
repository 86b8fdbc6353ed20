"""The command `runbook sync` as a process of its own: killed, carried on, asked wrongly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.zoho.sources import P, Place, fill, place


async def command(here: Place, *words: str) -> tuple[int, str, str]:
    """Run `runbook sync …` to its end."""
    process = await start(here, *words)
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def start(here: Place, *words: str) -> asyncio.subprocess.Process:
    """Start `runbook sync …`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "flows.cli",
        "sync",
        *words,
        "-e",
        str(here.path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(here.path.parent / "state")},
    )


@pytest.mark.parametrize("at", ["page 2", "record 230"])
async def test_a_killed_sync_goes_on_and_queues_nothing_twice(
    tmp_path: Path, database_url: str, at: str
) -> None:
    """SIGKILL at any call: the next start goes on at once, where the ledger says."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 260)
        reached = asyncio.Event()
        kind, _, number = at.partition(" ")

        def stop_there(path: str, query: Mapping[str, str]) -> None:
            is_there = (
                query.get("page") == number if kind == "page" else here.source.asked("/items/") == int(number)
            )
            if is_there and not reached.is_set():
                here.source.delay_seconds = 30
                reached.set()

        here.source.before = stop_there
        process = await start(here, "full", "--entity", "Product", "--json")
        async with asyncio.timeout(60):
            await reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        here.source.delay_seconds = 0
        before = len(await here.events())
        if kind == "page":
            _, out, _ = await command(here, "status")
            assert f"its process has ended; `runbook sync full -e {here.path}` goes on with it" in out
        code, out, errors = await command(here, "full", "--entity", "Product", "--json")
        assert code == 0, errors
        assert json.loads(out)["state"] == "done"
        await here.work()
        assert (await here.column(P, "name")).keys() == set(keys)
        events = [event.key for event in await here.events()]
        assert len(events) == len(set(events)) == 260
        # What was written before the kill was not read again, but for the calls of one chunk that were under way.
        assert here.source.asked("/items/") <= 260 + 50
        assert before >= 200


async def test_a_dry_run_changes_nothing(tmp_path: Path, database_url: str) -> None:
    """It names what a sync would do, and writes neither events nor its place."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 5)
        await here.sync_and_work(*full())
        organisation = here.source.organisation
        organisation.change(P, keys[0], name="changed")
        organisation.drift(P, keys[1], stock_on_hand=77)
        organisation.delete(P, keys[2])
        fill(here.source, 1, first=9)
        before = await everything(here)
        code, out, errors = await command(here, "full", "--entity", "Product", "--dry-run", "--json")
        assert code == 0, errors
        [found] = json.loads(out)["would"]
        assert {name: found[name] for name in ("listed", "new", "changed", "drifted", "missing")} == {
            "listed": 5,
            "new": 1,
            "changed": 1,
            "drifted": 1,
            "missing": 1,
        }
        assert f"{keys[2]} missing" in found["examples"]
        assert await everything(here) == before


def full() -> tuple[Any, ...]:
    """The arguments of a full sync of products."""
    from handlers.zoho.runs import Kind

    return (Kind.FULL, P)


async def everything(here: Place) -> list[Any]:
    """Whatever a sync could change."""
    return [
        await here.query(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        for table in (
            "tds_sync_queue",
            "runbook.sync_run",
            "runbook.sync_step",
            "runbook.sync_seen",
            "runbook.sync_day",
        )
    ]


async def test_what_people_see(tmp_path: Path, database_url: str) -> None:
    """One line for each entity type and one sentence; `status` says it again."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        code, out, errors = await command(here, "full", "--entity", "product", "--plain")
        assert code == 0, errors
        assert "Product" in out
        assert "done: 1 entity type read, 3 records found, 3 changes queued, 0 of them deletes" in out
        code, out, _ = await command(here, "status")
        assert (code, "full 1: done, 1 entity type read" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("full", "--entity", "Products"), "unknown entity 'Products'"),
        (("half",), "No such command 'half'"),
        (("stock", "--entity", "Product"), "No such option"),
    ],
)
async def test_a_wrong_word_is_refused(
    tmp_path: Path, database_url: str, words: tuple[str, ...], said: str
) -> None:
    """Exit code 5, and nothing is asked of the source."""
    async with place(tmp_path, database_url) as here:
        code, _, errors = await command(here, *words)
        assert (code, said in errors) == (5, True), errors
        assert here.source.calls.total() == 0


async def test_without_the_table_nothing_is_synced(tmp_path: Path, database_url: str) -> None:
    """Exit code 5, with where the table is explained."""
    async with place(tmp_path, database_url) as here:
        here.path.write_text(here.path.read_text(encoding="utf-8").partition("[zoho]")[0], encoding="utf-8")
        code, _, errors = await command(here, "incremental", "--dry-run")
        assert (code, "no table [zoho]" in errors) == (5, True), errors
