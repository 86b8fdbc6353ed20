"""Convert values to JSON: for jsonb columns, files and the output of commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any


def clean(text: str) -> str:
    """*text* without NUL characters and lone surrogates, which PostgreSQL cannot store."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def as_json(value: object) -> str:
    """*value* as JSON text. Raises ValueError for NaN and infinity."""
    return json.dumps(as_plain(value), ensure_ascii=False, allow_nan=False)


def as_plain(value: object) -> Any:
    """*value* as JSON types: dataclasses become objects; enums, ids and paths text; dates and times ISO text."""
    plain: object
    match value:
        case str():
            plain = clean(value)
        case bool() | int() | float() | None:
            plain = value
        case Mapping():
            plain = {clean(str(key)): as_plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            plain = [as_plain(item) for item in value]
        case date():
            plain = value.isoformat()
        case _ if is_dataclass(value):
            plain = {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            plain = str(value)
    return plain
