"""A gate that is told what happens, in one line each."""

from __future__ import annotations

from typing import Any

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate
from handlers.gate.values import Judgement

TYPES = (
    "PRODUCT",
    "INVOICE",
    "CUSTOMER",
    "SALESORDER",
    "PAYMENT",
    "BILL",
    "VENDOR",
    "CREDITNOTE",
    "STOCKADJ",
    "PRICELIST",
    "USER",
)


class Told:
    """The gate and what it was told. Items get ids and records of their own unless they are named."""

    def __init__(
        self, before: DayBefore | None = None, *, slow_start: bool = False, **parameters: Any
    ) -> None:
        self.gate = Gate(TYPES, before, Parameters(**parameters), slow_start=slow_start)
        self.events: list[dict[str, Any]] = []
        self.number = 0

    def tell(self, event: str, at: float, /, **more: Any) -> None:
        """One event."""
        self.events.append({"ev": event, "t": at, **more})
        self.gate.observe(self.events[-1])

    def queued(self, at: float, entity: str = "PRODUCT", key: str = "", **more: Any) -> str:
        """An item came in, and waits for a worker."""
        self.number += 1
        item = f"i{self.number}"
        self.tell("queued", at, id=item, seg=entity, key=key or item, **{"kind": "live", **more})
        return item

    def admit(self, at: float, entity: str = "PRODUCT", key: str = "", **more: Any) -> str:
        """A worker took a new item."""
        self.number += 1
        item = f"i{self.number}"
        self.tell("arrive", at, id=item, seg=entity, key=key or item, arrived=at, **{"kind": "live", **more})
        return item

    def done(
        self, at: float, entity: str = "PRODUCT", key: str = "", *, took: float = 2.0, **more: Any
    ) -> str:
        """An item that was admitted at *at* and completed."""
        item = self.admit(at, entity, key, **more)
        self.tell("done", at + took, id=item)
        return item

    def dead(
        self,
        at: float,
        entity: str = "PRODUCT",
        key: str = "",
        *,
        hard: bool = False,
        took: float = 2.0,
        fingerprint: str | None = None,
        **more: Any,
    ) -> str:
        """An item that was admitted at *at* and died."""
        item = self.admit(at, entity, key, **more)
        self.tell("dead", at + took, id=item, hard=hard, fingerprint=fingerprint)
        return item

    def healthy(self, start: float, end: float, every: float = 5.0, entity: str = "PRODUCT") -> None:
        """New records that complete."""
        at = start
        while at < end:
            self.done(at, entity)
            at += every

    def decide(self, now: float) -> Judgement:
        """One look."""
        return self.gate.decide(now)

    def look(self, start: float, end: float, every: float = 10.0) -> list[Judgement]:
        """Looks at regular times."""
        found = []
        now = start
        while now <= end:
            found.append(self.gate.decide(now))
            now += every
        return found


def day(entity: str = "PRODUCT", **values: Any) -> DayBefore:
    """A day before on which only *entity* is described."""
    units = values.setdefault("units", 1000)
    return DayBefore(units=units, ok=values.get("ok", 1.0), types={entity: TypeBefore(**values)})
