"""The text of the looks at the queue by hand: lines of at most eighty columns, without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from uuid import UUID

from flows.cli.output import cut, printable
from handlers.measurements.measurement import State
from handlers.measurements.queue_view import QueueView
from handlers.queue.event import Status
from handlers.queue.listing import FAILED_MAX, ListedEvent
from handlers.status.event_view import EventView

WIDTH = 80
GROUPS_SHOWN = 12


def queue_lines(view: QueueView, height: int | None = None) -> list[str]:
    """A look at the queue; at most *height* lines."""
    what = "everything" if view.since is None else f"what came or was taken since {_time(view.since)}"
    lines = [f"{cut(view.environment, 20)}, {_time(view.at)} UTC: {what}"]
    for status, count in view.status.items():
        percent = view.percent[status]
        share = f"{percent:5.1f} %" if percent is not None else "    - %"
        lines.append(f"{count:>9,} {share}  {status}")
    for measured in view.measurements:
        if measured.state is State.BROKEN:
            lines += wrapped(f"[broken] {measured.key}: {measured.sentence}", indent="         ")
    for limit in view.limits:
        lines += wrapped(f"limited to {limit.sentence}")
    if view.dead_letters:
        newest = f", the newest {FAILED_MAX:,} failed events" if view.failed_is_cut else ""
        lines.append(f"dead letters by type and error{newest}:")
        for group in view.dead_letters[:GROUPS_SHOWN]:
            code = group.error_code or "no code"
            lines.append(cut(f"{group.count:>9,} dead: {group.entity}, {code}: {group.error}"))
        if (more := len(view.dead_letters) - GROUPS_SHOWN) > 0:
            lines.append(f"{'':>9} and {more} other kinds: see `runbook queue list --status dead_letter`")
    if view.recent_errors:
        lines.append("failed last:")
        lines += [_error_line(event) for event in view.recent_errors]
    return lines if height is None else lines[: max(height, 1)]


def queue_line(view: QueueView, shown: set[tuple[UUID, datetime]]) -> Iterator[str]:
    """A look at the queue in one line, then each error that is not among *shown*, which is added to them."""
    percent = view.percent[Status.COMPLETED]
    share = f" ({percent:.1f} %)" if percent is not None else ""
    counts = ", ".join(
        f"{count:,} {status}{share if status is Status.COMPLETED else ''}"
        for status, count in view.status.items()
        if count or status is not Status.FAILED
    )
    yield f"{view.at.astimezone(UTC):%H:%M:%S} {counts}"
    for event in reversed(view.recent_errors):
        if (event.id, event.at) not in shown:
            shown.add((event.id, event.at))
            yield _error_line(event)


def listed_lines(events: Sequence[ListedEvent], *, more: bool) -> Iterator[str]:
    """Two lines for each event: which one it is and where it stands, and its error."""
    for event in events:
        yield f"{event.id}  {event.status:<11}  {_time(event.created_at)}  {cut(event.entity, 14)}"
        attempts = f"{event.attempts} attempts" if event.attempts != 1 else "1 attempt"
        error = f", {event.error_code or 'no code'}: {event.error}" if event.error or event.error_code else ""
        yield cut(f"    {event.key}, {attempts}{error}")
    if not events:
        yield "no event matches"
    if more:
        yield f"these are the newest {len(events):,}; there are more: --limit, or ask for less"


def event_lines(view: EventView, tries_max: int) -> list[str]:
    """Everything about one event, in eighty columns. *tries_max* is how often healing tries one."""
    synthetic = ", synthetic" if view.synthetic else ""
    came = [f"from {view.source or 'an unknown source'}{synthetic}"]
    came += ["signature verified"] if view.verified else []
    facts = [
        ("event", str(view.id)),
        ("record", f"{view.entity} {view.key}, {view.operation}"),
        ("status", f"{view.status}, priority {view.priority}"),
        ("came", f"{_time(view.created_at)} UTC, {', '.join(came)}"),
        ("payload", _payload(view)),
        ("attempts", f"{view.attempts} of {view.attempts_max}"),
    ]
    facts += [
        (
            "",
            f"{each.at[:19].replace('T', ' ')} {each.error_class} {each.code} on {each.revision[:7]}: "
            f"{each.fingerprint}",
        )
        for each in view.failed_attempts
    ]
    if view.error_code or view.error:
        facts.append(("error", f"{view.error_code or 'no code'}: {view.error}"))
    facts.append(("has it", _holder(view)))
    facts += [("waits for" if number == 0 else "", each) for number, each in enumerate(view.waits_for)]
    if view.started_at is not None:
        ended = f", completed {_time(view.completed_at)}" if view.completed_at else ""
        seconds = (
            f", {(view.completed_at - view.started_at).total_seconds():.2f} s"
            if view.completed_at is not None and view.completed_at >= view.started_at
            else ""
        )
        facts.append(("taken", f"{_time(view.started_at)}{ended}{seconds}"))
    if view.outcome or view.worker:
        by = f" by {view.worker}, revision {view.revision[:7] or 'unknown'}" if view.worker else ""
        facts.append(("outcome", f"{view.outcome or 'not applied'}{by}"))
    if view.status is Status.COMPLETED:
        facts.append(("local id", view.local_id or "none was stored"))
    if view.row:
        facts.append(("row now", view.row))
    for each in view.redrives:
        done = f"redriven {_time(each.redriven_at)}" if each.redriven_at else "planned, not redriven"
        batch = f" in batch {each.batch}" if each.batch is not None else ""
        facts.append(
            ("redriven by", f"release {each.release}: {done}{batch}, {each.status or 'not settled'}")
        )
    if view.healings:
        facts.append(("healing", f"tried it {view.healing_tries} of {tries_max} times"))
    facts += [
        ("", f"redriven {_time(each.redriven_at)} in batch {each.batch}, {each.status or 'still out'}")
        for each in view.healings
    ]
    lines: list[str] = []
    for name, fact in facts:
        lines += wrapped(f"{name:<12} {fact}", indent=" " * 13)
    return lines


def _payload(view: EventView) -> str:
    keys = ", ".join(f"{path} ({type_})" for path, type_ in view.payload_keys.items())
    return f"{view.payload_bytes:,} bytes, no value is shown; keys: {keys or 'none'}"


def _holder(view: EventView) -> str:
    if view.holder is None:
        return "nobody"
    since = f" since {_time(view.holder.since)}" if view.holder.since else ""
    until = f", lease until {_time(view.holder.until)}" if view.holder.until else ", in its batch"
    worker = f"; {view.holder.worker}" if view.holder.worker else ""
    return f"{view.holder.owner}{since}{until}{worker}"


def _error_line(event: ListedEvent) -> str:
    at = event.at.astimezone(UTC)
    return cut(f"  {at:%H:%M:%S} {event.entity} {event.key} {event.status} {event.error_code}: {event.error}")


def wrapped(text: str, *, indent: str = "    ") -> list[str]:
    """*text* in lines of eighty columns, without control characters."""
    return wrap(printable(text), WIDTH, subsequent_indent=indent, break_long_words=True) or [""]


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M:%S}"
