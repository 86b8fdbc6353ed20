"""The state machine of a release: its phases, the transitions between them, and its values. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from handlers.errors import ExitCode
from handlers.release.note import HeldBy, PhaseNote


class Phase(StrEnum):
    """The state of a release. The phase in the ledger is the recovery point after a crash."""

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
    # Refused: a host refused the first change, so nothing that runs has changed.
    Phase.DEPLOYING: frozenset({Phase.PROBING, Phase.ROLLING_BACK, Phase.HELD, Phase.REFUSED, Phase.ABORTED}),
    # Aborted: only where no host was changed.
    Phase.PROBING: frozenset({Phase.CANARY, Phase.ROLLING_BACK, Phase.HELD, Phase.ABORTED}),
    Phase.CANARY: frozenset({Phase.DRAINING, Phase.ROLLING_BACK, Phase.HELD, Phase.ABORTED}),
    Phase.DRAINING: frozenset({Phase.WATCHING, Phase.ROLLING_BACK, Phase.HELD, Phase.ABORTED}),
    Phase.WATCHING: frozenset({Phase.SUCCEEDED, Phase.ROLLING_BACK, Phase.HELD, Phase.ABORTED}),
    Phase.HELD: frozenset({*_CHANGING, Phase.ROLLING_BACK, Phase.ABORTED}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED}),
    Phase.ROLLBACK_FAILED: frozenset({Phase.ROLLING_BACK}),
    Phase.SUCCEEDED: frozenset({Phase.ROLLING_BACK}),
    Phase.ROLLED_BACK: frozenset(),
    Phase.REFUSED: frozenset(),
    Phase.ABORTED: frozenset(),
}
"""Every allowed transition. A test compares it with the drawing in `docs/state_machine.md` and with the database."""

LIVE = frozenset({*_CHANGING, Phase.HELD, Phase.ROLLING_BACK})
"""Phases in which a release owns its environment: only one such release can exist."""

FINISHED = frozenset(
    {Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.REFUSED, Phase.ABORTED}
)
"""Phases in which a release has ended; it has a finish time exactly in these. Only a failed rollback is tried again."""

EXIT_CODES: dict[Phase, ExitCode] = {
    Phase.SUCCEEDED: ExitCode.GOOD,
    Phase.ROLLED_BACK: ExitCode.ROLLED_BACK,
    Phase.ROLLBACK_FAILED: ExitCode.ROLLBACK_FAILED,
    Phase.REFUSED: ExitCode.REFUSED,
    Phase.ABORTED: ExitCode.REFUSED,
}


def exit_code(phase: Phase) -> ExitCode:
    """The exit code for a release in *phase*. An unfinished release has the code of a held one."""
    return EXIT_CODES.get(phase, ExitCode.HELD)


_ABBREVIATED_MIN = 7
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def short(revision: str | None) -> str:
    """A revision for people: the first seven digits of a commit, or a name as it is, at most 40 characters."""
    if not revision:
        return "unknown"
    return revision[:7] if _COMMIT.fullmatch(revision) else revision[:40]


def runs(reported: object, revision: str) -> bool:
    """Whether a reported revision is *revision*, full or abbreviated to seven digits or more."""
    # Seven digits without a letter may come as a JSON number.
    if isinstance(reported, int) and not isinstance(reported, bool):
        reported = str(reported)
    if not isinstance(reported, str) or len(reported) < _ABBREVIATED_MIN:
        return False
    return revision.startswith(reported.lower())


class Verdict(StrEnum):
    """What a phase concludes. "Could not ask" is an error, never a verdict."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A verdict with the sentence that explains it, and the note for the ledger."""

    verdict: Verdict
    sentence: str
    touched_hosts: bool = True
    """False only when certainly no running service has changed: then there is nothing to roll back."""
    blames_revision: bool = True
    """Whether a failure is evidence against the revision itself, so that it is quarantined after the rollback. A host
    that cannot be reached, our database, a wrong setting, or a person who changed their mind is not."""
    held_by: HeldBy = HeldBy.GATE
    """Of an inconclusive verdict: what holds the release."""
    note: PhaseNote = field(default_factory=PhaseNote)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release from the ledger. Its plain values may be passed between tasks and processes."""

    id: str
    environment: str
    from_revision: str
    to_revision: str
    requested_by: str
    phase: Phase
    resume_phase: Phase | None
    """The phase in which a held release continues when it is resumed."""
    token: int | None
    """Fencing token of the lock under which this release may change hosts; None before the lock."""
    speed: float
    """How many runbook seconds pass in one real second; 1 everywhere but in a rehearsal."""
    reason: str
    """The sentence of the newest conclusion."""
    created_at: datetime
    finished_at: datetime | None
