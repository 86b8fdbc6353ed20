"""The keys that a login is tried with: a private key file, its certificate beside it, and the keys of an SSH agent."""

from __future__ import annotations

import base64
import binascii
import functools
import io
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from handlers.environment.model import Ssh
from handlers.errors import Refused

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "SSH_AUTH_SOCK"
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A key to log in with, and its name for messages."""

    key: paramiko.PKey
    name: str


@contextmanager
def identities(ssh: Ssh) -> Iterator[list[Identity]]:
    """The keys in the order in which they are tried, while the agent is open. Raises Refused, naming the setting."""
    found = []
    selected: bytes | None = None
    if ssh.key_file is not None:
        try:
            found = _of_file(ssh.key_file, ssh)
        except _LockedError:
            if not ssh.agent:
                raise Refused(
                    f"{ssh.key_file} (ssh.key_file) is encrypted: set ssh.key_passphrase, as env:NAME or "
                    "file:PATH, or load it into an agent and set ssh.agent"
                ) from None
            # As for OpenSSH: the file selects the key, and the agent has it.
            selected = _public_half(ssh.key_file)
    if not ssh.agent:
        yield found
        return
    with _agent(ssh.connect_seconds) as agent:
        yield [*found, *_of_agent(agent, selected)]


class _LockedError(Exception):
    """The key file is encrypted, and there is no passphrase."""


def _of_file(file: Path, ssh: Ssh) -> list[Identity]:
    key = load_key(file, ssh.key_passphrase.get_secret_value() if ssh.key_passphrase else None)
    plain = Identity(key=key, name=str(file))
    certificate = Path(f"{file}-cert.pub")
    if not certificate.exists():
        return [plain]
    certified = load_key(file, ssh.key_passphrase.get_secret_value() if ssh.key_passphrase else None)
    try:
        certified.load_certificate(str(certificate))
    except (ValueError, OSError, paramiko.SSHException) as error:
        log.warning("%s is not used: it is no certificate of %s (%s)", certificate, file, error)
        return [plain]
    return [Identity(key=certified, name=str(certificate)), plain]


def load_key(file: Path, passphrase: str | None) -> paramiko.PKey:
    """A private key in OpenSSH, PEM or PKCS #8 form. Raises Refused with one sentence for each fault."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Refused(f"cannot read {file} (ssh.key_file): {error.strerror}") from error
    if data.startswith(b"PuTTY-User-Key-File"):
        raise Refused(
            f"{file} (ssh.key_file) is a key of PuTTY: convert it with puttygen FILE -O private-openssh -o FILE"
        )
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        raise Refused(f"{file} (ssh.key_file) is a public key: name the private one, usually without .pub")
    encrypted = _is_encrypted(data)
    if encrypted and passphrase is None:
        raise _LockedError
    if not encrypted and passphrase is not None and b"PRIVATE KEY-----" in data:
        raise Refused(f"{file} (ssh.key_file) is not encrypted: remove ssh.key_passphrase")
    try:
        return _loaded(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, paramiko.SSHException) as error:
        if encrypted:
            raise Refused(
                f"{file} (ssh.key_file): ssh.key_passphrase is wrong, or the file is damaged"
            ) from error
        raise Refused(
            f"{file} (ssh.key_file) is not a usable private key: it must be Ed25519, ECDSA or RSA, "
            "in OpenSSH, PEM or PKCS #8 form"
        ) from error


def _loaded(data: bytes, passphrase: str | None) -> paramiko.PKey:
    kind, text = _decrypted(data, passphrase)
    return kind.from_private_key(io.StringIO(text))


@functools.lru_cache(maxsize=8)
def _decrypted(data: bytes, passphrase: str | None) -> tuple[type[paramiko.PKey], str]:
    """The key's kind, and the key in OpenSSH's form.

    Once in a process: a passphrase is made slow to try, by seconds of processor time, and every login loads its key.
    """
    load = serialization.load_ssh_private_key if _OPENSSH in data else serialization.load_pem_private_key
    private = load(data, passphrase.encode() if passphrase is not None else None)
    kinds: dict[type, type[paramiko.PKey]] = {
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        rsa.RSAPrivateKey: paramiko.RSAKey,
    }
    kind = next((kind for base, kind in kinds.items() if isinstance(private, base)), None)
    if kind is None:
        raise ValueError("another kind of key")
    # One form for all: paramiko reads not every form of every kind.
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return kind, text.decode()


def _is_encrypted(data: bytes) -> bool:
    if _OPENSSH not in data:
        return b"ENCRYPTED" in data
    body = b"".join(data.partition(_OPENSSH)[2].partition(b"-----END")[0].split())
    try:
        # The end may be missing, as in a damaged file.
        raw = base64.b64decode(body[: len(body) // 4 * 4])
    except (binascii.Error, ValueError):
        return False
    # openssh-key-v1, a zero byte, then the name of the cipher with its length before it.
    size = int.from_bytes(raw[15:19], "big")
    return raw[19 : 19 + size] != b"none"


def _public_half(file: Path) -> bytes | None:
    """The public key beside a private key file, in SSH's wire format."""
    try:
        return base64.b64decode(Path(f"{file}.pub").read_text(encoding="utf-8").split()[1])
    except (OSError, ValueError, IndexError):
        return None


class _Agent(paramiko.agent.AgentSSH):
    """An agent that is given up after *seconds*: paramiko's own waits forever, and with it the whole process."""

    def __init__(self, connection: socket.socket, path: str, seconds: float) -> None:
        super().__init__()
        self.path = path
        connection.settimeout(seconds)
        connection.connect(path)
        # The stubs do not know it; paramiko's own agents call it.
        self._connect(connection)  # type: ignore[attr-defined]


@contextmanager
def _agent(seconds: float) -> Iterator[_Agent]:
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        raise Refused(
            f"ssh.agent is set, but there is no agent: {SOCKET_VARIABLE} is not set in this process. "
            "Start one and add the key (ssh-add), or set ssh.key_file without ssh.agent"
        )
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            agent = _Agent(connection, path, seconds)
        except (OSError, paramiko.SSHException) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else error
            raise Refused(f"the SSH agent at {path} ({SOCKET_VARIABLE}) cannot be used: {reason}") from error
        yield agent


def _of_agent(agent: _Agent, selected: bytes | None) -> list[Identity]:
    keys = [key for key in agent.get_keys() if selected is None or key.asbytes() == selected]
    if not keys:
        wanted = "does not have that key" if selected is not None else "has no key"
        raise Refused(f"the SSH agent at {agent.path} ({SOCKET_VARIABLE}) {wanted}: add it with ssh-add")
    return [Identity(key=key, name=f"{key.comment or key.get_name()} of the agent") for key in keys]
