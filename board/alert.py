"""One alert: its name, its urgency, since when, and what to type. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from handlers.environment.load import env_option
from handlers.environment.notification import Severity

LEDGER, BOARD = "ledger", "board"
"""Who knows since when."""


class Name(StrEnum):
    """The alerts. The list is closed, so that a label of a metric stays bounded."""

    DATABASE_AWAY = "database-away"
    ROLLBACK_FAILED = "rollback-failed"
    RELEASE_HELD = "release-held"
    APPROVAL_WAITS = "approval-waits"
    RELEASE_UNCARRIED = "release-uncarried"
    ROLLING_BACK = "rolling-back"
    LEDGER_BEHIND = "ledger-behind"
    GUARD_OVERDUE = "guard-overdue"
    GUARD_BREACH = "guard-breach"
    CHECK_BROKEN = "check-broken"
    SOURCE_DOWN = "source-down"
    HEAL_OVERDUE = "heal-overdue"
    SYNC_STOPPED = "sync-stopped"
    MESSAGES_WAIT = "messages-wait"
    MESSAGES_GIVEN_UP = "messages-given-up"
    AROUND = "around"
    """Something around a release that people were told of: a host, the upstream, a log."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing that is broken now."""

    name: Name
    subject: str = ""
    """The check, host, sync or source that it is about."""
    severity: Severity
    since: datetime | None
    since_is_of: str
    """`ledger`: since then. `board`: this board has seen it since then, and it may be older."""
    sentence: str
    next: tuple[str, ...]
    """What a person can type, the most useful first, each with a reason after a dash."""

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.name} {self.subject}".rstrip()


def alert(
    name: Name,
    severity: Severity,
    sentence: str,
    *next_: str,
    subject: str = "",
    since: datetime | None = None,
) -> Alert:
    """An alert whose time the ledger knows, or that has none yet."""
    return Alert(
        name=name,
        subject=subject,
        severity=severity,
        since=since,
        since_is_of=LEDGER,
        sentence=sentence,
        next=tuple(next_),
    )


def away_alert(name: str, why: str, since: datetime | None) -> Alert:
    """The alert where nothing can be read."""
    env = env_option(name)
    return Alert(
        name=Name.DATABASE_AWAY,
        severity=Severity.PAGE,
        since=since,
        since_is_of=BOARD,
        sentence=f"nothing is known of {name} now: {why}",
        next=(
            f"runbook doctor {env} – whether the database answers, and what it lacks",
            f"runbook rollback --from-hosts {env} – goes back without the database, if a release must go back now",
        ),
    )
