"""Looking at a rehearsal's target from outside."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from sqlalchemy import text

from rehearsal.hosts.host import WORKERS_UNIT, RehearsalHost
from rehearsal.target import Target


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Poll until *true* holds; the bound only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.05)


def folders(parent: Path) -> list[Path]:
    """The folders of rehearsals in *parent*."""
    return list(parent.glob("tds-rehearsal-*"))


async def rows(target: Target, query: str) -> list[tuple[object, ...]]:
    """What the target's database says."""
    engine = target.engine()
    try:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]
    finally:
        await engine.dispose()


async def switch(target: Target, host: RehearsalHost, name: str) -> None:
    """Put a revision on a host by hand, the way a deploy does in the end."""
    await asyncio.to_thread(git, host, "fetch", "--quiet", "origin")
    await asyncio.to_thread(git, host, "checkout", "--quiet", "--detach", target.revisions[name])
    assert (await asyncio.to_thread(host.systemctl, "restart", "tsh-erp", WORKERS_UNIT)).returncode == 0


def git(host: RehearsalHost, *words: str) -> str:
    """Run git in the host's checkout, as the host would."""
    command = ["git", "-C", str(host.checkout), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=host.environment).stdout


async def health(host: RehearsalHost) -> tuple[int, dict[str, object]]:
    """The host's health answer, 0 for none."""
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            answer = await http.get(host.health_url)
        except httpx.HTTPError:
            return 0, {}
        return answer.status_code, answer.json()


async def answers(host: RehearsalHost, sha: str) -> tuple[int, dict[str, object]]:
    """Wait until the host's web process runs *sha* and its workers say the same."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, body = await health(host)
        if body and body["revision"] == sha and body["workers"] == {"revisions": [sha]}:
            return status, body
        await asyncio.sleep(0.05)
    raise AssertionError(f"{host.name}: {await health(host)}; {host.log_end()}")


async def statuses(target: Target) -> dict[str, int]:
    """The backlog's events by status."""
    counted = await rows(
        target,
        "SELECT q.status::text, count(*) FROM tds_sync_queue q"
        " JOIN rehearsal.seeded s ON s.id = q.id AND s.status = 'dead_letter' GROUP BY 1",
    )
    return {str(status): int(str(count)) for status, count in counted}
