"""The releases of an environment, as a person looks back at them. Read-only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.release.approval import Given
from handlers.release.ledger import approvals
from handlers.release.phase import LIVE, Phase, Release
from handlers.release.planned import kind_of

SQL = queries(__name__)

LOOK_BACK = 50
"""So many releases are read to find the one that runs."""
_NEVER_RAN = frozenset({Phase.REFUSED, Phase.ABORTED})


@dataclass(frozen=True, kw_only=True)
class PastRelease:
    """A release, what was started, and why."""

    release: Release
    kind: str
    """`release`, or the phase that was started by hand: `canary`, `drain`, `watch`."""
    asked_because: str
    """The reason that its requester gave."""
    approvals: tuple[Given, ...] = ()
    """What people decided about its plan."""

    @property
    def deploys(self) -> bool:
        """Whether it is about a change of revision."""
        return self.release.from_revision != self.release.to_revision


async def past(tx: AsyncConnection, environment: str, limit: int = LOOK_BACK) -> list[PastRelease]:
    """The newest releases of an environment, newest first."""
    found = []
    rows = (await tx.execute(SQL["past"], {"environment": environment, "limit": limit})).mappings().all()
    given = await approvals.of_releases(tx, [row["id"] for row in rows])
    for row in rows:
        values = {field.name: row[field.name] for field in fields(Release)}
        values |= {"phase": Phase(row["phase"])}
        values |= {"resume_phase": Phase(row["resume_phase"]) if row["resume_phase"] else None}
        scope = [Phase(phase) for phase in row["scope"]]
        found.append(
            PastRelease(
                release=Release(**values),
                kind=kind_of(scope),
                asked_because=row["asked_because"],
                approvals=tuple(given.get(row["id"], ())),
            )
        )
    return found


def current(releases: Iterable[PastRelease]) -> PastRelease | None:
    """The release that a person means who names none; *releases* are the newest first. Pure.

    It is the live one. Otherwise it is the newest that waits for its start or has changed hosts: what was refused, and
    a phase by hand, do not hide the release that runs.
    """
    known = list(releases)
    live = [each for each in known if each.release.phase in LIVE]
    ran = [each for each in known if each.deploys and each.release.phase not in _NEVER_RAN]
    return next(iter([*live, *ran, *known]), None)
