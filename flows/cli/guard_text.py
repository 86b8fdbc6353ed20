"""The checks of a guard as text, for a terminal of 80 columns: each that was taken, and the due ones in groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from handlers.release.ledger.guards import Check, Guard
from handlers.status.wrapping import age


def head(guard: Guard) -> str:
    """From when to when, and whether a breach only pages."""
    if guard.ended_at is not None:
        return f"guarded from {_time(guard.begun_at)} to {_time(guard.ended_at)}: {guard.ended}"
    only = f"; a breach only pages ({guard.pages_only_by}: {guard.pages_only})" if guard.pages_only_by else ""
    return f"guarded from {_time(guard.begun_at)} to {_time(guard.until)}{only}"


def lines(checks: Sequence[Check]) -> Iterator[str]:
    """A line for each check that was taken, and one for each row of due ones at the same distance."""
    due: list[Check] = []
    for check in checks:
        if check.taken_at is None:
            if due and not _goes_on(due, check):
                yield _due(due)
                due = []
            due.append(check)
            continue
        if due:
            yield _due(due)
            due = []
        state = "[skipped]" if check.skipped else "[done]   "
        finding = f"{check.finding}: " if check.finding else ""
        yield f" {state} {_time(check.taken_at)}  {finding}{check.sentence}"
    if due:
        yield _due(due)


def _goes_on(due: Sequence[Check], check: Check) -> bool:
    """Whether *check* continues the row: of the same kind, and at the distance of the others."""
    if check.kind != due[-1].kind:
        return False
    return len(due) == 1 or _near(check.due_at - due[-1].due_at, due[1].due_at - due[0].due_at)


def _near(one: timedelta, other: timedelta) -> bool:
    return abs((one - other).total_seconds()) <= 0.1 * other.total_seconds()


def _due(due: Sequence[Check]) -> str:
    first, last = due[0], due[-1]
    if len(due) == 1:
        return f" [due]     {_time(first.due_at)}  {first.kind}"
    every = age((due[1].due_at - first.due_at).total_seconds())
    return (
        f" [due]     {_time(first.due_at)}  {len(due)} {first.kind}s, every {every} to {_time(last.due_at)}"
    )


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M}"
