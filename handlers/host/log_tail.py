"""The logs of the hosts for a person: the units' since a time, and the ends of files. Bounded and redacted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from handlers.core import Core
from handlers.environment.model import Environment, Host
from handlers.environment.redact import known_secrets, redact_text
from handlers.errors import Refused, RunbookError
from handlers.host import log_commands
from handlers.host.logs import CHARACTERS_MAX, LIMIT_SECONDS, Extract, error_in, extract
from handlers.host.ssh import Shell, open_hosts

LINES_MAX = 2000


def raise_if_unknown(environment: Environment, hosts: Sequence[str], units: Sequence[str]) -> None:
    """Raise Refused for a host or a log that this environment does not have, or where no logs are configured."""
    services = environment.services
    known_hosts = [host.name for host in environment.hosts]
    names = logs_of(environment)
    if not names:
        raise Refused(
            f"no logs are configured for {environment.name}: set services.logs, or services.log_files, "
            "in its environment file"
        )
    for name in hosts:
        if name not in known_hosts:
            raise Refused(
                f"there is no host {name!r} in {environment.name}: choose one of {', '.join(known_hosts)}"
            )
    for name in units:
        if name not in names:
            hint = "" if services.logs else " (services.logs is empty, so no unit's log is read)"
            raise Refused(f"there is no log {name!r}: choose one of {', '.join(names)}{hint}")


def logs_of(environment: Environment) -> list[str]:
    """The units and the files whose logs are read."""
    services = environment.services
    units = [*services.web, *services.workers] if services.logs else []
    return [*units, *services.log_files]


async def read(
    core: Core,
    *,
    since_seconds: float,
    lines: int,
    hosts: Sequence[str] = (),
    units: Sequence[str] = (),
    errors_only: bool = False,
) -> list[Extract]:
    """The last lines of each log of these hosts, host by host. A log that cannot be read has its problem.

    A file has no times that we know: its end is read, whatever its age. The database is not asked.
    """
    environment = core.environment
    raise_if_unknown(environment, hosts, units)
    wanted = [name for name in logs_of(environment) if name in units or not units]
    known = known_secrets(environment)
    named: tuple[Host, ...] = tuple(host for host in environment.hosts if host.name in hosts or not hosts)
    asked = environment.model_copy(update={"hosts": named})
    async with open_hosts(asked, connected=False) as shells:
        found = await asyncio.gather(
            *(_read(shell, name, since_seconds, lines) for shell in shells for name in wanted)
        )
    return [_shown(each, known, errors_only=errors_only) for each in found]


async def _read(shell: Shell, name: str, since_seconds: float, lines: int) -> Extract:
    if name not in shell.environment.services.log_files:
        return await extract(shell, name, math.ceil(since_seconds), 0, lines)
    command = log_commands.end_of_file(name, lines=lines, bytes_max=CHARACTERS_MAX)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            result = await shell.run(command)
    except TimeoutError:
        return Extract(host=shell.host.name, unit=name, problem=f"not within {LIMIT_SECONDS:g} s")
    except RunbookError as error:
        return Extract(host=shell.host.name, unit=name, problem=str(error))
    problem = "" if result.good else result.stderr.strip()[-400:] or "cannot be read"
    return Extract(host=shell.host.name, unit=name, text=result.stdout.strip("\n"), problem=problem)


def _shown(found: Extract, known: frozenset[str], *, errors_only: bool) -> Extract:
    # Redacted as a whole first: a secret may reach over several lines.
    text = redact_text(found.text, known)
    if errors_only:
        text = "\n".join(line for line in text.splitlines() if error_in(line) is not None)
    return replace(found, text=text, problem=redact_text(found.problem, known))
