"""New errors in the logs of the hosts since the deploy, read bit by bit. They are shown and paged, and decide nothing.

Units are read from the journal after a cursor, files by inode and offset: a rotated file is read to its end, and one
that was emptied from its start. A log that cannot be read is a problem by its name, never silently good.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from handlers.core import Core
from handlers.database import clock
from handlers.environment.redact import known_secrets, redact_text
from handlers.errors import RunbookError
from handlers.host import log_commands
from handlers.host.command import Command
from handlers.host.log_state import Line, LogState, NewSignature, time_of
from handlers.host.logs import BEFORE_SECONDS, error_in
from handlers.host.ssh import Shell

LIMIT_SECONDS = 3.0
"""The timeout for one log at one look. The next look goes on where this one was."""
BYTES_MAX = 4 * 1024 * 1024
"""The bytes of a file that the host reads at one look; of more, the newest."""
LINES_MAX = 20_000
LINES_BEFORE_MAX = 50_000
"""The lines of a unit that the host reads: at one look, and of the 24 h before the deploy."""
KINDS_MAX = 100
KINDS_BEFORE_MAX = 400
CHARACTERS_MAX = 400
"""The kinds of errors that a host sends of one log, and the characters of a line."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """One log of one host: of a unit, or a file."""

    shell: Shell
    unit: str = ""
    file: str = ""

    @property
    def where(self) -> str:
        """Its name: host, and unit or file."""
        return f"{self.shell.host.name} {self.unit or self.file}"


@dataclass(kw_only=True)
class Reading:
    """What one look at one log gave."""

    log: Log
    before: list[tuple[int, str]] = field(default_factory=list)
    """Lines from before the deploy, each with how often its kind is there."""
    since: list[tuple[int, str]] = field(default_factory=list)
    position: dict[str, Any] | None = None
    """How far it was read; None: as far as before."""
    problems: list[str] = field(default_factory=list)


async def read_new(
    core: Core, shells: list[Shell], state: LogState
) -> tuple[LogState, list[NewSignature], list[str]]:
    """Read what every log has since the last look. Returns the new state, new kinds of errors, and problems.

    Each problem begins with the name of its log and a colon. The first look also reads the 24 h before the deploy; of a
    file without times in its lines, everything before that look. Raises DatabaseDown.
    """
    at = await clock.now(core.database)
    readings = await asyncio.gather(*(read_host(shell, state, at) for shell in shells))
    return merged(core, state, [reading for host in readings for reading in host], at)


async def read_host(shell: Shell, state: LogState, at: datetime) -> list[Reading]:
    """Read the logs of one host, where *at* is the database's time. Never raises RunbookError."""
    age = max(0.0, (at - state.deployed_at).total_seconds())
    return await asyncio.gather(*(_read(log, state.positions.get(log.where), age) for log in logs_of(shell)))


def merged(
    core: Core, state: LogState, readings: Sequence[Reading], at: datetime
) -> tuple[LogState, list[NewSignature], list[str]]:
    """The state after these readings, new kinds of errors, and problems, each with the name of its log."""
    secrets = known_secrets(core.environment)
    state, new, problems = state.after(
        (line for reading in readings for line in _lines(reading.log, reading.before, secrets)),
        (line for reading in readings for line in _lines(reading.log, reading.since, secrets)),
        {reading.log.where: reading.position for reading in readings if reading.position is not None},
        at,
    )
    named = [f"{reading.log.where}: {problem}" for reading in readings for problem in reading.problems]
    return state, new, named + problems


def logs_of(shell: Shell) -> list[Log]:
    """The logs of a host. A command that takes no times cannot tell new lines from old ones: its units are not read."""
    services = shell.environment.services
    takes_times = log_commands.by_cursor(services) or any("{since}" in word for word in services.logs)
    units = (*services.web, *services.workers) if takes_times else ()
    files = (Log(shell=shell, file=file) for file in services.log_files)
    return [*(Log(shell=shell, unit=unit) for unit in units), *files]


def _lines(log: Log, lines: Iterable[tuple[int, str]], secrets: frozenset[str]) -> Iterator[Line]:
    for count, line in lines:
        if (error := error_in(redact_text(line, secrets))) is not None:
            yield Line(fingerprint=error, count=count, where=log.where)


