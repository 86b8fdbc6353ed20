"""A table as CSV text, as a spreadsheet may open it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The text, with a line of the columns' names first."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return table.getvalue()


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet evaluates as a formula: keys and errors are untrusted (CSV injection)."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
