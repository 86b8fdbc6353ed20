"""Columns of the ERP that cannot hold every amount: they are written, and lose digits or refuse the row.

`runbook db adopt` changes no type, because that would rewrite the table. It names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from handlers.entities.base import Handlers
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Column
from handlers.erp.catalog import Catalog, ExistingColumn

_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_WHOLE_DIGITS, _DECIMALS = 12, 2
"""What an amount needs before and after the point: a total in Iraqi dinars passes a hundred million."""
_FLOATS = {"float4": "six", "float8": "fifteen"}


def narrow_columns(catalog: Catalog, handlers: Handlers = HANDLERS) -> list[str]:
    """A sentence for each existing column of an amount whose type is too narrow, with the statement that widens it."""
    sentences: list[str] = []
    for handler in handlers.values():
        table = handler.table
        for name, columns in (
            (table.name, table.columns),
            *((child.name, child.columns) for child in table.children),
        ):
            sentences += _of_table(name, columns, catalog.tables.get(name, {}))
    return sentences


def _of_table(name: str, declared: Sequence[Column], existing: dict[str, ExistingColumn]) -> Iterator[str]:
    for column in declared:
        if column.kind.name != "number" or column.name not in existing:
            continue
        if why := _why(existing[column.name]):
            cure = f"ALTER TABLE {name} ALTER COLUMN {column.name} TYPE numeric"
            yield f"{name}.{column.name} is {existing[column.name].full_type}, which {why}: {cure}"


def _why(column: ExistingColumn) -> str:
    if column.type_name in _FLOATS:
        return f"keeps about {_FLOATS[column.type_name]} digits of an amount"
    if column.type_name in ("int2", "int4", "int8"):
        return "rounds an amount to a whole number"
    found = _NUMERIC.fullmatch(column.full_type)
    if found is None:
        return ""
    precision, scale = int(found[1]), int(found[2])
    if scale < _DECIMALS:
        return f"rounds an amount to {max(scale, 0)} decimals"
    if precision - scale < _WHOLE_DIGITS:
        return f"refuses an amount of more than {precision - scale} digits before the point"
    return ""
