"""Redacting: the secrets of an environment, and what looks like one, are masked in everything that is stored."""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import BaseModel, SecretStr

from handlers.environment.address import parse
from handlers.environment.masking import MASK, mask
from handlers.environment.model import Environment
from handlers.errors import ConfigError

SECRET_LENGTH_MIN = 4
"""A shorter secret is not masked: it would match inside other words, and the masked words would reveal it."""


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
    return redact_text(value, known) if isinstance(value, str) else value


def redact_text(text: str, known: frozenset[str]) -> str:
    """*text* with *known* secrets masked, and also what looks like a secret."""
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask(text)
