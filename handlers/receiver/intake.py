"""The records of a webhook as they will be stored: one event for each record, its type from the URL."""

from __future__ import annotations

import json
import re
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
from handlers.receiver.rejected import Rejected

_KINDS: dict[EntityType, str] = {
    EntityType.PRODUCT: "product products item items",
    EntityType.CUSTOMER: "customer customers",
    EntityType.INVOICE: "invoice invoices",
    EntityType.SALES_ORDER: "salesorder salesorders order orders",
    EntityType.PAYMENT: "payment payments customerpayment customerpayments",
    EntityType.VENDOR: "vendor vendors supplier suppliers",
    EntityType.USER: "user users",
    EntityType.BILL: "bill bills",
    EntityType.CREDIT_NOTE: "creditnote creditnotes",
    EntityType.STOCK_ADJUSTMENT: "stockadjustment stockadjustments inventoryadjustment inventoryadjustments stock",
    EntityType.PRICE_LIST: "pricelist pricelists pricebook pricebooks price prices",
}
"""The names of each type in a URL: ours, the source's, and those of the ERP's own receiver."""

_KEY_MAX = 100
RECORDS_MAX = 1000
"""Records in one call: enough to be stored well within the timeout of the source."""
_SORTED = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode
_EXACT = Context(prec=MAX_PREC)
"""With the default precision, two numbers that differ in the thirtieth digit would be equal."""

KINDS: dict[str, EntityType] = {name: kind for kind, names in _KINDS.items() for name in names.split()}

EVENTS: dict[bytes, Operation] = {
    b"": Operation.UPSERT,
    b"created": Operation.CREATE,
    b"create": Operation.CREATE,
    b"edited": Operation.UPDATE,
    b"updated": Operation.UPDATE,
    b"update": Operation.UPDATE,
    b"deleted": Operation.DELETE,
    b"delete": Operation.DELETE,
}
"""The values of `?event=`; the body has no such field. Without it the operation is an upsert."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One received record, ready to be stored."""

    entity: EntityType
    key: str
    operation: Operation
    payload: str
    """The record under its own key, as JSON text, every number as it was sent."""
    content: str
    """A digest of the stored fields: equal for a second delivery."""
    stamped: bool
    """It has a stamp, so equal content is the same version, however old."""


def kind_of(name: str) -> EntityType:
    """The type of a URL name: `credit-notes`, `CreditNote` and `creditnotes` are the same."""
    entity = KINDS.get(re.sub(r"[-_]", "", name).lower())
    if entity is None:
        known = ", ".join(names.split()[1] for names in _KINDS.values())
        raise Rejected(404, "unknown_kind", f"unknown kind of webhook; use one of {known}")
    return entity


def operation_of(values: list[bytes]) -> Operation:
    """The operation from the query's `event` parameters. Raises Rejected for an unknown or ambiguous one."""
    operations = {EVENTS.get(value.lower()) for value in values} or {Operation.UPSERT}
    operation = operations.pop()
    if operation is None or operations:
        raise Rejected(
            400, "malformed", "the parameter event must be created, edited or deleted, and appear once"
        )
    return operation


def webhooks_of(entity: EntityType, body: str, operation: Operation) -> list[Webhook]:
    """Every record of *body*. Raises Rejected if one record has no valid id: a call is all or nothing."""
    try:
        records = registry.unwrap(entity, body)
        if len(records) > RECORDS_MAX:
            raise Rejected(
                413, "size", f"a call may hold at most {RECORDS_MAX} records, this one holds {len(records)}"
            )
        return [_webhook_of(entity, record.data, operation) for record in records]
    except Refusal as refusal:
        if _is_json(body):
            raise Rejected(422, "no_record", str(refusal), field=refusal.field) from None
        raise Rejected(400, "malformed", str(refusal), field=refusal.field) from None


def _is_json(body: str) -> bool:
    """Whether a refused body is JSON at all: if not, the transport is broken, not the record."""
    try:
        json.loads(body, strict=False)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _webhook_of(entity: EntityType, record: Data, operation: Operation) -> Webhook:
    handler = registry.handler(entity)
    key = handler.source_key(record)
    if len(key) > _KEY_MAX:
        raise Refusal(handler.id_keys[0], f"is longer than {_KEY_MAX} characters, so it is not an id")
    stored_keys = _stored(entity)
    stored_values = {name: _plain(value) for name, value in record.items() if name in stored_keys}
    content = blake2b(f"{entity}\n{key}\n{operation is Operation.DELETE}\n".encode(), digest_size=32)
    content.update(_SORTED(stored_values))
    return Webhook(
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
