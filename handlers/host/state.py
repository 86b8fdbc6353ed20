"""The state file of a host: what changed it last, and where it would go back to."""

from __future__ import annotations

import json
from dataclasses import dataclass

from handlers.host import commands
from handlers.host.ssh import Shell


@dataclass(frozen=True, kw_only=True)
class HostState:
    """The state file of a host: enough for a rollback when the database is down."""

    release: str
    current: str
    previous: str
    """The revision for a rollback of this host; a rollback does not change it."""
    token: int
    operation: str
    outcome: str
    exit_status: int
    at: str


async def read_state(shell: Shell) -> HostState | None:
    """The host's state file; None on a host that no release has touched."""
    result = await shell.run(commands.read_state(shell.environment.deploy))
    return parse_state(result.stdout)


def parse_state(text: str) -> HostState | None:
    """Parse the text of a state file; None for an empty or invalid one."""
    try:
        return HostState(**json.loads(text))
    except (ValueError, TypeError):
        return None
