"""The handler of a kind of record: reads a payload into a row as declared, or says which field is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.entities import parse
from handlers.entities.document import Refusal
from handlers.entities.spec import Child, Column, Data, Lines, Mapped, Parent, Table
from handlers.webhooks.event import EntityType

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
        seen = _Seen()
        if self.check is not None and record.keys() & self.keys - self._bare:
            try:
                self.check(record)
            except Refusal as fault:
                seen.faults.append(fault)
        missing: list[int] = []
        values = _read(self._plan, record, "", seen, missing)
        children: dict[str, Lines] = {}
        for child, plan in self._children:
            for key in child.keys:
                if key in record:
                    children[child.name] = _read_lines(child, plan, record, key, seen)
                    break
        if seen.faults:
            raise _together(seen.faults)
        return Mapped(
            values=values,
            missing=frozenset(missing),
            children=children,
            parents=tuple(seen.parents.values()),
        )

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

    def replaced(self, **changes: Any) -> Handler:
        """A copy of this handler with some parts replaced."""
        return replace(self, **changes)

    @cached_property
    def _plan(self) -> tuple[Step, ...]:
        return _steps(self.table.columns)

    @cached_property
    def _children(self) -> tuple[tuple[Child, tuple[Step, ...]], ...]:
        return tuple((child, _steps(child.columns)) for child in self.table.children)

    @cached_property
    def _bare(self) -> frozenset[str]:
        """What a body holds that says no more than which record was deleted, and when."""
        return frozenset((*self.id_keys, *STAMPS))

    @cached_property
    def _keys(self) -> frozenset[str]:
        own = {key for column in self.table.columns for key in column.keys}
        return frozenset(
            own | {key for child in self.table.children for key in child.keys} | set(self.id_keys)
        )


@dataclass(kw_only=True)
class _Seen:
    """What reading a record brings to light beside its values."""

    parents: dict[tuple[EntityType, str], Parent] = field(default_factory=dict)
    faults: list[Refusal] = field(default_factory=list)


Step = tuple[str | None, Callable[[object], str | None], Column]
"""The one key of a simple column (else None), its reader, and the column itself: what the loop needs."""

_ABSENT = object()


def _steps(declared: Sequence[Column]) -> tuple[Step, ...]:
    return tuple(
        (
            column.keys[0] if len(column.keys) == 1 and column.take is None else None,
            column.kind.read,
            column,
        )
        for column in declared
    )


def _read(
    plan: tuple[Step, ...],
    record: Data,
    path: str,
    seen: _Seen,
    missing: list[int],
) -> list[str | None]:
    """Read every column of *plan* from *record*. This loop is most of the time that mapping takes."""
    values: list[str | None] = []
    value: object
    for key, read, column in plan:
        try:
            value = record.get(key, _ABSENT) if key is not None else _look(column, record)
            if value is _ABSENT:
                missing.append(len(values))
                values.append(None)
                continue
            found = None if value is None or value == "" else read(value)
        except ValueError as error:
            seen.faults.append(Refusal(f"{path}{_key(column, record)}", str(error)))
            found = None
        values.append(found)
        if column.parent is not None and found is not None and (column.parent, found) not in seen.parents:
            seen.parents[column.parent, found] = Parent(
                entity=column.parent, key=found, field=f"{path}{_key(column, record)}"
            )
    return values


def _look(column: Column, record: Data) -> object:
    """The value of a column that has several keys or a rule."""
    found: object = _ABSENT
    for key in column.keys:
        if key in record:
            if column.take is not None:
                return column.take(record)
            found = record[key]
            if not _blank(found):
                return found
    return found


def _key(column: Column, record: Data) -> str:
    """The key that counts: the first that is not blank, else the first that is there."""
    there = [key for key in column.keys if key in record]
    return next((key for key in there if not _blank(record[key])), there[0] if there else column.name)


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _read_lines(
    child: Child,
    plan: tuple[Step, ...],
    record: Data,
    key: str,
    seen: _Seen,
) -> list[list[str | None]]:
    try:
        found = child.lines(record[key], record)
    except ValueError as error:
        seen.faults.append(Refusal(key, str(error)))
        return []
    number = next((at for at, column in enumerate(child.columns) if not column.keys), None)
    once = next((at for at, column in enumerate(child.columns) if column.name == child.once), None)
    before: set[str | None] = set()
    rows = []
    for position, (path, line) in enumerate(found, start=1):
        row = _read(plan, line, f"{key}{path}.", seen, [])
        if number is not None:
            row[number] = str(position)
        if once is not None:
            if row[once] is None or row[once] in before:
                twice = "is missing" if row[once] is None else f"stands twice in the list: {row[once]}"
                seen.faults.append(Refusal(f"{key}{path}.{child.columns[once].keys[0]}", twice))
            before.add(row[once])
        rows.append(row)
    return rows


def _together(faults: list[Refusal]) -> Refusal:
    first, *others = {str(fault): fault for fault in faults}.values()
    if not others:
        return first
    rest = "; ".join(map(str, others[:9]))
    return Refusal(first.field, f"{first.reason}; {rest}")
