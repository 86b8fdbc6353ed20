"""Whether what is stored of a record is still what the source has. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from handlers.entities.base import READ_AT, STAMPS
from handlers.entities.document import dump
from handlers.entities.known import Known
from handlers.entities.registry import handler
from handlers.entities.spec import Data
from handlers.queue.event import EntityType
from handlers.zoho.listings import STOCK_KEYS
from handlers.zoho.pages import ListRow


class Need(StrEnum):
    """What of a listed record has to be read."""

    NOTHING = "nothing"
    NEW = "new"
    """It is not stored."""
    CHANGED = "changed"
    """It has changed since, or has no change time and looks different."""
    DRIFTED = "drifted"
    """It has the same change time and looks different: a balance, a stock, a status that only the time has changed."""


def stock_need(row: ListRow, stored: Known | None, harmless: str | None) -> Need:
    """The same, of an item's stock alone. What is not stored is the business of the other syncs."""
    if stored is None or stored.data is None or stored.deleted_at is not None:
        return Need.NOTHING
    found = row_differs(EntityType.PRODUCT, row, stored.data, is_stock=True)
    is_known = not found or difference(found, row.data, stored.data) == harmless
    return Need.NOTHING if is_known else Need.DRIFTED


def need(
    entity: EntityType, row: ListRow, stored: Known | None, harmless: str | None, *, since: date | None = None
) -> Need:
    """What has to be read of the record of *row*. *harmless* is a difference that was looked into before.

    A row without a change time says nothing of its lines: with *since* such a record is read if it is not older.
    """
    if stored is None:
        return Need.NEW
    if row.stamp is not None and stored.deleted_at is not None:
        # It was restored only if it changed after its end. Else the list is older than the delete.
        return Need.CHANGED if row.stamp > stored.deleted_at else Need.NOTHING
    if stored.data is None or stored.stamp is None:
        return Need.CHANGED
    if row.stamp is not None and row.stamp != stored.stamp:
        return Need.CHANGED if row.stamp > stored.stamp else Need.NOTHING
    found = row_differs(entity, row, stored.data)
    is_different = bool(found) and difference(found, row.data, stored.data) != harmless
    if row.stamp is None:
        is_young = since is not None and _is_from(row.data, since)
        return Need.CHANGED if is_different or is_young else Need.NOTHING
    return Need.DRIFTED if is_different else Need.NOTHING


def row_differs(entity: EntityType, row: ListRow, stored: Data, *, is_stock: bool = False) -> list[str]:
    """The keys by which a list row differs: of those that are stored, as a list has names of its own."""
    keys = [key for key in differing(entity, row.data, stored) if key in stored]
    return [key for key in keys if key in STOCK_KEYS] if is_stock else keys


def differing(entity: EntityType, record: Data, stored: Data) -> list[str]:
    """The keys that fill a column, and whose value in *record* is another one than in *stored*."""
    declared = handler(entity)
    keys = declared.keys.difference(STAMPS, declared.id_keys)
    return sorted(key for key in record.keys() & keys if _normal(record[key]) != _normal(stored.get(key)))


def difference(keys: Iterable[str], record: Data, stored: Data) -> str:
    """A digest of a difference, to know it again."""
    pairs = {key: [record.get(key), stored.get(key)] for key in keys}
    return hashlib.blake2b(dump(pairs).encode("utf-8", "replace"), digest_size=12).hexdigest()


def part(entity: EntityType, record: Data, keys: Collection[str], key: str, at: str) -> Data:
    """Only *keys* of a record, as a version of the time *at* when they were read.

    Of several versions with one change time all are kept, so the record as a whole would grow with each of them.
    """
    identity = {name: record[name] for name in handler(entity).id_keys if name in record}
    return (
        (identity or {handler(entity).id_keys[0]: key})
        | {name: record[name] for name in keys}
        | {READ_AT: at}
    )


def _is_from(row: Data, since: date) -> bool:
    """Whether a row is of that day or later; also one without a date."""
    try:
        return date.fromisoformat(str(row.get("date") or "")[:10]) >= since
    except ValueError:
        return True


def _normal(value: Any) -> Any:
    """A value without the differences of form: nothing is nothing, and 12.50 is "12.5"."""
    plain: Any = value
    match value:
        case bool():
            # True equals 1 in Python.
            plain = str(value).lower()
        case dict():
            inner = {key: _normal(item) for key, item in value.items() if not key.endswith("_formatted")}
            plain = {key: item for key, item in inner.items() if item is not None} or None
        case list():
            plain = [_normal(item) for item in value] or None
        case int() | Decimal():
            plain = _number(str(value))
        case str():
            text = value.strip()
            plain = _number(text) if text and text[0] in "-0123456789" else text or None
    return plain


def _number(text: str) -> Any:
    """A number, so that 0 and 0.00 are equal. Anything else, as a date or an id, stays text."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return number.normalize() if number.is_finite() else text
