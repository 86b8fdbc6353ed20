"""Resolving the events of one record: a result for each, and the row to write. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from handlers.entities.base import Handler
from handlers.entities.digest import shape
from handlers.entities.document import Refusal, dump, shown
from handlers.entities.envelope import Record, records
from handlers.entities.fold import Folded, RecordChange, Stored, fold, replace_whole
from handlers.entities.spec import Mapped, MergedRecord, Parent
from handlers.queue.event import EntityType, Event, Operation, Outcome, Result

Ids = dict[EntityType, dict[str, str]]
"""The ERP's own ids of the records in this batch and their parents, by type and source id."""


class MappedEvent(NamedTuple):
    """An event with its parsed and mapped payload."""

    event: Event
    record: Record
    mapped: Mapped
    change: RecordChange
    shape: str
    """A digest of the record's set of keys."""
    unknown_type: Refusal | None = None
    """The refusal if the record's type is unknown: it applies unless the row or another event confirms the type."""


class StoredRow(NamedTuple):
    """A stored row, locked by this transaction."""

    id: str
    stamp: datetime | None
    deleted_at: datetime | None
    covered: bool
    """The event's stamp alone decides (`statements.read`)."""
    stored: Stored | None
    """Also None if the old code wrote the row, without a version."""
    numbers: Mapping[int, str | None] = MappingProxyType({})
    """The values of the unique columns, by their position."""


class Row(NamedTuple):
    """A row to be written."""

    key: str
    mapped: Mapped
    folded: Folded
    raw: tuple[str | None, str | None, str]
    """The event that has the raw record, or its JSON text; and the path in it, as PostgreSQL writes a text array."""
    shape: str
    existing: StoredRow | None
    events: tuple[UUID, ...] = ()
    """The events that the record was folded from, in the order of `folded.owned`."""
    blank: frozenset[int] = frozenset()
    """Positions of unique columns whose value another record still has."""


def map_event(handler: Handler, event: Event) -> MappedEvent:
    """Parse and map an event's payload. Raises Refusal with the field and the reason."""
    record = _single_record(handler, event)
    key = handler.source_key(record.data)
    if key != event.key:
        raise Refusal(handler.id_keys[0], f"is {shown(key)}, but the event is about {shown(event.key)}")
    change = RecordChange(
        data=record.data,
        stamp=handler.stamp(record.data, event.created_at),
        deleted=event.operation is Operation.DELETE,
        arrived=event.created_at,
    )
    return MappedEvent(
        event=event,
        record=record,
        mapped=handler.map(record.data),
        change=change,
        shape=shape(record.data),
        unknown_type=handler.unknown_type(record.data),
    )


def _single_record(handler: Handler, event: Event) -> Record:
    try:
        parsed_records = records(handler, event.payload, from_database=True)
    except Refusal as refusal:
        # Some delete bodies have no record: the event's key identifies it.
        if event.operation is Operation.DELETE and refusal.absent:
            return Record(data={handler.id_keys[0]: event.key})
        raise
    if len(parsed_records) != 1:
        raise Refusal("(body)", f"an event is about one record, but this body holds {len(parsed_records)}")
    return parsed_records[0]


def missing_parents(mapped: Mapped, ids: Ids) -> list[Parent]:
    """The missing parents of a record."""
    return [parent for parent in mapped.parents if parent.key not in ids[parent.entity]]


def _waiting_result(absent: Sequence[Parent]) -> Result:
    """The result of an event that waits for the parents *absent*."""
    names = ", ".join(f"{parent.entity.value} {parent.key} ({parent.field})" for parent in absent[:5])
    more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
    return Result(
        outcome=Outcome.WAITING,
        reason=f"waits for {names}{more}",
        parents=tuple(parent.key for parent in absent),
    )


def resolve(
    handler: Handler,
    new_versions: Sequence[MappedEvent],
    existing: StoredRow | None,
    ids: Ids,
    *,
    deletes_wait: bool = False,
) -> tuple[Row | None, dict[UUID, Result]]:
    """The row to write, if any, and a result for each event of one record.

    A delete without its parents waits for them as well, but marks its record as deleted at once. With *deletes_wait* it
    does not: its values would be part of a record that is not deleted.
    """
    if existing is None and all(version.unknown_type for version in new_versions):
        return None, {version.event.id: _type_waits(version) for version in new_versions}
    missing = [missing_parents(version.mapped, ids) for version in new_versions]
    if missing == [[]]:
        # The common case: one event of a record, without missing parents.
        folded = merge_versions(new_versions, existing)
        only = {new_versions[0].event.id: _result_of(handler, new_versions[0], folded, 0)}
        return _row(handler, new_versions, folded, existing), only
    pairs = list(zip(new_versions, missing, strict=True))
    ready = [
        version for version, absent in pairs if not absent or (version.change.deleted and not deletes_wait)
    ]
    ready_ids = {version.event.id for version in ready}
    results: dict[UUID, Result] = {}
    for version, absent in pairs:
        if absent and version.event.id not in ready_ids:
            if merge_versions([*ready, version], existing).owned[len(ready)]:
                # It waits even for a deleted record, or if only the raw record would change: no value may be lost.
                results[version.event.id] = _waiting_result(absent)
            else:
                # None of its values is left, but it still is one of the versions with its stamp.
                ready.append(version)
    row: Row | None = None
    if ready:
        folded = merge_versions(ready, existing)
        row = _row(handler, ready, folded, existing)
        absent_by_id = {version.event.id: absent for version, absent in pairs}
        for at, version in enumerate(ready):
            id_ = version.event.id
            results[id_] = _result_of(handler, version, folded, at)
            # A newer delete may be stored already: what is left of this version still has no references.
            if absent_by_id[id_] and (results[id_].outcome is Outcome.APPLIED or folded.owned[at]):
                results[id_] = _waiting_result(absent_by_id[id_])
    return row, results


