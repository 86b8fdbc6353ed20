"""A record of the source as it will be stored in the queue, with the digest by which a duplicate is known."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import MAX_PREC, Context, Decimal
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from handlers.entities import registry
from handlers.entities.base import STAMPS
from handlers.entities.document import Refusal, dump
from handlers.entities.spec import Data
from handlers.queue.event import EntityType, Operation

_KEY_MAX = 100
_SORTED = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode
_EXACT = Context(prec=MAX_PREC)
"""With the default precision, two numbers that differ in the thirtieth digit would be equal."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """One record of the source, ready to be stored: from a webhook, or read by a sync."""

    entity: EntityType
    key: str
    operation: Operation
    payload: str
    """The record under its own key, as JSON text, every number as it was sent."""
    content: str
    """A digest of the stored fields: equal for a second delivery."""
    stamped: bool
    """It has a stamp, so equal content is the same version, however old."""


def incoming(entity: EntityType, record: Data, operation: Operation) -> Incoming:
    """One record as it will be stored. Raises Refusal when it has no valid id."""
    handler = registry.handler(entity)
    key = handler.source_key(record)
    if len(key) > _KEY_MAX:
        raise Refusal(handler.id_keys[0], f"is longer than {_KEY_MAX} characters, so it is not an id")
    stored_keys = _stored(entity)
    stored_values = {name: _plain(value) for name, value in record.items() if name in stored_keys}
    content = blake2b(f"{entity}\n{key}\n{operation is Operation.DELETE}\n".encode(), digest_size=32)
    content.update(_SORTED(stored_values))
    return Incoming(
        entity=entity,
        key=key,
        operation=operation,
        payload=dump({handler.wrappers[0]: record}),
        content=content.hexdigest(),
        stamped=any(str(record.get(name) or "").strip() for name in STAMPS),
    )


@cache
def _stored(entity: EntityType) -> frozenset[str]:
    return registry.handler(entity).keys.union(STAMPS)


def _plain(value: Any) -> Any:
    """A normal form for the digest: 12.50 becomes 12.5, and formatted display texts are left out."""
    kind = type(value)
    if kind is dict:
        return {key: _plain(inner) for key, inner in value.items() if not key.endswith("_formatted")}
    if kind is list:
        return [_plain(inner) for inner in value]
    if kind is Decimal:
        return int(value) if value == value.to_integral_value() else value.normalize(_EXACT)
    return value
