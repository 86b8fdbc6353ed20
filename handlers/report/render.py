"""The report as Markdown and as one HTML page, from its JSON. Pure: no database, no files."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handlers.environment.load import env_option
from handlers.release.phase import short
from handlers.report import charts


def as_markdown(report: dict[str, Any]) -> str:
    """The report for a pull request or a ticket."""
    return _templates(escape=False).get_template("report.md").render(report=report)


def as_html(report: dict[str, Any]) -> str:
    """The report as a self-contained page: no script, no external link."""
    return _templates(escape=True).get_template("report.html").render(report=report)


@cache
def _templates(*, escape: bool) -> Environment:
    templates = Environment(
        loader=PackageLoader("handlers.report", "templates"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "clock": _clock,
        "seconds": _seconds,
        "percent": _percent,
        "number": _number,
        "cell": _markdown_cell,
        "commit": _commit,
        "short": short,
        "env_option": env_option,
        "pictures": charts.pictures,
        "course_table": _course_table,
    }
    templates.globals["why_no_pictures"] = charts.why_none
    return templates


def _clock(time: str | None) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S} UTC" if time else "–"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _commit(line: str) -> str:
    """A commit of the plan: `>` marks one that comes, `<` one that is gone afterwards."""
    return f"GONE afterwards: {line[1:]}" if line.startswith("<") else line.removeprefix(">")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _course_table(report: dict[str, Any]) -> list[str]:
    """The course of a window as a table, with every fourth point: text has no picture."""
    lines = ["| at | success | ended | open | oldest waits |", "|---|---|---|---|---|"]
    points = report["course"]
    for number, point in enumerate(points):
        if number % 4 == 3 or number == len(points) - 1:
            cells = [
                _clock(point["at"]),
                _percent(point["success_percent"]),
                str(point["ended"]),
                str(point["open"]),
                _seconds(point["oldest_seconds"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _markdown_cell(value: object) -> str:
    """Text escaped for a Markdown table cell: no line break, heading, link or HTML."""
    flat = " ".join(str(value).split())
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, f"\\{char}")
    return flat
