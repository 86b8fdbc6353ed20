"""Reading a record into the values of a row: the inner loop of everything, so it does little and plans ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from handlers.entities import parse
from handlers.entities.document import Refusal
from handlers.entities.spec import Child, Column, Data, Lines, Merged, Parent
from handlers.queue.event import EntityType

_SHAPES_MAX = 1024
"""Records come in few shapes; whoever sends another one each time gets no more memory than this."""


@dataclass(kw_only=True)
class Reading:
    """What reading a record brings to light beside its values."""

    parents: dict[tuple[EntityType, str], Parent] = field(default_factory=dict)
    faults: list[Refusal] = field(default_factory=list)


Step = tuple[int, str | None, Callable[[object], str | None], EntityType | None, Column]
"""Position of a column, its one key (None where it is not so simple), its reader, its parent's kind, and itself."""


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """How to read records that have one certain set of keys."""

    width: int
    steps: tuple[Step, ...]
    """Only the columns that such a record says something about."""
    plain: tuple[tuple[int, str], ...]
    """Position and key of those that are text and nothing else: half of all values."""
    other: tuple[Step, ...]
    """The steps that are not in `plain`."""
    missing: frozenset[int]
    """Positions of the others."""


ReadPlans = Callable[[tuple[str, ...]], ReadPlan]
"""The plan for the keys of a record, in their order."""


def read_plans(declared: Sequence[Column]) -> ReadPlans:
    """Plans for a table's columns, each made once."""

    @lru_cache(maxsize=_SHAPES_MAX)
    def for_keys(keys: tuple[str, ...]) -> ReadPlan:
        there = frozenset(keys)
        steps = tuple(
            (at, _only_key(column, there), column.kind.read, column.parent, column)
            for at, column in enumerate(declared)
            if not there.isdisjoint(column.keys)
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


def _only_key(column: Column, there: Set[str]) -> str | None:
    """The one key of a column that such a record has; None where there are several, or a rule."""
    found = [key for key in column.keys if key in there]
    return found[0] if len(found) == 1 and column.take is None else None


def read(plan: ReadPlan, record: Data, path: str, seen: Reading) -> list[str | None]:
    """Read all that *record* says about the columns of *plan*; its faults and its parents go to *seen*."""
    values: list[str | None] = [None] * plan.width
    steps = plan.other
    for at, key in plan.plain:
        value = record[key]
        if type(value) is str:
            if value and not value.isspace():
                values[at] = value
        elif value is not None:
            # Not what it usually is: then all are looked at in their order, which is the order of the faults.
            steps = plan.steps
            break
    for at, only_key, reader, parent, column in steps:
        try:
            value = record[only_key] if only_key is not None else _look(column, record)
            if value is None or value == "":
                continue
            found = reader(value)
        except ValueError as error:
            seen.faults.append(Refusal(f"{path}{_key(column, record)}", str(error)))
            continue
        values[at] = found
        if parent is not None and found is not None and (parent, found) not in seen.parents:
            where = f"{path}{_key(column, record)}"
            seen.parents[parent, found] = Parent(entity=parent, key=found, field=where)
    return values


def _look(column: Column, record: Data) -> object:
    """The value of a column that has several keys or a rule; at least one of the keys is there."""
    if isinstance(record, Merged):
        record = record.newest_of(column.keys)
    if column.take is not None:
        return column.take(record)
    for key in column.keys:
        value = record.get(key)
        if not _blank(value):
            return value
    return None


def _key(column: Column, record: Data) -> str:
    """The key that counts: what the column's rule says, the first that is not blank, the first that is there."""
    if column.where is not None:
        return column.where(record)
    there = [key for key in column.keys if key in record]
    return next((key for key in there if not _blank(record[key])), there[0])


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def read_lines(child: Child, line_plans: ReadPlans, record: Data, key: str, seen: Reading) -> Lines:
    """Read the lines under *key*, each with its number."""
    try:
        found = child.lines(record[key], record)
    except ValueError as error:
        seen.faults.append(Refusal(key, str(error)))
        return []
    number = next((at for at, column in enumerate(child.columns) if not column.keys), None)
    rows = []
    for position, (path, line) in enumerate(found, start=1):
        row = read(line_plans(tuple(line)), line, f"{key}{path}.", seen)
        if number is not None:
            row[number] = str(position)
        rows.append(row)
    if child.once is not None:
        _only_once(child, rows, [f"{key}{path}" for path, _ in found], seen)
    return rows


def _only_once(child: Child, rows: Lines, paths: Sequence[str], seen: Reading) -> None:
    """Complain about lines that share a value which may stand only once."""
    at, column = next((at, one) for at, one in enumerate(child.columns) if one.name == child.once)
    before: set[str | None] = set()
    for row, path in zip(rows, paths, strict=True):
        if row[at] is None or row[at] in before:
            said = "is missing" if row[at] is None else f"stands twice in the list: {row[at]}"
            seen.faults.append(Refusal(f"{path}.{column.keys[0]}", said))
        before.add(row[at])


def combined(faults: Sequence[Refusal]) -> Refusal:
    """All faults of a record as one refusal, under the field of the first."""
    first, *others = {str(fault): fault for fault in faults}.values()
    if not others:
        return first
    rest = "; ".join(map(str, others[:9]))
    return Refusal(first.field, f"{first.reason}; {rest}")
