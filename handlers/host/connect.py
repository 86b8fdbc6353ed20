"""One SSH connection attempt: known host keys only, one key file, and one message for each kind of failure."""

from __future__ import annotations

import socket

import paramiko
from paramiko.pkey import UnknownKeyType

from handlers.environment.model import Host, Ssh
from handlers.errors import Refused, Unreachable

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
"""TCP keepalive: a silent peer is detected after 14 s. Not every system has every option."""


class _UnknownHostKeyError(Exception):
    """The host key is not in the known hosts file; the text is its type and fingerprint."""


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        raise _UnknownHostKeyError(f"{key.get_name()} {key.fingerprint}")


class Attempt:
    """One connection attempt, made in a thread. `abandon` ends it from another thread."""

    def __init__(self, ssh: Ssh, host: Host) -> None:
        self._ssh = ssh
        self._host = host
        self._user = host.user or ssh.user
        self._name = f"{host.name} ({host.address}:{host.port})"
        self._socket: socket.socket | None = None
        self._client = paramiko.SSHClient()
        self._abandoned = False

    def abandon(self) -> None:
        """Close client and socket, so that the thread that waits on them returns immediately."""
        self._abandoned = True
        self._client.close()
        if self._socket is not None:
            self._socket.close()

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
        key = self._key()
        self._client.set_missing_host_key_policy(_RefuseUnknown())
        try:
            self._client.load_host_keys(str(self._ssh.known_hosts_file))
        except OSError as error:
            raise Refused(
                f"cannot read {self._ssh.known_hosts_file} (ssh.known_hosts_file): {error.strerror}; "
                f"record the hosts' keys there, after comparing them on the hosts"
            ) from error
        try:
            self._socket = socket.create_connection(
                (self._host.address, self._host.port), self._ssh.connect_seconds
            )
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
            raise Unreachable(f"{self._name} cannot be reached: {reason}") from error
        _tune(self._socket)
        self._log_in(self._socket, key)
        transport = self._client.get_transport()
        if transport is None:
            raise Unreachable(f"{self._name} closed the connection right after the login")
        return transport

    def _log_in(self, connection: socket.socket, key: paramiko.PKey) -> None:
        limit = self._ssh.connect_seconds
        try:
            self._client.connect(
                self._host.address,
                port=self._host.port,
                username=self._user,
                pkey=key,
                sock=connection,
                allow_agent=False,
                look_for_keys=False,
                timeout=limit,
                banner_timeout=limit,
                auth_timeout=limit,
                channel_timeout=limit,
            )
        except _UnknownHostKeyError as error:
            raise self._unknown_key(error) from error
        except paramiko.BadHostKeyException as error:
            raise self._changed_key(error) from error
        except paramiko.AuthenticationException as error:
            raise self._no_login(error) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{self._name}: TCP connects, but the SSH handshake fails: {reason}") from error

    def _unknown_key(self, error: _UnknownHostKeyError) -> Refused:
        return Refused(
            f"{self._name} has the host key {error}, which is not in {self._ssh.known_hosts_file}. "
            f"Compare it on the host (ssh-keygen -lf on its public host key) and add it."
        )

    def _changed_key(self, error: paramiko.BadHostKeyException) -> Refused:
        return Refused(
            f"{self._name}: host key changed ({error.key.fingerprint} instead of "
            f"{error.expected_key.fingerprint}): possible man-in-the-middle attack. "
            f"If the host was reinstalled, replace its line in {self._ssh.known_hosts_file}."
        )

    def _no_login(self, error: paramiko.AuthenticationException) -> Refused | Unreachable:
        if "timeout" in str(error).lower():
            return Unreachable(f"{self._name}: the login timed out")
        return Refused(
            f"{self._name}: login as {self._user!r} with {self._ssh.key_file} was refused "
            f"(ssh.user, ssh.key_file). Add its public key to that user's authorized_keys, or set another key."
        )

    def _key(self) -> paramiko.PKey:
        file, secret = self._ssh.key_file, self._ssh.key_passphrase
        passphrase = secret.get_secret_value().encode() if secret else None
        try:
            # Bytes, although the annotation says str: the cryptography library accepts only bytes.
            return paramiko.PKey.from_path(file, password=passphrase)  # type: ignore[arg-type]
        except TypeError as error:
            if passphrase is None:
                raise Refused(
                    f"{file} (ssh.key_file) is encrypted: set ssh.key_passphrase, as env:NAME or file:PATH"
                ) from error
            raise Refused(f"{file} (ssh.key_file) is not encrypted: remove ssh.key_passphrase") from error
        except OSError as error:
            raise Refused(f"cannot read {file} (ssh.key_file): {error.strerror}") from error
        except (paramiko.SSHException, ValueError, UnknownKeyType) as error:
            raise Refused(
                f"{file} (ssh.key_file) is not a usable private key, or ssh.key_passphrase is wrong"
            ) from error


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
