"""The probe: every host must answer with the revision, and the status view shows what each look saw."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from handlers.core import Core
from handlers.host.health import HostHealth, OnLook, until_healthy
from handlers.host.ssh import open_hosts
from handlers.release.ledger import releases
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import Conclusion, Release


async def prove(core: Core, release: Release, revision: str) -> Conclusion:
    """Wait until every host is healthy on *revision*, its units and its workers included."""
    async with open_hosts(core.environment, connected=False) as shells:
        proven = await until_healthy(core, revision, shells=shells, on_look=keep_looks(core, release))
    return Conclusion(verdict=proven.verdict, sentence=proven.sentence)


def keep_looks(core: Core, release: Release) -> OnLook:
    """Keep what each look saw, so that the status view shows want beside have."""

    async def note(seen: Sequence[HostHealth]) -> None:
        await releases.note(core.database, release, PhaseNote(hosts=as_noted(seen)))

    return note


def as_noted(seen: Sequence[HostHealth]) -> dict[str, HostNote]:
    """What a look saw, in the words of the status view."""
    now = datetime.now(UTC)
    return {
        health.host: HostNote(
            have=health.revision,
            ok=health.good,
            note="" if health.good else health.summary,
            seen_at=now,
            in_a_row=health.in_a_row,
        )
        for health in seen
    }
