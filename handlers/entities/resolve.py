"""What becomes of the events about one record, and the row to write. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, dump, shown
from handlers.entities.envelope import Record, records
from handlers.entities.fold import Folded, RecordChange, Stored, alone, fold, shape
from handlers.entities.spec import Mapped, Merged, Parent
from handlers.queue.event import EntityType, Event, Operation, Outcome, Result

Ids = dict[EntityType, dict[str, str]]
"""The ERP's own ids of records, by kind and by the source's id, as far as this batch has met them."""


class MappedEvent(NamedTuple):
    """An event whose payload was read and mapped."""

    event: Event
    record: Record
    mapped: Mapped
    change: RecordChange
    shape: str
    """A short name for the set of its keys."""
    doubt: Refusal | None = None
    """Why it is refused unless something else, stored or in the batch, says that the record is of this kind."""


class StoredRow(NamedTuple):
    """A row as it was when we locked it."""

    id: str
    stamp: datetime | None
    deleted_at: datetime | None
    covered: bool
    """There is no need to know more: the event's stamp alone decides (`statements.read`)."""
    stored: Stored | None
    """None as well where the old code wrote the row, and nobody knows of which version."""


class Row(NamedTuple):
    """A row to be written."""

    key: str
    mapped: Mapped
    folded: Folded
    raw: tuple[str, str]
    shape: str
    found: StoredRow | None


def map_event(handler: Handler, event: Event) -> MappedEvent:
    """Read an event's payload. Raises Refusal with the field and the reason."""
    record = _one(handler, event)
    key = handler.source_key(record.data)
    if key != event.key:
        raise Refusal(handler.id_keys[0], f"says {shown(key)}, but the event is about {shown(event.key)}")
    change = RecordChange(
        data=record.data,
        stamp=handler.stamp(record.data, event.created_at),
        deleted=event.operation is Operation.DELETE,
    )
    return MappedEvent(
        event=event,
        record=record,
        mapped=handler.map(record.data),
        change=change,
        shape=shape(record.data),
        doubt=handler.doubt(record.data),
    )


def _one(handler: Handler, event: Event) -> Record:
    try:
        found = records(handler, event.payload, from_database=True)
    except Refusal as refusal:
        # The answer to a delete, and some delete bodies, carry no record: the event's own id says which one
        # is gone.
        if event.operation is Operation.DELETE and refusal.absent:
            return Record(data={handler.id_keys[0]: event.key})
        raise
    if len(found) != 1:
        raise Refusal("(body)", f"an event is about one record, but this body holds {len(found)}")
    return found[0]


def missing_parents(arrival: MappedEvent, ids: Ids) -> list[Parent]:
    """Which records must come first; none when all are there. A delete waits for nobody."""
    if arrival.change.deleted:
        return []
    return [parent for parent in arrival.mapped.parents if parent.key not in ids[parent.entity]]


def _waits(absent: Sequence[Parent]) -> Result:
    """What is told of an event that must wait for *absent*."""
    named = ", ".join(f"{parent.entity.value} {parent.key} ({parent.field})" for parent in absent[:5])
    more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
    return Result(
        outcome=Outcome.WAITING,
        reason=f"waits for {named}{more}",
        parents=tuple(parent.key for parent in absent),
    )


