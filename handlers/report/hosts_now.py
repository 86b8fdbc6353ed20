"""What the hosts answer while a report is made: their revisions, and what is wrong with them."""

from __future__ import annotations

import asyncio

from handlers.core import Core
from handlers.environment.model import Host
from handlers.host.answer import MISSING, ask, value_at
from handlers.host.health import is_good_database
from handlers.report.verdict import HostState


async def ask_all(core: Core) -> list[HostState]:
    """Ask each host's health address once. A failure is part of the answer and never raised."""
    return list(await asyncio.gather(*(_ask(core, host) for host in core.environment.hosts)))


async def _ask(core: Core, host: Host) -> HostState:
    probe = core.environment.probe
    answer = await ask(core, host)
    faults = list(answer.faults)
    revision = value_at(answer.content, probe.revision_field)
    if probe.database_field and answer.content is not None:
        state = value_at(answer.content, probe.database_field)
        if not is_good_database(state, probe):
            faults.append("no state of its database" if state is MISSING else f"database {str(state)[:40]}")
    return HostState(
        name=host.name,
        revision=revision if isinstance(revision, str) else None,
        problem=", ".join(faults),
        answered=answer.status is not None,
    )
