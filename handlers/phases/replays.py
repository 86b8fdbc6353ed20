"""The dead letters of a drain as the gate takes them: what became of the redriven ones, and which may follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities.parents import Payload, absent_parents
from handlers.gate.letters import DrainMeasurement, End, Letter, Replay, group_letters
from handlers.gate.staged import DrainLimits, Rooms
from handlers.gate.values import Baseline
from handlers.queue import limits, look
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import SETTLED, EntityType, ErrorClass, Status
from handlers.queue.look import EventState
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.dead_letters import Batch
from handlers.release.phase import Release

KIND_MAX = 80
READ_AT_ONCE = 200
"""How many payloads are in memory at once."""
Record = tuple[str, str]
"""A record by its type and its id at the source."""


class Redriven(Protocol):
    """A letter that was sent back, as its ledger has it: of a release, or of healing."""

    @property
    def entity_type(self) -> str:
        """Its readable type."""
        ...

    @property
    def batch(self) -> int | None:
        """Of which batch it is."""
        ...

    @property
    def status(self) -> str | None:
        """How it ended; None while it has not."""
        ...

    @property
    def error(self) -> str | None:
        """The error with which it ended."""
        ...

    @property
    def settled_at(self) -> datetime | None:
        """When it ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A drain so far."""

    baseline: Baseline | None
    """The day before the release; None without one."""
    batches: tuple[Batch, ...]
    replays: tuple[Replay, ...]
    left: tuple[Letter, ...]
    """Planned letters that were not redriven and are dead letters now, in their planned order."""
    records: Mapping[str, Record]
    """The records of the letters that are left, by the letters' ids."""
    failed_records: frozenset[Record]
    """The records of which a replay did not complete."""

    def measurement(self, orphaned: Sequence[Letter] = ()) -> DrainMeasurement:
        """For the gate."""
        groups = group_letters(self.replays, self.left, orphaned)
        return DrainMeasurement(groups=groups, baseline=self.baseline)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The next batch; empty when no letter may be redriven any more."""

    letters: tuple[Letter, ...]
    orphaned: tuple[Letter, ...]
    """Letters that need a record whose own letters failed or are set aside."""


async def progress(
    tx: AsyncConnection, release: Release, *, judged: int | None = None, states: Sequence[EventState] = ()
) -> Progress:
    """The drain so far. *states* are those of the batch *judged*, whose time limit has passed.

    What had not completed when its batch was judged counts as it stands in the queue now.
    """
    plan = await releases.plan(tx, release.id)
    events = await dead_letters.events(tx, release)
    batches = await dead_letters.batches(tx, release)
    dead = {letter.id: letter for letter in await look.dead_letters(tx)}
    formers = {UUID(event.id): event.fingerprint for event in plan.events}
    for event in events:
        if event.event_id not in formers:
            letter = dead.get(event.event_id)
            was = fingerprint(str(event.former.get("error_message") or ""))
            formers[event.event_id] = was or (letter.fingerprint if letter is not None else "")
    known = {(event.entity_type, formers[event.event_id]) for event in events}

    drained = [event for event in events if event.batch is not None]
    seen = {state.id: state for state in states}
    unfinished = [
        event.event_id for event in drained if event.status != Status.COMPLETED and event.event_id not in seen
    ]
    seen |= {state.id: state for state in await look.states(tx, unfinished)}
    over = {batch.number for batch in batches if batch.settled_at is not None} | {judged}
    holds = await limits.holds(tx)
    replays, failed_records = [], set()
    for event in drained:
        state = seen.get(event.event_id)
        is_held = state is not None and bool(holds.holder([state.raw_type]))
        replay = replay_of(
            event, state, formers[event.event_id], known, is_open=event.batch not in over or is_held
        )
        if replay is None:
            continue
        replays.append(replay)
        if replay.end not in (End.COMPLETED, End.OPEN):
            failed_records.add((event.entity_type, event.source_entity_id))
    left = [event for event in events if event.batch is None and event.event_id in dead]
    return Progress(
        baseline=plan.baseline,
        batches=tuple(batches),
        replays=tuple(replays),
        left=tuple(
            Letter(id=str(event.event_id), entity=event.entity_type, former=formers[event.event_id])
            for event in left
        ),
        records={str(event.event_id): (event.entity_type, event.source_entity_id) for event in left},
        failed_records=frozenset(failed_records),
    )


async def next_letters(
    tx: AsyncConnection, so_far: Progress, bounds: DrainLimits, *, factor: int, size_max: int
) -> Chosen:
    """The next batch. A letter whose parent is missing goes with the parent's letter, or after it, never before it.

    A letter whose parent's own letters failed or are set aside could only wait in vain: it is orphaned.
    """
    rooms = Rooms(so_far.replays, so_far.left, bounds, factor)
    records = so_far.records
    stopped = {letter.id for letter in so_far.left if rooms.stops(letter)}
    to_come = Counter(records[letter.id] for letter in so_far.left if letter.id not in stopped)
    never = {*so_far.failed_records, *(records[id_] for id_ in stopped)}
    chosen: list[Letter] = []
    orphaned: list[Letter] = []
    later: list[Letter] = []
    together: set[Record] = set()
    for start in range(0, len(so_far.left), READ_AT_ONCE):
        if len(chosen) >= size_max:
            break
        part = [letter for letter in so_far.left[start : start + READ_AT_ONCE] if rooms.fits(letter)]
        parents = await _parents(tx, part, records)
        for letter in part:
            absent = parents.get(letter.id, frozenset()) - together - {records[letter.id]}
            if len(chosen) >= size_max or not rooms.fits(letter):
                continue
            if any(to_come[record] for record in absent):
                later.append(letter)
                rooms.miss(letter)
            elif absent & never:
                orphaned.append(letter)
                to_come[records[letter.id]] -= 1
                never.add(records[letter.id])
            else:
                rooms.take(letter)
                chosen.append(letter)
                if rooms.grows(letter):
                    together.add(records[letter.id])
    if not chosen:
        # They wait for each other in a circle: the first one goes without its parent.
        chosen = later[:1]
    return Chosen(letters=tuple(chosen), orphaned=tuple(orphaned))


def replay_of(
    event: Redriven,
    state: EventState | None,
    former: str,
    known: Container[tuple[str, str]],
    *,
    is_open: bool,
) -> Replay | None:
    """How a redriven letter stands; None if it was deleted from the queue unfinished.

    *is_open*: its batch is not over, or a limit holds it.
    """
    status, text, code = event.status, event.error, None
    if state is not None and (state.status in SETTLED or event.settled_at is None):
        # Who redrove it again after its end does not undo that end, before it has another one.
        status, text, code = state.status, state.error_message, state.error_code
    elif event.settled_at is None:
        return None
    error = fingerprint(text or "")
    if status == Status.COMPLETED:
        end, error, code = End.COMPLETED, "", None
    elif error and (event.entity_type, error) in known:
        end = End.KNOWN
    elif code == ErrorClass.MISSING_PARENT:
        end = End.WAITS
    elif status in (Status.DEAD_LETTER, Status.FAILED):
        end = End.FAILED
    else:
        end = End.OPEN if is_open else End.STUCK
    return Replay(
        entity=event.entity_type,
        former=former,
        end=end,
        batch=event.batch or 0,
        error=error,
        kinds=tuple(kind for kind in (code or "", error[:KIND_MAX]) if kind),
    )


async def _parents(
    tx: AsyncConnection, letters: Sequence[Letter], records: Mapping[str, Record]
) -> dict[str, frozenset[Record]]:
    """The missing records that each of these letters would wait for."""
    if not letters:
        return {}
    stored = await look.payloads(tx, [UUID(letter.id) for letter in letters])
    payloads = [
        Payload(id_, EntityType(letter.entity), records[letter.id][1], payload.payload, payload.created_at)
        for letter in letters
        if (payload := stored.get(id_ := UUID(letter.id))) is not None
    ]
    return {
        str(id_): frozenset((entity.value, key) for entity, key in missing)
        for id_, missing in (await absent_parents(tx, payloads)).items()
    }
