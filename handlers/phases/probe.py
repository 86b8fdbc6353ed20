"""The probe: every host must answer with the revision, and the status view shows what each look saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from handlers.core import Core
from handlers.host.health import HostHealth, OnLook, until_healthy
from handlers.host.ssh import open_hosts
from handlers.release.ledger import releases
from handlers.release.phase import Conclusion, Release


async def prove(core: Core, release: Release, revision: str) -> Conclusion:
    """Wait until every host is healthy on *revision*, its units and its workers included."""
    async with open_hosts(core.environment, connected=False) as shells:
        concluded = await until_healthy(core, revision, shells=shells, on_look=keep_looks(core, release))
    # The hosts are noted already, with the time of the last look: the note is what the status view reads.
    detail = {key: value for key, value in concluded.detail.items() if key != "hosts"}
    return Conclusion(verdict=concluded.verdict, sentence=concluded.sentence, detail=detail)


def keep_looks(core: Core, release: Release) -> OnLook:
    """Keep what each look saw, so that the status view shows want beside have."""

    async def note(seen: list[HostHealth], streak: dict[str, int]) -> None:
        await releases.note(core.database, release, {"hosts": as_note(seen, streak)})

    return note


def as_note(
    seen: Sequence[HostHealth], streak: Mapping[str, int] | None = None
) -> dict[str, dict[str, object]]:
    """What a look saw, in the words of the status view."""
    now = datetime.now(UTC).isoformat()
    return {
        health.host: {
            "have": health.revision,
            "ok": health.good,
            "note": "" if health.good else health.said,
            "seen_at": now,
            "in_a_row": (streak or {}).get(health.host, 0),
        }
        for health in seen
    }
