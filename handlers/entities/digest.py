"""Digests of a record: of its content, and of its set of keys. Pure."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from handlers.entities.spec import Data


def digest(data: Data) -> str:
    """A digest of a record's content, independent of its JSON formatting."""
    return blake2b(_canonical(data).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _canonical(value: Any) -> str:
    match value:
        case dict():
            return (
                "{" + ",".join(f"{json.dumps(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
            )
        case list():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case bool() | None | str():
            return json.dumps(value)
        case _:
            return str((Decimal(value) + 0).normalize())


def shape(data: Data) -> str:
    """A digest of the record's set of keys, to compare the keys of two versions."""
    return _shape(tuple(data))


@lru_cache(maxsize=4096)
def _shape(keys: tuple[str, ...]) -> str:
    return blake2b("\n".join(sorted(keys)).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
