"""The status view as plain lines of text: no colours, and never wider than the terminal. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from handlers.environment.advice import addressed
from handlers.environment.load import env_option
from handlers.release import left_behind
from handlers.release.lock import Holder
from handlers.release.phase import LIVE, short
from handlers.status import fleet_lines
from handlers.status.tree_lines import host_lines, step_lines
from handlers.status.view import (
    HostState,
    HostView,
    LaterView,
    ReturnView,
    StatusView,
    StepState,
    WaitView,
)
from handlers.status.wrapping import age, beside_usual, labelled, lasted, wrapped

_FRESH_SECONDS = 120
"""The age of a host's answer is shown only when it is older."""
_LATER_MAX = 3
"""So many releases that were started after the shown one are named."""
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

_HOST_RANKS = {**_RANKS, StepState.RUNNING: _USEFUL, StepState.FAILED: _USEFUL, StepState.NEXT: _FUTURE}
_HOST_STATES = {
    HostState.OK: "ok",
    HostState.NOT_OK: "NOT OK",
    HostState.NOT_PROBED: "not probed yet",
    HostState.UNCHANGED: "not changed yet",
    HostState.SWITCHING: "switching",
    HostState.RESTARTING: "restarting",
    HostState.NOT_READY: "not ready yet",
    HostState.GOING_BACK: "going back",
}
_NOTED = (HostState.NOT_OK, HostState.RESTARTING, HostState.NOT_READY)


def lines(view: StatusView, width: int = 80, height: int | None = None) -> list[str]:
    """The view as text, one fact after the other. With *height* it is shortened, and keeps the essential facts."""
    blocks = _blocks(_addressed(view), width)
    fitted = blocks if height is None else _fitted(blocks, width, height)
    return [line for _, block_lines in fitted for line in block_lines]


def _addressed(view: StatusView) -> StatusView:
    """The view whose sentences name its environment in each command that they advise."""
    steps = tuple(replace(step, sentence=addressed(step.sentence, view.environment)) for step in view.steps)
    why, need, back = (addressed(text, view.environment) for text in (view.why, view.need, view.taken_back))
    return replace(view, steps=steps, why=why, need=need, taken_back=back)


def _blocks(view: StatusView, width: int) -> list[_Block]:
    release = view.release
    if release is None:
        return [
            (_ESSENTIAL, wrapped("", f"{view.environment}: no release yet", width)),
            (_DETAIL, _lock(view, width)),
        ]
    blocks = [
        (_ESSENTIAL, wrapped(view.kind, f"{release.id}  {release.phase.upper()}{_clock(view)}", width)),
        (_ESSENTIAL, labelled("Why", view.why, width)),
        *((_ESSENTIAL, line) for line in _approval(view, width)),
        (_ESSENTIAL, labelled("Freeze", view.start.freeze, width)),
        *((_USEFUL, labelled("Override", each, width)) for each in view.start.overrides),
        *([(_USEFUL, labelled("Merged", view.start.pull_request, width))] if view.start.pull_request else []),
        (_ESSENTIAL, labelled("Need", view.need, width)),
        *((_ESSENTIAL, each) for each in _waits(view, width)),
        (_USEFUL, labelled("Time", _time(view), width)),
        (_ESSENTIAL, labelled("Carried", _uncarried(view), width)),
        (_ESSENTIAL, labelled("Back", view.taken_back, width)),
        (_USEFUL, labelled("Version", _versions(view), width)),
        (_DETAIL, _lock(view, width)),
    ]
    back = fleet_lines.together(
        (host.name, f"on {short(host.revision)}") for host in view.returns if host.back
    )
    blocks.append((_ESSENTIAL, labelled("Back", back, width)))
    blocks += [
        (_ESSENTIAL, labelled(host.name, _returned(host), width)) for host in view.returns if not host.back
    ]
    if release.phase in LIVE:
        around = [
            labelled("" if number else "Around", line, width) for number, line in enumerate(view.around)
        ]
        blocks += [(_USEFUL, each) for each in around]
    blocks += [(_USEFUL, labelled("Limited", limit.sentence, width)) for limit in view.limits]
    blocks += [(_USEFUL, labelled("Differs", difference, width)) for difference in view.differences]
    blocks += _steps(view, width)
    if view.batches:
        sizes = " ".join(str(batch.size) for batch in view.batches)
        aside = f", {view.events_set_aside} set aside" if view.events_set_aside else ""
        events = f"{view.events_settled} of {view.events_planned} settled{aside}, batches {sizes}"
        blocks.append((_USEFUL, labelled("Events", events, width)))
    if view.findings:
        findings = ", ".join(f"{count} {finding}" for finding, count in sorted(view.findings.items()))
        blocks.append((_DETAIL, labelled("Judged", findings, width)))
    blocks += [(_PAST, labelled("Later", _later(each), width)) for each in view.later[:_LATER_MAX]]
    if view.left_behind:
        blocks.append((_USEFUL, labelled("Left", left_behind.summary(view.left_behind), width)))
        command = f"redrive them: {left_behind.command(release)}"
        blocks.append((_USEFUL, labelled("", command, width)))
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
    """How far the phase is: a watch in runbook minutes, which a rehearsal names so, any other in real time."""
    parts = []
    sped_up = _is_sped_up(view)
    if view.running_seconds is not None and view.window_seconds:
        minutes = f"minute {int(view.running_seconds // 60)} of {view.window_seconds / 60:g}"
        parts.append(f"runbook {minutes}" if sped_up else minutes)
    elif view.phase_seconds is not None:
        parts.append(f"for {lasted(view.phase_seconds)}")
    if view.next_at is not None and view.release is not None:
        seconds = max(0, int((view.next_at - view.at).total_seconds() * view.release.speed))
        parts.append(f"{view.next_what or 'next look'} in {seconds // 60:02}:{seconds % 60:02}")
    return f"  {', '.join(parts)}" if parts else ""


