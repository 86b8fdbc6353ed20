"""Rows on their way to the server: packed for a statement that writes all of them, or one by one to find the bad ones.

A statement that writes a thousand rows fails as a whole when the database refuses one. Which one, the server finds out
by itself: a savepoint for each row, the row's own SQLSTATE for each refusal. Halving the batch from outside costs more
with every bad row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import cast

import msgspec
from asyncpg.exceptions import PostgresError
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

Arrays = Mapping[str, Sequence[str | None]]
"""Rows, column by column."""

Sent = dict[str, str | None]
"""The parameters of a statement that takes rows: each column as one text, see `pack`."""

_MARKS = (("\x1f", "\x1e"), ("\x1d", "\x1c"), ("\ue000", "\ue001"), ("\ufdd0", "\ufdd1"))


def pack(arrays: Arrays) -> Sent:
    """Each column of the rows as one text, with one mark between values and another for NULL.

    A driver's array costs a look at every element, which was a third of the worker's time. The marks are
    characters that none of the values holds: counting them afterwards proves it.
    """
    more = ((chr(point), chr(point + 1)) for point in range(0xF0000, 0xFFFFC, 2))
    for between, nothing in chain(_MARKS, more):
        sent = {name: _joined(array, between, nothing) for name, array in arrays.items()}
        if None not in sent.values():
            return {**sent, "between": between, "nothing": nothing}
    raise ValueError("the values hold every character that could stand between them")


def _joined(array: Sequence[str | None], between: str, nothing: str) -> str | None:
    """The values in one text, or None where one of them holds a mark."""
    blanks = array.count(None)
    values = [nothing if value is None else value for value in array] if blanks else array
    joined = between.join(cast(Sequence[str], values))
    safe = joined.count(between) == len(array) - 1 and joined.count(nothing) == blanks
    return joined if safe else None


def unnest(names: Sequence[str]) -> str:
    arrays = ", ".join(f"string_to_array(:{name}, :between, :nothing)" for name in names)
    return f"unnest({arrays}) AS u ({', '.join(names)})"


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A statement that writes rows, all at once or, to find those that the database refuses, each by itself."""

    sql: str
    """With `{rows}` in the place of the rows, which it calls `u`."""
    names: Sequence[str]
    """The columns of a row, as it is sent."""
    returning: str = ""

    @cached_property
    def of_all(self) -> TextClause:
        """Takes the rows as `pack` sends them."""
        returning = f"\nRETURNING {self.returning}" if self.returning else ""
        return text(self.sql.replace("{rows}", unnest(self.names)) + returning)

    @cached_property
    def of_each(self) -> str:
        """A block for the server that tries each row of the setting `runbook.rows`, a JSON list of lists.

        Each has a savepoint of its own; `runbook.refused` is then a list of the bad ones, with number and error.

        Settings, because a block takes no parameters, and a function would need the right to make one.
        """
        values = ", ".join(f"one.sent ->> {at} AS {name}" for at, name in enumerate(self.names))
        return _OF_EACH.format(change=self.sql.replace("{rows}", f"(SELECT {values}) u"))


_OF_EACH = """DO $block$
#variable_conflict use_column
DECLARE
    one record;
    refused jsonb := '[]';
    said_state text;
    said_words text;
    said_column text;
    said_constraint text;
    said_detail text;
    said_hint text;
BEGIN
    FOR one IN
        SELECT r.sent, r.number
        FROM jsonb_array_elements(CAST(current_setting('runbook.rows') AS jsonb)) WITH ORDINALITY AS r (sent, number)
    LOOP
        BEGIN
            {change};
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS said_state = RETURNED_SQLSTATE, said_words = MESSAGE_TEXT,
                said_column = COLUMN_NAME, said_constraint = CONSTRAINT_NAME, said_detail = PG_EXCEPTION_DETAIL,
                said_hint = PG_EXCEPTION_HINT;
            refused := refused || jsonb_build_array(jsonb_build_object(
                'row', one.number - 1, 'C', said_state, 'M', said_words, 'c', nullif(said_column, ''),
                'n', nullif(said_constraint, ''), 'D', nullif(said_detail, ''), 'H', nullif(said_hint, '')));
        END;
    END LOOP;
    PERFORM set_config('runbook.refused', CAST(refused AS text), true);
END
$block$"""

_AT_ONCE = 250
"""Rows in one block: they travel a second time, and a large payload must not double the worker's memory."""

_SEND = text("SELECT set_config('runbook.rows', :rows, true), set_config('plan_cache_mode', 'auto', true)")
"""Each row is planned anew otherwise: see `handlers.worker.engine`."""
_REFUSED = text("SELECT current_setting('runbook.refused')")


async def refused(tx: AsyncConnection, writing: Writing, arrays: Arrays) -> dict[int, PostgresError]:
    """The rows that the database refuses, by their number, each with its own error. The others stay written: the caller
    has set a savepoint, and goes back to it."""
    rows = list(zip(*(arrays[name] for name in writing.names), strict=True))
    found: dict[int, PostgresError] = {}
    for start in range(0, len(rows), _AT_ONCE):
        await tx.execute(_SEND, {"rows": msgspec.json.encode(rows[start : start + _AT_ONCE]).decode()})
        await tx.exec_driver_sql(writing.of_each)
        for told in msgspec.json.decode((await tx.execute(_REFUSED)).scalar_one()):
            number = start + told.pop("row")
            found[number] = PostgresError.new({key: said for key, said in told.items() if said is not None})
    return found
