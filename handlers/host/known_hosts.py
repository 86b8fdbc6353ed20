"""The known hosts file, read as OpenSSH reads it (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

A line that cannot be read concerns only the host that it names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from handlers.errors import Refused

_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"
_DEFAULT_PORT = 22


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """One line about a host: a key of its own, of a CA that signs its keys, or a revoked one."""

    line: int
    marker: str
    key_type: str
    blob: bytes
    """The public key in SSH's wire format."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    number: int
    marker: str
    hosts: str
    key_type: str
    blob: bytes
    fault: str
    """Why the line cannot be used; empty when it can."""

    def names(self, name: str) -> bool:
        """Whether the line is about *name*."""
        if self.hosts.startswith("|"):
            return _is_hash_of(self.hosts, name)
        return _matches(self.hosts.lower(), name)


@dataclass(frozen=True, kw_only=True)
class KnownHost:
    """What the file says about one name of a host."""

    file: Path
    name: str
    keys: tuple[KnownKey, ...] = ()
    authorities: tuple[KnownKey, ...] = ()
    revoked: tuple[KnownKey, ...] = ()
    faults: tuple[str, ...] = field(default=())
    """Lines about this host that cannot be used, as sentences."""

    def key_of(self, blob: bytes) -> KnownKey | None:
        """The line with exactly this key."""
        return _with(blob, self.keys)

    def authority_of(self, blob: bytes) -> KnownKey | None:
        """The line with this key of a CA."""
        return _with(blob, self.authorities)

    def revoked_of(self, blob: bytes) -> KnownKey | None:
        """The line that revokes this key."""
        return _with(blob, self.revoked)


def known_hosts(file: Path, address: str, port: int, alias: str | None) -> tuple[KnownHost, ...]:
    """What *file* says about a host, under each name that OpenSSH looks up, in its order.

    With *alias* that is the only name. For a port other than 22 it is `[address]:port`, then the bare address. Raises
    Refused when the file cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise Refused(
            f"cannot read {file} (ssh.known_hosts_file): {error.strerror}; "
            f"record the hosts' keys there, after comparing them on the hosts"
        ) from error
    lines = [
        line for number, row in enumerate(text.split("\n"), 1) if (line := _read(number, row)) is not None
    ]
    if alias is not None:
        names = [alias.lower()]
    elif port == _DEFAULT_PORT:
        names = [address.lower()]
    else:
        names = [f"[{address.lower()}]:{port}", address.lower()]
    return tuple(_about(file, name, lines) for name in names)


def _about(file: Path, name: str, lines: Sequence[_Line]) -> KnownHost:
    about = [line for line in lines if line.names(name)]
    good = [
        KnownKey(line=line.number, marker=line.marker, key_type=line.key_type, blob=line.blob)
        for line in about
        if not line.fault
    ]
    return KnownHost(
        file=file,
        name=name,
        keys=tuple(key for key in good if not key.marker),
        authorities=tuple(key for key in good if key.marker == _AUTHORITY),
        revoked=tuple(key for key in good if key.marker == _REVOKED),
        faults=tuple(f"{file} line {line.number}: {line.fault}" for line in about if line.fault),
    )


def _read(number: int, row: str) -> _Line | None:
    """One row of the file; None for an empty one and a comment."""
    words = row.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    hosts, key_type, encoded = [*words[:3], "", "", ""][:3]
    fault, blob = "", b""
    if marker not in ("", _AUTHORITY, _REVOKED):
        fault = f"the marker {marker} is unknown: it may be {_AUTHORITY} or {_REVOKED}"
    elif not encoded:
        fault = "it must have host names, a key type and a key"
    else:
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            fault = "its key is not valid base64"
        else:
            named = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
            if named != key_type.encode():
                fault = f"its key is not of the type {key_type}"
    return _Line(number=number, marker=marker, hosts=hosts, key_type=key_type, blob=blob, fault=fault)


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        _, version, salt, digest = hashed.split("|")
        expected = base64.b64decode(digest, validate=True)
        found = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
    except (ValueError, binascii.Error):
        return False
    return version == "1" and hmac.compare_digest(expected, found)


def _matches(patterns: str, name: str) -> bool:
    """Whether one of the comma-separated *patterns* matches, and none that begins with ! does."""
    found = False
    for pattern in patterns.split(","):
        if pattern and _matches_one(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _matches_one(pattern: str, name: str) -> bool:
    """Only * and ? are wildcards: a bracket is a part of `[host]:port`."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    text = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(text, name, re.DOTALL) is not None


def _with(blob: bytes, keys: Sequence[KnownKey]) -> KnownKey | None:
    return next((key for key in keys if key.blob == blob), None)
