"""The way back when the database is away: the hosts' own state files say where they came from.

Every host knows the release that changed it last, its previous revision, and the highest fencing token that it obeyed.
The rollback takes the next token, so that a controller that is still running is refused by the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from handlers.core import Core
from handlers.environment.model import Host
from handlers.errors import Refused, RunbookError
from handlers.host import way_back
from handlers.host.facts import HostFacts, inspect
from handlers.host.health import HostHealth, look_once
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import HostChange
from handlers.host.way_back import HostReturn
from handlers.release.journal import append
from handlers.release.ledger.outbox import Message
from handlers.release.phase import Release, short
from handlers.release.settings import age_order
from handlers.release.topic import Topic, severity_of


@dataclass(frozen=True, kw_only=True)
class HostReport:
    """What one host says about itself, without any ledger."""

    host: str
    problem: str = ""
    """Why it could not be asked; empty when it could."""
    tree: str | None = None
    """The revision of its tree."""
    answers: str | None = None
    """The revision that its web process answers with."""
    health: str = ""
    units: str = ""
    release: str = ""
    """The release that changed it last."""
    previous: str = ""
    """The revision that it would go back to."""
    current: str = ""
    """The revision that it was switched to last."""
    operation: str = ""
    """Its newest operation and the outcome."""
    token: int = 0

    @property
    def sentence(self) -> str:
        """The report on one line."""
        if self.problem:
            return f"{self.host}: {self.problem}"
        touched = (
            f"last changed by release {self.release} ({self.operation})"
            if self.release
            else "not changed by a release"
        )
        return (
            f"{self.host}: tree {short(self.tree)}, answers {short(self.answers)} ({self.health}), {self.units}; "
            f"{touched}"
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the fleet goes back to, found on the hosts."""

    release: str
    back_to: str
    leaving: str
    """The revision that is left; empty when no host runs another one."""
    token: int
    hosts: tuple[HostReport, ...]


async def survey(core: Core) -> tuple[HostReport, ...]:
    """Ask every host, by SSH and at its health address. A host that cannot be asked is part of the result."""
    async with open_hosts(core.environment, connected=False) as shells:
        facts = await asyncio.gather(*(_facts(shell) for shell in shells))
    answers = {health.host: health for health in await look_once(core, "", workers=False)}
    return tuple(
        _report(host.name, found, answers[host.name])
        for host, found in zip(core.environment.hosts, facts, strict=True)
    )


def find_target(environment: str, hosts: Sequence[HostReport]) -> Target:
    """The one revision that every reachable host runs already or came from.

    Raises Refused when no host was changed by a release, or when the hosts do not agree.
    """
    known = [host for host in hosts if host.release]
    if not known:
        seen = "; ".join(host.sentence for host in hosts)
        raise Refused(
            f"no host of {environment} says where it would go back to: {seen}. "
            "When the database is back, use `runbook rollback`"
        )
    newest = max((host.release for host in known), key=age_order)
    candidates = {host.previous for host in known if host.release == newest and host.previous}
    reachable = [host for host in hosts if not host.problem]
    targets = [
        revision
        for revision in sorted(candidates)
        if all(revision in (host.tree, host.previous) for host in reachable)
    ]
    if len(targets) != 1:
        seen = "; ".join(
            f"{host.host} runs {short(host.tree)} and came from {short(host.previous)}" for host in reachable
        )
        raise Refused(
            f"the hosts of {environment} do not agree on one previous revision ({seen}): "
            "when the database is back, use `runbook rollback`"
        )
    left = [host.current for host in known if host.release == newest and host.current != targets[0]]
    return Target(
        release=newest,
        back_to=targets[0],
        leaving=left[0] if left else "",
        token=max(host.token for host in known) + 1,
        hosts=tuple(hosts),
    )


def message_about(environment: str, target: Target, hosts: Sequence[HostReturn], reason: str) -> Message:
    """What people are told of the end."""
    back = sum(host.back for host in hosts)
    topic = Topic.ROLLED_BACK if back == len(hosts) else Topic.ROLLBACK_FAILED
    return Message(
        id=0,
        environment=environment,
        release_id=target.release,
        topic=topic,
        subject="",
        severity=severity_of(topic),
        sentence=f"{back} of {len(hosts)} hosts are back, without the ledger: {reason}",
        is_summary=False,
        from_revision=target.leaving or None,
        to_revision=target.back_to,
        requested_by=None,
        more=0,
    )


