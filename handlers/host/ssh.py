"""SSH for asyncio: paramiko in threads, with a timeout on everything that could hang.

paramiko's own timeouts do not bound a command, and its keepalive does not detect a dead peer. So each command has a
deadline that closes the transport, which ends every wait immediately. TCP keepalive detects a silent peer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeVar

import paramiko

from handlers.environment.model import Environment, Host
from handlers.errors import OutcomeUnknown, Refused, Unreachable
from handlers.host import connect
from handlers.host.command import Command
from handlers.host.framing import FROM_STDIN, between, framed, read

log = logging.getLogger(__name__)
T = TypeVar("T")

CONNECTING_MAX = 8
"""Connections opened at the same time: sshd drops unauthenticated ones beyond ten (MaxStartups)."""
SESSIONS_MAX = 8
"""Commands at the same time on one connection: sshd allows ten (MaxSessions)."""
_REFUSED_SECONDS = 0.1
"""The pause before a refused session is asked for again."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """The output of a command and its exit status. An unknown exit status is an error instead."""

    exit_status: int
    stdout: str
    stderr: str

    @property
    def good(self) -> bool:
        """Whether it succeeded."""
        return self.exit_status == 0

    @property
    def summary(self) -> str:
        """The end of its output (stderr first) on one line, for a message."""
        return " ".join((self.stderr.strip() or self.stdout.strip()).split())[-400:]


def _says_more(record: logging.LogRecord) -> bool:
    return "open FAILED" not in record.getMessage()


# paramiko logs an ERROR for each refused channel. Here one is asked for again, and the last one is an error of ours.
logging.getLogger("paramiko.transport").addFilter(_says_more)


class _SessionRefusedError(Exception):
    """The server refused one session; the connection and the commands on it are sound."""


class Shell:
    """One host, reached by SSH. It connects on demand, again after a lost connection."""

    def __init__(self, environment: Environment, host: Host) -> None:
        self.environment = environment
        self.host = host
        self._transport: paramiko.Transport | None = None
        self._attempt: connect.Attempt | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(SESSIONS_MAX)
        self._talking = 0
        # Two readers for each session, and two more for connecting and closing.
        self._threads = ThreadPoolExecutor(2 * SESSIONS_MAX + 2, thread_name_prefix=f"ssh-{host.name}")

    async def connect(self) -> None:
        """Connect if necessary. Raises Unreachable, or Refused when the operator must act."""
        await self._connected()

    async def run(self, command: Command, *, limit: float | None = None) -> CommandResult:
        """Run *command* and return its output, within *limit* seconds.

        Raises Unreachable when a retry is safe, and OutcomeUnknown when a command that changes the host was sent and
        its outcome is unknown.
        """
        limit = limit or self.environment.ssh.command_seconds
        async with self._sessions:
            transport = await self._connected()
            channel = await self._session(transport, limit)
            self._talking += 1
            try:
                return await self._talk(transport, channel, command, limit)
            finally:
                self._talking -= 1
                channel.close()

    def close(self) -> None:
        """Close the connection and end every command on it. Detached operations on the host continue."""
        if self._attempt is not None:
            self._attempt.abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _connect_seconds(self) -> float:
        return self.environment.ssh.connect_seconds

    async def _connected(self) -> paramiko.Transport:
        async with self._connecting:
            if self._transport is not None and self._transport.is_active():
                return self._transport
            if self._attempt is not None:
                # The connections to its jump hosts may still be open.
                self._attempt.abandon()
                self._attempt = None
            attempt = connect.Attempt(self.environment.ssh, self.host)
            work = asyncio.get_running_loop().run_in_executor(self._threads, attempt.run)
            try:
                # TCP, banner and authentication have their own timeouts; this one bounds everything else.
                self._transport = await asyncio.wait_for(asyncio.shield(work), attempt.limit_seconds)
            except (TimeoutError, asyncio.CancelledError) as error:
                attempt.abandon()
                await asyncio.wait([work], timeout=2)
                _retrieve(work)
                if isinstance(error, TimeoutError):
                    raise Unreachable(f"{self._name}: no login within {attempt.limit_seconds:g} s") from error
                raise
            self._attempt = attempt
            return self._transport

    def _open(self, transport: paramiko.Transport) -> paramiko.Channel:
        began = monotonic()
        try:
            return transport.open_session(timeout=self._connect_seconds)
        except (paramiko.SSHException, EOFError, OSError) as error:
            # paramiko keeps one error for all channels: the second one refused at a time has no ChannelException.
            if transport.is_active() and monotonic() - began < self._connect_seconds:
                raise _SessionRefusedError(str(error)) from error
            # A frozen peer still answers at TCP level, so only this timeout detects it. Close it for the next call.
            transport.close()
            raise Unreachable(
                f"{self._name} does not open a session: {error or type(error).__name__}"
            ) from error

    async def _talk(
        self, transport: paramiko.Transport, channel: paramiko.Channel, command: Command, limit: float
    ) -> CommandResult:
        loop = asyncio.get_running_loop()
        mark = f"--runbook-{secrets.token_hex(8)}--"

        def send_and_read() -> str:
            channel.exec_command(FROM_STDIN)
            channel.sendall(framed(command.script, mark).encode())
            channel.shutdown_write()
            return read(channel.recv)

        async def converse() -> CommandResult:
            # Read both streams to their end before the exit status: a full stream would block the command.
            stdout, stderr = await asyncio.gather(
                loop.run_in_executor(self._threads, send_and_read),
                loop.run_in_executor(self._threads, read, channel.recv_stderr),
            )
            if not channel.exit_status_ready():
                await loop.run_in_executor(self._threads, channel.recv_exit_status)
            return CommandResult(exit_status=channel.recv_exit_status(), stdout=stdout, stderr=stderr)

        try:
            result = await self._guarded(transport, asyncio.ensure_future(converse()), limit)
        except TimeoutError as error:
            raise self._lost(command, f"did not finish within {limit:g} s") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(command, f"was cut off: {error or type(error).__name__}") from error
        if result.exit_status == -1:
            # Killed by a signal, connection lost or channel closed: paramiko does not distinguish them.
            raise self._lost(command, "ended without an exit status")
        return self._unframed(result, mark)

    def _unframed(self, result: CommandResult, mark: str) -> CommandResult:
        """The command's own output. Raises Refused when the login shell never ran the command."""
        if mark not in result.stdout:
            if connect.NO_LOGINS_NOW.search(result.summary):
                raise Unreachable(f"{self._name} takes no logins now: {result.summary[:200]}")
            if "expired" in result.summary.lower():
                raise Refused(
                    f"{self._name}: the account of the login has to be renewed on the host: {result.summary[:200]}"
                )
            raise Refused(
                f"{self._name}: the login shell of {self.host.user or self.environment.ssh.user} does not run "
                f"commands; it ended with status {result.exit_status} and printed {result.summary[:200]!r}. "
                "Its startup files (such as .bashrc) must not read input or exit when no terminal is attached"
            )
        return replace(result, stdout=between(result.stdout, mark), stderr=between(result.stderr, mark))

    def _lost(self, command: Command, what: str) -> Unreachable | OutcomeUnknown:
        sentence = f"{self._name}: `{_short(command)}` {what}"
        if command.changes:
            return OutcomeUnknown(
                f"{sentence}; its outcome is unknown: inspect the host before any other change"
            )
        return Unreachable(sentence)

    async def _session(self, transport: paramiko.Transport, limit: float) -> paramiko.Channel:
        """A session of the connection. One that is refused waits for the other commands to end, up to *limit* seconds.

        A server may allow fewer sessions than SESSIONS_MAX, and counts one until it has cleared it away.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                return await self._opened(transport)
            except _SessionRefusedError as error:
                patience = limit if self._talking else self._connect_seconds
                if loop.time() - began > patience:
                    if not self._talking:
                        transport.close()
                    raise Unreachable(f"{self._name} does not open a session: {error}") from error
            await asyncio.sleep(_REFUSED_SECONDS)

    async def _opened(self, transport: paramiko.Transport) -> paramiko.Channel:
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._open, transport)
        try:
            return await self._guarded(transport, work, self._connect_seconds + 1)
        except TimeoutError as error:
            raise Unreachable(f"{self._name} does not open a session") from error

    async def _guarded(self, transport: paramiko.Transport, work: asyncio.Future[T], limit: float) -> T:
        """Wait up to *limit* seconds for *work* in a thread; after a timeout or cancellation close the transport."""
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
    """Shells for all hosts, in the order of the environment file; they are closed at the end.

    Without *connected* each connects on first use, so that a rollback can reach the other hosts when one is down.
    """
    connecting = asyncio.Semaphore(CONNECTING_MAX)

    async def connect_limited(shell: Shell) -> None:
        async with connecting:
            await shell.connect()

    async with AsyncExitStack() as stack:
        shells = [Shell(environment, host) for host in environment.hosts]
        for shell in shells:
            stack.callback(shell.close)
        if connected:
            outcomes = await asyncio.gather(*map(connect_limited, shells), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        yield shells


def _short(command: Command) -> str:
    shown = str(command)
    return shown if len(shown) <= 160 else f"{shown[:160]}…"


def _retrieve(work: asyncio.Future[T]) -> None:
    """Retrieve the exception of an abandoned call; asyncio warns about exceptions that are never retrieved."""
    if work.done() and not work.cancelled() and (error := work.exception()):
        log.debug("an abandoned call ended with %r", error)
    elif not work.done():
        work.add_done_callback(_retrieve)
