"""How a kind of record is declared: the columns of its row, where each value comes from, the tables of its
lines.

One declaration maps payloads, writes the SQL and adopts the ERP's tables, so that the three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from handlers.entities import parse
from handlers.entities.parse import Kind
from handlers.queue.event import EntityType

Data = dict[str, Any]
"""One record of the source, as its JSON object."""


class Merged(Data):
    """A record made of several versions, each with some of its keys: it knows which keys are older than others.

    Two keys may fill one column (`location_id` and the older `warehouse_id`): then the newer one counts, also when it
    is blank, and not the one that is usually better.
    """

    def __init__(self, data: Data, older: Mapping[str, Any]) -> None:
        super().__init__(data)
        self._older = older
        """The version of each key that is not from the newest one; versions can be compared."""

    def newest_of(self, keys: Collection[str]) -> Data:
        """The record without those of *keys* that are older than another of them."""
        there = [key for key in keys if key in self]
        if len(there) < 2:
            return self
        newest = max(map(self._rank, there))
        stale = {key for key in there if self._rank(key) < newest}
        return {key: value for key, value in self.items() if key not in stale} if stale else self

    def _rank(self, key: str) -> tuple[bool, Any]:
        return key not in self._older, self._older.get(key)


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column of a row and the payload's key that fills it."""

    name: str
    kind: Kind
    keys: tuple[str, ...]
    """The payload's keys; the first that is not blank counts. With none of them the column is left as it
    is."""
    take: Callable[[Data], object] | None = None
    """Computes the value from the record where a key alone does not say it."""
    where: Callable[[Data], str] | None = None
    """The path of what `take` takes, for a refusal, where it is not one of the keys."""
    parent: EntityType | None = None
    """The value is the id of another record, which must be there before this row is written."""
    local: bool = False
    """The column holds the ERP's own id of that parent instead of the source's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Child:
    """A table with a row for each line of a record; the lines are replaced whole, never patched."""

    name: str
    link: str
    """The column with the ERP's own id of the parent's row."""
    keys: tuple[str, ...]
    """The payload's lists that hold the lines; the first that is there counts."""
    columns: tuple[Column, ...]
    lines: Callable[[object, Data], list[tuple[str, Data]]]
    """From the list and its record to (path, line) pairs: the path names the line in a refusal."""
    once: str | None = None
    """This column may not hold one value twice among the lines of a record."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The ERP's table for a kind of record."""

    name: str
    key: str
    """The column with the source's id."""
    columns: tuple[Column, ...]
    children: tuple[Child, ...] = ()
    natural_key: str | None = None
    """The column by which rows of the old code are recognised, where they do not have the source's id."""

    @cached_property
    def natural_at(self) -> int | None:
        """The position of that column."""
        return next((at for at, one in enumerate(self.columns) if one.name == self.natural_key), None)


class Parent(NamedTuple):
    """A record that must be there first."""

    entity: EntityType
    key: str
    """Its id at the source."""
    field: str
    """The payload's key that names it, as a path."""


Lines = list[list[str | None]]
"""The rows of a child table for one record."""


class Mapped(NamedTuple):
    """A record as its row: values as text for the server to cast, in the order of the table's columns."""

    values: list[str | None]
    missing: frozenset[int]
    """Positions of the columns about which the payload says nothing."""
    children: dict[str, Lines]
    """Lines by child table; a table that is not in here is left alone."""
    parents: tuple[Parent, ...] = ()


def columns(names: str, kind: Kind) -> tuple[Column, ...]:
    """Columns that are called as in the payload."""
    return tuple(Column(name=name, kind=kind, keys=(name,)) for name in names.split())


def column(name: str, kind: Kind, keys: str = "", **more: Any) -> Column:
    """One column whose name, source or meaning is not simply that of the payload."""
    return Column(name=name, kind=kind, keys=tuple((keys or name).split()), **more)


def lines(value: object, _: Data) -> list[tuple[str, Data]]:
    """The lines of a list. Blank is an empty list, and an object stands for a list of one."""
    if isinstance(value, dict):
        value = [value] if value else []
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not isinstance(value, list):
        raise ValueError("must be a list")
    for position, line in enumerate(value):
        if not isinstance(line, dict):
            raise ValueError(f"must be a list of objects, but number {position} is none")
    return [(f"[{position}]", line) for position, line in enumerate(value)]


def line_no(name: str = "line_no") -> Column:
    """Where a line stood in its list: the mapper fills it."""
    return Column(name=name, kind=parse.INTEGER, keys=())