def _is_sped_up(view: StatusView) -> bool:
    return view.release is not None and view.release.speed != 1


def _time(view: StatusView) -> str:
    """How long the whole takes beside what is usual, and in a rehearsal which times are real."""
    parts = []
    if view.total_seconds is not None:
        so_far = "" if view.phase_seconds is None else " so far"
        parts.append(f"{lasted(view.total_seconds)}{so_far}")
    if view.usual_total_seconds is not None:
        count = f"{view.usual_releases} release{'s' if view.usual_releases > 1 else ''}"
        parts.append(f"usual {lasted(view.usual_total_seconds)} in {count}")
    said = ", ".join(parts)
    return "; ".join(filter(None, (said, told_apart(view))))


def told_apart(view: StatusView) -> str:
    """In a rehearsal, which times are real; empty elsewhere."""
    if view.release is None or not _is_sped_up(view):
        return ""
    sped_up = f"rehearsal at {view.release.speed:g} x"
    return f"{sped_up}: the watch and the next look are in runbook time, all else is real"


def _waits(view: StatusView, width: int) -> list[list[str]]:
    lines = [wait_line(each) for each in view.waits]
    return [labelled("" if number else "Waits", line, width) for number, line in enumerate(lines)]


def wait_line(wait: WaitView) -> str:
    """What is waited for, and since when."""
    if wait.since is None:
        return wait.what
    took = beside_usual(wait.seconds, wait.usual_seconds)
    return f"{wait.what}, since {wait.since.astimezone(UTC):%H:%M:%S}: {took}"


def _steps(view: StatusView, width: int) -> list[_Block]:
    blocks = []
    for step in view.steps:
        if step.sentence == view.why:
            # Told whole in the line `Why`.
            step = replace(step, sentence=step.sentence.partition("; ")[0])
        blocks.append((_RANKS[step.state], step_lines(step, width, sped_up=_is_sped_up(view))))
        blocks += [(_HOST_RANKS[state], lines) for state, lines in host_lines(step, width)]
    return blocks


def _approval(view: StatusView, width: int) -> list[list[str]]:
    """How many have approved a plan that waits, who else can, and what they type; nothing once it has started."""
    approval = view.start.approval
    if approval is None or approval.until is None:
        return []
    whom = f": {approval.whom}" if approval.whom else ""
    head = f"{approval.progress}, until {approval.until.astimezone(UTC):%H:%M} UTC{whom}"
    return [labelled("Approval", head, width), labelled("", approval.command, width)]


def _uncarried(view: StatusView) -> str:
    """Since when nobody runs the release, and what continues it; empty while somebody does, or a person decides."""
    if view.carried is not False:
        return ""
    return f"{view.care}; `runbook resume --due {env_option(view.environment)}` continues it"


def _later(later: LaterView) -> str:
    sentence = f": {later.sentence}" if later.sentence else ""
    return (
        f"{later.kind} {later.id} by {later.requested_by} at {later.at:%d %b %H:%M}: {later.phase}{sentence}"
    )


def _versions(view: StatusView) -> str:
    if not view.hosts:
        return ""
    want = f"want {short(view.hosts[0].want)}"
    if len(view.hosts) > fleet_lines.NAMED_MAX:
        return f"{want}   {fleet_lines.together((host.name, _host(host, view.at)) for host in view.hosts)}"
    return "   ".join([want, *(f"{host.name} {_host(host, view.at)}" for host in view.hosts)])


def _host(host: HostView, at: datetime) -> str:
    state = _HOST_STATES[host.state]
    seconds = (at - host.seen_at).total_seconds() if host.seen_at else 0
    is_old = seconds > _FRESH_SECONDS and host.state in (HostState.OK, HostState.NOT_OK)
    probed = f", probed {age(seconds)} ago" if is_old else ""
    note = f" ({host.note})" if host.note and host.state in _NOTED else ""
    have = "" if host.have is None and host.state is HostState.RESTARTING else f"{short(host.have)} "
    return f"{have}{state}{note}{probed}"


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
    return labelled("Lock", _holder(view.lock) + other_release, width)


def _holder(holder: Holder) -> str:
    lost = "its process has ENDED" if holder.has_ended else "EXPIRED"
    state = "renewed" if holder.alive else f"{lost}, last renewed"
    renewed = f"{state} {age(holder.silent_seconds)} ago"
    return f"{holder.name} since {holder.taken_at:%H:%M}, {renewed}, token {holder.token}"
