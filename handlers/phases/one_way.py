"""A release whose migrations the revision before does not survive: only a person takes it back, and says so."""

from __future__ import annotations

from handlers.database.transaction import Bind
from handlers.errors import Refused
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from handlers.release.schema_changes import Migration

SHOWN_MAX = 3
DECIDED = frozenset({Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED})
"""A way back that was decided goes on."""


async def why_not_back(bind: Bind, run: Release) -> str:
    """Why this release is not taken back automatically, and what a person can do; empty when it is."""
    if run.phase in DECIDED:
        return ""
    found = (await releases.plan(bind, run.id)).one_way
    if not found:
        return ""
    return (
        f"{_named(found)}, which the revision before does not survive. A person decides: `runbook resume`, or "
        "`runbook rollback --past-migrations` where it is known to work with the new schema"
    )


async def raise_if_one_way(bind: Bind, run: Release, *, past_migrations: bool) -> None:
    """Raise Refused when a way back would go past such a migration, and nobody has said that it may."""
    if not past_migrations and (why := await why_not_back(bind, run)):
        raise Refused(f"release {run.id} has {why}")


def _named(found: tuple[Migration, ...]) -> str:
    names = ", ".join(each.sentence for each in found[:SHOWN_MAX])
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return f"{len(found)} contract migration{'s' if len(found) > 1 else ''}: {names}{more}"
