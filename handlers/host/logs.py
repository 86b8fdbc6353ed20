"""The units' logs: a bounded extract from every host, and the errors in it, grouped by fingerprint."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from handlers.core import Core
from handlers.database import clock
from handlers.errors import LEDGER_AWAY, RunbookError
from handlers.host import log_commands
from handlers.host.ssh import Shell, open_hosts
from handlers.queue.diagnose import fingerprint

LIMIT_SECONDS = 6.0
"""The timeout for one log. The problem is reported instead of the log, so that a rollback never waits for it."""
CLOCK_SECONDS = 2.0
"""How long the database's clock is waited for. The logs come from the hosts, and do not need the database."""
LINES_MAX = 400
CHARACTERS_MAX = 60_000
ERRORS_MAX = 20
BEFORE_SECONDS = 24 * 3600
"""An error that is also in the logs of this time before the deploy was not caused by the release."""
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^\S*(?:Error|Exception)\b")
_NOTHING = "-- No entries --"
_JOURNAL = re.compile(r"^\S+ \S+ [^\s:]+\[\d+\]: ")
"""The time, host and process before each line of the journal."""


@dataclass(frozen=True, kw_only=True)
class Extract:
    """The end of one unit's log on one host, or the problem that prevented reading it."""

    host: str
    unit: str
    text: str = ""
    problem: str = ""

    @property
    def where(self) -> str:
        """The name of the log: host and unit."""
        return f"{self.host} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class LogError:
    """A group of equal errors since the deploy, with ids, numbers and quoted values masked."""

    fingerprint: str
    lines: int
    where: tuple[str, ...]
    new: bool | None
    """Whether no log has it in the 24 h before the deploy; None when the configured command takes no times."""


async def extracts(core: Core, since: datetime) -> list[Extract]:
    """The last lines of every unit's log on every host since then; a log that cannot be read has a problem.

    *since* is the database's time. While the database is away, the lines of the last 24 h are taken.
    """
    try:
        async with asyncio.timeout(CLOCK_SECONDS):
            seconds = (await clock.now(core.database) - since).total_seconds()
    except (*LEDGER_AWAY, TimeoutError):
        seconds = BEFORE_SECONDS
    async with open_hosts(core.environment, connected=False) as shells:
        return await _all(core, shells, seconds, 0)


async def errors(core: Core, deployed_at: datetime) -> tuple[list[LogError], list[str]]:
    """The errors since the deploy, new and frequent ones first; and the problems of logs that could not be read."""
    async with open_hosts(core.environment, connected=False) as shells:
        seconds = (await clock.now(core.database) - deployed_at).total_seconds()
        after = await _all(core, shells, seconds, 0)
        known = None
        if any("{since}" in word for word in core.environment.services.logs):
            before = await _all(core, shells, seconds + BEFORE_SECONDS, seconds)
            known = {error for extract in before for error in _errors(extract.text)}
    problems = [f"{extract.where}: {extract.problem}" for extract in after if extract.problem]
    return _grouped(after, known), problems


def as_text(extracts: Iterable[Extract]) -> str:
    """All extracts as one text, each under its name."""
    return "".join(
        f"== {extract.where}\n{extract.text or extract.problem or '(nothing)'}\n\n" for extract in extracts
    )


async def _all(core: Core, shells: list[Shell], since: float, until: float) -> list[Extract]:
    """The extracts between two ages in seconds. An age is the same by every clock, a time is not."""
    services = core.environment.services
    if not services.logs:
        return []
    units = (*services.web, *services.workers)
    return await asyncio.gather(*(extract(shell, unit, since, until) for shell in shells for unit in units))


async def extract(shell: Shell, unit: str, since: float, until: float, lines: int = LINES_MAX) -> Extract:
    """The last lines of a unit's log between two ages in seconds; a log that cannot be read has its problem."""
    services, host = shell.environment.services, shell.host.name
    command = log_commands.logs(services, unit, math.ceil(since), math.floor(until) - 1, lines)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            result = await shell.run(command)
    except TimeoutError:
        return Extract(host=host, unit=unit, problem=f"not within {LIMIT_SECONDS:g} s")
    except RunbookError as error:
        return Extract(host=host, unit=unit, problem=str(error))
    text = result.stdout.strip().removeprefix(_NOTHING)[-CHARACTERS_MAX:]
    # An empty log is no problem. Missing permission is reported only on stderr, with exit status 0.
    return Extract(host=host, unit=unit, text=text, problem="" if text else result.stderr.strip()[-400:])


def error_in(line: str) -> str | None:
    """The fingerprint of an error in a line of a log; None when the line is none."""
    message = _JOURNAL.sub("", line)
    return fingerprint(message) if _ERROR.search(message) else None


def _errors(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if (error := error_in(line)) is not None:
            yield error


def _grouped(extracts: list[Extract], known: set[str] | None) -> list[LogError]:
    counts: Counter[str] = Counter()
    where: dict[str, set[str]] = {}
    for extract in extracts:
        for error in _errors(extract.text):
            counts[error] += 1
            where.setdefault(error, set()).add(extract.where)
    errors = [
        LogError(
            fingerprint=error,
            lines=lines,
            where=tuple(sorted(where[error])),
            new=None if known is None else error not in known,
        )
        for error, lines in counts.items()
    ]
    return sorted(errors, key=lambda error: (not error.new, -error.lines, error.fingerprint))[:ERRORS_MAX]
