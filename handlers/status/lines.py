"""The status view as plain lines: readable without colour and never wider than it may be. Pure."""

from __future__ import annotations

import textwrap
import unicodedata
from datetime import datetime

from handlers.release import left_behind
from handlers.release.lock import Holder
from handlers.release.phase import short
from handlers.status.view import HostView, StatusView, StepState, StepView

_FRESH_SECONDS = 120
"""A host that was asked later than this needs no word about when."""
_LABEL = 9
"""Columns of the first word, so that the sentences stand below each other."""
_Block = tuple[int, list[str]]
"""A fact, as its lines, and how soon it gives way where there is no room."""
_MATTERS, _HELPS, _ASIDE, _OVER, _LATER = range(5)
_GIVING_WAY = ((1, _HELPS, _LATER), (0, _OVER, _LATER), (1, _MATTERS, _MATTERS), (0, _HELPS, _ASIDE))
"""In this order, so many lines are left of the facts from one rank to the other."""
_RANKS = {
    StepState.RUNNING: _MATTERS,
    StepState.FAILED: _MATTERS,
    StepState.HELD: _MATTERS,
    StepState.ARMED: _HELPS,
    StepState.NEXT: _ASIDE,
    StepState.DONE: _OVER,
    StepState.LATER: _LATER,
}


def lines(view: StatusView, width: int = 80, height: int | None = None) -> list[str]:
    """The view as text, one fact below the other. In less than its own *height* it keeps what matters most."""
    blocks = _blocks(view, width)
    return [
        line for _, told in (blocks if height is None else _fitted(blocks, width, height)) for line in told
    ]


def _blocks(view: StatusView, width: int) -> list[_Block]:
    release = view.release
    if release is None:
        return [
            (_MATTERS, _wrapped("", f"{view.environment}: no release yet", width)),
            (_ASIDE, _lock(view, width)),
        ]
    blocks = [
        (_MATTERS, _wrapped("release", f"{release.id}  {release.phase.upper()}{_clock(view)}", width)),
        (_MATTERS, _labelled("Why", view.why, width)),
        (_MATTERS, _labelled("Need", view.need, width)),
        (_HELPS, _labelled("Version", _versions(view), width)),
        (_ASIDE, _lock(view, width)),
    ]
    blocks += [(_RANKS[step.state], _step(step, width)) for step in view.steps]
    if view.batches:
        sizes = " ".join(str(batch.size) for batch in view.batches)
        told = f"{view.events_settled} of {view.events_planned} settled, batches {sizes}"
        blocks.append((_HELPS, _labelled("Events", told, width)))
    if view.findings:
        counted = ", ".join(f"{count} {finding}" for finding, count in sorted(view.findings.items()))
        blocks.append((_ASIDE, _labelled("Judged", counted, width)))
    if view.left_behind:
        blocks.append((_HELPS, _labelled("Left", left_behind.summary(view.left_behind), width)))
        back = f"send them back: {left_behind.command(release)}"
        blocks.append((_HELPS, _labelled("", back, width)))
    return blocks


def _fitted(blocks: list[_Block], width: int, height: int) -> list[_Block]:
    """Cut long sentences to their first line and leave facts out, what matters least and is longest over first."""
    fitted = list(blocks)
    for keep, least, most in _GIVING_WAY:
        for rank in range(most, least - 1, -1):
            for number, (own, told) in enumerate(fitted):
                if sum(len(lines) for _, lines in fitted) <= height:
                    return fitted
                if own == rank and len(told) > keep:
                    fitted[number] = (own, [f"{line[: width - 4].rstrip()} ..." for line in told[:keep]])
    return fitted


def _clock(view: StatusView) -> str:
    parts = []
    if view.running_seconds is not None:
        minute = int(view.running_seconds // 60)
        if view.window_seconds:
            parts.append(f"minute {minute} of {view.window_seconds / 60:g}")
        elif minute:
            parts.append(f"since {minute} min")
    if view.next_at is not None and view.release is not None:
        left = max(0, int((view.next_at - view.at).total_seconds() * view.release.speed))
        parts.append(f"{view.next_what or 'next look'} in {left // 60:02}:{left % 60:02}")
    return f"  {', '.join(parts)}" if parts else ""


def _versions(view: StatusView) -> str:
    if not view.hosts:
        return ""
    return "   ".join([f"want {short(view.hosts[0].want)}", *(_host(host, view.at) for host in view.hosts)])


def _host(host: HostView, at: datetime) -> str:
    state = {True: "ok", False: "NOT OK", None: "not asked yet"}[host.good]
    old = (at - host.seen_at).total_seconds() if host.seen_at else 0
    seen = f", seen {age(old)} ago" if old > _FRESH_SECONDS else ""
    note = f" ({host.note})" if host.note else ""
    return f"{host.name} {short(host.have)} {state}{note}{seen}"


def _lock(view: StatusView, width: int) -> list[str]:
    if view.lock is None:
        return []
    is_other = view.release is not None and view.release.id != view.lock.release_id
    whose = f", for release {view.lock.release_id}" if is_other else ""
    return _labelled("Lock", _holder(view.lock) + whose, width)


def _holder(holder: Holder) -> str:
    life = "renewed" if holder.alive else "RUN OUT, last renewed"
    ago = f"{life} {age(holder.silent_seconds)} ago"
    return f"{holder.name} since {holder.taken_at:%H:%M}, {ago}, token {holder.token}"


def _step(step: StepView, width: int) -> list[str]:
    at = f"{step.at:%H:%M}" if step.at else "     "
    head = f" {f'[{step.state}]':<9} {step.name:<9} {at}  "
    return _wrapped(head, step.sentence, width, indent=len(head))


def age(seconds: float) -> str:
    """A time span in the largest unit of which there are at least two: `119 s`, `2 min`, `47 h`, `2 days`."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _labelled(label: str, sentence: str, width: int) -> list[str]:
    return _wrapped(f"{label:<{_LABEL}}", sentence, width, indent=_LABEL) if sentence else []


def _wrapped(head: str, sentence: str, width: int, *, indent: int = _LABEL) -> list[str]:
    """*head* and *sentence*, broken so that no line is wider than *width*."""
    gap = " " if head and not head.endswith(" ") else ""
    first = f"{head}{gap}{_plain(sentence)}".rstrip()
    # A number stays on one line with its per cent sign.
    broken = textwrap.wrap(
        first.replace(" %", "\u00a0%"),
        width=max(width, indent + 10),
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return [line.replace("\u00a0%", " %") for line in broken] or [first[:width]]


def _plain(sentence: str) -> str:
    """One line without control characters: sentences carry text from hosts and payloads."""
    flat = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in sentence)
    return flat.strip()
