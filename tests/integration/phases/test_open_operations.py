"""No operation of a release that has ended stays without an outcome: the hosts are asked."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import open_core
from handlers.host.command import Command
from handlers.host.operations import run_operation
from handlers.host.ssh import Shell
from handlers.phases import begin, open_operations
from handlers.release import lock
from handlers.release.ledger import intents, releases
from handlers.release.phase import Phase, Release
from tests.integration.host.ssh_target import CLOSED_PORT, serve
from tests.integration.release.steps import deploying


async def test_the_hosts_are_asked_about_operations_without_an_outcome(
    tmp_path: Path, database_url: str
) -> None:
    """Done, failed, never sent, interrupted, on a host that is down, on a host that is not known any more."""
    async with serve(tmp_path, "web-1", "web-2") as target:
        known = target.environment(database={"url": database_url})
        dead = known.hosts[1].model_copy(update={"port": CLOSED_PORT})
        environment = known.model_copy(update={"hosts": (known.hosts[0], dead)})
        async with open_core(environment) as core:
            release = await deploying(core.database)
            for operation in ("done", "failed", "never-sent", "interrupted"):
                await _intend(core.database, release, operation, "web-1")
            await _intend(core.database, release, "unreachable", "web-2")
            await _intend(core.database, release, "of-a-former-host", "web-9")
            shell = Shell(environment, environment.hosts[0])
            await run_operation(shell, "done", 1, Command("echo", "all good"))
            await run_operation(shell, "failed", 1, Command("false"))
            shell.close()
            job = target.state() / "jobs" / "interrupted"
            job.mkdir()
            (job / "pid").write_text("999999 1 another-boot\n")
            await open_operations.settle(core, release)
            found = {
                operation.id: (operation.outcome, operation.exit_status, operation.output)
                for operation in await intents.operations(core.database, release)
            }
    assert found["done"] == ("done", 0, "all good\n")
    assert found["failed"][:2] == ("failed", 1)
    assert found["never-sent"] == ("failed", None, "never-sent was never sent to web-1: nothing was done")
    assert found["interrupted"][0] == "unknown"
    assert found["unreachable"][0] == "unknown"
    assert "cannot be reached" in found["unreachable"][2]
    assert found["of-a-former-host"] == ("unknown", None, "web-9 is not in the environment file")


async def test_an_abort_leaves_no_operation_without_an_outcome(tmp_path: Path, database_url: str) -> None:
    """A release that was aborted while a host prepared asks the host what became of it."""
    async with serve(tmp_path, "web-1") as target:
        environment = target.environment(database={"url": database_url})
        async with open_core(environment) as core:
            release = await deploying(core.database, environment.name)
            await intents.intend(
                core.database,
                release,
                operation_id="cut-off",
                host="web-1",
                kind="prepare",
                command="a command",
            )
            assert release.token is not None
            await lock.free(core.database, environment.name, release.token)
            await begin.abort(core, release, by="ops-a", reason="a test")
            assert (await releases.get(core.database, release.id)).phase is Phase.ABORTED
            assert await intents.open_operations(core.database, release) == []


async def _intend(engine: AsyncEngine, release: Release, operation: str, host: str) -> None:
    await intents.intend(
        engine, release, operation_id=operation, host=host, kind="activate", command="a command"
    )
