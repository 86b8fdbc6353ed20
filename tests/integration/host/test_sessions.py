"""SSH: a server that refuses one session of a connection loses neither that command nor the others."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import asyncssh
import pytest

from handlers.errors import Unreachable
from handlers.host.command import Command
from handlers.host.ssh import Shell
from rehearsal.hosts.sshd import Sshd, make_key
from tests.integration.host.ssh_target import Target, open_host


class Limited(asyncssh.SSHServer):
    """A server that refuses a session while it has as many as it allows; it counts a closed one for a while longer."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.refused = 0
        self.is_full = asyncio.Event()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember the connection, which the test closes."""
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        """Let everybody in."""
        return False

    def session_requested(self) -> asyncssh.SSHServerProcess[str] | bool:
        """One more session, or a refusal."""
        if self.allowed == 0:
            self.refused += 1
            raise asyncssh.ChannelOpenError(2, "open failed")
        self.allowed -= 1
        if self.allowed == 0:
            self.is_full.set()
        return asyncssh.SSHServerProcess(self._serve, None, 3, False)  # type: ignore[no-untyped-call]

    async def _serve(self, process: asyncssh.SSHServerProcess[str]) -> None:
        local = await asyncio.create_subprocess_shell(
            process.command or "", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        await process.redirect(stdin=local.stdin, stdout=local.stdout, stderr=local.stderr)
        process.exit(await local.wait())
        await process.wait_closed()
        asyncio.get_running_loop().call_later(0.05, self._cleared)

    def _cleared(self) -> None:
        self.allowed += 1


@asynccontextmanager
async def limited(folder: Path, allowed: int, **ssh: float) -> AsyncIterator[tuple[Shell, Limited]]:
    """A shell on a server with this many sessions."""
    make_key(folder / "host_key")
    make_key(folder / "client_key")
    server = Limited(allowed)
    listener = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: server, server_host_keys=[str(folder / "host_key")]
    )
    port = listener.get_port()
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    door = SimpleNamespace(user="deploy", key_file=folder / "client_key", port=port)
    target = Target(folder=folder, origin=folder, hosts={}, servers={"web-1": cast("Sshd", door)})
    environment = target.environment(ssh=ssh)
    async with listener, open_host(environment, environment.hosts[0]) as shell, server.connection:
        yield shell, server


async def test_a_refused_session_waits_for_the_others_and_cuts_none_of_them_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server with two sessions serves twenty commands at once, on one connection, and no log has an error."""
    async with limited(tmp_path, 2) as (shell, server):
        results = await asyncio.gather(*(shell.run(Command("echo", n)) for n in range(20)))
        assert [int(result.stdout) for result in results] == list(range(20))
        assert server.refused > 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_command_that_gets_no_session_in_time_leaves_the_others_alone(tmp_path: Path) -> None:
    """Its own limit ends the waiting; nothing was sent, so that a retry is safe. The other command ends well."""
    async with limited(tmp_path, 1) as (shell, server):
        gate = tmp_path / "gate"
        body = f"until [ -e '{gate}' ]; do sleep 0.05; done; echo done"
        busy = asyncio.create_task(shell.run(Command.procedure(body, title="busy")))
        await server.is_full.wait()
        with pytest.raises(Unreachable, match="does not open a session"):
            await shell.run(Command("true", changes=True), limit=0.5)
        gate.touch()
        assert (await busy).stdout == "done\n"


async def test_a_server_that_opens_no_session_is_unreachable_in_bounded_time(tmp_path: Path) -> None:
    """With no command under way there is nothing to wait for but the server itself."""
    async with limited(tmp_path, 0, connect_seconds=0.5) as (shell, server):
        with pytest.raises(Unreachable, match="does not open a session"):
            await shell.run(Command("true"))
        assert server.refused > 1
