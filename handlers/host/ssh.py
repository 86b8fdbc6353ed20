"""The one edge where threads live: paramiko behind a coroutine, with a limit on everything that could hang.

paramiko's own timeouts do not bound a command, and its keepalive does not notice a dead peer. So each command
has an outer deadline that closes the transport, which ends every wait at once, and the socket itself notices
a silent peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import paramiko

from handlers.environment.model import Environment, Host
from handlers.errors import OutcomeUnknown, Unreachable
from handlers.host import connect
from handlers.host.command import Command

log = logging.getLogger(__name__)
T = TypeVar("T")

OUTPUT_MAX = 512 * 1024
"""Bytes that are kept of each stream: the beginning and, of more, the end."""
CONNECTING_MAX = 8
"""Connections begun at once: sshd drops newcomers beyond ten (MaxStartups)."""
SESSIONS_MAX = 8
"""Commands at once on one connection: sshd allows ten (MaxSessions)."""
_FROM_STDIN = """exec sh -c 'eval "$(cat)"'"""
"""All that the login shell, whichever it is, gets to see: the command itself is in no process list."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What a command said and its exit status, which is certain: an uncertain one is an error instead."""

    exit_status: int
    stdout: str
    stderr: str

    @property
    def good(self) -> bool:
        """Whether it succeeded."""
        return self.exit_status == 0

    @property
    def said(self) -> str:
        """The end of what it said, for a sentence."""
        return " ".join((self.stderr.strip() or self.stdout.strip()).split())[-400:]


class Shell:
    """One host, reached by SSH. It connects when it must, so it may outlive any number of connections."""

    def __init__(self, environment: Environment, host: Host) -> None:
        self.environment = environment
        self.host = host
        self._transport: paramiko.Transport | None = None
        self._attempt: connect.Attempt | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(SESSIONS_MAX)
        # Two readers for each session, and some to spare for closing and connecting.
        self._threads = ThreadPoolExecutor(2 * SESSIONS_MAX + 2, thread_name_prefix=f"ssh-{host.name}")

    async def connect(self) -> None:
        """Make sure there is a live connection. Raises Unreachable, or Refused when somebody must act."""
        await self._connected()

    async def run(self, command: Command, *, limit: float | None = None) -> CommandResult:
        """Run *command* and return what it said.

        Raises Unreachable when nothing happened or repeating is harmless, and OutcomeUnknown when a command
        that changes the host was sent and nobody can say what came of it.
        """
        limit = limit or self.environment.ssh.command_seconds
        async with self._sessions:
            transport = await self._connected()
            channel = await self._session(transport)
            try:
                return await self._talk(transport, channel, command, limit)
            finally:
                channel.close()

    def close(self) -> None:
        """End the connection and every command on it, at once. What runs detached on the host goes on."""
        if self._attempt is not None:
            self._attempt.abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _patience(self) -> float:
        return self.environment.ssh.connect_seconds

    async def _connected(self) -> paramiko.Transport:
        async with self._connecting:
            if self._transport is not None and self._transport.is_active():
                return self._transport
            attempt = connect.Attempt(self.environment.ssh, self.host)
            work = asyncio.get_running_loop().run_in_executor(self._threads, attempt.run)
            try:
                # TCP, banner and authentication have a limit each; this one is for what they have missed.
                self._transport = await asyncio.wait_for(asyncio.shield(work), 4 * self._patience)
            except (TimeoutError, asyncio.CancelledError) as error:
                attempt.abandon()
                await asyncio.wait([work], timeout=2)
                _retrieve(work)
                if isinstance(error, TimeoutError):
                    raise Unreachable(
                        f"{self._name} did not let us in within {4 * self._patience:g} s"
                    ) from error
                raise
            # Its client must stay: collected as garbage it would close the transport.
            self._attempt = attempt
            return self._transport

    def _open(self, transport: paramiko.Transport) -> paramiko.Channel:
        try:
            return transport.open_session(timeout=self._patience)
        except (paramiko.SSHException, EOFError, OSError) as error:
            # A frozen peer keeps TCP healthy and is noticed only here: the next call must not find it again.
            transport.close()
            raise Unreachable(
                f"{self._name} does not open a session: {error or type(error).__name__}"
            ) from error

    async def _talk(
        self, transport: paramiko.Transport, channel: paramiko.Channel, command: Command, limit: float
    ) -> CommandResult:
        loop = asyncio.get_running_loop()

        def send() -> None:
            channel.exec_command(_FROM_STDIN)
            channel.sendall(command.script.encode())
            channel.shutdown_write()

        async def converse() -> CommandResult:
            await loop.run_in_executor(self._threads, send)
            # Both streams to their end before the exit status: a full one keeps the command from ending.
            stdout, stderr = await asyncio.gather(
                loop.run_in_executor(self._threads, _read, channel.recv),
                loop.run_in_executor(self._threads, _read, channel.recv_stderr),
            )
            status = await loop.run_in_executor(self._threads, channel.recv_exit_status)
            return CommandResult(exit_status=status, stdout=stdout, stderr=stderr)

        try:
            result = await self._guarded(transport, asyncio.ensure_future(converse()), limit)
        except TimeoutError as error:
            raise self._lost(command, f"did not finish within {limit:g} s") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(command, f"broke off: {error or type(error).__name__}") from error
        if result.exit_status == -1:
            # Killed by a signal, connection lost, channel closed: paramiko does not tell them apart.
            raise self._lost(command, "ended without an exit status")
        return result

    def _lost(self, command: Command, what: str) -> Unreachable | OutcomeUnknown:
        sentence = f"{self._name}: `{_short(command)}` {what}"
        if command.changes:
            return OutcomeUnknown(f"{sentence}; ask the host what is true before doing anything else")
        return Unreachable(sentence)

    async def _session(self, transport: paramiko.Transport) -> paramiko.Channel:
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._open, transport)
        try:
            return await self._guarded(transport, work, self._patience + 1)
        except TimeoutError as error:
            raise Unreachable(f"{self._name} does not open a session") from error

    async def _guarded(self, transport: paramiko.Transport, work: asyncio.Future[T], limit: float) -> T:
        """Wait for *work* in threads until *limit*; past it, or when cancelled, close the transport."""
        try:
            return await asyncio.wait_for(asyncio.shield(work), limit)
        except (TimeoutError, asyncio.CancelledError):
            transport.close()
            await asyncio.wait([work], timeout=2)
            _retrieve(work)
            raise

    @property
    def _name(self) -> str:
        return f"{self.host.name} ({self.host.address}:{self.host.port})"


