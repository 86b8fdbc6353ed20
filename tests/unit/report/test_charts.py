"""The pictures of a report: drawn without a network, safe in a page, and never needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from handlers.report import charts

BEGIN = datetime(2026, 11, 29, 12, tzinfo=UTC)


def report(points: int = 12, *, phases: int = 3, hours: float = 1, **bars: float) -> dict[str, Any]:
    """A report about *hours*, with so many points."""
    step = timedelta(hours=hours) / points
    return {
        "course": [
            {
                "at": (BEGIN + (n + 1) * step).isoformat(),
                "success_percent": None if n == 3 else 100 - n,
                "ended": n,
                "open": n,
                "oldest_seconds": 10.0 * n,
            }
            for n in range(points)
        ],
        "moments": [
            {"release_id": "r", "phase": "watching", "at": (BEGIN + n * step).isoformat()}
            for n in range(phases)
        ],
        "bars": {"success_percent": 95, "queue_depth": None, "oldest_seconds": 300} | bars,
    }


def test_there_are_three_pictures_with_their_bars_and_phases() -> None:
    """Success, depth and age. A bar that is far above is named and not drawn."""
    found = charts.pictures(report())
    assert [each.caption for each in found] == [
        "Success, % of the events that ended. The red line is the bar of 95. Grey lines: a phase began.",
        "Events that are open. Grey lines: a phase began.",
        "Age of the oldest open event, s. The red line is the bar of 300. Grey lines: a phase began.",
    ]
    assert "far above" in charts.pictures(report(oldest_seconds=86_400))[2].caption


def test_a_picture_is_one_element_without_script_or_outside_address() -> None:
    """It stands in a mail: only the names of its XML namespaces look like addresses."""
    for each in charts.pictures(report()):
        root = ElementTree.fromstring(each.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label")
        assert "<script" not in each.svg
        assert "http" not in each.svg.replace("http://www.w3.org/2000/svg", "").replace(
            "http://www.w3.org/1999/xlink", ""
        )


def test_a_phase_named_by_somebody_else_makes_no_markup() -> None:
    """Text in a picture is text."""
    given = report()
    given["moments"][1]["phase"] = "</text><script>alert(1)</script>"
    assert all("<script" not in each.svg for each in charts.pictures(given))


def test_a_part_without_an_event_has_no_success() -> None:
    """It is a gap, not 0 %."""
    given = report()
    specification = charts.spec(given["course"], "success_percent", bar=None, ends=[0, 100], moments=[])
    assert len(specification["layer"][0]["data"]["values"]) == 11


@pytest.mark.parametrize(("hours", "form"), [(0.1, "%H:%M:%S"), (24, "%H:%M"), (24 * 7, "%d %b")])
def test_the_axis_fits_its_span(hours: float, form: str) -> None:
    """Minutes, hours, or days."""
    given = report(hours=hours)
    specification = charts.spec(given["course"], "open", bar=None, ends=None, moments=[])
    assert specification["layer"][0]["encoding"]["x"]["axis"]["format"] == form


def test_the_phases_of_many_releases_are_left_out() -> None:
    """They would hide the line."""
    assert "phase began" not in charts.pictures(report(phases=15, points=30))[0].caption


@pytest.mark.parametrize("given", [{"course": [], "moments": [], "bars": {}}, report(points=1)])
def test_nothing_to_draw_is_said(given: dict[str, Any]) -> None:
    """An empty queue has no picture."""
    assert charts.pictures(given) == []
    assert charts.why_none()


def test_without_the_extra_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A production install need not have it."""
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    assert charts.pictures(report()) == []
    assert "[charts]" in charts.why_none()


def test_a_picture_that_cannot_be_drawn_costs_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is shown instead."""

    def broken(*_: Any) -> str:
        raise ValueError("no font")

    monkeypatch.setattr(charts, "_svg", broken)
    assert charts.pictures(report()) == []
