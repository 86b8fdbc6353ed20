"""44 due checks are four lines, not 44."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flows.cli.guard_text import lines
from handlers.release.ledger.guards import Check, Kind

BEGIN = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)


def check(number: int, minutes: float, *, taken: bool = False, kind: Kind = Kind.LOOK) -> Check:
    """A check that is due so long after the release."""
    at = BEGIN + timedelta(minutes=minutes)
    return Check(
        id=number,
        release_id="2026-11-30.1",
        number=number,
        kind=kind,
        due_at=at,
        taken_at=at if taken else None,
        skipped=False,
        finding=None,
        sentence="all good" if taken else "",
    )


def test_due_checks_at_one_distance_are_one_line() -> None:
    minutes = [*range(5, 61, 5), *range(75, 241, 15), *range(300, 1441, 60)]
    checks = [check(number, at) for number, at in enumerate(minutes)]
    checks.append(check(99, 1440, kind=Kind.REPORT))
    assert list(lines(checks)) == [
        " [due]     30 Nov 04:05  12 looks, every 5 min to 30 Nov 05:00",
        " [due]     30 Nov 05:15  12 looks, every 15 min to 30 Nov 08:00",
        " [due]     30 Nov 09:00  20 looks, every 60 min to 01 Dec 04:00",
        " [due]     01 Dec 04:00  report",
    ]


def test_what_was_taken_has_its_own_line() -> None:
    found = list(lines([check(1, 5, taken=True), check(2, 10), check(3, 15, taken=True)]))
    assert found == [
        " [done]    30 Nov 04:05  all good",
        " [due]     30 Nov 04:10  look",
        " [done]    30 Nov 04:15  all good",
    ]
