"""The dead letters as healing looks at them: which may go back now, which are next, and who sees to the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database.queries import queries
from handlers.database.sqlstate import is_of_content
from handlers.errors import Refused
from handlers.gate.heal_rules import Candidate, Newer, Standing, Who, standing
from handlers.gate.letters import DrainMeasurement, End, Letter, Replay
from handlers.gate.staged import DrainLimits
from handlers.phases.measure import drain_limits
from handlers.phases.replays import Chosen, Progress, next_letters, replay_of
from handlers.queue import look
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import DRAIN_ORDER, ENTITY_TYPES, SYNTHETIC_KEY, EntityType, ErrorClass, Status
from handlers.queue.look import EventState
from handlers.release.ledger import heal_stops, heals
from handlers.release.ledger.heals import HealEvent

SQL = queries(__name__)

LETTERS_MAX = 50_000
"""So many dead letters are looked at in one run, the oldest ones."""
FIRST = 200


@dataclass(frozen=True, kw_only=True)
class Round:
    """What has gone back in this round, and what may follow."""

    progress: Progress
    standings: tuple[Standing, ...]
    """Of every dead letter that was read."""

    @property
    def measurement(self) -> DrainMeasurement:
        """For the gate."""
        return self.progress.measurement()


async def is_one_due(tx: AsyncConnection, core: Core, environment: str) -> bool:
    """Whether a letter may go back now. Mostly one of the oldest tells."""
    for limit in (FIRST, LETTERS_MAX):
        found = await standings(tx, core, environment, everything=False, limit=limit)
        if any(each.who is Who.HEALING for each in found):
            return True
        if len(found) < limit:
            return False
    return False


async def standings(
    tx: AsyncConnection, core: Core, environment: str, *, everything: bool, limit: int = LETTERS_MAX
) -> list[Standing]:
    """Who sees to each dead letter, oldest first. Without *everything* only of those that healing may try some day."""
    settings = core.environment.heal
    values = {
        "all": everything,
        "after_seconds": settings.after_seconds,
        "tries_max": settings.tries_max,
        "limit": limit,
        "synthetic": SYNTHETIC_KEY,
    }
    rows = (await tx.execute(SQL["letters"], values)).all()
    stops = await heal_stops.stops(tx, environment)
    return [
        standing(_candidate(row), stops, after_seconds=settings.after_seconds, tries_max=settings.tries_max)
        for row in rows
    ]


async def read_round(
    tx: AsyncConnection,
    core: Core,
    environment: str,
    round_: int,
    *,
    states: Sequence[EventState] = (),
    judged: int | None = None,
    everything: bool = False,
) -> Round:
    """The round so far. *states* are those of the batch *judged*, which is over: what is unfinished is stuck."""
    found = await standings(tx, core, environment, everything=everything)
    events = await heals.events(tx, environment, round_=round_)
    seen = {state.id: state for state in states}
    unread = [
        each.event_id
        for each in events
        if each.status not in (Status.COMPLETED, heals.RETURNED) and each.event_id not in seen
    ]
    seen |= {state.id: state for state in await look.states(tx, unread)}
    known = {(each.entity_type, each.fingerprint) for each in events}
    known |= {(each.letter.entity or each.letter.raw_type, each.letter.former) for each in found}
    replays = []
    for event in events:
        replay = _replay(event, seen.get(event.event_id), known, is_over=event.batch == judged)
        if replay is not None:
            replays.append(replay)
    due = _in_order(found)
    failed = {
        (event.entity_type, event.source_entity_id)
        for event in events
        if event.settled_at is not None and event.status != Status.COMPLETED
    }
    return Round(
        progress=Progress(
            baseline=None,
            batches=(),
            replays=tuple(replays),
            left=tuple(
                Letter(id=each.id, entity=each.entity or each.raw_type, former=each.former) for each in due
            ),
            records={each.id: (each.entity or each.raw_type, each.key) for each in due},
            failed_records=frozenset(failed),
        ),
        standings=tuple(found),
    )


async def next_of(tx: AsyncConnection, core: Core, so_far: Round) -> Chosen:
    """The letters of the next batch: one of each type first, then twice as many as the last time."""
    return await next_letters(
        tx,
        so_far.progress,
        limits_of(core),
        factor=core.environment.drain.batch_factor,
        size_max=core.environment.heal.batch_size_max,
    )


def limits_of(core: Core) -> DrainLimits:
    """The limits of a drain, but what is bad stops at once, also where it is most of the letters."""
    return replace(drain_limits(core.environment), aside_max=1.0)


async def letter(tx: AsyncConnection, id_: UUID) -> Candidate:
    """One dead letter. Raises Refused when there is none with this id."""
    row = (await tx.execute(SQL["letter"], {"id": id_})).one_or_none()
    if row is None:
        raise Refused(f"there is no event {id_} in the queue: `runbook queue list` shows what there is")
    if row.status != Status.DEAD_LETTER:
        raise Refused(f"event {id_} is {row.status}, and no dead letter: there is nothing to quarantine")
    return Candidate(
        id=str(row.id),
        entity=ENTITY_TYPES.get(row.raw_type),
        raw_type=row.raw_type,
        key=row.key,
        code="",
        former=fingerprint(row.error_message or ""),
        is_hard=False,
        dead_seconds=0,
        tries=0,
    )


def _candidate(row: Row[Any]) -> Candidate:
    tried = row.tried_seconds if row.tried_seconds is not None else row.dead_seconds
    newer = Newer.NONE
    if row.newer is not None:
        newer = Newer.APPLIED if row.newer == Status.COMPLETED else Newer.OPEN
    return Candidate(
        id=str(row.id),
        entity=ENTITY_TYPES.get(row.raw_type),
        raw_type=row.raw_type,
        key=row.key,
        code=row.code,
        former=fingerprint(row.error_message or ""),
        is_hard=row.__getattr__("class") == ErrorClass.PERMANENT or is_of_content(row.code),
        dead_seconds=max(0.0, min(row.dead_seconds, tried)),
        tries=row.tries,
        newer=newer,
    )


def _in_order(found: Iterable[Standing]) -> list[Candidate]:
    """The letters that may go back now: parents before children, oldest first."""
    due = [each.letter for each in found if each.who is Who.HEALING and each.letter.entity is not None]
    return sorted(due, key=lambda each: DRAIN_ORDER.index(EntityType(each.entity or "")))


def _replay(
    event: HealEvent, state: EventState | None, known: set[tuple[str, str]], *, is_over: bool
) -> Replay | None:
    """How a letter stands; None if it came back before a worker had it, or is gone from the queue."""
    if event.status != heals.RETURNED:
        return replay_of(event, state, event.fingerprint, known, is_open=not is_over)
    if not event.counts:
        return None
    return Replay(entity=event.entity_type, former=event.fingerprint, end=End.STUCK, batch=event.batch)
