"""Comparing a stored row with its payload, by value and not by text."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.sqlstate import CONTENT, sqlstate
from handlers.entities import statements
from handlers.entities.base import Handler
from handlers.entities.document import Refusal
from handlers.entities.envelope import records
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Column, Data
from handlers.queue.event import EntityType

SQL = queries(__name__)
_SHOWN_MAX = 12
_ROUNDED = frozenset({"numeric", "integer", "timestamptz", "date"})
"""Declared types whose values a narrower column rounds without an error."""


def expected(handler: Handler, record: Data) -> dict[str, Any]:
    """The expected row, by column, and its lines by child table; without columns that the payload does not set.

    The ERP's own ids are not included: they depend on the order of arrival. Raises Refusal like `Handler.map`.
    """
    mapped = handler.map(record)
    row: dict[str, Any] = {handler.table.key: handler.source_key(record)}
    for at, column in enumerate(handler.table.columns):
        if at not in mapped.missing and not column.local:
            row[column.name] = mapped.values[at]
    for child in handler.table.children:
        if child.name in mapped.children:
            row[child.name] = [
                {
                    column.name: value
                    for column, value in zip(child.columns, line, strict=True)
                    if not column.local
                }
                for line in mapped.children[child.name]
            ]
    return row


async def uncomparable(tx: AsyncConnection, entity: EntityType, key: str, payload: str) -> str | None:
    """The reason why a row of the ERP's own workers cannot be compared with *payload*; None if it can."""
    handler = HANDLERS[entity]
    parameters = {"name": handler.table.name, "key": handler.table.key}
    unreadable: str | None = (await tx.execute(SQL["unreadable"], parameters)).scalar_one()
    if unreadable is not None:
        return unreadable
    try:
        expected(handler, _record(handler, key, payload))
    except Refusal as refusal:
        return f"our mapping refuses its payload: {refusal}"
    return None


async def differences(
    tx: AsyncConnection,
    entity: EntityType,
    key: str,
    payload: str,
    *,
    read_at: datetime | None = None,
    by_us: bool = True,
) -> list[str]:
    """The differences between the stored row of *key* and *payload*, as sentences; empty if they agree.

    If another program wrote the row (*by_us* is False), only the non-blank payload values are compared. Its mapping may
    use defaults, compute columns differently, and store lines elsewhere.

    Columns that the ERP's table does not have are not compared, and a row with a newer stamp is no difference. A record
    without a stamp has the time *read_at* of its event; without that it counts as the newest.
    """
    handler = HANDLERS[entity]
    table = handler.table
    record = _record(handler, key, payload)
    if not (await tx.execute(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table.name})).scalar():
        return [f"there is no table {table.name}"]
    row_text = (await tx.execute(statements.row(table), {"key": key})).scalar()
    if row_text is None:
        return [f"{table.name} has no row for {handler.entity.value} {key}"]
    stored = json.loads(row_text, parse_float=Decimal)
    stamp = handler.stamp(record, read_at or datetime.max.replace(tzinfo=UTC))
    if stored.get("zoho_modified_at") and _moment(stored["zoho_modified_at"]) > stamp:
        return []
    wanted = expected(handler, record)
    if stored.get("zoho_deleted_at") and table.natural_key is not None:
        # A deleted record releases its number.
        wanted.pop(table.natural_key, None)
    if not by_us:
        computed = {column.name for column in table.columns if column.take is not None}
        compared = {
            name: value for name, value in wanted.items() if value is not None and name not in computed
        }
        wanted, stored = _trimmed(compared), _trimmed(stored)
    found = _compare(table.name, table.columns, wanted, stored)
    sentences = [str(each) for each in await _not_by_type(tx, table.name, found)]
    for child in table.children if by_us else ():
        if child.name in wanted:
            lines = (await tx.execute(statements.rows_of(child, table), {"key": key})).scalars().all()
            if len(lines) != len(wanted[child.name]):
                sentences.append(
                    f"{child.name} has {len(lines)} rows, the payload has {len(wanted[child.name])}"
                )
                continue
            found = _compare_lines(child.name, child.columns, wanted[child.name], list(map(_load, lines)))
            sentences += [str(each) for each in await _not_by_type(tx, child.name, found)]
    return sentences[:_SHOWN_MAX]


def _record(handler: Handler, key: str, payload: str) -> Data:
    for record in records(handler, payload, from_database=True):
        if handler.source_key(record.data) == key:
            return record.data
    raise Refusal("(body)", f"holds no {handler.entity.value} {key}")


def _trimmed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}


