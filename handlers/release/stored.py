"""Reading values back from the JSON of the ledger, which an older or a newer program may have written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def known(kind: type[DataclassInstance], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What *stored* says of the fields of the dataclass *kind*. Null is as good as missing; other keys are ignored."""
    names = _names(kind)
    return {key: value for key, value in stored.items() if value is not None and key in names}


def moment(stored: str | None) -> datetime | None:
    """A time, which JSON has as text."""
    return datetime.fromisoformat(stored) if stored else None


@cache
def _names(kind: type[DataclassInstance]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))
