"""The handler of each entity type, and the records of a type in a body."""

from __future__ import annotations

from types import MappingProxyType

from handlers.entities import envelope
from handlers.entities.base import Handler, Handlers
from handlers.entities.document import Refusal
from handlers.entities.envelope import Record
from handlers.entities.kinds.items import PRICE_LIST, PRODUCT, STOCK_ADJUSTMENT
from handlers.entities.kinds.parties import CUSTOMER, USER, VENDOR
from handlers.entities.kinds.payments import PAYMENT
from handlers.entities.kinds.trade import BILL, CREDIT_NOTE, INVOICE, SALES_ORDER
from handlers.entities.spec import Data
from handlers.queue.event import EntityType

HANDLERS: Handlers = MappingProxyType(
    {
        handler.entity: handler
        for handler in (
            PRODUCT,
            CUSTOMER,
            INVOICE,
            SALES_ORDER,
            PAYMENT,
            VENDOR,
            USER,
            BILL,
            CREDIT_NOTE,
            STOCK_ADJUSTMENT,
            PRICE_LIST,
        )
    }
)
"""One handler for each type. An ERP that needs another rule builds its own dictionary from this one."""


def handler(entity: EntityType) -> Handler:
    """The handler of an entity type."""
    return HANDLERS[entity]


def unwrap(entity: EntityType, body: str) -> list[Record]:
    """All records of this type in *body*, in any envelope. Raises Refusal if there is none."""
    return envelope.records(HANDLERS[entity], body)


def unwrap_each(entity: EntityType, body: str) -> list[Record | Refusal]:
    """Like `unwrap`, but an invalid element of a list is a Refusal in its place."""
    return envelope.records_or_refusals(HANDLERS[entity], body)


def source_key(entity: EntityType, record: Data) -> str:
    """The record's id at the source, as text. Raises Refusal if it has none."""
    return HANDLERS[entity].source_key(record)