def _load(line_text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(line_text, parse_float=Decimal)
    return loaded


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """A stored value that is not the payload's, as far as its declared type tells."""

    where: str
    column: Column
    wanted: str | None
    stored: Any

    def __str__(self) -> str:
        return f"{self.where}.{self.column.name} is {self.stored!r}, the payload has {self.wanted!r}"


def _compare(
    where: str, declared: Sequence[Column], wanted: Mapping[str, str | None], stored: Mapping[str, Any]
) -> list[_Difference]:
    return [
        _Difference(where=where, column=column, wanted=wanted[column.name], stored=stored[column.name])
        for column in declared
        if column.name in wanted
        and column.name in stored
        and not _same(column, wanted[column.name], stored[column.name])
    ]


def _compare_lines(
    where: str,
    declared: Sequence[Column],
    wanted: Sequence[Mapping[str, str | None]],
    stored: Sequence[Mapping[str, Any]],
) -> list[_Difference]:
    return [
        difference
        for at, (wanted_line, stored_line) in enumerate(zip(wanted, stored, strict=True))
        for difference in _compare(f"{where}[{at}]", declared, wanted_line, stored_line)
    ]


async def _not_by_type(tx: AsyncConnection, table: str, found: Sequence[_Difference]) -> list[_Difference]:
    """The differences that the column's own type does not explain: numeric(10,2) rounds, real keeps six digits.

    The server is asked, because its casts are what a write of the value does.
    """
    if not found:
        return []
    types = {row.name: row.type for row in await tx.execute(SQL["types"], {"table": table})}
    real: list[_Difference] = []
    rounded: dict[tuple[str, str], list[_Difference]] = defaultdict(list)
    for difference in found:
        declared, actual = difference.column.kind.pg_type, types[difference.column.name]
        # character(n) pads its text with blanks.
        converts = declared in _ROUNDED or actual.startswith("character(")
        if converts and difference.wanted is not None and difference.stored is not None:
            rounded[declared, actual].append(difference)
        else:
            real.append(difference)
    for (declared, actual), of_type in rounded.items():
        try:
            async with tx.begin_nested():
                real += await _not_equal(tx, declared, actual, of_type)
        except DBAPIError as error:
            _raise_unless_values(error)
            real += await _one_by_one(tx, declared, actual, of_type)
    position = {id(difference): number for number, difference in enumerate(found)}
    return sorted(real, key=lambda difference: position[id(difference)])


async def _one_by_one(
    tx: AsyncConnection, declared: str, actual: str, found: Sequence[_Difference]
) -> list[_Difference]:
    """The same for values of which the type cannot hold some at all; those are differences."""
    real: list[_Difference] = []
    for difference in found:
        if len(real) == _SHOWN_MAX:
            break
        try:
            async with tx.begin_nested():
                real += await _not_equal(tx, declared, actual, [difference])
        except DBAPIError as error:
            _raise_unless_values(error)
            real.append(difference)
    return real


async def _not_equal(
    tx: AsyncConnection, declared: str, actual: str, found: Sequence[_Difference]
) -> list[_Difference]:
    """The differences that remain after the wanted value is cast to the column's own type."""
    unequal = text(
        "SELECT v.number FROM unnest(CAST(:wanted AS text[]), CAST(:stored AS text[]))"
        " WITH ORDINALITY AS v (wanted, stored, number)\n"
        f"WHERE to_jsonb(CAST(CAST(v.wanted AS {declared}) AS {actual})) <> CAST(v.stored AS jsonb)"
    )
    values = {
        "wanted": [difference.wanted for difference in found],
        "stored": [
            str(difference.stored)
            if isinstance(difference.stored, Decimal)
            else json.dumps(difference.stored)
            for difference in found
        ],
    }
    return [found[number - 1] for number in (await tx.execute(unequal, values)).scalars()]


def _raise_unless_values(error: DBAPIError) -> None:
    """Raise *error* unless the database refused the values themselves."""
    if not (sqlstate(error) or "").startswith(CONTENT):
        raise error


def _same(column: Column, wanted: str | None, stored: object) -> bool:
    """Whether a stored value equals the wanted one, for any type of the ERP's column."""
    if wanted is None or stored is None:
        return wanted is stored
    same = _SAME.get(column.kind.pg_type)
    try:
        return same(wanted, stored) if same is not None else wanted == str(stored)
    except (ValueError, InvalidOperation):
        return False


def _same_number(wanted: str, stored: object) -> bool:
    return Decimal(wanted) == Decimal(str(stored))


def _same_json(wanted: str, stored: object) -> bool:
    stored_value = json.loads(stored, parse_float=Decimal) if isinstance(stored, str) else stored
    return bool(json.loads(wanted, parse_float=Decimal) == stored_value)


def _moment(time_text: str) -> datetime:
    """The time; without a zone it is UTC, because our sessions run in UTC."""
    parsed = datetime.fromisoformat(time_text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


_SAME: dict[str, Callable[[str, object], bool]] = {
    "numeric": _same_number,
    "integer": _same_number,
    "boolean": lambda wanted, stored: (wanted == "true") is stored,
    "date": lambda wanted, stored: wanted == str(stored)[:10],
    "timestamptz": lambda wanted, stored: _moment(wanted) == _moment(str(stored)),
    "jsonb": _same_json,
}
"""The comparison of a value with the stored one, by its declared type."""
