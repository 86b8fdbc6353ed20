"""What a person sees of an environment: gathered from the same readings as the JSON, and rendered. It reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from board import answers
from board.course import Drawn
from board.errors import or_error
from board.place import Place
from board.reading import Reading, Source
from handlers.database.jsonable import clean
from handlers.environment.load import env_option
from handlers.environment.redact import redact_text
from handlers.errors import RunbookError
from handlers.queue.event import Status
from handlers.release.decisions import ALLOWED, Verb
from handlers.release.phase import Phase, short
from handlers.report import charts
from handlers.status.lines import told_apart, wait_line
from handlers.status.tree_lines import phase_took
from handlers.status.wrapping import age, lasted

STATUSES = [str(status) for status in Status]
_HOLDABLE = ALLOWED[Verb.HOLD] - {Phase.HELD}


async def environment_page(place: Place, release_id: str | None, common: Mapping[str, Any]) -> str:
    """The page of one environment; of an older release where one is named. Raises Refused when there is none."""
    now, letters, course, drawn, alerts = await asyncio.gather(
        or_error(place.now()),
        or_error(place.letters()),
        or_error(place.course()),
        or_error(place.drawn()),
        place.alerts(),
    )
    read = now if isinstance(now, Reading) else None
    newest = read.release.view if read is not None and read.release is not None else None
    current = newest.release.id if newest is not None and newest.release is not None else None
    wanted = release_id or current
    found = await or_error(place.record(wanted)) if wanted is not None and (read or release_id) else None
    if isinstance(found, RunbookError) and release_id is not None:
        raise found
    view, record = found if isinstance(found, tuple) else (newest, None)
    is_current = wanted == current
    run = view.release if view is not None else None
    waits = view.start.approval if view is not None else None
    values = {
        "name": place.name,
        "env": env_option(place.name),
        "at": read.at if read else None,
        "now": read,
        "away": None if read else str(now),
        "alerts": alerts,
        "view": view,
        "record": record,
        "record_away": str(found) if isinstance(found, RunbookError) else "",
        "release_away": _why_not(now, Source.RELEASE),
        "older": run is not None and not is_current,
        "may_hold": is_current and run is not None and run.phase in _HOLDABLE,
        "may_approve": is_current and record is not None and waits is not None and bool(waits.whom),
        "drawn": drawn if isinstance(drawn, Drawn) else None,
        "drawn_away": str(drawn) if isinstance(drawn, RunbookError) else "",
        "of_release": isinstance(drawn, Drawn) and drawn.of_release,
        "why_no_pictures": charts.why_none(),
        "course": course if isinstance(course, dict) else None,
        "types": answers.success_rate(read, course).types if read and isinstance(course, dict) else [],
        "letters": None if isinstance(letters, RunbookError) else letters,
        "letters_away": str(letters) if isinstance(letters, RunbookError) else "",
        "statuses": STATUSES,
        "heads": [f">{status.replace('_', ' ')}" for status in STATUSES],
        "by_type": _by_type(read),
        "why_not": partial(_why_not, now),
    }
    values["secrets"] = await place.secrets()
    return await asyncio.to_thread(_render, "environment.html", {**values, **common})


async def overview_page(places: Sequence[Place], common: Mapping[str, Any]) -> str:
    """All environments, each with its state and its first alert."""
    found = await asyncio.gather(*(_overview(place) for place in places))
    return await asyncio.to_thread(_render, "environments.html", {"overview": found, "name": "", **common})


def small_page(template: str, values: Mapping[str, Any]) -> str:
    """A page without readings: the form for the token, or what came of an action."""
    return _render(template, {"name": "", **values})


async def _overview(place: Place) -> dict[str, Any]:
    now, alerts, secrets = await asyncio.gather(or_error(place.now()), place.alerts(), place.secrets())
    read = now if isinstance(now, Reading) else None
    counts = read.queue.status if read and read.queue else None
    open_ = (Status.PENDING, Status.PROCESSING, Status.RETRY)
    return {
        "name": place.name,
        "away": "" if read else redact_text(str(now), secrets),
        "release": read.release.view.release if read and read.release else None,
        "open": sum(counts[status] for status in open_) if counts else None,
        "dead": counts[Status.DEAD_LETTER] if counts else None,
        "alerts": [{"sentence": redact_text(alert.sentence, secrets)} for alert in alerts],
    }


def _render(template: str, values: Mapping[str, Any]) -> str:
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("board", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    templates.filters |= {
        "clock": _clock,
        "minute": lambda at: f"{at.astimezone(UTC):%H:%M}",
        "short": short,
        "words": lambda name: str(name).replace("_", " "),
        "age": age,
        "lasted": lambda seconds: "–" if seconds is None else lasted(seconds),
        "took": phase_took,
        "waited": wait_line,
        "told_apart": told_apart,
        "percent": lambda value: "–" if value is None else f"{value:.1f} %",
        "commit": lambda line: line.lstrip("<>"),
    }
    return templates


@pass_context
def _finalized(context: Context, value: Any) -> Any:
    """Text as it is shown: every secret masked, before it is escaped. Sentences may have text from hosts and errors."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return redact_text(clean(str(value)), context.get("secrets") or frozenset())


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M:%S}"


def _why_not(now: Reading | RunbookError, source: str) -> str:
    return str(now) if isinstance(now, RunbookError) else now.down.get(Source(source), "")


def _by_type(now: Reading | None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in now.queue.by_type if now is not None and now.queue is not None else ():
        found.setdefault(row.entity, {})[row.status] = row.events
    return dict(sorted(found.items()))