@asynccontextmanager
async def open_hosts(environment: Environment, *, connected: bool = True) -> AsyncIterator[list[Shell]]:
    """Connections to all hosts, in the order of the file, a few begun at once.

    Without *connected* each connects when it is first used, so that one dead host does not keep a rollback
    from the others.
    """
    gate = asyncio.Semaphore(CONNECTING_MAX)

    async def connect_one(shell: Shell) -> None:
        async with gate:
            await shell.connect()

    async with AsyncExitStack() as stack:
        shells = [Shell(environment, host) for host in environment.hosts]
        for shell in shells:
            stack.callback(shell.close)
        if connected:
            outcomes = await asyncio.gather(*map(connect_one, shells), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        yield shells


def _read(receive: Callable[[int], bytes]) -> str:
    """Everything to the end of the stream, of which the first and the last part are kept."""
    half = OUTPUT_MAX // 2
    head, tail, dropped = bytearray(), bytearray(), 0
    while chunk := receive(65536):
        room = half - len(head)
        head += chunk[:room] if room > 0 else b""
        tail += chunk[max(room, 0) :]
        if len(tail) > 2 * half:
            dropped += len(tail) - half
            del tail[:-half]
    if len(tail) > half:
        dropped += len(tail) - half
        del tail[:-half]
    gap = f"\n… {dropped} bytes left out …\n".encode() if dropped else b""
    return bytes(head + gap + tail).decode(errors="replace")


def _short(command: Command) -> str:
    shown = str(command)
    return shown if len(shown) <= 160 else f"{shown[:160]}…"


def _retrieve(work: asyncio.Future[T]) -> None:
    """Take note of an error that nobody waits for any more, or asyncio complains that nobody did."""
    if work.done() and not work.cancelled() and (error := work.exception()):
        log.debug("an abandoned call ended with %r", error)
    elif not work.done():
        work.add_done_callback(_retrieve)
