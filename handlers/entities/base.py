"""The handler of a kind of record: reads a payload into a row as declared, or says which field is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import parse
from handlers.entities.document import Refusal
from handlers.entities.read import Reading, ReadPlans, combined, read, read_lines, read_plans
from handlers.entities.spec import Child, Data, Lines, Mapped, Merged, Table
from handlers.queue.event import EntityType

STAMPS = ("last_modified_time", "updated_time")
"""Where a record says when it was last changed, the better key first. `created_time` is not among them: two
versions of one record share it. A record without a stamp is as old as its event: the time it was read."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Knows one kind of record. An ERP that needs another rule subclasses it and overrides `map`."""

    entity: EntityType
    id_keys: tuple[str, ...]
    """The payload's keys for the record's id, the usual one first."""
    wrappers: tuple[str, ...]
    """Keys under which a record, or a list of them, may come."""
    table: Table
    check: Callable[[Data], None] | None = None
    """A rule about the record as a whole; raises Refusal."""
    told_by: str | None = None
    """The key that tells this kind from another one of the same shape. A part of a record may leave it out, and is
    then taken only where the whole is there: nothing else says what it is a part of."""
    refused_wrappers: Mapping[str, str] = field(default_factory=dict)
    """Envelopes of other kinds that look like this one, with the reason why they are not."""

    def source_key(self, record: Data) -> str:
        """The record's id at the source, as text."""
        for key in self.id_keys:
            if key in record:
                try:
                    found = parse.identifier(record[key])
                except ValueError as error:
                    raise Refusal(key, str(error)) from error
                if found is not None:
                    return found
        raise Refusal(self.id_keys[0], "is missing: without it nobody knows which record this is")

    def stamp(self, record: Data, read_at: datetime) -> datetime:
        """When the source last changed the record; *read_at* where the payload does not say."""
        for key in STAMPS:
            if key in record:
                try:
                    found = parse.moment(record[key])
                except ValueError as error:
                    raise Refusal(key, str(error)) from error
                if found is not None:
                    return found
        return read_at

    def map(self, record: Data) -> Mapped:
        """The row that *record* describes. Raises Refusal naming every field that is not as it should be."""
        seen = Reading()
        # Each version was held against the rule by itself. Blended they may break it, and whichever came last would be
        # refused: then the order would matter.
        if self.check is not None and not isinstance(record, Merged) and self._says_something(record):
            try:
                self.check(record)
            except Refusal as fault:
                seen.faults.append(fault)
        plan = self._plan(tuple(record))
        values = read(plan, record, "", seen)
        children: dict[str, Lines] = {}
        for child, line_plan in self._children:
            said = record.newest_of(child.keys) if isinstance(record, Merged) else record
            for key in child.keys:
                if key in said:
                    children[child.name] = read_lines(child, line_plan, record, key, seen)
                    break
        if seen.faults:
            raise combined(seen.faults)
        return Mapped(
            values=values,
            missing=plan.missing,
            children=children,
            parents=tuple(seen.parents.values()),
        )

    def doubt(self, record: Data) -> Refusal | None:
        """Why nobody knows that *record* is of this kind, unless its row is there already."""
        if self.told_by is None or self.told_by in record or not self._says_something(record):
            return None
        return Refusal(
            self.told_by,
            f"is missing, and no {self.entity.value} with this id is there: it may be another kind",
        )

    def _says_something(self, record: Data) -> bool:
        """Whether it says more than which record was deleted, and when."""
        return not record.keys().isdisjoint(self._telling)

    async def execute_with_context(
        self, tx: AsyncConnection, statement: Executable, parameters: Any = None
    ) -> CursorResult[Any]:
        """Run *statement* inside the caller's transaction; never begin, commit or roll back here.

        The repair that was once documented for this method opened a transaction around every statement. It
        cured nothing: the error it was meant for came from a swallowed failure in the queue, which expired
        the row that the worker read next. It raised "a transaction is already begun" as soon as anything
        had run before. And it made one commit of each statement, so that a failed update of an order kept
        the new total and lost a line. An entity's rows and the completion of its event belong to one
        transaction, and that is the caller's.
        """
        return await tx.execute(statement, parameters)

    @property
    def keys(self) -> frozenset[str]:
        """The payload's keys that reach a column or a child table."""
        return self._keys

    @cached_property
    def _plan(self) -> ReadPlans:
        return read_plans(self.table.columns)

    @cached_property
    def _children(self) -> tuple[tuple[Child, ReadPlans], ...]:
        return tuple((child, read_plans(child.columns)) for child in self.table.children)

    @cached_property
    def _telling(self) -> frozenset[str]:
        return self.keys - {*self.id_keys, *STAMPS}

    @cached_property
    def _keys(self) -> frozenset[str]:
        own = {key for column in self.table.columns for key in column.keys}
        return frozenset(
            own | {key for child in self.table.children for key in child.keys} | set(self.id_keys)
        )


Handlers = Mapping[EntityType, Handler]
