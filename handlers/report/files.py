"""Private files: readable by their owner only, written atomically, with secrets masked."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from handlers.environment.address import parse
from handlers.environment.masking import MASK, mask
from handlers.environment.model import Environment
from handlers.errors import ConfigError
from handlers.state_folder import STATE, private_folder

SECRET_LENGTH_MIN = 4
"""A shorter secret is not masked: it would match inside other words, and the masked words would reveal it."""


def folder_of(environment: Environment, release_id: str) -> Path:
    """The folder of a release's evidence and report. Releases of two environments may have the same id."""
    return environment.reports.directory / environment.name / release_id


def write_private(path: Path, text: str) -> str:
    """Write *text* to *path* with mode 0600 by an atomic rename; return its SHA-256."""
    data = text.encode("utf-8", "replace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def keep(environment: Environment, path: Path, text: str) -> str:
    """Write *text* to *path*, in private folders; return its SHA-256. The reports folder itself is the user's."""
    reports = environment.reports.directory
    private_folder(path.parent, ours=STATE if STATE in reports.parents else reports / environment.name)
    return write_private(path, text)


def known_secrets(environment: Environment) -> frozenset[str]:
    """Every secret in an environment's settings, including the password in the database URL."""
    secrets = _secrets(environment)
    address = parse(environment.database.url)
    secrets |= {secret for secret in (address.password, address.tls.key_password) if secret}
    return frozenset(secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN)


def _secrets(settings: BaseModel) -> set[str]:
    secrets: set[str] = set()
    for _, value in settings:
        items = value if isinstance(value, tuple | list) else (value,)
        for item in items:
            if isinstance(item, SecretStr):
                # Without its value it cannot be masked, but the evidence must not fail for it.
                with contextlib.suppress(ConfigError):
                    secrets.add(item.get_secret_value())
            elif isinstance(item, BaseModel):
                secrets |= _secrets(item)
    return secrets


def redact(value: Any, known: frozenset[str]) -> Any:
    """*value* (text or JSON) with *known* secrets masked, and also text that looks like a secret."""
    if isinstance(value, dict):
        return {key: redact(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, known) for item in value]
    return _masked(value, known) if isinstance(value, str) else value


def _masked(text: str, known: frozenset[str]) -> str:
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask(text)
