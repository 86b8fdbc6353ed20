"""The probe: every host must answer with the released revision. The status view shows the newest answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from handlers.core import Core
from handlers.host.health import FleetHealth, HostHealth, OnLook, until_healthy
from handlers.host.ssh import open_hosts
from handlers.release.ledger import releases
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import Conclusion, Release


async def prove(core: Core, release: Release, revision: str) -> Conclusion:
    """Wait until every host is healthy on *revision*, including its units and workers."""
    async with open_hosts(core.environment, connected=False) as shells:
        proven = await until_healthy(core, revision, shells=shells, on_look=record_host_notes(core, release))
    proven = blaming_for_database(proven)
    return Conclusion(
        verdict=proven.verdict, sentence=proven.sentence, blames_revision=proven.blames_revision
    )


def blaming_for_database(proven: FleetHealth) -> FleetHealth:
    """The same, where a host that says that its database is away blames its revision.

    Only for checks that were all recorded in the ledger, which lies in the same database: it answered all the time. A
    revision that asks for a table that does not exist says so too.
    """
    hosts = [
        replace(host, blames_revision=True) if host.lacks_only_its_database else host for host in proven.hosts
    ]
    return replace(proven, hosts=tuple(hosts))


def record_host_notes(core: Core, release: Release) -> OnLook:
    """A callback that records the health of the hosts in the ledger, for the status view."""

    async def record(hosts: Sequence[HostHealth]) -> None:
        await releases.note(core.database, release, PhaseNote(hosts=host_notes(hosts)))

    return record


def host_notes(hosts: Sequence[HostHealth]) -> dict[str, HostNote]:
    """The health of hosts as the ledger stores it, by host name."""
    return {
        health.host: HostNote(
            have=health.revision,
            ok=health.good,
            note="" if health.good else health.summary,
            in_a_row=health.consecutive,
            needed=health.needed,
            seconds=health.seconds,
            unit_failed=health.unit_failed,
        )
        for health in hosts
    }
