"""One SSH connection attempt: through the jump hosts, to known host keys only, with a message for each failure."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from handlers.environment.jump import jumps
from handlers.environment.model import Host, Ssh
from handlers.errors import KeyRefused, Refused, Unreachable
from handlers.host import host_key
from handlers.host.keys import Identity, identities
from handlers.host.known_hosts import known_hosts

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""TCP keepalive: a silent peer is detected after 14 s. Not every system has every option."""
_STEPS = 4
"""Steps of a login, each with the connect timeout: TCP or channel, banner, key exchange, authentication."""
_JUMP_LOGINS_MAX = 8
"""Logins at the same time on one jump host: its sshd drops unauthenticated ones beyond ten (MaxStartups)."""
_TRIES = 3
"""Attempts where sshd drops the connection before its banner, because other logins are in progress (MaxStartups)."""
_PROHIBITED = 1
"""The reason of a channel that the jump host does not allow (RFC 4254, section 5.1)."""
NO_LOGINS_NOW = re.compile(
    r"(?i)system is (booting|going|shutting)|not permitted to log in|nologin|maintenance"
)
"""What sshd and PAM print while a host starts or stops."""
_ACCOUNT_ENDED = re.compile(r"(?i)(account|password) (has |is )?(been )?(expired|locked|disabled)")

_JUMP_LOGINS: defaultdict[str, threading.BoundedSemaphore] = defaultdict(
    lambda: threading.BoundedSemaphore(_JUMP_LOGINS_MAX)
)


@dataclass(frozen=True, kw_only=True)
class _Hop:
    """One server on the way: the jump hosts, then the host itself."""

    name: str
    user: str
    address: str
    port: int
    alias: str | None = None
    is_jump: bool = False


class _Transport(paramiko.Transport):
    """A transport that asks for the recorded kinds of host key first."""

    host_key_algorithms: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> Sequence[str]:
        """The host key algorithms to offer, in order."""
        return self.host_key_algorithms


