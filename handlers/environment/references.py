"""Values of the environment file that stand for something outside it: secrets by reference, and paths on this machine.

Each keeps what the file says, so that a release can store its settings without a secret, and for any user.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path, PosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, ValidationInfo

from handlers.errors import ConfigError

UNRESOLVED = {"unresolved": True}
"""A validation context: accept references that cannot be resolved now. They are resolved when they are used."""

log = logging.getLogger(__name__)

_LAST: dict[str, str] = {}
"""The last value of each reference in this process: a file that is being replaced keeps its value."""


class Reference(SecretStr):
    """A secret behind `env:NAME` or `file:PATH`. It is read at each use, so that a rotated password file works."""

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference

    def get_secret_value(self) -> str:
        """The secret as it is now. Raises ConfigError when it cannot be read and was never read by this process."""
        try:
            return resolved(self.reference)
        except ValueError as error:
            if self.reference not in _LAST:
                raise ConfigError(f"{self.reference}: {error}") from error
            log.warning("%s: %s; using the value that was read before", self.reference, error)
            return _LAST[self.reference]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)


def resolved(reference: object) -> str:
    """The secret behind *reference*. Raises ValueError with the reason when there is none."""
    kind, where = _parts(reference)
    if kind == "env":
        if where not in os.environ:
            raise ValueError(f"the variable {where} is not set: set it, or use another one with env:NAME")
        value = os.environ[where]
    else:
        path = Path(where).expanduser()
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text") from error
        if not value:
            raise ValueError(f"{path} is empty")
    _LAST[str(reference)] = value
    return value


def _parts(reference: object) -> tuple[str, str]:
    if not isinstance(reference, str):
        raise ValueError("must be a reference, env:NAME or file:PATH")
    kind, _, where = reference.partition(":")
    if kind not in ("env", "file") or not where:
        raise ValueError("must be a reference, env:NAME or file:PATH, not the secret itself")
    return kind, where


def _reference(value: object, info: ValidationInfo) -> object:
    """A reference that can be resolved now. A secret itself is never in the environment file."""
    if value is None or isinstance(value, Reference):
        return value
    kind, where = _parts(value)
    reference = f"file:{_anchored(where)}" if kind == "file" else f"{kind}:{where}"
    if not (info.context and info.context.get("unresolved")):
        resolved(reference)
    return Reference(reference)


def _later_reference(value: object) -> object:
    """A reference that is resolved when it is used."""
    if value is None or isinstance(value, Reference):
        return value
    kind, where = _parts(value)
    return Reference(f"file:{_anchored(where)}" if kind == "file" else f"{kind}:{where}")


class LocalPath(PosixPath):
    """A path on this machine, with its form in the file: `~` is the home of whoever runs the release."""

    said: str


def _local(path: Path) -> Path:
    said = _anchored(str(path))
    local = LocalPath(Path(said).expanduser())
    local.said = said
    return local


def _anchored(path: str) -> str:
    """*path* from any working directory. Below `~` it stays as it is: each user has their own home."""
    return path if path.startswith("~") else str(Path(path).absolute())


Secret = Annotated[
    Reference,
    BeforeValidator(_reference),
    PlainSerializer(lambda secret: secret.reference, return_type=str),
]
LaterSecret = Annotated[
    Reference,
    BeforeValidator(_later_reference),
    PlainSerializer(lambda secret: secret.reference, return_type=str),
]
"""A secret that is resolved only when it is used. Without it an environment file is good all the same."""
Local = Annotated[
    Path,
    AfterValidator(_local),
    PlainSerializer(lambda path: getattr(path, "said", str(path)), return_type=str),
]
