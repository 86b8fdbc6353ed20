"""What hosts and database say at one look around a release: read at the same time, and within a few seconds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from handlers.core import Core
from handlers.database.connections import DatabaseConnections, connections
from handlers.errors import RunbookError
from handlers.host import machine, signatures
from handlers.host.log_state import LogState, NewSignature
from handlers.host.machine import HostLoad
from handlers.host.signatures import Reading
from handlers.host.ssh import CONNECTING_MAX, Shell

HOSTS_SECONDS = 3.0
"""How long one look waits for the hosts. What a slow one closes takes up to two seconds more. Real seconds."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What one look at the hosts and the database gave."""

    hosts: list[HostLoad]
    connections: DatabaseConnections | None
    logs: LogState | None
    """None when they were not read."""
    new: list[NewSignature]
    problems: list[str]


async def read(core: Core, shells: list[Shell], logs: LogState | None, at: datetime | None) -> Readings:
    """Read hosts, logs and connections at the same time. What cannot be read is a problem by its name.

    Without the database's time *at* nobody knows which lines of a log are new: then no log is read.
    """
    at_once = asyncio.Semaphore(CONNECTING_MAX)
    hosts, counted = await asyncio.gather(
        asyncio.gather(*(_host(shell, logs, at, at_once) for shell in shells)), _connections(core)
    )
    loads = [load for load, _ in hosts if isinstance(load, HostLoad)]
    problems = [load for load, _ in hosts if isinstance(load, str)]
    problems += machine.missing(core.environment.machine, loads)
    problems += [counted] if isinstance(counted, str) else []
    readings = [reading for _, found in hosts for reading in found]
    new: list[NewSignature] = []
    if logs is not None and at is not None:
        logs, new, log_problems = signatures.merged(core, logs, readings, at)
        problems += log_problems
    return Readings(
        hosts=loads,
        connections=None if isinstance(counted, str) else counted,
        logs=logs,
        new=new,
        problems=problems,
    )


async def _host(
    shell: Shell, logs: LogState | None, at: datetime | None, at_once: asyncio.Semaphore
) -> tuple[HostLoad | str, list[Reading]]:
    """The readings and the logs of one host, or why it has none."""
    try:
        async with asyncio.timeout(HOSTS_SECONDS), at_once:
            if logs is None or at is None:
                return await _load(shell), []
            return await asyncio.gather(_load(shell), signatures.read_host(shell, logs, at))
    except TimeoutError:
        why = f"no answer within {HOSTS_SECONDS:g} s"
        unread = [Reading(log=each, problems=[why]) for each in signatures.logs_of(shell)]
        return f"{shell.host.name} machine: {why}", unread


async def _load(shell: Shell) -> HostLoad | str:
    try:
        return await machine.read(shell)
    except RunbookError as error:
        return f"{shell.host.name} machine: {error}"


async def _connections(core: Core) -> DatabaseConnections | str:
    try:
        async with asyncio.timeout(HOSTS_SECONDS):
            return await connections(core.database)
    except TimeoutError:
        return f"{machine.DATABASE} connections: no answer within {HOSTS_SECONDS:g} s"
    except RunbookError as error:
        return f"{machine.DATABASE} connections: {error}"
