"""The connections to the database server, by their state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class DatabaseConnections:
    """How many connections the server has, by state, and how many ordinary users may have together."""

    by_state: Mapping[str, int]
    """`active`, `idle`, `idle in transaction`, …; `not visible` for those of other users that we may not see."""
    maximum: int

    @property
    def used(self) -> int:
        """All of them."""
        return sum(self.by_state.values())

    @property
    def percent(self) -> float:
        """The share of the maximum that is used."""
        return 100 * self.used / self.maximum

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {"by_state": dict(self.by_state), "maximum": self.maximum}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DatabaseConnections:
        """From what `as_json` has made of it."""
        return cls(by_state=stored["by_state"], maximum=stored["maximum"])


async def connections(bind: Bind) -> DatabaseConnections:
    """Count the connections. Raises DatabaseDown, also when none is left for us."""
    async with transaction(bind) as tx:
        rows = (await tx.execute(_SQL["by_state"])).all()
        maximum: int = (await tx.execute(_SQL["maximum"])).scalar_one()
    return DatabaseConnections(by_state={row.state: row.connections for row in rows}, maximum=maximum)
