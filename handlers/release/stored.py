"""Reading values from the JSON of the ledger, which an older or a newer program may have written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from handlers.gate.values import Thresholds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def known_fields(kind: type[DataclassInstance], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of *stored* that are fields of the dataclass *kind*, without null values."""
    names = _names(kind)
    return {key: value for key, value in stored.items() if value is not None and key in names}


def parse_time(stored: str | None) -> datetime | None:
    """A time from its ISO text."""
    return datetime.fromisoformat(stored) if stored else None


@cache
def _names(kind: type[DataclassInstance]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))


def thresholds_from(stored: Mapping[str, Any]) -> Thresholds:
    """The thresholds of a plan, with the numbers in their stored form."""
    values = known_fields(Thresholds, stored)
    if "instant_errors" in values:
        values["instant_errors"] = tuple(values["instant_errors"])
    return Thresholds(**values)