async def _read(log: Log, position: Mapping[str, Any] | None, age: float) -> Reading:
    """Read one log. Never raises RunbookError: what prevents it is a problem."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            if log.file:
                return await _read_file(log, position, age)
            return await _read_unit(log, position, age)
    except TimeoutError:
        return Reading(log=log, problems=[f"not within {LIMIT_SECONDS:g} s"])
    except RunbookError as error:
        return Reading(log=log, problems=[str(error)])


async def _read_file(log: Log, position: Mapping[str, Any] | None, age: float) -> Reading:
    first = position is None
    stored = position or {}
    answer = await _answer(
        log,
        log_commands.log_file(
            log.file,
            inode=stored.get("inode", ""),
            offset=stored.get("offset", 0),
            mark=stored.get("mark", ""),
            first=first,
            bytes_max=BYTES_MAX,
            kinds=KINDS_BEFORE_MAX if first else KINDS_MAX,
            characters=CHARACTERS_MAX,
        ),
    )
    reading = Reading(log=log, problems=answer.problems)
    if first and answer.is_missing:
        # Whatever it has once it is there is new.
        reading.position = {"inode": "", "offset": 0, "mark": ""}
    if found := answer.one("position").split():
        reading.position = {"inode": found[0], "offset": int(found[1]), "mark": found[2]}
    if not first:
        reading.since = [(count, line) for count, line, _ in answer.kinds()]
        return reading
    now, zone = answer.one("clock").split() if answer.one("clock") else ("0", "+0000")
    deployed_at = float(now) - age
    for count, line, last in answer.kinds():
        begun, ended = (time_of(each, _zone(zone)) for each in (line, last))
        if ended is not None and ended < deployed_at - BEFORE_SECONDS:
            continue
        is_new = begun is not None and begun >= deployed_at
        (reading.since if is_new else reading.before).append((count, line))
    return reading


async def _read_unit(log: Log, position: Mapping[str, Any] | None, age: float) -> Reading:
    services, deployed = log.shell.environment.services, math.floor(age)
    by_cursor = log_commands.by_cursor(services)
    reading = Reading(log=log)
    if position is None:
        answer = await _answer(
            log,
            log_commands.log_unit(
                services,
                log.unit,
                since_seconds=deployed + BEFORE_SECONDS,
                until_seconds=deployed,
                lines=LINES_BEFORE_MAX,
                kinds=KINDS_BEFORE_MAX,
                characters=CHARACTERS_MAX,
            ),
        )
        reading.before = [(count, line) for count, line, _ in answer.kinds()]
        if answer.problems:
            reading.problems = answer.problems
            return reading
        position = {"read": answer.one("cursor" if by_cursor else "until")}
    answer = await _answer(
        log,
        log_commands.log_unit(
            services,
            log.unit,
            since_seconds=deployed,
            read=position["read"],
            lines=LINES_MAX,
            kinds=KINDS_MAX,
            characters=CHARACTERS_MAX,
        ),
    )
    reading.since = [(count, line) for count, line, _ in answer.kinds()]
    reading.problems = answer.problems
    if int(answer.one("lines") or 0) >= LINES_MAX:
        # After a cursor journalctl prints the oldest lines, otherwise the newest.
        rest = (
            "the others are read next" if by_cursor and position["read"] else "the older ones were not read"
        )
        reading.problems.append(f"more than {LINES_MAX} lines since the last look; {rest}")
    read = answer.one("cursor" if by_cursor else "until") or position["read"]
    if answer.problems and "cursor" in " ".join(answer.problems):
        read = ""  # The journal does not know it: the next look begins at the deploy again.
    reading.position = {"read": read}
    return reading


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The parts that a script printed; a part may come several times."""

    parts: list[tuple[str, str]]
    problems: list[str]

    @property
    def is_missing(self) -> bool:
        return any(body == "there is no such file" for name, body in self.parts if name == "problem")

    def one(self, name: str) -> str:
        """The last part of this name; empty when there is none."""
        return next((body for part, body in reversed(self.parts) if part == name), "")

    def kinds(self) -> Iterator[tuple[int, str, str]]:
        """Each kind of line that may be an error: how often, its first line, and its last one."""
        for name, body in self.parts:
            kinds = (
                re.findall(r"^(\d+)\t(.*)(?:\n\+\t(.*))?$", body, re.MULTILINE) if name == "errors" else []
            )
            for count, line, last in kinds:
                yield int(count), line, last or line


async def _answer(log: Log, command: Command) -> _Answer:
    """Run a script and take its output apart. Raises Unreachable."""
    result = await log.shell.run(command)
    parts = [
        (name, body.strip("\n"))
        for name, _, body in (part.partition("\n") for part in result.stdout.split("\x01")[1:])
    ]
    answer = _Answer(parts=parts, problems=[body for name, body in parts if name in ("problem", "note")])
    stderr = " ".join(answer.one("stderr").split())[-400:]
    if not result.good:
        answer.problems.append(result.summary)
    elif answer.one("status"):
        answer.problems.append(stderr or f"its command ended with status {answer.one('status')}")
    elif stderr and int(answer.one("lines") or 0) == 0:
        # Missing permission is reported only there, with exit status 0.
        answer.problems.append(stderr)
    if int(answer.one("others") or 0):
        answer.problems.append(f"{answer.one('others')} errors of more kinds were left out")
    return answer


def _zone(text: str) -> timezone:
    """The offset that `date +%z` prints."""
    found = re.fullmatch(r"([+-])(\d\d)(\d\d)", text)
    if found is None:
        return UTC
    ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-ahead if found[1] == "-" else ahead)
