"""The text of `runbook heal`: what would be done, and what was done. Lines of at most eighty columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from flows.cli.look_text import wrapped
from flows.cli.output import cut
from handlers.environment.day_after import Heal
from handlers.phases.heal_preview import Line, Preview
from handlers.release.ledger.heals import Action, State
from handlers.status.wrapping import age

SHOWN_MAX = 40


def preview_lines(found: Preview, settings: Heal) -> Iterator[str]:
    """What a run would do now, and who sees to what it leaves."""
    yield f"{found.environment}: what healing would do now; nothing is changed"
    if found.idle:
        yield from wrapped(f"idle: {found.idle}")
    yield from _part("events that no worker has", found.taken_back, settings)
    if found.out is not None:
        out = found.out
        yield from wrapped(
            f"batch {out.id} is out with {out.events} dead letters for {age(out.seconds)}: the next run judges it"
        )
    if found.block is not None:
        yield from wrapped(f"no dead letter goes back now: {found.block.sentence}")
    yield from _part("the next batch", found.next, settings)
    chosen = {line.id for line in found.next}
    yield from _part(
        "the other dead letters", [line for line in found.letters if line.id not in chosen], settings
    )
    if found.letters:
        yield f"all {len(found.letters):,} dead letters by who sees to them:"
    for who, what, number in found.by_reason:
        yield from wrapped(f"{number:>9,} {who}: {what}", indent=" " * 10)
    for alarm in found.alarms:
        yield from wrapped(f"[alarm] {alarm.key}: {alarm.sentence}", indent=" " * 8)


def history_lines(environment: str, state: State, actions: Sequence[Action]) -> Iterator[str]:
    """What healing has done, the newest first."""
    last = f"last run {_time(state.ran_at)} UTC: {state.sentence}" if state.ran_at else "no run has ended yet"
    yield from wrapped(f"{environment}: {last}")
    for action in actions:
        yield from wrapped(_action(action), indent=" " * 15)


def _action(action: Action) -> str:
    when = _time(action.begun_at)
    if action.kind != "batch":
        return f"{when}  {action.sentence}"
    if action.ended_at is None:
        return f"{when}  batch {action.id}: {action.events} dead letters sent back, still out"
    ends = [f"{action.completed} completed", f"{action.failed} died again"]
    ends += [f"{action.returned} put back"] if action.returned else []
    return (
        f"{when}  batch {action.id} of round {action.round}: {', '.join(ends)} of {action.events}. "
        f"{action.finding}: {action.sentence}"
    )


def _part(title: str, lines: Iterable[Line], settings: Heal) -> Iterator[str]:
    found = list(lines)
    if not found:
        return
    yield f"{title} ({len(found):,}):"
    for line in found[:SHOWN_MAX]:
        yield cut(f"  {line.id}  {line.entity} {line.key}")
        facts = [age(line.age_seconds)] if line.age_seconds is not None else []
        facts += [f"tried by healing {line.tries} of {settings.tries_max} times"] if line.tries else []
        facts += [f"{line.code or 'no code'}: {line.error}"] if line.error or line.code else []
        yield cut(f"    {', '.join(facts)}")
        yield cut(f"    by {line.who}: {line.what}")
    if (more := len(found) - SHOWN_MAX) > 0:
        yield f"  and {more:,} more: --json lists all"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M:%S}"
