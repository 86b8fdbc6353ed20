"""The declaration of an entity type: its columns, the source of each value, and the tables of its lines.

One declaration defines the mapping, the SQL and the adoption of the ERP's tables, so that they always agree.
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


class MergedRecord(Data):
    """A record merged from several versions, with the version of each key.

    Two keys may fill one column (`location_id` and the older `warehouse_id`). Then the key of the newer version counts,
    even if it is blank, instead of the preferred key.
    """

    def __init__(self, data: Data, older: Mapping[str, Any]) -> None:
        super().__init__(data)
        self._older = older
        """The version of each key that is not from the newest version; versions are comparable."""

    def newest_of(self, keys: Collection[str]) -> Data:
        """The record without those of *keys* that are older than the newest of them."""
        present = [key for key in keys if key in self]
        if len(present) < 2:
            return self
        newest = max(map(self._rank, present))
        older_keys = {key for key in present if self._rank(key) < newest}
        return {key: value for key, value in self.items() if key not in older_keys} if older_keys else self

    def _rank(self, key: str) -> tuple[bool, Any]:
        return key not in self._older, self._older.get(key)


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column of a row and the payload's key that fills it."""

    name: str
    kind: Kind
    keys: tuple[str, ...]
    """The payload's keys; the first non-blank one counts. Without any of them the column is not changed."""
    take: Callable[[Data], object] | None = None
    """Computes the value from the record, if it is not the value of a key."""
    where: Callable[[Data], str] | None = None
    """The path of the value of `take` for messages, if it is not one of the keys."""
    parent: EntityType | None = None
    """The value is the id of another record, which must exist before this row is written."""
    local: bool = False
    """The column holds the ERP's own id of the parent instead of the source's id."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Child:
    """A table with a row for each line of a record; all lines are replaced together, never updated."""

    name: str
    link: str
    """The column with the ERP's own id of the parent's row."""
    keys: tuple[str, ...]
    """The payload's lists of lines; the first one in the record counts."""
    columns: tuple[Column, ...]
    lines: Callable[[object, Data], list[tuple[str, Data]]]
    """From the list and its record to (path, line) pairs; the path is for messages."""
    unique_column: str | None = None
    """The column whose values must be unique among the lines of a record."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The ERP's table of an entity type."""

    name: str
    key: str
    """The column with the source's id."""
    columns: tuple[Column, ...]
    children: tuple[Child, ...] = ()
    natural_key: str | None = None
    """The column that identifies rows of the old code, which do not have the source's id."""

    @cached_property
    def natural_at(self) -> int | None:
        """The position of `natural_key` among the columns; None without one."""
        return next((at for at, column in enumerate(self.columns) if column.name == self.natural_key), None)


class Parent(NamedTuple):
    """A record that must exist first."""

    entity: EntityType
    key: str
    """Its id at the source."""
    field: str
    """The path of the payload's key with its id."""


Lines = list[list[str | None]]
"""The rows of a child table for one record."""


class Mapped(NamedTuple):
    """A record as its row: values as text for the server to cast, in the order of the table's columns."""

    values: list[str | None]
    missing: frozenset[int]
    """Positions of the columns that the payload does not set."""
    children: dict[str, Lines]
    """Lines by child table; other child tables are not changed."""
    parents: tuple[Parent, ...] = ()


def columns(names: str, kind: Kind) -> tuple[Column, ...]:
    """Columns with the same names as the payload's keys."""
    return tuple(Column(name=name, kind=kind, keys=(name,)) for name in names.split())


def column(name: str, kind: Kind, keys: str = "", **more: Any) -> Column:
    """One column with its own name, keys or options."""
    return Column(name=name, kind=kind, keys=tuple((keys or name).split()), **more)


def lines(value: object, _: Data) -> list[tuple[str, Data]]:
    """The lines of a list. Blank is an empty list; an object is a list of one. Raises ValueError otherwise."""
    if isinstance(value, dict):
        value = [value] if value else []
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not isinstance(value, list):
        raise ValueError("must be a list")
    for position, line in enumerate(value):
        if not isinstance(line, dict):
            raise ValueError(f"must be a list of objects, but number {position} is not an object")
    return [(f"[{position}]", line) for position, line in enumerate(value)]


def line_no(name: str = "line_no") -> Column:
    """The column for the line's position in its list; `read_lines` fills it."""
    return Column(name=name, kind=parse.INTEGER, keys=())
