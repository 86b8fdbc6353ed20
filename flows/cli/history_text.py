"""The history as text, for a terminal of 80 columns: when, what, by whom, why, and how it ended."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime

from flows.cli.output import printable
from handlers.release.due import Care
from handlers.release.phase import short
from handlers.status.past import PastRelease
from handlers.status.wrapping import age

_INDENT = 15
_LINES_MAX = 3
"""An end that needs more lines is cut: `runbook report` has the whole."""


def lines(known: Sequence[PastRelease], cares: Sequence[Care], width: int = 80) -> Iterator[str]:
    """Two to five lines for each release, the newest first."""
    for each, care in zip(known, cares, strict=True):
        release = each.release
        yield f"{release.id:<{_INDENT - 1}} {_times(release.created_at, release.finished_at)}  {_change(each)}"
        who = f"by {release.requested_by}" + (f": {each.asked_because}" if each.asked_because else "")
        yield from _indented(who, width, most=1)
        if yes := ", ".join(given.person for given in each.approvals if given.is_yes):
            yield from _indented(f"approved by {yes}", width, most=1)
        ended = f"{release.phase.upper()}" + (f": {release.reason}" if release.reason else "")
        yield from _indented(ended, width, most=_LINES_MAX)
        if care.carried is False:
            yield from _indented(f"{care.sentence}: `runbook resume --due` continues it", width, most=2)


def _times(began: datetime, ended: datetime | None) -> str:
    if ended is None:
        return f"{began:%Y-%m-%d %H:%M} UTC, not ended"
    return f"{began:%Y-%m-%d %H:%M} UTC, {age((ended - began).total_seconds())}"


def _change(each: PastRelease) -> str:
    release = each.release
    if each.deploys:
        return f"{short(release.from_revision)} -> {short(release.to_revision)}"
    return f"{each.kind} by hand on {short(release.to_revision)}"


def _indented(sentence: str, width: int, *, most: int) -> list[str]:
    return textwrap.wrap(
        printable(sentence),
        width,
        initial_indent=" " * _INDENT,
        subsequent_indent=" " * _INDENT,
        break_on_hyphens=False,
        max_lines=most,
        placeholder=" ...",
    )
