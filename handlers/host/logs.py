"""What the units wrote to their logs: a bounded extract from every host, and the errors in it, equal ones together."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.core import Core
from handlers.errors import RunbookError
from handlers.host import commands
from handlers.host.ssh import Shell, open_hosts
from handlers.queue.diagnose import fingerprint

LIMIT_SECONDS = 6.0
"""A host that does not give its logs within this is named instead: nothing waits for them."""
LINES_MAX = 400
CHARACTERS_MAX = 60_000
ERRORS_MAX = 20
BEFORE = timedelta(hours=24)
"""An error that was in the logs so long before the deploy is not the release's."""
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^\S*(?:Error|Exception)\b")
_NOTHING = "-- No entries --"
_JOURNAL = re.compile(r"^\S+ \S+ [^\s:]+\[\d+\]: ")
"""Time, host and process, which the journal puts before each line."""


@dataclass(frozen=True, kw_only=True)
class Extract:
    """The end of one unit's log on one host, or why there is none."""

    host: str
    unit: str
    text: str = ""
    problem: str = ""

    @property
    def where(self) -> str:
        """Which log it is, for people."""
        return f"{self.host} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class LogError:
    """An error since the deploy, with ids, numbers and quoted values masked."""

    fingerprint: str
    lines: int
    where: tuple[str, ...]
    new: bool | None
    """Whether it was in none of these logs in the 24 h before; None where the environment's command knows no times."""


async def extracts(core: Core, since: datetime, until: datetime) -> list[Extract]:
    """The last lines of every unit's log on every host between the two; a host that gives none is named with why."""
    async with open_hosts(core.environment, connected=False) as shells:
        return await _all(core, shells, since, until)


async def errors(core: Core, deployed_at: datetime) -> tuple[list[LogError], list[str]]:
    """The errors since the deploy, the new and the common ones first, and the logs that could not be had."""
    async with open_hosts(core.environment, connected=False) as shells:
        after = await _all(core, shells, deployed_at, core.clock.now())
        known = None
        if any("{since}" in word for word in core.environment.services.logs):
            before = await _all(core, shells, deployed_at - BEFORE, deployed_at)
            known = {error for one in before for error in _errors(one.text)}
    return _counted(after, known), [f"{one.where}: {one.problem}" for one in after if one.problem]


def as_text(found: Iterable[Extract]) -> str:
    """All extracts below each other, each under its name."""
    return "".join(f"== {one.where}\n{one.text or one.problem or '(nothing)'}\n\n" for one in found)


async def _all(core: Core, shells: list[Shell], since: datetime, until: datetime) -> list[Extract]:
    services = core.environment.services
    if not services.logs:
        return []
    units = (*services.web, *services.workers)
    return await asyncio.gather(*(_one(shell, unit, since, until) for shell in shells for unit in units))


async def _one(shell: Shell, unit: str, since: datetime, until: datetime) -> Extract:
    services, host = shell.environment.services, shell.host.name
    command = commands.logs(services, unit, int(since.timestamp()), int(until.timestamp()) + 1, LINES_MAX)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            result = await shell.run(command)
    except TimeoutError:
        return Extract(host=host, unit=unit, problem=f"not within {LIMIT_SECONDS:g} s")
    except RunbookError as error:
        return Extract(host=host, unit=unit, problem=str(error))
    text = result.stdout.strip().removeprefix(_NOTHING)[-CHARACTERS_MAX:]
    # An empty log is no trouble; one that may not be read says so on stderr, and ends well all the same.
    return Extract(host=host, unit=unit, text=text, problem="" if text else result.stderr.strip()[-400:])


def _errors(text: str) -> Iterator[str]:
    for line in text.splitlines():
        said = _JOURNAL.sub("", line)
        if _ERROR.search(said):
            yield fingerprint(said)


def _counted(found: list[Extract], known: set[str] | None) -> list[LogError]:
    counts: Counter[str] = Counter()
    where: dict[str, set[str]] = {}
    for one in found:
        for error in _errors(one.text):
            counts[error] += 1
            where.setdefault(error, set()).add(one.where)
    told = [
        LogError(
            fingerprint=error,
            lines=lines,
            where=tuple(sorted(where[error])),
            new=None if known is None else error not in known,
        )
        for error, lines in counts.items()
    ]
    return sorted(told, key=lambda one: (not one.new, -one.lines, one.fingerprint))[:ERRORS_MAX]
