"""[notify]: the quiet hours, and what is wrong with the table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from handlers.environment.notification import Notify, Severity

ADDRESS = {"name": "chat", "url": "env:CHAT"}


@pytest.mark.parametrize(
    ("now", "not_before"),
    [
        ("2026-01-10T18:59", "2026-01-10T18:59"),
        ("2026-01-10T19:00", "2026-01-11T04:00"),
        ("2026-01-10T23:30", "2026-01-11T04:00"),
        ("2026-01-11T03:59", "2026-01-11T04:00"),
        ("2026-01-11T04:00", "2026-01-11T04:00"),
    ],
)
def test_what_can_wait_waits_for_the_end_of_the_quiet_hours(now: str, not_before: str) -> None:
    """From ten to seven in Istanbul, over midnight, by a clock in UTC."""
    notify = Notify(quiet_from="22:00", quiet_until="07:00", time_zone="Europe/Istanbul")
    at, then = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (now, not_before))
    assert notify.not_before(Severity.INFO, at) == notify.not_before(Severity.WARNING, at) == then
    assert notify.not_before(Severity.PAGE, at) == at


@pytest.mark.parametrize(("now", "not_before"), [("11:59", "11:59"), ("12:00", "14:00"), ("14:00", "14:00")])
def test_quiet_hours_within_a_day(now: str, not_before: str) -> None:
    """A siesta ends on the same day."""
    notify = Notify(quiet_from="12:00", quiet_until="14:00")
    at, then = (datetime.fromisoformat(f"2026-01-10T{each}+00:00") for each in (now, not_before))
    assert notify.not_before(Severity.INFO, at) == then


def test_quiet_hours_end_by_the_clock_on_the_wall_when_it_is_set() -> None:
    """In the night of the change to summer time, seven o'clock is an hour sooner."""
    notify = Notify(quiet_from="22:00", quiet_until="07:00", time_zone="Europe/Berlin")
    at = datetime(2026, 3, 28, 22, tzinfo=UTC)
    assert notify.not_before(Severity.INFO, at) == datetime(2026, 3, 29, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"quiet_from": "22:00"}, "quiet_from and quiet_until belong together"),
        ({"quiet_from": "22:00", "quiet_until": "22:00"}, "the same time"),
        ({"quiet_from": "24:00", "quiet_until": "07:00"}, "'24:00' is no time of day"),
        ({"quiet_from": "10pm", "quiet_until": "07:00"}, "'10pm' is no time of day"),
        ({"time_zone": "Istanbul"}, "there is no time zone 'Istanbul'"),
        ({"time_zone": "../../etc/passwd"}, "there is no time zone"),
        ({"addresses": [ADDRESS, ADDRESS]}, "two addresses have the name 'chat'"),
        ({"addresses": [{"name": "chat", "url": "slack://token"}]}, "must be a reference"),
        ({"addresses": [{**ADDRESS, "severities": ["loud"]}]}, "'page', 'warning' or 'info'"),
        ({"addresses": [{**ADDRESS, "severities": []}]}, "at least 1 item"),
        ({"addresses": [{**ADDRESS, "name": "The Chat"}]}, "should match pattern"),
        ({"answer_seconds": 0}, "greater than 0"),
    ],
)
def test_a_wrong_table_is_explained(table: dict[str, Any], error: str) -> None:
    """One sentence with the allowed values, and never an address that was written there by mistake."""
    with pytest.raises(ValidationError) as raised:
        Notify.model_validate(table)
    said = "; ".join(each["msg"] for each in raised.value.errors(include_url=False, include_input=False))
    assert error in said
    assert "token" not in said
