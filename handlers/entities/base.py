"""The handler of an entity type: maps a payload to a row as declared, or refuses it with the wrong field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import parse
from handlers.entities.document import Refusal
from handlers.entities.read import ReadPlans, ReadResult, combined, read, read_lines, read_plans
from handlers.entities.spec import Child, Data, Lines, Mapped, MergedRecord, Table
from handlers.queue.event import EntityType

READ_AT = "tds_read_at"
"""Our own key, in what a sync has read: when the source gave it. No column is filled from it."""
STAMPS = ("last_modified_time", "updated_time", READ_AT)
"""The keys of a record's change time, the better one first. `created_time` is not among them: all versions of a
record share it. A record without a stamp has the time of its event."""

AHEAD_MAX = timedelta(days=1)
"""How far a stamp may be in the future. A later one would outrank every version that follows, for ever."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Maps one entity type. An ERP that needs another rule subclasses it and overrides `map`."""

    entity: EntityType
    id_keys: tuple[str, ...]
    """The payload's keys for the record's id, the usual one first."""
    wrappers: tuple[str, ...]
    """Envelope keys of a record, or of a list of records."""
    table: Table
    check: Callable[[Data], None] | None = None
    """A rule about the record as a whole; raises Refusal."""
    type_key: str | None = None
    """The key that distinguishes this type from another one of the same shape. A partial record without it is applied
    only if the record is stored already: otherwise its type is unknown."""
    refused_wrappers: Mapping[str, str] = field(default_factory=dict)
    """Envelope keys of similar types that are refused, with the reason."""

    def source_key(self, record: Data) -> str:
        """The record's id at the source, as text. Raises Refusal if it is missing or invalid."""
        for key in self.id_keys:
            if key in record:
                try:
                    value = parse.identifier(record[key])
                except ValueError as error:
                    raise Refusal(key, str(error)) from error
                if value is not None:
                    return value
        raise Refusal(self.id_keys[0], "is missing, so the record cannot be identified")

    def stamp(self, record: Data, read_at: datetime) -> datetime:
        """The time of the record's last change at the source; *read_at* if the payload has none."""
        for key in STAMPS:
            if key in record:
                try:
                    value = parse.moment(record[key])
                except ValueError as error:
                    raise Refusal(key, str(error)) from error
                if value is not None:
                    return value
        return read_at

    def future_stamp(self, record: Data, stamp: datetime, now: datetime) -> Refusal | None:
        """The refusal of a *stamp* that is more than a day in the future; otherwise None."""
        if stamp - now <= AHEAD_MAX:
            return None
        return Refusal(
            next((key for key in STAMPS if record.get(key)), STAMPS[0]),
            f"is {stamp.isoformat()}, more than a day in the future: it would outrank every later change of this"
            f" {self.entity.value}. Save the record again at the source, then its newer webhook is applied",
        )

    def map(self, record: Data) -> Mapped:
        """The row of *record*. Raises Refusal with every wrong field."""
        reading = ReadResult()
        # Each version is checked separately. A merged record may break the rule although no version does: to refuse
        # it would make the result depend on the order of arrival.
        if self.check is not None and not isinstance(record, MergedRecord) and self._has_content(record):
            try:
                self.check(record)
            except Refusal as refusal:
                reading.refusals.append(refusal)
        plan = self._plan(tuple(record))
        values = read(plan, record, "", reading)
        children: dict[str, Lines] = {}
        for child, line_plan in self._children:
            newest = record.newest_of(child.keys) if isinstance(record, MergedRecord) else record
            for key in child.keys:
                if key in newest:
                    children[child.name] = read_lines(child, line_plan, record, key, reading)
                    break
        if reading.refusals:
            raise combined(reading.refusals)
        return Mapped(
            values=values,
            missing=plan.missing,
            children=children,
            parents=tuple(reading.parents.values()),
        )

    def unknown_type(self, record: Data) -> Refusal | None:
        """The refusal if the type of *record* is unknown, unless its row is stored already; otherwise None."""
        if self.type_key is None or self.type_key in record or not self._has_content(record):
            return None
        return Refusal(
            self.type_key,
            f"is missing, and no {self.entity.value} with this id is stored: the record may be of another type",
        )

    def _has_content(self, record: Data) -> bool:
        """Whether the record has more than its id and stamp, as a delete may have."""
        return not record.keys().isdisjoint(self._content_keys)

    async def execute_with_context(
        self, tx: AsyncConnection, statement: Executable, parameters: Any = None
    ) -> CursorResult[Any]:
        """Run *statement* inside the caller's transaction; never begin, commit or roll back here.

        An entity's rows and the completion of its event belong to one transaction, the caller's. A commit for each
        statement would store half of an order when a later statement fails.
        """
        return await tx.execute(statement, parameters)

    @property
    def keys(self) -> frozenset[str]:
        """The payload's keys that are stored in a column or a child table."""
        return self._keys

    @cached_property
    def _plan(self) -> ReadPlans:
        return read_plans(self.table.columns)

    @cached_property
    def _children(self) -> tuple[tuple[Child, ReadPlans], ...]:
        return tuple((child, read_plans(child.columns)) for child in self.table.children)

    @cached_property
    def _content_keys(self) -> frozenset[str]:
        return self.keys - {*self.id_keys, *STAMPS}

    @cached_property
    def _keys(self) -> frozenset[str]:
        column_keys = {key for column in self.table.columns for key in column.keys}
        return frozenset(
            column_keys | {key for child in self.table.children for key in child.keys} | set(self.id_keys)
        )


Handlers = Mapping[EntityType, Handler]
