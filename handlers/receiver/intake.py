"""The records of a webhook as they will be stored: one event for each record, its type from the URL."""

from __future__ import annotations

import json
import re

from handlers.entities import registry
from handlers.entities.document import Refusal
from handlers.entities.incoming import Incoming, incoming
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

RECORDS_MAX = 1000
"""Records in one call: enough to be stored well within the timeout of the source."""

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


def webhooks_of(entity: EntityType, body: str, operation: Operation) -> list[Incoming]:
    """Every record of *body*. Raises Rejected if one record has no valid id: a call is all or nothing."""
    try:
        records = registry.unwrap(entity, body)
        if len(records) > RECORDS_MAX:
            raise Rejected(
                413, "size", f"a call may hold at most {RECORDS_MAX} records, this one holds {len(records)}"
            )
        return [incoming(entity, record.data, operation) for record in records]
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