def all_wait(row: Row, ids: Ids) -> dict[UUID, Result]:
    """The results of the events of *row* if the folded record, not the events, has missing parents."""
    result = _waiting_result(missing_parents(row.mapped, ids))
    return dict.fromkeys(row.events, result)


def _row(
    handler: Handler, new_versions: Sequence[MappedEvent], folded: Folded, existing: StoredRow | None
) -> Row | None:
    """The row to write; None if the stored row is equal already."""
    # A deleted row may have been written before its parents: writing it again sets its references. A row that lacks a
    # number may get it now.
    lacks = existing is not None and None in existing.numbers.values() and bool(folded.data)
    if not folded.changed and folded.deleted_at is None and not lacks:
        return None
    return build(handler, new_versions, folded, existing)


def _type_waits(version: MappedEvent) -> Result:
    """The result of a part of a record whose type is unknown: it waits for the record itself."""
    assert version.unknown_type is not None
    return Result(
        outcome=Outcome.WAITING,
        reason=str(version.unknown_type),
        field=version.unknown_type.field,
        parents=(version.event.key,),
    )


def build(
    handler: Handler, new_versions: Sequence[MappedEvent], folded: Folded, existing: StoredRow | None
) -> Row:
    """The row of a folded record. Only a record merged from several versions is mapped and serialized again."""
    key = new_versions[0].event.key
    events = tuple(version.event.id for version in new_versions)
    if folded.newest is not None:
        whole = new_versions[folded.newest]
        return Row(
            key=key,
            mapped=whole.mapped,
            folded=folded,
            raw=_raw(whole),
            shape=whole.shape,
            existing=existing,
            events=events,
        )
    return Row(
        key=key,
        mapped=handler.map(MergedRecord(folded.data, folded.versions)),
        folded=folded,
        raw=(None, dump(folded.data), "{}"),
        shape=shape(folded.data),
        existing=existing,
        events=events,
    )


def _raw(version: MappedEvent) -> tuple[str | None, str | None, str]:
    body, path = version.record.raw()
    if version.event.is_queued and body is version.event.payload:
        return str(version.event.id), None, path
    return None, body, path


def merge_versions(new_versions: Sequence[MappedEvent], existing: StoredRow | None) -> Folded:
    """Fold the events of one record into the stored state."""
    changes = [version.change for version in new_versions]
    if existing is not None and existing.covered and existing.stamp is not None:
        (change,) = changes
        if change.stamp > existing.stamp:
            return replace_whole(change)
        return Folded(
            stamp=existing.stamp, deleted_at=None, data={}, changed=False, newest=None, owned=(frozenset(),)
        )
    return fold(existing.stored if existing is not None else None, changes)


def _result_of(handler: Handler, version: MappedEvent, folded: Folded, at: int) -> Result:
    """Applied if the folded record has a value of this event, otherwise superseded."""
    change = version.change
    if change.deleted:
        if folded.deleted_at is not None and folded.deleted_at == change.stamp:
            return Result(outcome=Outcome.APPLIED)
    elif folded.deleted_at is not None and change.stamp <= folded.deleted_at:
        reason = f"{handler.entity.value} {version.event.key} was deleted at {folded.deleted_at.isoformat()}"
        return Result(
            outcome=Outcome.SUPERSEDED, reason=f"{reason}; this version is of {change.stamp.isoformat()}"
        )
    elif not handler.keys.isdisjoint(folded.owned[at]):
        return Result(outcome=Outcome.APPLIED)
    reason = f"a newer version of {handler.entity.value} {version.event.key} is stored"
    if folded.stamp == change.stamp:
        reason = (
            f"another version of {handler.entity.value} {version.event.key} with the same stamp is stored"
        )
    return Result(
        outcome=Outcome.SUPERSEDED,
        reason=f"{reason}, of {folded.stamp.isoformat()}; this version is of {change.stamp.isoformat()}",
    )
