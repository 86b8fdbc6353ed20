"""The rollback without the database, without Prefect and without the ledger: only hosts and the environment file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from flows.way_back import until_back
from handlers.host.way_back import HostReturn
from handlers.phases.from_hosts import Target
from handlers.release.journal import append
from tasks import from_hosts


async def roll_back(
    environment: str,
    target: Target,
    *,
    journal: Path,
    reason: str,
    requested_by: str,
    show: Callable[[HostReturn], None],
) -> tuple[HostReturn, ...]:
    """Take every host back to the revision that the hosts name, and write what was done to *journal*.

    *show* is called after each try. A host that is not back is tried as long as the environment says.
    """
    deadline = monotonic() + await from_hosts.keep_trying_seconds(environment, target)
    append(journal, {"rollback": asdict(target), "reason": reason, "requested_by": requested_by})

    async def attempt(before: HostReturn) -> HostReturn:
        now = await from_hosts.try_host(environment, target, before, journal)
        show(now)
        return now

    hosts = await asyncio.gather(
        *(until_back(HostReturn(host=host.host), attempt, deadline) for host in target.hosts)
    )
    append(journal, {"ended": [asdict(host) for host in hosts]})
    await from_hosts.tell(environment, target, hosts, reason)
    return tuple(hosts)
