"""What a release is: its phases, the moves between them, and the values that travel with it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from handlers.errors import ExitCode
from handlers.release.note import PhaseNote


class Phase(StrEnum):
    """Where a release stands. The phase in the ledger is the recovery point."""

    PLANNED = "planned"
    APPROVED = "approved"
    DEPLOYING = "deploying"
    PROBING = "probing"
    CANARY = "canary"
    DRAINING = "draining"
    WATCHING = "watching"
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    HELD = "held"
    REFUSED = "refused"
    ABORTED = "aborted"


_CHANGING = (Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING)

NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.PLANNED: frozenset({Phase.APPROVED, Phase.REFUSED, Phase.ABORTED}),
    Phase.APPROVED: frozenset({Phase.DEPLOYING, Phase.REFUSED, Phase.ABORTED}),
    # Refused: a host said no before anything that runs had changed.
    Phase.DEPLOYING: frozenset({Phase.PROBING, Phase.ROLLING_BACK, Phase.HELD, Phase.REFUSED}),
    Phase.PROBING: frozenset({Phase.CANARY, Phase.ROLLING_BACK, Phase.HELD}),
    Phase.CANARY: frozenset({Phase.DRAINING, Phase.ROLLING_BACK, Phase.HELD}),
    Phase.DRAINING: frozenset({Phase.WATCHING, Phase.ROLLING_BACK, Phase.HELD}),
    Phase.WATCHING: frozenset({Phase.SUCCEEDED, Phase.ROLLING_BACK, Phase.HELD}),
    Phase.HELD: frozenset({*_CHANGING, Phase.ROLLING_BACK, Phase.ABORTED}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED}),
    Phase.ROLLBACK_FAILED: frozenset({Phase.ROLLING_BACK}),
    Phase.SUCCEEDED: frozenset({Phase.ROLLING_BACK}),
    Phase.ROLLED_BACK: frozenset(),
    Phase.REFUSED: frozenset(),
    Phase.ABORTED: frozenset(),
}
"""Every move that is allowed; `docs/state_machine.md` draws it and a test keeps the three equal."""

LIVE = frozenset({*_CHANGING, Phase.HELD, Phase.ROLLING_BACK})
"""Phases in which a release owns its environment: only one such release can exist."""

FINISHED = frozenset(
    {Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.REFUSED, Phase.ABORTED}
)
"""Phases in which nothing more happens by itself; a finish time exists exactly here."""

EXIT_CODES: dict[Phase, ExitCode] = {
    Phase.SUCCEEDED: ExitCode.GOOD,
    Phase.ROLLED_BACK: ExitCode.ROLLED_BACK,
    Phase.ROLLBACK_FAILED: ExitCode.ROLLBACK_FAILED,
    Phase.REFUSED: ExitCode.REFUSED,
    Phase.ABORTED: ExitCode.REFUSED,
}


def exit_code(phase: Phase) -> ExitCode:
    """The exit code that a release in *phase* deserves; anything unfinished is held or still waiting."""
    return EXIT_CODES.get(phase, ExitCode.HELD)


_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def short(revision: str | None) -> str:
    """A revision as people read it: seven digits of a commit, everywhere; what is none keeps its name."""
    if not revision:
        return "unknown"
    return revision[:7] if _COMMIT.fullmatch(revision) else revision[:40]


class Verdict(StrEnum):
    """What a phase concludes. "Could not ask" is an error, never a verdict."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A verdict with the one sentence that explains it, and what the ledger keeps beside them."""

    verdict: Verdict
    sentence: str
    touched_hosts: bool = True
    """False only when certainly nothing that runs has changed: then there is nothing to roll back."""
    note: PhaseNote = field(default_factory=PhaseNote)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release as the ledger has it. Plain values: it may cross tasks, processes and restarts."""

    id: str
    environment: str
    from_revision: str
    to_revision: str
    requested_by: str
    phase: Phase
    resume_phase: Phase | None
    """Where a held release goes on when a person says so."""
    token: int | None
    """Fencing token of the lock under which this release may change hosts; None before the lock."""
    speed: float
    """How many runbook seconds pass in one real second; 1 everywhere but in a rehearsal."""
    reason: str
    """The sentence of the newest conclusion."""
    created_at: datetime
    finished_at: datetime | None
