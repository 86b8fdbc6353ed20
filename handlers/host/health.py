"""The health of the hosts: whether their health endpoints, units and processes all run the wanted revision.

HEAD, `is-active` and the exit status of a restart prove nothing. Proof is several health answers in a row with the new
revision, from a new process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from handlers.core import Core
from handlers.environment.model import Host, Probe
from handlers.errors import RunbookError
from handlers.host.answer import MISSING, ask, value_at, values_at
from handlers.host.facts import unit_facts
from handlers.host.faults import (
    DatabaseFault,
    UnitFault,
    blames_revision,
    lacks_only_its_database,
    status_fault,
    unit_fault,
)
from handlers.host.ssh import Shell
from handlers.release.phase import Verdict, runs, short

_FIRST_PAUSE_SECONDS = 0.2
"""The pause after the first check, while no host is good yet: a process that has just been restarted answers soon. Each
pause is twice the one before, up to the interval of the probe."""


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
    unit_failed: bool = False
    """Whether a unit has failed, so that waiting cannot help."""
    needed: int = 0
    """So many good checks in a row prove it; only `until_healthy` sets this and the next one."""
    seconds: float | None = None
    """Real seconds from the first check to the proof, or to this check."""


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
    replaced: Mapping[str, Mapping[str, str]]
    leaving: str | None


OnLook = Callable[[Sequence[HostHealth]], Awaitable[None]]
"""Called with the health of the hosts after each check."""


async def look_once(
    core: Core,
    revision: str,
    *,
    hosts: Sequence[Host] | None = None,
    shells: Sequence[Shell] = (),
    replaced: Mapping[str, Mapping[str, str]] | None = None,
    workers: bool = True,
    fleet_workers: bool = True,
    leaving: str | None = None,
) -> list[HostHealth]:
    """Check every host once, concurrently. A failure is part of the result and never raised.

    With *shells* the units must be active too, and the main process of a unit must not be the one in *replaced* (from
    before the switch, by host and unit). Without *workers* these are not checked: they are stopped during a
    deploy. Without *fleet_workers* only the host's own worker units are: its answer may list the workers of all hosts,
    and on the way back the others may still run the other revision. Workers on the revision *leaving* may be listed
    next to those on the wanted one: their units have been proven, and a list forgets a stopped worker only later.
    """
    by_name = {shell.host.name: shell for shell in shells}
    expected = _Expected(
        revision=revision,
        workers=workers,
        fleet_workers=workers and fleet_workers,
        replaced=replaced or {},
        leaving=leaving,
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
    replaced: Mapping[str, Mapping[str, str]] | None = None,
    workers: bool = True,
    fleet_workers: bool = True,
    on_look: OnLook | None = None,
) -> FleetHealth:
    """Check repeatedly until every host has given enough good answers in a row, or the limit has passed.

    A bad answer resets the count of its host, so a service that flaps does not pass by chance. The sentence of a
    failure has the last result of each host.
    """
    probe = core.environment.probe
    began_all = monotonic()
    deadline = began_all + probe.limit_seconds
    counts: dict[str, int] = {}
    proven: dict[str, float] = {}
    pause = min(_FIRST_PAUSE_SECONDS, probe.interval_seconds)
    while True:
        began = monotonic()
        results = await look_once(
            core,
            revision,
            hosts=hosts,
            shells=shells,
            replaced=replaced,
            workers=workers,
            fleet_workers=fleet_workers,
        )
        counts = {health.host: counts.get(health.host, 0) + 1 if health.good else 0 for health in results}
        seconds = round(monotonic() - began_all, 1)
        proven = {
            host: proven.get(host, seconds) for host, count in counts.items() if count >= probe.consecutive
        }
        results = [
            replace(
                health,
                consecutive=counts[health.host],
                needed=probe.consecutive,
                seconds=proven.get(health.host, seconds),
            )
            for health in results
        ]
        if on_look is not None:
            await on_look(results)
        if results and all(health.consecutive >= probe.consecutive for health in results):
            return _conclude(Verdict.PASS, revision, results, probe)
        if max(monotonic(), began + probe.interval_seconds) > deadline:
            return _conclude(Verdict.FAIL, revision, results, probe)
        if any(health.good for health in results):
            pause = probe.interval_seconds
        # Between the starts of two checks: a slow connection would else make each proof longer.
        await asyncio.sleep(max(0.0, pause - (monotonic() - began)))
        pause = min(2 * pause, probe.interval_seconds)


async def _check(core: Core, host: Host, shell: Shell | None, expected: _Expected) -> HostHealth:
    (reported, faults), unit_faults = await asyncio.gather(
        _check_answer(core, host, expected), _unit_faults(shell, expected)
    )
    faults += unit_faults
    good = not faults
    summary = ", ".join(faults) or f"healthy on {short(str(reported))}"
    revision = str(reported) if isinstance(reported, str | int) else None
    return HostHealth(
        host=host.name,
        good=good,
        revision=revision,
        summary=summary,
        blames_revision=blames_revision(faults),
        lacks_only_its_database=lacks_only_its_database(faults),
        unit_failed=any(isinstance(fault, UnitFault) for fault in faults),
    )


async def _check_answer(core: Core, host: Host, expected: _Expected) -> tuple[object, list[str]]:
    """The revision in the health answer of a host, and the faults of the answer."""
    probe, revision = core.environment.probe, expected.revision
    answer = await ask(core, host)
    faults = [status_fault(answer.status)] if answer.status is not None and not answer.is_success else []
    if answer.problem:
        return None, [*faults, answer.problem]
    reported = value_at(answer.content, probe.revision_field)
    if reported is MISSING:
        faults.append(f"no {probe.revision_field!r} in its answer")
        reported = None
    elif not runs(reported, revision):
        faults.append(f"revision {short(str(reported))} instead of {short(revision)}")
    faults += _database_faults(answer.content, probe)
    if expected.fleet_workers:
        faults += _worker_faults(answer.content, probe, expected)
    return reported, faults


def _database_faults(content: object, probe: Probe) -> list[str]:
    if probe.database_field is None:
        return []
    state = value_at(content, probe.database_field)
    if state is MISSING:
        return [f"no {probe.database_field!r} in its answer"]
    return [] if is_good_database(state, probe) else [DatabaseFault(f"database {state}")]


def is_good_database(state: object, probe: Probe) -> bool:
    """Whether a value of *probe.database_field* means healthy. Capitals do not matter: `OK` is `ok`."""
    if isinstance(state, str):
        return state.lower() in {good.lower() for good in probe.database_good if isinstance(good, str)}
    # The type is compared too: in Python 1 == True, but the number 1 does not mean healthy.
    return any(type(state) is type(good) and state == good for good in probe.database_good)


def worker_revisions(content: object, dotted: str) -> list[object] | None:
    """The revisions of the live workers in an answer; None when the path leads to no list of them."""
    value = values_at(content, dotted)
    if isinstance(value, str):
        return [value]
    revisions = list(value.values()) if isinstance(value, dict) else value
    return revisions if isinstance(revisions, list) else None


def _worker_faults(content: object, probe: Probe, expected: _Expected) -> list[str]:
    if probe.worker_revisions_field is None:
        return []
    revisions = worker_revisions(content, probe.worker_revisions_field)
    if revisions is None:
        return [f"no list {probe.worker_revisions_field!r} in its answer"]
    if not revisions:
        return ["no live worker"]
    others = [reported for reported in revisions if not runs(reported, expected.revision)]
    if expected.leaving is not None and len(others) < len(revisions):
        others = [reported for reported in others if not runs(reported, expected.leaving)]
    names = sorted({short(str(reported)) for reported in others})
    return [f"workers on {', '.join(names)}"] if names else []


async def _unit_faults(shell: Shell | None, expected: _Expected) -> list[str]:
    if shell is None:
        return []
    services = shell.environment.services
    try:
        units = await unit_facts(shell)
    except RunbookError as error:
        return [f"its units cannot be read: {error}"]
    wanted = {*services.web, *(services.workers if expected.workers else ())}
    replaced = expected.replaced.get(shell.host.name, {})
    faults: list[str] = []
    for unit in units:
        if unit.name in wanted and unit.active_state != "active":
            sentence = f"unit {unit.name} {unit.active_state}"
            faults.append(unit_fault(sentence, unit.name in services.web, unit.active_state == "failed"))
        elif unit.name in wanted and unit.process and replaced.get(unit.name) == unit.process:
            faults.append(f"unit {unit.name} still runs the previous process ({unit.main_pid})")
    return faults


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
    if health.consecutive >= needed:
        return f"{health.host}: {health.summary} ({health.consecutive} good answers in a row)"
    return f"{health.host}: {health.consecutive} of {needed} good answers in a row"
