"""The errors, sorted by what the caller should do."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands; scripts and schedules branch on them."""

    GOOD = 0
    OWN_ERROR = 1
    ROLLED_BACK = 2
    ROLLBACK_FAILED = 3
    HELD = 4
    REFUSED = 5


class RunbookError(Exception):
    """An error whose text says what happened, where, and what to do."""

    exit_code = ExitCode.OWN_ERROR


class TryAgain(RunbookError):
    """Nothing changed; a retry may work in a moment. The exit code is 1: no operator has to act first."""


class Refused(RunbookError):
    """A retry cannot help: the operator must act first."""

    exit_code = ExitCode.REFUSED


class WaitsForPeople(RunbookError):
    """Nothing is wrong, but people have not decided yet; the same command goes on when they have."""

    exit_code = ExitCode.HELD


class ConfigError(Refused):
    """The environment file is wrong; says which key and what it may be."""


class Unreachable(TryAgain):
    """A host did not answer, or the connection broke before the command was sent."""


class OutcomeUnknown(RunbookError):
    """A command was sent, but it is unknown whether it ran. Ask the host before any other change."""


class DatabaseDown(TryAgain):
    """The environment's database did not answer."""


class ConnectionFault(TryAgain):
    """A database connection got into a state in which it cannot be used; a new one may work. Nothing was changed."""


class LoginRefused(Refused):
    """The database refused the login. A command ends; a running release waits, for a password may just be changed."""


LEDGER_AWAY = (DatabaseDown, LoginRefused)
"""What a running release waits for or goes on without: our database is never the fault of a revision or of a host."""


class KeyRefused(Refused):
    """A host refused every SSH key. A check ends; an operation that has begun waits: the key may just be changed."""


class Locked(Refused):
    """Another controller holds the lock of the environment. *release_id* is the release that it runs."""

    def __init__(self, message: str, *, release_id: str | None = None) -> None:
        super().__init__(message)
        self.release_id = release_id


class LockLost(Refused):
    """Another controller has taken this environment's lock: this one must stop changing things."""


class Fenced(LockLost):
    """A host accepted the token of a newer controller. Our ledger may not know it, and can still record our end."""
