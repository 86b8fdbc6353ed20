"""Dropping old details from the ledger: what the gate was told, what commands printed, messages that were sent.

What an auditor asks for stays for ever: each release with its plan, phases, operations, findings, approvals, takeovers
and quarantines, and the sums of its drain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.queries import queries
from handlers.database.transaction import transaction
from handlers.release.phase import FINISHED, Phase

SQL = queries(__name__)

DAYS = 90
"""How long details are kept, unless said otherwise."""
DAYS_MIN = 31
"""Nothing younger is ever dropped: healing counts its tries, and lets a bad letter rest, for a month."""
_ENDED = sorted(FINISHED - {Phase.ROLLBACK_FAILED})
"""A failed rollback is tried again, from what the ledger says of it."""


@dataclass(kw_only=True)
class Pruned:
    """What was dropped, or would be."""

    days: int
    done: bool
    releases: list[str] = field(default_factory=list)
    """The releases whose details were dropped, the oldest first."""
    detail_bytes: int = 0
    """How many bytes those details took."""
    messages: int = 0
    workers: int = 0
    syncs: int = 0
    healed: int = 0
    """What healing did with events that are no dead letters any more."""

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to drop."""
        return not (self.releases or self.messages or self.workers or self.syncs or self.healed)

    def as_json(self) -> dict[str, object]:
        """The fields."""
        return asdict(self)


async def prune(
    database: AsyncEngine, environment: str, *, days: int = DAYS, dry_run: bool = False
) -> Pruned:
    """Drop what is older than *days* from the ledger of *environment*, release by release.

    Nothing of a release that is unfinished, whose rollback failed or whose guard goes on. What was done stays done when
    it is broken off. With *dry_run* it only says what would be dropped.
    """
    found = Pruned(days=days, done=not dry_run)
    values = {"environment": environment, "days": days}
    async with transaction(database) as tx:
        due = (await tx.execute(SQL["due"], values | {"ended": _ENDED})).scalars().all()
    for release_id in due:
        async with transaction(database) as tx:
            taken = await _details(tx, release_id, dry_run=dry_run)
        if taken is not None:
            found.releases.append(release_id)
            found.detail_bytes += taken
    async with transaction(database) as tx:
        for name in ("messages", "syncs", "healed", "workers"):
            setattr(found, name, (await tx.execute(SQL[name], values)).rowcount)
        if dry_run:
            await tx.rollback()
    return found


async def _details(tx: AsyncConnection, release_id: str, *, dry_run: bool) -> int | None:
    """Drop the details of one release. Returns how many bytes they took; None where somebody is changing it."""
    values = {"release_id": release_id}
    if (await tx.execute(SQL["hold"], values | {"ended": _ENDED})).first() is None:
        return None
    size = (await tx.execute(SQL["size"], values)).scalar_one()
    for name in () if dry_run else ("facts", "outputs", "measurements"):
        await tx.execute(SQL[name], values)
    return int(size)
