"""The status view as plain lines of text: no colours, and never wider than the terminal. Pure."""

from __future__ import annotations

import textwrap
import unicodedata
from datetime import datetime

from handlers.release import left_behind
from handlers.release.lock import Holder
from handlers.release.phase import LIVE, short
from handlers.status import fleet_lines
from handlers.status.view import HostView, ReturnView, StatusView, StepState, StepView

_FRESH_SECONDS = 120
"""The age of a host's answer is shown only when it is older."""
_LABEL_WIDTH = 9
"""Columns of the label, so that the sentences are aligned."""
_Block = tuple[int, list[str]]
"""The rank of a fact, and its lines. Facts of a higher rank are shortened first when the terminal is too small."""
_ESSENTIAL, _USEFUL, _DETAIL, _PAST, _FUTURE = range(5)
_SHORTENING = (
    (1, _USEFUL, _FUTURE),
    (0, _PAST, _FUTURE),
    (1, _ESSENTIAL, _ESSENTIAL),
    (0, _USEFUL, _DETAIL),
)
"""The steps of shortening, in order: keep so many lines of each fact from the first to the second rank."""
_RANKS = {
    StepState.RUNNING: _ESSENTIAL,
    StepState.FAILED: _ESSENTIAL,
    StepState.HELD: _ESSENTIAL,
    StepState.ARMED: _USEFUL,
    StepState.NEXT: _DETAIL,
    StepState.DONE: _PAST,
    StepState.LATER: _FUTURE,
}


def lines(view: StatusView, width: int = 80, height: int | None = None) -> list[str]:
    """The view as text, one fact after the other. With *height* it is shortened, and keeps the essential facts."""
    blocks = _blocks(view, width)
    fitted = blocks if height is None else _fitted(blocks, width, height)
    return [line for _, block_lines in fitted for line in block_lines]


def _blocks(view: StatusView, width: int) -> list[_Block]:
    release = view.release
    if release is None:
        return [
            (_ESSENTIAL, _wrapped("", f"{view.environment}: no release yet", width)),
            (_DETAIL, _lock(view, width)),
        ]
    blocks = [
        (_ESSENTIAL, _wrapped("release", f"{release.id}  {release.phase.upper()}{_clock(view)}", width)),
        (_ESSENTIAL, _labelled("Why", view.why, width)),
        (_ESSENTIAL, _labelled("Need", view.need, width)),
        (_ESSENTIAL, _labelled("Carried", _uncarried(view), width)),
        (_ESSENTIAL, _labelled("Back", view.taken_back, width)),
        (_USEFUL, _labelled("Version", _versions(view), width)),
        (_ESSENTIAL, _labelled("Hosts", fleet_lines.progress(view.host_steps), width)),
        (_DETAIL, _lock(view, width)),
    ]
    back = fleet_lines.together(
        (host.name, f"on {short(host.revision)}") for host in view.returns if host.back
    )
    blocks.append((_ESSENTIAL, _labelled("Back", back, width)))
    blocks += [
        (_ESSENTIAL, _labelled(host.name, _returned(host), width)) for host in view.returns if not host.back
    ]
    if release.phase in LIVE:
        around = [
            _labelled("" if number else "Around", line, width) for number, line in enumerate(view.around)
        ]
        blocks += [(_USEFUL, each) for each in around]
    blocks += [(_USEFUL, _labelled("Limited", limit.sentence, width)) for limit in view.limits]
    blocks += [(_USEFUL, _labelled("Differs", difference, width)) for difference in view.differences]
    blocks += [(_RANKS[step.state], _step(step, width)) for step in view.steps]
    if view.batches:
        sizes = " ".join(str(batch.size) for batch in view.batches)
        aside = f", {view.events_set_aside} set aside" if view.events_set_aside else ""
        events = f"{view.events_settled} of {view.events_planned} settled{aside}, batches {sizes}"
        blocks.append((_USEFUL, _labelled("Events", events, width)))
    if view.findings:
        findings = ", ".join(f"{count} {finding}" for finding, count in sorted(view.findings.items()))
        blocks.append((_DETAIL, _labelled("Judged", findings, width)))
    if view.left_behind:
        blocks.append((_USEFUL, _labelled("Left", left_behind.summary(view.left_behind), width)))
        command = f"redrive them: {left_behind.command(release)}"
        blocks.append((_USEFUL, _labelled("", command, width)))
    return blocks


