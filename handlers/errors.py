"""What can go wrong, sorted by what the caller should do about it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command tells the shell; scripts and schedules branch on it."""

    GOOD = 0
    OWN_ERROR = 1
    ROLLED_BACK = 2
    ROLLBACK_FAILED = 3
    HELD = 4
    REFUSED = 5


class RunbookError(Exception):
    """An error whose text is one clear sentence: what was wrong, where, and what to do."""

    exit_code = ExitCode.OWN_ERROR


class TryAgain(RunbookError):
    """Nothing changed; the same call may work in a moment. A command ends with 1: nobody has to act first."""


class Refused(RunbookError):
    """Trying again cannot help: somebody must act first."""

    exit_code = ExitCode.REFUSED


class ConfigError(Refused):
    """The environment file is wrong; says which key and what it may be."""


class Unreachable(TryAgain):
    """A host did not answer, or the connection broke before the command was sent."""


class OutcomeUnknown(RunbookError):
    """A command was sent and nobody can say whether it ran: ask the host before doing anything else."""


class DatabaseDown(TryAgain):
    """The environment's database did not answer."""


class LockLost(Refused):
    """Another controller has taken this environment's lock: this one must stop changing things."""


class Fenced(LockLost):
    """A host has obeyed a newer controller. Our own ledger may not know of it, so it can still be told how we ended."""
