"""Is the revision really running? The health address, the units and the processes of every host must say so.

Neither HEAD nor `is-active` nor the exit status of a restart proves anything: only answers with the new
revision in them, several in a row, from a new process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import httpx

from handlers.core import Core
from handlers.environment.model import Host, Probe
from handlers.errors import RunbookError
from handlers.host.facts import inspect
from handlers.host.ssh import Shell
from handlers.release.phase import Verdict, short

_ABBREVIATED_MIN = 7
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class HostHealth:
    """What one host showed in one look, and how often before it without a fault."""

    host: str
    good: bool
    revision: str | None
    """The revision in its answer, as it was written there."""
    summary: str
    """What was seen, for a sentence: `HTTP 503, database down`."""
    in_a_row: int = 0
    """So many good looks one after the other, this one included; counted by `until_healthy` alone."""


@dataclass(frozen=True, kw_only=True)
class FleetHealth:
    """Whether all hosts are healthy, in a sentence, and what each showed in the last look."""

    verdict: Verdict
    sentence: str
    hosts: tuple[HostHealth, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Expected:
    """What a good look shows."""

    revision: str
    workers: bool
    former: Mapping[str, Mapping[str, int]]


OnLook = Callable[[Sequence[HostHealth]], Awaitable[None]]
"""Told after each look what was seen."""


async def look_once(
    core: Core,
    revision: str,
    *,
    hosts: Sequence[Host] | None = None,
    shells: Sequence[Shell] = (),
    former: Mapping[str, Mapping[str, int]] | None = None,
    workers: bool = True,
) -> list[HostHealth]:
    """Ask every host once, at the same time. What goes wrong is part of what was seen, never an error.

    With *shells* the units must be active too, and a web unit's process must not be the one in *former* (the
    pids of each host before the switch). Without *workers* nothing is asked of these: in the middle of a
    deploy they are stopped.
    """
    by_name = {shell.host.name: shell for shell in shells}
    expected = _Expected(revision=revision, workers=workers, former=former or {})
    asked = core.environment.hosts if hosts is None else hosts
    return list(
        await asyncio.gather(*(_look(core, host, by_name.get(host.name), expected) for host in asked))
    )


async def until_healthy(
    core: Core,
    revision: str,
    *,
    hosts: Sequence[Host] | None = None,
    shells: Sequence[Shell] = (),
    former: Mapping[str, Mapping[str, int]] | None = None,
    workers: bool = True,
    on_look: OnLook | None = None,
) -> FleetHealth:
    """Look until every host has given so many good answers in a row, or the limit has passed.

    A bad answer starts that host's count anew, so a service that flaps does not pass by luck. The sentence of
    a failure says for each host what was seen last.
    """
    probe = core.environment.probe
    deadline = monotonic() + probe.limit_seconds
    before: dict[str, int] = {}
    while True:
        looked = await look_once(core, revision, hosts=hosts, shells=shells, former=former, workers=workers)
        seen = [replace(one, in_a_row=before.get(one.host, 0) + 1 if one.good else 0) for one in looked]
        before = {health.host: health.in_a_row for health in seen}
        if on_look is not None:
            await on_look(seen)
        if seen and all(health.in_a_row >= probe.consecutive for health in seen):
            return _conclude(Verdict.PASS, revision, seen, probe)
        if monotonic() + probe.interval_seconds > deadline:
            return _conclude(Verdict.FAIL, revision, seen, probe)
        await asyncio.sleep(probe.interval_seconds)


def runs(answered: object, revision: str) -> bool:
    """Whether an answer names *revision*, whole or abbreviated to seven digits or more."""
    if not isinstance(answered, str) or len(answered) < _ABBREVIATED_MIN:
        return False
    return revision.startswith(answered.lower())


async def _look(core: Core, host: Host, shell: Shell | None, expected: _Expected) -> HostHealth:
    answered, faults = await _ask(core, host, expected)
    if shell is not None:
        faults += await _look_at_units(shell, expected)
    good = not faults
    summary = ", ".join(faults) or f"healthy on {short(str(answered))}"
    shown = answered if isinstance(answered, str) else None
    return HostHealth(host=host.name, good=good, revision=shown, summary=summary)


async def _ask(core: Core, host: Host, expected: _Expected) -> tuple[object, list[str]]:
    probe, revision = core.environment.probe, expected.revision
    try:
        # The whole answer within the limit: a server that sends a byte a second is not healthy either.
        async with asyncio.timeout(probe.answer_seconds):
            # Some put a cache before their health answer.
            response = await core.http.get(host.health_url, headers={"Cache-Control": "no-cache"})
    except TimeoutError:
        return None, [f"no answer within {probe.answer_seconds:g} s"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return None, [_in_words(error)]
    faults = [] if response.is_success else [f"HTTP {response.status_code}"]
    try:
        answer = response.json()
    except ValueError:
        return None, [*faults, "an answer that is no JSON"]
    answered = _walk(answer, probe.revision_field)
    if answered is _MISSING:
        faults.append(f"no {probe.revision_field!r} in its answer")
        answered = None
    elif not runs(answered, revision):
        faults.append(f"revision {short(str(answered))} instead of {short(revision)}")
    faults += _database_faults(answer, probe)
    if expected.workers:
        faults += _worker_faults(answer, probe, revision)
    return answered, faults


def _database_faults(answer: object, probe: Probe) -> list[str]:
    if probe.database_field is None:
        return []
    stand = _walk(answer, probe.database_field)
    if stand is _MISSING:
        return [f"no {probe.database_field!r} in its answer"]
    # Not by `in` alone: to Python 1 is True, and a count of one is no health.
    good = any(type(stand) is type(wanted) and stand == wanted for wanted in probe.database_good)
    return [] if good else [f"database {stand}"]


def _worker_faults(answer: object, probe: Probe, revision: str) -> list[str]:
    if probe.worker_revisions_field is None:
        return []
    found = _walk_each(answer, probe.worker_revisions_field)
    if isinstance(found, str):
        found = [found]
    revisions = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(revisions, list):
        return [f"no list {probe.worker_revisions_field!r} in its answer"]
    if not revisions:
        return ["no live worker"]
    strange = sorted({short(str(one)) for one in revisions if not runs(one, revision)})
    return [f"workers on {', '.join(strange)}"] if strange else []


async def _look_at_units(shell: Shell, expected: _Expected) -> list[str]:
    services = shell.environment.services
    try:
        facts = await inspect(shell)
    except RunbookError as error:
        return [f"its units cannot be seen: {error}"]
    wanted = {*services.web, *(services.workers if expected.workers else ())}
    former = expected.former.get(shell.host.name, {})
    faults = []
    for unit in facts.units:
        if unit.name in wanted and unit.active_state != "active":
            faults.append(f"unit {unit.name} {unit.active_state}")
        elif unit.name in services.web and unit.main_pid and former.get(unit.name) == unit.main_pid:
            faults.append(f"unit {unit.name} still runs the process from before ({unit.main_pid})")
    return faults


def _walk(answer: object, dotted: str) -> Any:
    for name in dotted.split("."):
        if not isinstance(answer, dict) or name not in answer:
            return _MISSING
        answer = answer[name]
    return answer


def _walk_each(answer: object, dotted: str) -> Any:
    """Like `_walk`, but a star, or any name where there is a list, goes into each entry and gives a list."""
    if not dotted:
        return answer
    name, _, rest = dotted.partition(".")
    if isinstance(answer, list) and name != "*":
        name, rest = "*", dotted
    if name == "*" and isinstance(answer, dict | list):
        entries = answer.values() if isinstance(answer, dict) else answer
        found = [_walk_each(entry, rest) for entry in entries]
        return _MISSING if _MISSING in found else found
    return _walk_each(answer[name], rest) if isinstance(answer, dict) and name in answer else _MISSING


def _in_words(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nothing listens at its health address"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"no answer ({type(error).__name__})"


def _conclude(verdict: Verdict, expected: str, seen: Sequence[HostHealth], probe: Probe) -> FleetHealth:
    if verdict is Verdict.PASS:
        count = len(seen)
        rows = f"{probe.consecutive} good answers in a row"
        sentence = f"{count} of {count} hosts gave {rows} on {short(expected)}"
    else:
        lines = [_last(health, probe.consecutive) for health in seen]
        sentence = f"not healthy within {probe.limit_seconds:g} s: {'; '.join(lines) or 'there is no host'}"
    return FleetHealth(verdict=verdict, sentence=sentence, hosts=tuple(seen))


def _last(health: HostHealth, needed: int) -> str:
    if not health.good:
        return f"{health.host}: {health.summary}"
    return f"{health.host}: good {health.in_a_row} times in a row of {needed}"
