"""The report as Markdown and as one HTML page, from its JSON. Pure: no database, no files."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handlers.release.phase import short


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
    templates.filters |= {"clock": _clock, "seconds": _seconds, "cell": _markdown_cell, "short": short}
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


def _markdown_cell(value: object) -> str:
    """Text escaped for a Markdown table cell: no line break, heading, link or HTML."""
    flat = " ".join(str(value).split())
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, f"\\{char}")
    return flat
