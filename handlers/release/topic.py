"""What people are told of, how urgent it is, and what ends it. Pure."""

from __future__ import annotations

from enum import StrEnum

from handlers.environment.notification import Severity
from handlers.release.note import HeldBy
from handlers.release.phase import Phase


class Topic(StrEnum):
    """What a message tells. Prefect's events have the same names, after `runbook.`."""

    WAITING = "release.waiting"
    """It waits for approval: people are needed before it expires."""
    APPROVED = "release.approved"
    STARTED = "release.started"
    HELD = "release.held"
    RESUMED = "release.resumed"
    ROLLING_BACK = "release.rolling_back"
    ROLLED_BACK = "release.rolled_back"
    ROLLBACK_FAILED = "release.rollback_failed"
    SUCCEEDED = "release.succeeded"
    ABORTED = "release.aborted"
    REFUSED = "release.refused"
    UNCARRIED = "release.uncarried"
    CARRIED = "release.carried"
    BREACH = "gate.breach"
    """A breach that does not take the release back by itself: a person decides."""
    NOT_BACK = "host.not-back"
    BACK = "host.back"
    NOT_ARMED = "host.not-armed"
    GUARD_OVERDUE = "guard.overdue"
    GUARD_TAKEN = "guard.taken"
    CHECK_BROKEN = "check.bar-broken"
    CHECK_WHOLE = "check.bar-whole"
    MACHINE_BROKEN = "machine.bar-broken"
    MACHINE_WHOLE = "machine.bar-whole"
    SOURCE_DOWN = "source.down"
    SOURCE_BACK = "source.back"
    NEW_ERROR = "log.new-error"
    UPSTREAM_AWAY = "upstream.away"
    UPSTREAM_BACK = "upstream.back"
    HEALED = "heal.done"
    HEAL_STOPPED = "heal.stopped"
    TEST = "test"


SEVERITIES: dict[Topic, Severity] = {
    Topic.APPROVED: Severity.INFO,
    Topic.STARTED: Severity.INFO,
    Topic.RESUMED: Severity.PAGE,
    Topic.SUCCEEDED: Severity.INFO,
    Topic.ABORTED: Severity.INFO,
    Topic.REFUSED: Severity.WARNING,
    Topic.CHECK_BROKEN: Severity.WARNING,
    Topic.CHECK_WHOLE: Severity.WARNING,
    Topic.MACHINE_BROKEN: Severity.WARNING,
    Topic.MACHINE_WHOLE: Severity.WARNING,
    Topic.NEW_ERROR: Severity.WARNING,
    Topic.UPSTREAM_AWAY: Severity.WARNING,
    Topic.UPSTREAM_BACK: Severity.WARNING,
    Topic.HEALED: Severity.INFO,
    Topic.HEAL_STOPPED: Severity.WARNING,
}
"""Every other topic is a page: a person is needed, or was, and hears that it is over."""

ENDS: dict[Topic, tuple[Topic, ...]] = {
    Topic.APPROVED: (Topic.WAITING,),
    Topic.REFUSED: (Topic.WAITING,),
    Topic.RESUMED: (Topic.HELD,),
    Topic.ROLLING_BACK: (Topic.HELD, Topic.BREACH),
    Topic.ROLLED_BACK: (Topic.ROLLING_BACK, Topic.ROLLBACK_FAILED, Topic.NOT_BACK),
    Topic.SUCCEEDED: (Topic.HELD,),
    Topic.ABORTED: (Topic.HELD, Topic.WAITING),
    Topic.CARRIED: (Topic.UNCARRIED,),
    Topic.BACK: (Topic.NOT_BACK,),
    Topic.GUARD_TAKEN: (Topic.GUARD_OVERDUE,),
    Topic.CHECK_WHOLE: (Topic.CHECK_BROKEN,),
    Topic.MACHINE_WHOLE: (Topic.MACHINE_BROKEN,),
    Topic.SOURCE_BACK: (Topic.SOURCE_DOWN,),
    Topic.UPSTREAM_BACK: (Topic.UPSTREAM_AWAY,),
}
"""The topics that another one ends: after it they are counted anew."""

RECOVERIES = frozenset(ENDS) - {
    Topic.APPROVED,
    Topic.REFUSED,
    Topic.ROLLING_BACK,
    Topic.ROLLED_BACK,
    Topic.SUCCEEDED,
    Topic.ABORTED,
}
"""They are told only where the trouble was told. The others are news in any case."""

_OF_PHASES = {
    Phase.HELD: Topic.HELD,
    Phase.ROLLED_BACK: Topic.ROLLED_BACK,
    Phase.ROLLBACK_FAILED: Topic.ROLLBACK_FAILED,
    Phase.SUCCEEDED: Topic.SUCCEEDED,
    Phase.ABORTED: Topic.ABORTED,
    Phase.REFUSED: Topic.REFUSED,
}


def severity_of(topic: Topic) -> Severity:
    """How urgent it is, unless the message says otherwise."""
    return SEVERITIES.get(topic, Severity.PAGE)


def of_phase(before: Phase, to: Phase) -> Topic | None:
    """What a change of the phase tells people; None where it is no news."""
    if before is Phase.APPROVED and to is Phase.DEPLOYING:
        return Topic.STARTED
    if to is Phase.ROLLING_BACK:
        # The next try of a failed rollback is what they were told of already.
        return None if before is Phase.ROLLBACK_FAILED else Topic.ROLLING_BACK
    if before is Phase.PLANNED:
        # Nothing had begun, and whoever typed it sees it.
        return None
    if before is Phase.HELD and to not in _OF_PHASES:
        return Topic.RESUMED
    return _OF_PHASES.get(to)


def severity_of_hold(held_by: HeldBy | None) -> Severity:
    """A person who holds a release knows it."""
    return Severity.INFO if held_by is HeldBy.OPERATOR else Severity.PAGE
