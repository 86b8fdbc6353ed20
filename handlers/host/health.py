"""The health of the hosts: whether their health endpoints, units and processes all run the wanted revision.

HEAD, `is-active` and the exit status of a restart prove nothing. Proof is several health answers in a row with the new
revision, from a new process.
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
from handlers.host.faults import (
    DatabaseFault,
    Evidence,
    blames_revision,
    lacks_only_its_database,
    status_fault,
)
from handlers.host.ssh import Shell
from handlers.release.phase import Verdict, short

_ABBREVIATED_MIN = 7
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class HostHealth:
    """The result of one check of one host, and the number of good checks in a row."""

    host: str
    good: bool
    revision: str | None
    """The revision in its answer, unchanged."""
    summary: str
    """The faults, or the healthy revision, for a message: `HTTP 503, database down`."""
    consecutive: int = 0
    """The number of good checks in a row, with this one; only `until_healthy` counts them."""
    blames_revision: bool = False
    """Whether a fault is evidence against the revision: its own process answers 5xx or does not start. A missing
    answer, a missing key, or a database that is away is not."""
    lacks_only_its_database: bool = False
    """Whether its database is its only fault, so that the revision itself runs as it should."""


@dataclass(frozen=True, kw_only=True)
class FleetHealth:
    """Whether all hosts are healthy, with a sentence, and the last check of each."""

    verdict: Verdict
    sentence: str
    hosts: tuple[HostHealth, ...] = ()

    @property
    def blames_revision(self) -> bool:
        """Whether the last check of a host is evidence against the revision."""
        return any(host.blames_revision for host in self.hosts)


@dataclass(frozen=True, kw_only=True)
class _Expected:
    """What a healthy host must show."""

    revision: str
    workers: bool
    fleet_workers: bool
    previous_pids: Mapping[str, Mapping[str, int]]


OnLook = Callable[[Sequence[HostHealth]], Awaitable[None]]
"""Called with the health of the hosts after each check."""


async def look_once(
    core: Core,
    revision: str,
    *,
    hosts: Sequence[Host] | None = None,
    shells: Sequence[Shell] = (),
    previous_pids: Mapping[str, Mapping[str, int]] | None = None,
    workers: bool = True,
    fleet_workers: bool = True,
) -> list[HostHealth]:
    """Check every host once, concurrently. A failure is part of the result and never raised.

    With *shells* the units must be active too, and the main process of a web unit must not be the one in
    *previous_pids* (pids by host and unit, from before the switch). Without *workers* these are not checked: they are
    stopped during a deploy. Without *fleet_workers* only the host's own worker units are: its answer may list the
    workers of all hosts, and on the way back the others may still run the other revision.
    """
    by_name = {shell.host.name: shell for shell in shells}
    expected = _Expected(
        revision=revision,
        workers=workers,
        fleet_workers=workers and fleet_workers,
        previous_pids=previous_pids or {},
    )
    checked = core.environment.hosts if hosts is None else hosts
    return list(
        await asyncio.gather(*(_check(core, host, by_name.get(host.name), expected) for host in checked))
    )


async def until_healthy(
    core: Core,
    revision: str,
    *,
    hosts: Sequence[Host] | None = None,
    shells: Sequence[Shell] = (),
    previous_pids: Mapping[str, Mapping[str, int]] | None = None,
    workers: bool = True,
    fleet_workers: bool = True,
    on_look: OnLook | None = None,
) -> FleetHealth:
    """Check repeatedly until every host has given enough good answers in a row, or the limit has passed.

    A bad answer resets the count of its host, so a service that flaps does not pass by chance. The sentence of a
    failure has the last result of each host.
    """
    probe = core.environment.probe
    deadline = monotonic() + probe.limit_seconds
    counts: dict[str, int] = {}
    while True:
        results = await look_once(
            core,
            revision,
            hosts=hosts,
            shells=shells,
            previous_pids=previous_pids,
            workers=workers,
            fleet_workers=fleet_workers,
        )
        counts = {health.host: counts.get(health.host, 0) + 1 if health.good else 0 for health in results}
        results = [replace(health, consecutive=counts[health.host]) for health in results]
        if on_look is not None:
            await on_look(results)
        if results and all(health.consecutive >= probe.consecutive for health in results):
            return _conclude(Verdict.PASS, revision, results, probe)
        if monotonic() + probe.interval_seconds > deadline:
            return _conclude(Verdict.FAIL, revision, results, probe)
        await asyncio.sleep(probe.interval_seconds)


def runs(reported: object, revision: str) -> bool:
    """Whether a reported revision is *revision*, full or abbreviated to seven digits or more."""
    if not isinstance(reported, str) or len(reported) < _ABBREVIATED_MIN:
        return False
    return revision.startswith(reported.lower())


async def _check(core: Core, host: Host, shell: Shell | None, expected: _Expected) -> HostHealth:
    reported, faults = await _check_answer(core, host, expected)
    if shell is not None:
        faults += await _unit_faults(shell, expected)
    good = not faults
    summary = ", ".join(faults) or f"healthy on {short(str(reported))}"
    revision = reported if isinstance(reported, str) else None
    return HostHealth(
        host=host.name,
        good=good,
        revision=revision,
        summary=summary,
        blames_revision=blames_revision(faults),
        lacks_only_its_database=lacks_only_its_database(faults),
    )


async def _check_answer(core: Core, host: Host, expected: _Expected) -> tuple[object, list[str]]:
    """The revision in the health answer of a host, and the faults of the answer."""
    probe, revision = core.environment.probe, expected.revision
    try:
        # The timeout covers the whole answer: a server that sends one byte a second is not healthy.
        async with asyncio.timeout(probe.answer_seconds):
            # There may be a cache in front of the health endpoint.
            response = await core.http.get(host.health_url, headers={"Cache-Control": "no-cache"})
    except TimeoutError:
        return None, [f"no answer within {probe.answer_seconds:g} s"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return None, [_connection_fault(error)]
    faults = [] if response.is_success else [status_fault(response.status_code)]
    try:
        answer = response.json()
    except ValueError:
        return None, [*faults, "its answer is not JSON"]
    reported = _value_at(answer, probe.revision_field)
    if reported is _MISSING:
        faults.append(f"no {probe.revision_field!r} in its answer")
        reported = None
    elif not runs(reported, revision):
        faults.append(f"revision {short(str(reported))} instead of {short(revision)}")
    faults += _database_faults(answer, probe)
    if expected.fleet_workers:
        faults += _worker_faults(answer, probe, revision)
    return reported, faults


def _database_faults(answer: object, probe: Probe) -> list[str]:
    if probe.database_field is None:
        return []
    state = _value_at(answer, probe.database_field)
    if state is _MISSING:
        return [f"no {probe.database_field!r} in its answer"]
    # The type is compared too: in Python 1 == True, but the number 1 does not mean healthy.
    good = any(type(state) is type(wanted) and state == wanted for wanted in probe.database_good)
    return [] if good else [DatabaseFault(f"database {state}")]


def _worker_faults(answer: object, probe: Probe, revision: str) -> list[str]:
    if probe.worker_revisions_field is None:
        return []
    value = _values_at(answer, probe.worker_revisions_field)
    if isinstance(value, str):
        value = [value]
    revisions = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(revisions, list):
        return [f"no list {probe.worker_revisions_field!r} in its answer"]
    if not revisions:
        return ["no live worker"]
    others = sorted({short(str(reported)) for reported in revisions if not runs(reported, revision)})
    return [f"workers on {', '.join(others)}"] if others else []


async def _unit_faults(shell: Shell, expected: _Expected) -> list[str]:
    services = shell.environment.services
    try:
        facts = await inspect(shell)
    except RunbookError as error:
        return [f"its units cannot be read: {error}"]
    wanted = {*services.web, *(services.workers if expected.workers else ())}
    previous_pids = expected.previous_pids.get(shell.host.name, {})
    faults = []
    for unit in facts.units:
        if unit.name in wanted and unit.active_state != "active":
            sentence = f"unit {unit.name} {unit.active_state}"
            faults.append(Evidence(sentence) if unit.name in services.web else sentence)
        elif unit.name in services.web and unit.main_pid and previous_pids.get(unit.name) == unit.main_pid:
            faults.append(f"unit {unit.name} still runs the previous process ({unit.main_pid})")
    return faults


def _value_at(answer: object, dotted: str) -> Any:
    """The value at a dotted path in *answer*, or _MISSING."""
    for name in dotted.split("."):
        if not isinstance(answer, dict) or name not in answer:
            return _MISSING
        answer = answer[name]
    return answer


def _values_at(answer: object, dotted: str) -> Any:
    """Like `_value_at`, but a star, or any name at a list, visits each entry; the result is then a list."""
    if not dotted:
        return answer
    name, _, rest = dotted.partition(".")
    if isinstance(answer, list) and name != "*":
        name, rest = "*", dotted
    if name == "*" and isinstance(answer, dict | list):
        entries = answer.values() if isinstance(answer, dict) else answer
        values = [_values_at(entry, rest) for entry in entries]
        return _MISSING if _MISSING in values else values
    return _values_at(answer[name], rest) if isinstance(answer, dict) and name in answer else _MISSING


def _connection_fault(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nothing listens at its health address"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"no answer ({type(error).__name__})"


def _conclude(verdict: Verdict, expected: str, results: Sequence[HostHealth], probe: Probe) -> FleetHealth:
    if verdict is Verdict.PASS:
        count = len(results)
        answers = f"{probe.consecutive} good answers in a row"
        sentence = f"{count} of {count} hosts gave {answers} on {short(expected)}"
    else:
        lines = [_last_result(health, probe.consecutive) for health in results]
        sentence = f"not healthy within {probe.limit_seconds:g} s: {'; '.join(lines) or 'there is no host'}"
    return FleetHealth(verdict=verdict, sentence=sentence, hosts=tuple(results))


def _last_result(health: HostHealth, needed: int) -> str:
    if not health.good:
        return f"{health.host}: {health.summary}"
    return f"{health.host}: {health.consecutive} of {needed} good answers in a row"
