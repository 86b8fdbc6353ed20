# mypy: ignore-errors
"""Reorder alerts: the buyers want to know when an item falls below its level."""

import logging
from dataclasses import dataclass, fields

from handlers.entities.base import Handler, Handlers
from handlers.entities.registry import HANDLERS
from handlers.entities.spec import Data, Mapped
from handlers.queue.event import EntityType

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProductHandler(Handler):
    """Applies an item as the core does, and says when it has to be ordered again."""

    def map(self, record: Data) -> Mapped:
        level = int(str(record["reorder_level"]))
        if int(float(str(record["stock_on_hand"]))) < level:
            log.warning("reorder %s: less than %d left", record.get("sku"), level)
        return super().map(record)


def handlers() -> Handlers:
    """The core's handlers, with ours for items."""
    core = HANDLERS[EntityType.PRODUCT]
    ours = ProductHandler(**{field.name: getattr(core, field.name) for field in fields(core)})
    return {**HANDLERS, EntityType.PRODUCT: ours}