def _fitted(blocks: list[_Block], width: int, height: int) -> list[_Block]:
    """Cut sentences to their first line, then leave facts out, until the rest fits; the least important first."""
    fitted = list(blocks)
    for keep, first, last in _SHORTENING:
        for rank in range(last, first - 1, -1):
            for number, (block_rank, block_lines) in enumerate(fitted):
                if sum(len(lines) for _, lines in fitted) <= height:
                    return fitted
                if block_rank == rank and len(block_lines) > keep:
                    cut = [f"{line[: width - 4].rstrip()} ..." for line in block_lines[:keep]]
                    fitted[number] = (block_rank, cut)
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
        seconds = max(0, int((view.next_at - view.at).total_seconds() * view.release.speed))
        parts.append(f"{view.next_what or 'next look'} in {seconds // 60:02}:{seconds % 60:02}")
    return f"  {', '.join(parts)}" if parts else ""


def _uncarried(view: StatusView) -> str:
    """Since when nobody runs the release, and what continues it; empty while somebody does, or a person decides."""
    if view.carried is not False:
        return ""
    return f"{view.care}; `runbook resume --due -e {view.environment}` continues it"


def _versions(view: StatusView) -> str:
    if not view.hosts:
        return ""
    want = f"want {short(view.hosts[0].want)}"
    if len(view.hosts) > fleet_lines.NAMED_MAX:
        return f"{want}   {fleet_lines.together((host.name, _host(host, view.at)) for host in view.hosts)}"
    return "   ".join([want, *(f"{host.name} {_host(host, view.at)}" for host in view.hosts)])


def _host(host: HostView, at: datetime) -> str:
    state = {True: "ok", False: "NOT OK", None: "not probed yet"}[host.good]
    seconds = (at - host.seen_at).total_seconds() if host.seen_at else 0
    probed = f", probed {age(seconds)} ago" if seconds > _FRESH_SECONDS else ""
    note = f" ({host.note})" if host.note else ""
    return f"{short(host.have)} {state}{note}{probed}"


def _returned(host: ReturnView) -> str:
    """How far a host is on its way back: what runs there, its newest operation, and what it waits for."""
    units = f"; {host.units}" if host.units else ""
    operation = f"; newest operation {host.operation}" if host.operation else ""
    tries = f"NOT BACK after {host.tries} tries" if host.tries else "not back yet"
    return f"{tries}, on {short(host.revision)}{units}{operation}: {host.sentence}"


def _lock(view: StatusView, width: int) -> list[str]:
    if view.lock is None:
        return []
    is_other = view.release is not None and view.release.id != view.lock.release_id
    other_release = f", for release {view.lock.release_id}" if is_other else ""
    return _labelled("Lock", _holder(view.lock) + other_release, width)


def _holder(holder: Holder) -> str:
    lost = "its process has ENDED" if holder.has_ended else "EXPIRED"
    state = "renewed" if holder.alive else f"{lost}, last renewed"
    renewed = f"{state} {age(holder.silent_seconds)} ago"
    return f"{holder.name} since {holder.taken_at:%H:%M}, {renewed}, token {holder.token}"


def _step(step: StepView, width: int) -> list[str]:
    at = f"{step.at:%H:%M}" if step.at else "     "
    head = f" {f'[{step.state}]':<9} {step.name:<9} {at}  "
    return _wrapped(head, step.sentence, width, indent=len(head))


def age(seconds: float) -> str:
    """A duration in the largest unit that gives at least 2: `119 s`, `2 min`, `47 h`, `2 days`."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _labelled(label: str, sentence: str, width: int) -> list[str]:
    return _wrapped(f"{label:<{_LABEL_WIDTH}}", sentence, width, indent=_LABEL_WIDTH) if sentence else []


def _wrapped(head: str, sentence: str, width: int, *, indent: int = _LABEL_WIDTH) -> list[str]:
    """*head* and *sentence*, wrapped at *width* columns."""
    gap = " " if head and not head.endswith(" ") else ""
    first = f"{head}{gap}{_plain(sentence)}".rstrip()
    # A number and its percent sign stay on one line.
    broken = textwrap.wrap(
        first.replace(" %", "\u00a0%"),
        width=max(width, indent + 10),
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return [line.replace("\u00a0%", " %") for line in broken] or [first[:width]]


def _plain(sentence: str) -> str:
    """The sentence without control characters and line breaks: it may contain text from hosts and payloads."""
    flat = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in sentence)
    return flat.strip()
