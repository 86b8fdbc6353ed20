"""Sending rows to the server: packed for one statement, or one by one to find the bad rows.

A statement with a thousand rows fails as a whole if the database refuses one. A DO block on the server then finds the
bad rows, with a savepoint for each row. Bisecting the batch from the client would cost more with every bad row.
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
"""Rows as columns: the values of all rows, by column name."""

PackedRows = dict[str, str | None]
"""The parameters of a `RowStatement`: each column as one text, see `pack`."""

_MARKS = (("\x1f", "\x1e"), ("\x1d", "\x1c"), ("\ue000", "\ue001"), ("\ufdd0", "\ufdd1"))


def pack(arrays: Arrays) -> PackedRows:
    """Each column of the rows as one text, with a separator between values and another mark for NULL.

    The driver encodes each element of an array, which took a third of the worker's time. The marks are characters that
    no value contains: counting them after the join proves it.
    """
    private_use = ((chr(point), chr(point + 1)) for point in range(0xF0000, 0xFFFFC, 2))
    for separator, null_mark in chain(_MARKS, private_use):
        packed = {name: _joined(array, separator, null_mark) for name, array in arrays.items()}
        if None not in packed.values():
            return {**packed, "between": separator, "nothing": null_mark}
    raise ValueError("no separator is left: the values contain every candidate character")


def _joined(array: Sequence[str | None], separator: str, null_mark: str) -> str | None:
    """The values in one text, or None if one of them contains a mark."""
    nulls = array.count(None)
    values = [null_mark if value is None else value for value in array] if nulls else array
    joined = separator.join(cast(Sequence[str], values))
    safe = joined.count(separator) == len(array) - 1 and joined.count(null_mark) == nulls
    return joined if safe else None


def unnest(names: Sequence[str]) -> str:
    arrays = ", ".join(f"string_to_array(:{name}, :between, :nothing)" for name in names)
    return f"unnest({arrays}) AS u ({', '.join(names)})"


@dataclass(frozen=True, kw_only=True)
class RowStatement:
    """A statement that writes rows, all at once or one by one, to find those that the database refuses."""

    sql: str
    """With the placeholder `{rows}` for the rows, whose alias is `u`."""
    names: Sequence[str]
    """The columns of a row, in the order of its values."""
    returning: str = ""

    @cached_property
    def for_all_rows(self) -> TextClause:
        """The statement for all rows, with the parameters of `pack`."""
        returning = f"\nRETURNING {self.returning}" if self.returning else ""
        return text(self.sql.replace("{rows}", unnest(self.names)) + returning)

    @cached_property
    def for_each_row(self) -> str:
        """A DO block that tries each row of the setting `runbook.rows`, a JSON list of lists, with a savepoint each.

        Afterwards the setting `runbook.refused` is a JSON list of the bad rows, with number and error. It uses settings
        because a DO block has no parameters, and a function would need the right to create one.
        """
        values = ", ".join(f"input_row.sent ->> {at} AS {name}" for at, name in enumerate(self.names))
        return _FOR_EACH_ROW.format(change=self.sql.replace("{rows}", f"(SELECT {values}) u"))


_FOR_EACH_ROW = """DO $block$
#variable_conflict use_column
DECLARE
    input_row record;
    refused jsonb := '[]';
    error_state text;
    error_message text;
    error_column text;
    error_constraint text;
    error_detail text;
    error_hint text;
BEGIN
    FOR input_row IN
        SELECT r.sent, r.number
        FROM jsonb_array_elements(CAST(current_setting('runbook.rows') AS jsonb)) WITH ORDINALITY AS r (sent, number)
    LOOP
        BEGIN
            {change};
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS error_state = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
                error_column = COLUMN_NAME, error_constraint = CONSTRAINT_NAME, error_detail = PG_EXCEPTION_DETAIL,
                error_hint = PG_EXCEPTION_HINT;
            refused := refused || jsonb_build_array(jsonb_build_object(
                'row', input_row.number - 1, 'C', error_state, 'M', error_message, 'c', nullif(error_column, ''),
                'n', nullif(error_constraint, ''), 'D', nullif(error_detail, ''), 'H', nullif(error_hint, '')));
        END;
    END LOOP;
    PERFORM set_config('runbook.refused', CAST(refused AS text), true);
END
$block$"""

_BLOCK_ROWS = 250
"""Rows in one block: they are sent again, and large payloads must not double the worker's memory."""

_SET_ROWS = text(
    "SELECT set_config('runbook.rows', :rows, true), set_config('plan_cache_mode', 'auto', true)"
)
"""Without plan_cache_mode auto, each row would be planned again: see `handlers.database.engine`."""
_GET_REFUSED = text("SELECT current_setting('runbook.refused')")


async def refused(tx: AsyncConnection, statement: RowStatement, arrays: Arrays) -> dict[int, PostgresError]:
    """The errors of the rows that the database refuses, by row number.

    The good rows are written: the caller must roll back to its own savepoint.
    """
    rows = list(zip(*(arrays[name] for name in statement.names), strict=True))
    errors: dict[int, PostgresError] = {}
    for start in range(0, len(rows), _BLOCK_ROWS):
        await tx.execute(_SET_ROWS, {"rows": msgspec.json.encode(rows[start : start + _BLOCK_ROWS]).decode()})
        await tx.exec_driver_sql(statement.for_each_row)
        for refusal in msgspec.json.decode((await tx.execute(_GET_REFUSED)).scalar_one()):
            number = start + refusal.pop("row")
            errors[number] = PostgresError.new(
                {key: value for key, value in refusal.items() if value is not None}
            )
    return errors
