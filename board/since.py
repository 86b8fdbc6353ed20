"""Since when something is so, as far as this board has seen it: of what the ledger does not keep a time of."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime


class Since:
    """Remembers when each trouble was first seen in a row."""

    def __init__(self) -> None:
        self._first: dict[str, datetime | None] = {}
        self._seen_at: datetime | None = None

    def of(self, keys: Collection[str], at: datetime | None) -> None:
        """The troubles of one look *at* a moment. What is not among them is over. An older look changes nothing."""
        if at is not None and self._seen_at is not None and at < self._seen_at:
            return
        self._seen_at = at or self._seen_at
        self._first = {key: self._first.get(key, at or self._seen_at) for key in keys}

    def first(self, key: str) -> datetime | None:
        """When it was seen first; None where no time was known."""
        return self._first.get(key)
