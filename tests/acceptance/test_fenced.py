"""A controller that was suspended, replaced, and continued: it is fenced off, and changes nothing more."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.errors import LockLost
from handlers.host.command import Command
from handlers.host.operations import run_operation
from handlers.host.ssh import open_hosts
from handlers.release import lock
from tests.acceptance.killing import WHY, Place, Point, end

pytestmark = pytest.mark.timeout(1800)

SWITCHING = Point(
    name="a host is being switched",
    query="SELECT EXISTS (SELECT FROM runbook.operation WHERE kind = 'activate' AND outcome IS NULL)",
)
DRAINING = Point(
    name="the other one drains",
    query="SELECT EXISTS (SELECT FROM runbook.takeover) AND EXISTS (SELECT FROM runbook.batch WHERE number = 1)",
)
BY_TOKEN = "SELECT id, outcome::text FROM runbook.operation WHERE token = $1 ORDER BY id"


async def refused_everywhere(place: Place, token: int) -> None:
    """The lock and each host know a higher token, and refuse this one."""
    async with open_core(load_environment(place.environment)) as core:
        with pytest.raises(LockLost):
            await lock.renew(core.database, core.environment.name, token)
        async with open_hosts(core.environment) as shells:
            for shell in shells:
                with pytest.raises(LockLost):
                    await run_operation(shell, "too-late", token, Command("true"))


async def test_a_suspended_controller_that_was_replaced_changes_nothing_and_ends() -> None:
    """Suspended while a host is switched and another controller takes over, it is refused and ends."""
    with tempfile.TemporaryDirectory(prefix="tds-f-") as folder:
        async with Place.make(Path(folder).resolve(), "good") as place:
            run = await place.plan()
            async with place.live_traffic():
                suspended = place.drive(run, "--without-prefect")
                drivers = [suspended]
                try:
                    await place.at(SWITCHING, suspended)
                    os.kill(suspended.pid, signal.SIGSTOP)
                    successor = place.drive(run, "--without-prefect", "--take-over", WHY)
                    drivers.append(successor)
                    await place.at(DRAINING, successor)
                    token = (await place.rows("SELECT min(token) AS token FROM runbook.operation"))[0][
                        "token"
                    ]
                    before = await place.rows(BY_TOKEN, token)
                    os.kill(suspended.pid, signal.SIGCONT)
                    assert await asyncio.to_thread(suspended.wait, 30) > 0
                    assert "has taken the lock" in place.driver_log()
                    await refused_everywhere(place, token)
                    assert await asyncio.to_thread(successor.wait, 120) == 0, place.driver_log()
                finally:
                    for driver in drivers:
                        await end(driver)
            assert await place.rows(BY_TOKEN, token) == before
            releases = await place.rows(
                "SELECT phase::text, reason FROM runbook.release WHERE id = $1", run.id
            )
            assert releases[0]["phase"] == "succeeded", releases
            assert set((await place.running()).values()) == {place.target.revision}
