"""The records of the stand-in's organisation, and the lists over them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from handlers.queue.event import EntityType
from rehearsal.zoho.modules import MODULES, Record, detail_of, row_of

PER_PAGE_MAX = 200


class Organisation:
    """All records by entity type. Changed through `put` and `delete`, by a test or by a person."""

    def __init__(self) -> None:
        self._records: dict[EntityType, dict[str, tuple[Record, Record]]] = {
            entity: {} for entity in EntityType
        }
        self._order: dict[EntityType, list[str]] = {}
        self.clock_ahead = timedelta()
        """How far the source's clock goes ahead of this machine's."""

    def now(self) -> datetime:
        """The source's time."""
        return datetime.now(UTC) + self.clock_ahead

    def put(self, entity: EntityType, record: Record, *, like: Record | None = None) -> str:
        """Make a record, or replace it whole. *like* has what many records share, so that it is kept once."""
        key = str((record if like is None else {**like, **record})[MODULES[entity].id_key])
        self._records[entity][key] = (like or {}, record)
        self._order.pop(entity, None)
        return key

    def change(self, entity: EntityType, key: str, **values: Any) -> None:
        """Set some keys of a record, with a new change time unless one is given."""
        at = self.now().strftime("%Y-%m-%dT%H:%M:%S+0000")
        name = "updated_time" if entity is EntityType.PAYMENT else "last_modified_time"
        self.put(entity, {**self.get(entity, key), **({name: at} | values)})

    def drift(self, entity: EntityType, key: str, **values: Any) -> None:
        """Set some keys of a record without a new change time, as a sale does with a stock."""
        self.put(entity, {**self.get(entity, key), **values})

    def delete(self, entity: EntityType, key: str) -> None:
        """Delete a record. Nobody is told."""
        del self._records[entity][key]
        self._order.pop(entity, None)

    def get(self, entity: EntityType, key: str) -> Record:
        """A record as it is. Raises KeyError."""
        like, record = self._records[entity][key]
        return {**like, **record}

    def keys(self, entity: EntityType) -> list[str]:
        """The ids of all records of a type."""
        return list(self._records[entity])

    def detail(self, entity: EntityType, key: str) -> dict[str, Any] | None:
        """The answer for one record; None where there is none."""
        if key not in self._records[entity]:
            return None
        return {MODULES[entity].detail_key: detail_of(entity, self.get(entity, key))}

    def page(self, entity: EntityType, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer for one page of a list."""
        module = MODULES[entity]
        number = max(1, int(query.get("page", "1")))
        size = min(PER_PAGE_MAX, max(1, int(query.get("per_page", "200"))))
        keys = self._sorted(entity)
        if module.takes_order and query.get("sort_order") == "A":
            keys = keys[::-1]
        if module.has_inactive and query.get("filter_by") != "Status.All":
            keys = [key for key in keys if self.get(entity, key).get("status", "active") == "active"]
        if module.takes_filter and "last_modified_time" in query:
            since = datetime.strptime(query["last_modified_time"], "%Y-%m-%dT%H:%M:%S%z")
            keys = [key for key in keys if _changed(self.get(entity, key)) >= since]
        first = (number - 1) * size
        rows = [row_of(entity, self.get(entity, key)) for key in keys[first : first + size]]
        context = {
            "page": number,
            "per_page": size,
            "has_more_page": first + size < len(keys),
            "sort_column": query.get("sort_column", ""),
            "sort_order": query.get("sort_order", "D"),
        }
        return {module.list_key: rows, "page_context": context}

    def _sorted(self, entity: EntityType) -> list[str]:
        """The ids, the newest change first."""
        if entity not in self._order:
            records = self._records[entity]
            if MODULES[entity].takes_order:
                stamps = {key: _changed(self.get(entity, key)) for key in records}
                self._order[entity] = sorted(records, key=lambda key: (stamps[key], key), reverse=True)
            else:
                self._order[entity] = list(records)
        return self._order[entity]


def _changed(record: Record) -> datetime:
    stamp = record.get("last_modified_time") or record.get("updated_time")
    if not stamp:
        return datetime.min.replace(tzinfo=UTC)
    try:
        return datetime.strptime(str(stamp), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