async def try_host(core: Core, target: Target, before: HostReturn, journal: Path) -> HostReturn:
    """One try to bring a host back. Its operations are written to *journal*, because there is no ledger."""
    host = next(known for known in core.environment.hosts if known.name == before.host)
    change = HostChange(
        release=target.release,
        token=target.token,
        revision=target.back_to,
        recorder=JournalRecorder(path=journal),
        back=True,
        attempt=f"t{target.token}.{before.tries + 1}",
    )
    shell = Shell(core.environment, host)

    async def prove(shell: Shell, replaced: Mapping[str, str]) -> HostHealth:
        return await _proven(core, host, shell, target.back_to, replaced)

    try:
        return await way_back.go_back(shell, change, before, leaving=target.leaving, prove=prove)
    finally:
        shell.close()


async def taken_back(core: Core, release: Release) -> str:
    """Which hosts went back without the ledger, as a sentence; empty when none did.

    A controller must not go on with a release that somebody has taken back while the database was away.
    """
    async with open_hosts(core.environment, connected=False) as shells:
        facts = await asyncio.gather(*(_facts(shell) for shell in shells))
    names = [
        shell.host.name
        for shell, found in zip(shells, facts, strict=True)
        if isinstance(found, HostFacts)
        and found.state is not None
        and found.state.operation.startswith(f"{release.id}-back-")
    ]
    return f"{', '.join(names)} went back to the previous revision without the ledger" if names else ""


@dataclass(frozen=True, kw_only=True)
class JournalRecorder:
    """Appends intentions and outcomes to a private file, one JSON object on each line."""

    path: Path

    async def intend(self, operation_id: str, host: str, kind: str, command: str) -> None:
        """Write the intention."""
        self._append({"intend": operation_id, "host": host, "kind": kind, "command": command})

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        """Write the outcome."""
        values = {"outcome": outcome, "exit_status": exit_status, "output": output[-2000:]}
        self._append({"confirm": operation_id, **values})

    def _append(self, values: dict[str, Any]) -> None:
        append(self.path, values)


def as_json(report: HostReport) -> dict[str, Any]:
    """The report as JSON values, with its sentence."""
    return asdict(report) | {"sentence": report.sentence}


async def _facts(shell: Shell) -> HostFacts | str:
    try:
        return await inspect(shell)
    except RunbookError as error:
        return str(error)


def _report(name: str, facts: HostFacts | str, health: HostHealth) -> HostReport:
    if isinstance(facts, str):
        return HostReport(host=name, problem=facts, answers=health.revision, health=health.summary)
    state = facts.state
    report = HostReport(
        host=name,
        tree=facts.revision,
        answers=health.revision,
        health=_without_revision(health),
        units=", ".join(f"{unit.name} {unit.active_state}" for unit in facts.units),
    )
    if state is None:
        return report
    return replace(
        report,
        release=state.release,
        previous=state.previous,
        current=state.current,
        operation=f"{state.operation} {state.outcome}",
        token=state.token,
    )


def _without_revision(health: HostHealth) -> str:
    """The health apart from the comparison with a wanted revision, for there is none."""
    faults = [fault for fault in health.summary.split(", ") if not fault.startswith("revision ")]
    return ", ".join(faults) or "healthy"


async def _proven(
    core: Core, host: Host, shell: Shell, revision: str, replaced: Mapping[str, str]
) -> HostHealth:
    """Probe the host until it runs the revision; that its database is away is no fault of its own."""
    probe = core.environment.probe
    deadline, in_a_row = monotonic() + probe.limit_seconds, 0
    while True:
        [health] = await look_once(
            core,
            revision,
            hosts=[host],
            shells=[shell],
            replaced={host.name: replaced},
            fleet_workers=False,
        )
        good = health.good or health.lacks_only_its_database
        in_a_row = in_a_row + 1 if good else 0
        if in_a_row >= probe.consecutive:
            away = f"answers with {short(revision)}, and only its database is away ({health.summary})"
            return replace(health, good=True, summary=health.summary if health.good else away)
        if monotonic() + probe.interval_seconds > deadline:
            return replace(health, good=False)
        await asyncio.sleep(probe.interval_seconds)
