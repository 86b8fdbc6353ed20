"""Readings of an environment that is well, to be changed by the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from board.reading import GuardNow, HealNow, MessagesNow, QueueNow, Reading, ReleaseNow
from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.queue.event import Status
from handlers.release.ledger.troubles import Messages
from handlers.release.phase import Phase, Release
from handlers.status.view import StatusView
from handlers.zoho.standing import Syncs

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def ago(**span: float) -> datetime:
    """So long before the reading."""
    return NOW - timedelta(**span)


def environment(**sections: Any) -> Environment:
    """The environment `somewhere`."""
    return parse(
        {
            "name": "somewhere",
            "database": {"url": "postgresql://u@127.0.0.1/erp"},
            "ssh": {"user": "deploy", "key_file": "k", "known_hosts_file": "h"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1/health"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {},
            **sections,
        },
        source="test",
    )


def run(phase: Phase = Phase.SUCCEEDED, **changes: Any) -> Release:
    """A release."""
    values: dict[str, Any] = {
        "id": "2026-01-02.1",
        "environment": "somewhere",
        "from_revision": "a" * 40,
        "to_revision": "b" * 40,
        "requested_by": "ops-a",
        "phase": phase,
        "resume_phase": Phase.WATCHING if phase is Phase.HELD else None,
        "token": 1,
        "speed": 1.0,
        "reason": "97 of 97 completed",
        "created_at": ago(hours=1),
        "finished_at": None,
    }
    return Release(**values | changes)


def release(phase: Phase = Phase.SUCCEEDED, **view: Any) -> ReleaseNow:
    """The newest release in this phase."""
    current = view.pop("release", run(phase))
    neglected = view.pop("neglected", None)
    status = StatusView(environment="somewhere", at=NOW, release=current, **view)
    return ReleaseNow(view=status, history=[current], outcomes=dict.fromkeys(Phase, 0), neglected=neglected)


def reading(**changes: Any) -> Reading:
    """A reading in which everything is well."""
    values: dict[str, Any] = {
        "environment": "somewhere",
        "at": NOW,
        "seconds": 0.1,
        "down": {},
        "queue": QueueNow(status=dict.fromkeys(Status, 0), by_type=[], limits=[]),
        "checks": [],
        "times": {},
        "workers": [],
        "release": release(),
        "guard": GuardNow(),
        "syncs": Syncs(),
        "heal": HealNow(),
        "messages": MessagesNow(troubles=[], messages=Messages()),
    }
    return Reading(**values | changes)
