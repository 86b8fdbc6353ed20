"""The pictures of a report: success, depth and age of the queue over time, with the bars and the phases. Pure.

A picture is a Vega-Lite specification, which vl-convert turns into a static SVG without a network. It is an extra
(`[charts]`): without it the report has a table instead, and says so.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any

log = logging.getLogger(__name__)

WIDTH, HEIGHT = 520, 140
_BLUE, _RED, _GREY = "#2b5fa8", "#a11c1c", "#8a93a3"
_MOMENTS_MAX = 14
_FAR = 3.0
SPECS = (
    ("success_percent", "Success, % of the events that ended", "success_percent", [0, 100]),
    ("open", "Events that are open", "queue_depth", None),
    ("oldest_seconds", "Age of the oldest open event, s", "oldest_seconds", None),
)
"""Of each picture: the value of a point, its title, the key of its bar, and the ends of its scale."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture as SVG."""

    svg: str
    caption: str


def why_none() -> str:
    """Why a report has no pictures."""
    if find_spec("vl_convert") is None:
        return "Pictures need the extra [charts]: pip install 'tds-runbook[charts]'. The table has the same numbers."
    return "There is no picture: nothing happened in the queue, or it could not be drawn."


def pictures(report: dict[str, Any]) -> list[Picture]:
    """The pictures of a report; none without events to draw, or without the extra."""
    course = report["course"]
    if find_spec("vl_convert") is None or not any(point["ended"] or point["open"] for point in course):
        return []
    moments = _moments(report)
    found = []
    for value, title, bar_key, ends in SPECS:
        bar = report["bars"].get(bar_key)
        highest = max((each[value] for each in course if each[value] is not None), default=0)
        # A bar far above the line would press it to the ground.
        is_far = bar is not None and ends is None and bar > _FAR * max(highest, 1)
        specification = spec(course, value, bar=None if is_far else bar, ends=ends, moments=moments)
        parts = [f"{title}."]
        if bar is not None:
            parts.append(
                f"The bar is {bar:g}, far above." if is_far else f"The red line is the bar of {bar:g}."
            )
        parts += ["Grey lines: a phase began."] if moments else []
        try:
            found.append(Picture(svg=_svg(specification, title), caption=" ".join(parts)))
        except Exception as error:  # A picture that cannot be drawn must not cost the report.
            log.warning("no picture of the %s: %s", title, error)
            return []
    return found


def spec(
    course: list[dict[str, Any]],
    value: str,
    *,
    bar: float | None,
    ends: list[int] | None,
    moments: list[dict[str, str]],
) -> dict[str, Any]:
    """The Vega-Lite specification of one value over time."""
    domain = [course[0]["at"], course[-1]["at"]]
    x = {
        "field": "at",
        "type": "temporal",
        "scale": {"type": "utc", "domain": domain},
        "axis": {"title": "UTC", "format": _form(domain), "tickCount": 6, "labelOverlap": True},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"domain": ends} if ends else {}}
    points = [{"at": each["at"], "value": each[value]} for each in course if each[value] is not None]
    line = {"type": "line", "color": _BLUE, "point": {"size": 12, "color": _BLUE}}
    layers = [*_rules(moments, domain, x), _layer(points, line, {"x": x, "y": y})]
    if bar is not None:
        layers.append(_layer([{"value": bar}], {"type": "rule", "color": _RED}, {"y": y}))
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH,
        "height": HEIGHT,
        "background": "white",
        "config": {"font": "sans-serif", "view": {"stroke": "#d8dde6"}},
        "layer": layers,
    }


def _layer(values: list[dict[str, Any]], mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"values": values}, "mark": mark, "encoding": encoding}


def _rules(moments: list[dict[str, str]], domain: list[str], x: dict[str, Any]) -> list[dict[str, Any]]:
    """A line at the beginning of each phase, with its name on the side where there is room."""
    begin, end = map(datetime.fromisoformat, domain)
    inside = [each for each in moments if begin <= datetime.fromisoformat(each["at"]) <= end]
    late = end - (end - begin) * 0.05
    layers = []
    for is_late, beside in ((False, 8), (True, -4)):
        some = [each for each in inside if (datetime.fromisoformat(each["at"]) > late) is is_late]
        if some:
            word = {"type": "text", "angle": 270, "align": "right", "dx": -3, "dy": beside}
            layers.append(_layer(some, {"type": "rule", "color": _GREY, "strokeDash": [2, 3]}, {"x": x}))
            named = {"x": x, "y": {"value": 0}, "text": {"field": "phase"}}
            layers.append(_layer(some, word | {"fontSize": 10, "color": "#556"}, named))
    return layers


def _form(domain: list[str]) -> str:
    """How a time of the axis is written: the shorter the span, the finer."""
    begin, end = map(datetime.fromisoformat, domain)
    seconds = (end - begin).total_seconds()
    return "%H:%M:%S" if seconds < 900 else "%H:%M" if seconds < 2 * 86_400 else "%d %b"


def _moments(report: dict[str, Any]) -> list[dict[str, str]]:
    """The beginnings of phases that change something. Those of several releases would hide the line."""
    moments = [
        {"at": each["at"], "phase": each["phase"].replace("_", " ")}
        for each in report["moments"]
        if each["phase"] not in ("planned", "approved")
    ]
    return moments if len(moments) <= _MOMENTS_MAX else []


def _svg(specification: dict[str, Any], title: str) -> str:
    """The picture as SVG that may stand in a page: named for a screen reader, without a link to a font or schema."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[])
    svg = re.sub(r"<\?xml[^>]*\?>|<!DOCTYPE[^>]*>", "", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