def resolve(
    handler: Handler, arrivals: Sequence[MappedEvent], found: StoredRow | None, ids: Ids
) -> tuple[Row | None, dict[UUID, Result]]:
    """What becomes of all events about one record, and the row to write, if any."""
    if found is None and all(arrival.doubt for arrival in arrivals):
        return None, {arrival.event.id: _doubted(arrival) for arrival in arrivals}
    waits = [missing_parents(arrival, ids) for arrival in arrivals]
    if waits == [[]]:
        # Nearly always: one event for a record, and nothing to wait for.
        folded = merge_versions(arrivals, found)
        only = {arrivals[0].event.id: _told(handler, arrivals[0], folded, 0)}
        return _row(handler, arrivals, folded, found), only
    ready = [arrival for arrival, absent in zip(arrivals, waits, strict=True) if not absent]
    results: dict[UUID, Result] = {}
    row: Row | None = None
    if ready:
        folded = merge_versions(ready, found)
        row = _row(handler, ready, folded, found)
        for at, arrival in enumerate(ready):
            results[arrival.event.id] = _told(handler, arrival, folded, at)
    for arrival, absent in zip(arrivals, waits, strict=True):
        if absent:
            folded = merge_versions([*ready, arrival], found)
            if folded.owned[len(ready)]:
                # Also of a deleted record, or where only the raw record would show it: nothing may get lost.
                results[arrival.event.id] = _waits(absent)
            else:
                results[arrival.event.id] = _told(handler, arrival, folded, len(ready))
    return row, results


def _row(
    handler: Handler, arrivals: Sequence[MappedEvent], folded: Folded, found: StoredRow | None
) -> Row | None:
    """The row to write; none where all that the record says is there already."""
    # A tombstone may have been written before its parents came: written again, its references find them.
    if not folded.changed and folded.deleted_at is None:
        return None
    return build(handler, arrivals, folded, found)


def _doubted(arrival: MappedEvent) -> Result:
    assert arrival.doubt is not None
    return Result(outcome=Outcome.REFUSED, reason=str(arrival.doubt), field=arrival.doubt.field)


def build(handler: Handler, arrivals: Sequence[MappedEvent], folded: Folded, found: StoredRow | None) -> Row:
    """The row of a folded record; only what no single event says as a whole is mapped and printed again."""
    key = arrivals[0].event.key
    if folded.newest is not None:
        whole = arrivals[folded.newest]
        return Row(
            key=key,
            mapped=whole.mapped,
            folded=folded,
            raw=whole.record.raw(),
            shape=whole.shape,
            found=found,
        )
    return Row(
        key=key,
        mapped=handler.map(Merged(folded.data, folded.versions)),
        folded=folded,
        raw=(dump(folded.data), "{}"),
        shape=shape(folded.data),
        found=found,
    )


def merge_versions(arrivals: Sequence[MappedEvent], found: StoredRow | None) -> Folded:
    """Fold the events about one record into what is stored."""
    changes = [arrival.change for arrival in arrivals]
    if found is not None and found.covered and found.stamp is not None:
        (change,) = changes
        if change.stamp > found.stamp:
            return alone(change)
        return Folded(
            stamp=found.stamp, deleted_at=None, data={}, changed=False, newest=None, owned=(frozenset(),)
        )
    return fold(found.stored if found is not None else None, changes)


def _told(handler: Handler, arrival: MappedEvent, folded: Folded, at: int) -> Result:
    """An event was applied when the record, as it stands now, carries something that it said."""
    change = arrival.change
    if change.deleted:
        if folded.deleted_at is not None and folded.deleted_at == change.stamp:
            return Result(outcome=Outcome.APPLIED)
    elif folded.deleted_at is not None and change.stamp <= folded.deleted_at:
        reason = f"{handler.entity.value} {arrival.event.key} was deleted at {folded.deleted_at.isoformat()}"
        return Result(
            outcome=Outcome.SUPERSEDED, reason=f"{reason}; this version is of {change.stamp.isoformat()}"
        )
    elif not handler.keys.isdisjoint(folded.owned[at]):
        return Result(outcome=Outcome.APPLIED)
    reason = f"a newer version of {handler.entity.value} {arrival.event.key} is there"
    if folded.stamp == change.stamp:
        reason = f"another version of {handler.entity.value} {arrival.event.key} with the same stamp is there"
    return Result(
        outcome=Outcome.SUPERSEDED,
        reason=f"{reason}, of {folded.stamp.isoformat()}; this one is of {change.stamp.isoformat()}",
    )
