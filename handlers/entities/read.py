"""Parsing a record into the values of a row. The hot loop of the worker, so a plan is cached for each key set."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from handlers.entities import parse
from handlers.entities.compiled import Compiled, compile_reader
from handlers.entities.document import Refusal
from handlers.entities.spec import Child, Column, Data, Lines, MergedRecord, Parent
from handlers.queue.event import EntityType

_SHAPES_MAX = 1024
"""The size of the cache. Records have few key sets; a sender of many must not exhaust the memory."""
COMPILED_FROM = 50
"""So many records with one set of keys have their reader compiled: it costs as much as reading a hundred."""


@dataclass(kw_only=True)
class ReadResult:
    """The parents and the refusals of a record, collected while it is parsed."""

    parents: dict[tuple[EntityType, str], Parent] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)


Step = tuple[int, str | None, Callable[[object], str | None], EntityType | None, Column]
"""A column's position, its only key (None if several or computed), its parser, its parent's type, and the column."""


@dataclass(kw_only=True, eq=False)
class ReadPlan:
    """The plan for records with one set of keys."""

    width: int
    steps: tuple[Step, ...]
    """The columns for which such a record has a key."""
    plain: tuple[tuple[int, str], ...]
    """Position and key of plain text columns: half of all values."""
    other: tuple[Step, ...]
    """The steps that are not in `plain`."""
    missing: frozenset[int]
    """Positions of the columns without a key in the record."""
    used: int = 0
    compiled: Compiled | None = None
    """The same as a function, once the plan has been used often."""

    def note_use(self) -> None:
        """Count a record, and compile the plan when there have been enough of them."""
        self.used += 1
        if self.used == COMPILED_FROM:
            steps = [(at, only_key, column) for at, only_key, _, _, column in self.steps]
            self.compiled = compile_reader(self.width, steps, _value_of, _field_of)


ReadPlans = Callable[[tuple[str, ...]], ReadPlan]
"""The plan for the keys of a record, in their order."""


def read_plans(declared: Sequence[Column]) -> ReadPlans:
    """The plans for a table's columns, cached by key set."""

    @lru_cache(maxsize=_SHAPES_MAX)
    def for_keys(keys: tuple[str, ...]) -> ReadPlan:
        present = frozenset(keys)
        steps = tuple(
            (at, _only_key(column, present), column.kind.read, column.parent, column)
            for at, column in enumerate(declared)
            if not present.isdisjoint(column.keys)
        )
        plain = {step[0]: step[1] for step in steps if step[1] is not None and _is_plain(step[4])}
        return ReadPlan(
            width=len(declared),
            steps=steps,
            plain=tuple(plain.items()),
            other=tuple(step for step in steps if step[0] not in plain),
            missing=frozenset(range(len(declared))) - {step[0] for step in steps},
        )

    return for_keys


def _is_plain(column: Column) -> bool:
    return column.kind is parse.TEXT and column.parent is None


def _only_key(column: Column, present: Set[str]) -> str | None:
    """The only key of *column* among *present*; None if there are several, or the column is computed."""
    matching = [key for key in column.keys if key in present]
    return matching[0] if len(matching) == 1 and column.take is None else None


def read(plan: ReadPlan, record: Data, path: str, result: ReadResult) -> list[str | None]:
    """Parse the values of *record* for the columns of *plan*; adds its refusals and parents to *result*."""
    # The keys of a merged record have versions, which only the generic reader knows.
    if plan.compiled is None:
        plan.note_use()
    elif type(record) is dict:
        try:
            return plan.compiled(record, path, result.parents)
        except ValueError:
            # Read again, for every refusal with its field.
            pass
    values: list[str | None] = [None] * plan.width
    steps = plan.other
    for at, key in plan.plain:
        value = record[key]
        if type(value) is str:
            if value and not value.isspace():
                values[at] = value
        elif value is not None:
            # Not text: parse all columns in their order, which is the order of the refusals.
            steps = plan.steps
            break
    for at, only_key, reader, parent, column in steps:
        try:
            value = record[only_key] if only_key is not None else _value_of(column, record)
            if value is None or value == "":
                continue
            text = reader(value)
        except ValueError as error:
            result.refusals.append(Refusal(f"{path}{_field_of(column, record)}", str(error)))
            continue
        values[at] = text
        if parent is not None and text is not None and (parent, text) not in result.parents:
            field_path = f"{path}{_field_of(column, record)}"
            result.parents[parent, text] = Parent(entity=parent, key=text, field=field_path)
    return values


def _value_of(column: Column, record: Data) -> object:
    """The value of a column with several keys or a computation; at least one key is in the record."""
    if isinstance(record, MergedRecord):
        record = record.newest_of(column.keys)
    if column.take is not None:
        return column.take(record)
    for key in column.keys:
        value = record.get(key)
        if not _blank(value):
            return value
    return None


def _field_of(column: Column, record: Data) -> str:
    """The field of the value, for messages: by the column's rule, or the first non-blank key, or the first key."""
    if column.where is not None:
        return column.where(record)
    present = [key for key in column.keys if key in record]
    return next((key for key in present if not _blank(record[key])), present[0])


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def read_lines(child: Child, line_plans: ReadPlans, record: Data, key: str, result: ReadResult) -> Lines:
    """Parse the lines under *key*, and number them from 1."""
    try:
        lines = child.lines(record[key], record)
    except ValueError as error:
        result.refusals.append(Refusal(key, str(error)))
        return []
    number_at = next((at for at, column in enumerate(child.columns) if not column.keys), None)
    rows = []
    for position, (path, line) in enumerate(lines, start=1):
        row = read(line_plans(tuple(line)), line, f"{key}{path}.", result)
        if number_at is not None:
            row[number_at] = str(position)
        rows.append(row)
    if child.unique_column is not None:
        _refuse_duplicates(child, rows, [f"{key}{path}" for path, _ in lines], result)
    return rows


def _refuse_duplicates(child: Child, rows: Lines, paths: Sequence[str], result: ReadResult) -> None:
    """Add a refusal for each line without the unique value, or with a duplicate of it."""
    at, column = next(
        (at, candidate) for at, candidate in enumerate(child.columns) if candidate.name == child.unique_column
    )
    previous: set[str | None] = set()
    for row, path in zip(rows, paths, strict=True):
        if row[at] is None or row[at] in previous:
            reason = "is missing" if row[at] is None else f"is a duplicate in the list: {row[at]}"
            result.refusals.append(Refusal(f"{path}.{column.keys[0]}", reason))
        previous.add(row[at])


def combined(refusals: Sequence[Refusal]) -> Refusal:
    """All refusals of a record as one, with the field of the first."""
    first, *others = {str(refusal): refusal for refusal in refusals}.values()
    if not others:
        return first
    rest = "; ".join(map(str, others[:9]))
    return Refusal(first.field, f"{first.reason}; {rest}")
