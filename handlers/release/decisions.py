"""Which command a person may give in which phase, and why not. Pure; `docs/state_machine.md` has it as a table."""

from __future__ import annotations

from enum import StrEnum

from handlers.errors import Refused
from handlers.release.phase import FINISHED, Phase, Release


class Verb(StrEnum):
    """What a person asks of a release."""

    HOLD = "hold"
    RESUME = "resume"
    SKIP = "skip"
    ABORT = "abort"
    ROLLBACK = "rollback"
    APPROVE = "approve"
    REJECT = "reject"


_RUNNING = (Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
SKIPPABLE = frozenset({Phase.CANARY, Phase.DRAINING, Phase.WATCHING})
"""The phases that may end without their result. That the hosts run the revision is never taken on trust."""

ALLOWED: dict[Verb, frozenset[Phase]] = {
    Verb.HOLD: frozenset({*_RUNNING, Phase.HELD}),
    Verb.RESUME: frozenset(
        {Phase.PLANNED, Phase.APPROVED, *_RUNNING, Phase.HELD, Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED}
    ),
    Verb.SKIP: frozenset({*SKIPPABLE, Phase.HELD}),
    Verb.ABORT: frozenset({Phase.PLANNED, Phase.APPROVED, *_RUNNING, Phase.HELD}),
    Verb.ROLLBACK: frozenset(
        {*_RUNNING, Phase.HELD, Phase.SUCCEEDED, Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED}
    ),
    Verb.APPROVE: frozenset({Phase.PLANNED}),
    Verb.REJECT: frozenset({Phase.PLANNED, Phase.APPROVED}),
}
"""The phases in which a command does something. A test compares it with the table in `docs/state_machine.md`."""


def raise_unless_allowed(verb: Verb, run: Release) -> None:
    """Raise Refused when the command means nothing in the phase of the release; the message says what does."""
    if run.phase in ALLOWED[verb]:
        stopped_at = run.resume_phase
        if verb is Verb.SKIP and run.phase is Phase.HELD and stopped_at not in SKIPPABLE:
            raise Refused(f"release {run.id} is held while {stopped_at}: that phase is never skipped")
        return
    raise Refused(f"release {run.id} is {run.phase}: {_why_not(verb, run.phase)}")


def _why_not(verb: Verb, phase: Phase) -> str:
    if verb in (Verb.APPROVE, Verb.REJECT):
        return _why_no_approval(phase)
    if phase in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED):
        return "it is on its way back, which is never paused; `runbook rollback` goes on with it"
    if phase is Phase.SUCCEEDED:
        return "it has ended; `runbook rollback` goes back"
    if phase in FINISHED:
        return "it has ended, and there is nothing to take back"
    if verb is Verb.SKIP:
        return "only a canary, a drain and a watch can be skipped"
    return "it has not started; `runbook resume` starts it, `runbook abort` ends it"


def _why_no_approval(phase: Phase) -> str:
    if phase is Phase.APPROVED:
        return "enough people have approved it; `runbook reject` or `runbook abort` still ends it"
    if phase in FINISHED:
        return "it has ended: plan it again, and ask for approval"
    return "it has started; `runbook hold` pauses it, `runbook abort` ends it"