class Attempt:
    """One connection attempt, made in a thread. `abandon` ends it from another thread."""

    def __init__(self, ssh: Ssh, host: Host) -> None:
        self._ssh = ssh
        self._hops = _hops(ssh, host)
        self._name = self._hops[-1].name
        self._open: list[Callable[[], object]] = []
        """Closes what was opened, in the order of opening."""
        self._abandoned = False

    @property
    def limit_seconds(self) -> float:
        """An upper bound for the whole attempt."""
        return _STEPS * self._ssh.connect_seconds * len(self._hops)

    def abandon(self) -> None:
        """Close everything, so that the thread that waits on it returns immediately."""
        self._abandoned = True
        for close in reversed(self._open):
            close()

    def run(self) -> paramiko.Transport:
        """Connect and authenticate. Raises Unreachable or Refused; leaves nothing open when it does."""
        try:
            transport = self._run()
        except BaseException:
            self.abandon()
            raise
        if self._abandoned:
            self.abandon()
            raise Unreachable(f"{self._name}: the login succeeded only after the timeout")
        return transport

    def _run(self) -> paramiko.Transport:
        transport: paramiko.Transport | None = None
        with identities(self._ssh) as keys:
            for hop in self._hops:
                with self._login_slot(hop):
                    transport = self._begin(hop, transport)
                    self._authenticate(hop, transport, keys)
        assert transport is not None
        return transport

    @contextmanager
    def _login_slot(self, hop: _Hop) -> Iterator[None]:
        """Wait for one of the few logins that a jump host takes at the same time."""
        if not hop.is_jump:
            yield
            return
        slots = _JUMP_LOGINS[hop.name]
        deadline = time.monotonic() + _STEPS * self._ssh.connect_seconds
        # In short waits: an abandoned attempt must not keep its thread, and with it the process.
        while not slots.acquire(timeout=0.2):
            if self._abandoned or time.monotonic() > deadline:
                raise Unreachable(f"{self._name}: too many logins wait for the {hop.name}")
        try:
            yield
        finally:
            slots.release()

    def _begin(self, hop: _Hop, through: paramiko.Transport | None) -> _Transport:
        """Connect and exchange keys, and verify the host key."""
        known = known_hosts(self._ssh.known_hosts_file, hop.address, hop.port, hop.alias)
        # A server that is silent until the timeout is not asked again.
        deadline = time.monotonic() + self._ssh.connect_seconds / 2
        for remaining in reversed(range(_TRIES)):
            connection = self._tcp(hop) if through is None else self._channel(hop, through)
            try:
                transport = self._exchange(hop, connection, host_key.algorithms(known))
                break
            except _DroppedError as error:
                if not remaining or time.monotonic() > deadline or self._abandoned:
                    raise self._unreachable(
                        hop, f"TCP connects, but the SSH handshake fails: {error}"
                    ) from error
                time.sleep(random.uniform(0.1, 0.4))
        host_key.raise_if_not_known(
            transport.get_remote_server_key(), known, hop.name, hop.alias or hop.address
        )
        return transport

    def _tcp(self, hop: _Hop) -> socket.socket:
        try:
            connection = socket.create_connection((hop.address, hop.port), self._ssh.connect_seconds)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
            raise self._unreachable(hop, f"cannot be reached: {reason}") from error
        self._open.append(connection.close)
        _tune(connection)
        return connection

    def _channel(self, hop: _Hop, through: paramiko.Transport) -> paramiko.Channel:
        jump = next(before for before, after in zip(self._hops, self._hops[1:], strict=False) if after is hop)
        try:
            return through.open_channel(
                "direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=self._ssh.connect_seconds
            )
        except paramiko.ChannelException as error:
            if error.code == _PROHIBITED:
                raise Refused(
                    f"{hop.name}: the {jump.name} does not allow TCP forwarding to {hop.address}:{hop.port} "
                    f"(AllowTcpForwarding, PermitOpen)"
                ) from error
            raise self._unreachable(hop, f"cannot be reached from the {jump.name}: {error.text}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            through.close()
            reason = str(error) or type(error).__name__
            raise self._unreachable(hop, f"cannot be reached through the {jump.name}: {reason}") from error

    def _exchange(
        self, hop: _Hop, connection: socket.socket | paramiko.Channel, algorithms: tuple[str, ...]
    ) -> _Transport:
        """Raises _DroppedError when the server closes the connection before its banner."""
        limit = self._ssh.connect_seconds
        try:
            transport = _Transport(connection)
            self._open.append(transport.close)
            transport.host_key_algorithms = algorithms
            transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = limit
            transport.start_client(timeout=limit)
            transport.get_remote_server_key()
        except IncompatiblePeer as error:
            raise Refused(
                f"{hop.name}: its sshd and this client have no algorithm in common: {error}"
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = str(error) or type(error).__name__
            if "protocol banner" in reason:
                raise _DroppedError(reason) from error
            raise self._unreachable(hop, f"TCP connects, but the SSH handshake fails: {reason}") from error
        return transport

    def _authenticate(self, hop: _Hop, transport: paramiko.Transport, keys: Sequence[Identity]) -> None:
        tried = []
        for identity in keys:
            tried.append(identity.name)
            try:
                missing = transport.auth_publickey(hop.user, identity.key)
            except paramiko.BadAuthenticationType as error:
                raise Refused(
                    f"{hop.name}: login as {hop.user!r} by key is not allowed; sshd accepts only "
                    f"{', '.join(error.allowed_types)}. Allow publickey for this user (PubkeyAuthentication)"
                ) from error
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise self._unreachable(hop, "the login timed out") from error
                if not transport.is_active():
                    raise self._ended(hop, transport, tried) from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                reason = str(error) or type(error).__name__
                if "cannot be used for signing" in reason:
                    raise Refused(
                        f"{hop.name}: the SSH agent refuses to sign with {identity.name}"
                    ) from error
                raise self._unreachable(hop, f"the login was cut off: {reason}") from error
            else:
                if not missing:
                    return
                raise Refused(
                    f"{hop.name}: after the key, login as {hop.user!r} needs {' or '.join(missing)} as well. "
                    "A release cannot answer: exempt this user from the second factor (AuthenticationMethods)"
                )
        raise KeyRefused(
            f"{hop.name}: login as {hop.user!r} with {', '.join(tried)} was refused (ssh.user, "
            f"{'ssh.agent' if self._ssh.agent else 'ssh.key_file'}). Add its public key to that user's "
            f"authorized_keys, or set another key.{_said(transport)}"
        )

    def _ended(self, hop: _Hop, transport: paramiko.Transport, tried: Sequence[str]) -> Refused | Unreachable:
        """The server has closed the connection during the authentication: the account, too many keys, or a reboot."""
        said = _said(transport)
        if _ACCOUNT_ENDED.search(said):
            return Refused(f"{hop.name}: sshd closed the login of {hop.user!r}.{said}")
        if len(tried) > 2:
            return Refused(
                f"{hop.name}: sshd closed the login of {hop.user!r} after {len(tried)} keys (MaxAuthTries). "
                f"Set ssh.key_file to the key that is meant"
            )
        return self._unreachable(hop, f"closed the connection during the login.{said}")

    def _unreachable(self, hop: _Hop, what: str) -> Unreachable:
        """What happened at *hop*, for the host at the end of the way."""
        return Unreachable(
            f"{hop.name} {what}" if not hop.is_jump else f"{self._name}: its {hop.name} {what}"
        )


class _DroppedError(Exception):
    """The server closed the connection before its banner."""


def _hops(ssh: Ssh, host: Host) -> list[_Hop]:
    hops = [
        _Hop(
            name=f"jump host {jump.address}:{jump.port}",
            user=jump.user or ssh.user,
            address=jump.address,
            port=jump.port,
            is_jump=True,
        )
        for jump in jumps(host.jump if host.jump is not None else ssh.jump)
    ]
    return [
        *hops,
        _Hop(
            name=f"{host.name} ({host.address}:{host.port})",
            user=host.user or ssh.user,
            address=host.address.removeprefix("[").removesuffix("]"),
            port=host.port,
            alias=host.host_key_alias,
        ),
    ]


def _said(transport: paramiko.Transport) -> str:
    """What the server printed before the login, as a sentence; it may say that the account has expired."""
    # get_banner() says nothing once the connection is closed.
    banner = getattr(transport.auth_handler, "banner", None)
    text = " ".join((banner or b"").decode(errors="replace").split())
    return f" It says: {text[:200]!r}" if text else ""


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
