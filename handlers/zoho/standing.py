"""How the syncs of an environment stand. Reads only, and takes no lock: a look never makes a sync wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.zoho.runs import Kind, State, lock_number

_SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The newest sync of one kind."""

    kind: Kind
    state: State
    sentence: str
    started_at: datetime
    beat_at: datetime
    is_carried: bool
    """Whether a process carries it now. One that was killed still says that it runs."""
    done_at: datetime | None
    """When the last one of this kind ended well; None where none has."""


@dataclass(frozen=True, kw_only=True)
class Syncs:
    """The syncs of an environment."""

    newest: tuple[Standing, ...] = ()
    """One for each kind that there was."""
    calls_today: int = 0
    """Calls of the source's API."""


async def read(tx: AsyncConnection, environment: str) -> Syncs:
    """The newest sync of each kind."""
    values = {
        "environment": environment,
        "kinds": list(Kind),
        "numbers": [lock_number(environment, kind) for kind in Kind],
    }
    rows = (await tx.execute(_SQL["standing"], values)).mappings()
    newest = [Standing(**{**row, "kind": Kind(row["kind"]), "state": State(row["state"])}) for row in rows]
    calls: int = (await tx.execute(_SQL["calls"], {"environment": environment})).scalar_one()
    return Syncs(newest=tuple(newest), calls_today=calls)
