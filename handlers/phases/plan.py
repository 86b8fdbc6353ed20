"""The plan of a release: inspect hosts, queue and ledger once, and report every check as a sentence."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from handlers.core import Core
from handlers.database import migrate
from handlers.environment import frozen
from handlers.environment.model import Environment
from handlers.errors import Refused, RunbookError, TryAgain
from handlers.host.facts import HostFacts, commits_between, denied, inspect, resolve
from handlers.host.ssh import Shell, open_hosts
from handlers.phases.database_checks import QueueSnapshot, database_checks, read_queue
from handlers.phases.measure import thresholds
from handlers.queue.look import DeadLetter
from handlers.release import left_behind, lock
from handlers.release.ledger import records, releases
from handlers.release.phase import LIVE, Phase, short
from handlers.release.planned import (
    EVERYTHING,
    Check,
    Plan,
    PlannedHost,
    expected_seconds,
    select_drainable,
    steps,
)

FREE_BYTES_MIN = 100 * 1024 * 1024
"""A checkout writes up to the size of the tree, and a full disk leaves a tree of two revisions."""
CLOCK_SKEW_MAX_SECONDS = 30
"""With more, ages and log times of the host are useless."""


@dataclass(kw_only=True)
class _Inspection:
    """The checks and facts collected for a plan."""

    checks: list[Check] = field(default_factory=list)
    facts: dict[str, HostFacts] = field(default_factory=dict)
    """By host; a host that could not be inspected is missing."""
    current: str = ""
    """The revision that all hosts run; empty when it is unknown or differs."""
    wanted: str = ""
    """The whole commit id of the requested revision; empty when it is not needed or unknown."""
    commits: tuple[str, ...] = ()

    def add(self, name: str, good: bool, sentence: str, *, warns: bool = False) -> None:
        self.checks.append(Check(name=name, good=good, sentence=sentence, warns=warns))


async def make_plan(
    core: Core, revision: str | None, scope: tuple[Phase, ...] = EVERYTHING, *, left_by: str = ""
) -> Plan:
    """Plan a release of *revision*, or of the revision that runs already; then nothing is deployed.

    With *left_by*, only the dead letters that this release has left behind are planned. A problem of a host or of
    the database raises nothing: it is a failed check, and the plan is not good.
    """
    environment, looked_at = core.environment, core.clock.now()
    inspection, queue = await _inspect(core, revision, needs_revision=Phase.DEPLOYING in scope)
    dead = await _left_by(core, inspection, queue, left_by) if left_by else queue.dead
    events, set_aside = select_drainable(dead) if Phase.CANARY in scope else ((), {})
    if left_by and len(dead) < len(queue.dead):
        set_aside[f"not left behind by release {left_by}"] = len(queue.dead) - len(dead)
    return Plan(
        environment=environment.name,
        requested=revision or "what runs now",
        from_revision=inspection.current,
        to_revision=inspection.wanted or inspection.current,
        scope=scope,
        commits=inspection.commits,
        hosts=tuple(
            PlannedHost(
                name=name, current=facts.revision or "", rollback_present=facts.revision == inspection.current
            )
            for name, facts in sorted(inspection.facts.items())
        ),
        events=events,
        set_aside=set_aside,
        queue=queue.counts,
        failed=queue.failed,
        checks=tuple(inspection.checks),
        thresholds=thresholds(environment),
        baseline=queue.baseline,
        seconds_expected=expected_seconds(environment, scope, len(events)),
        steps=steps(environment, scope, len(events), inspection.wanted or inspection.current),
        left_by=left_by,
        settings=frozen.settings(environment),
        looked_at=looked_at,
    )


async def run_checks(core: Core, revision: str | None = None) -> tuple[Check, ...]:
    """Only the checks of a plan; without *revision* those that do not need one."""
    inspection, _ = await _inspect(core, revision, needs_revision=revision is not None)
    return tuple(inspection.checks)


async def _inspect(
    core: Core, revision: str | None, *, needs_revision: bool
) -> tuple[_Inspection, QueueSnapshot]:
    inspection = _Inspection()
    async with open_hosts(core.environment, connected=False) as shells:
        all_facts, queue = await asyncio.gather(
            asyncio.gather(*map(_facts, shells)), read_queue(core.database)
        )
        for shell, facts in zip(shells, all_facts, strict=True):
            _host_checks(inspection, core.environment, shell, facts)
        _rollback_check(inspection, core.environment)
        if needs_revision:
            assert revision is not None
            await _revision_check(inspection, shells, revision)
    inspection.checks += await database_checks(core, queue)
    if queue.problem is None:
        await _ledger_checks(core, inspection)
    return inspection, queue


async def _facts(shell: Shell) -> HostFacts | str:
    """The facts of a host, or why it could not be inspected."""
    try:
        return replace(await inspect(shell), denied=await denied(shell))
    except RunbookError as error:
        return str(error)


def _host_checks(
    inspection: _Inspection, environment: Environment, shell: Shell, facts: HostFacts | str
) -> None:
    name = shell.host.name
    if isinstance(facts, str):
        inspection.add(name, False, facts)
        return
    inspection.facts[name] = facts
    faults = host_faults(environment, facts)
    for fault in faults:
        inspection.add(name, False, f"{name}: {fault}")
    if not faults:
        units = ", ".join(f"{unit.name} {unit.active_state}" for unit in facts.units)
        free = facts.free_bytes // (1024 * 1024)
        inspection.add(name, True, f"on {short(facts.revision)}, clean, {units}, {free} MB free")
    for unit in facts.units:
        if unit.loaded and not unit.active:
            warning = f"{name}: {unit.name} is {unit.active_state}: a release starts it, a drain or a watch does not"
            inspection.add(name, True, warning, warns=True)


def host_faults(environment: Environment, facts: HostFacts) -> list[str]:
    """Why a host is not ready for a release, one sentence for each fault; empty when it is ready."""
    faults = []
    directory = environment.deploy.directory
    if facts.problem:
        faults.append(f"{directory} is no usable checkout: {facts.problem}; see deploy.directory")
    if facts.dirt:
        # Only the names of the files, not the whole diff.
        files = textwrap.shorten(facts.dirt.partition("\ndiff --git")[0], 200, placeholder=" ...")
        faults.append(
            f"{directory} has local changes, which a release would overwrite: commit or discard them: {files}"
        )
    if facts.free_bytes < FREE_BYTES_MIN and not facts.problem:
        faults.append(
            f"only {facts.free_bytes // (1024 * 1024)} MB are free, 100 are needed: free disk space"
        )
    skew = facts.clock_skew_seconds
    if abs(skew) > CLOCK_SKEW_MAX_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        faults.append(
            f"its clock is {abs(skew):.0f} s {direction} ours: fix its time service (see `timedatectl`)"
        )
    faults += [
        f"there is no unit {unit.name}: see services.web and services.workers"
        for unit in facts.units
        if not unit.loaded
    ]
    if facts.denied:
        manager = " ".join(environment.services.command)
        faults.append(
            f"the SSH user may not run `{manager}` with {', '.join(facts.denied)} without a password: "
            "allow exactly these in the sudoers file"
        )
    return faults


def _rollback_check(inspection: _Inspection, environment: Environment) -> None:
    """All hosts must run one revision: it is the rollback target of the whole fleet."""
    hosts_by_revision: dict[str, list[str]] = {}
    for name, facts in inspection.facts.items():
        if facts.revision:
            hosts_by_revision.setdefault(facts.revision, []).append(name)
    if not hosts_by_revision or len(inspection.facts) < len(environment.hosts):
        return
    if len(hosts_by_revision) > 1:
        hosts = "; ".join(
            f"{', '.join(names)} on {short(sha)}" for sha, names in sorted(hosts_by_revision.items())
        )
        inspection.add("revision", False, f"hosts differ ({hosts}): deploy one revision to all of them first")
        return
    inspection.current = next(iter(hosts_by_revision))
    inspection.add("rollback", True, f"back to {short(inspection.current)}, which every host has")


async def _revision_check(inspection: _Inspection, shells: Sequence[Shell], revision: str) -> None:
    shell = next((shell for shell in shells if shell.host.name in inspection.facts), None)
    if shell is None or not inspection.current:
        return
    try:
        wanted = inspection.wanted = await resolve(shell, revision)
        if wanted == inspection.current:
            inspection.add(
                "revision",
                False,
                f"revision {revision} is {short(wanted)}, which runs already: name another, or use "
                "`runbook drain` or `runbook watch`",
            )
            return
        inspection.commits = tuple(await commits_between(shell, inspection.current, wanted))
    except (Refused, TryAgain) as error:
        inspection.add("revision", False, str(error))
        return
    count = len(inspection.commits)
    inspection.add(
        "revision", True, f"{revision} is {short(wanted)}, {count} commits from {short(inspection.current)}"
    )


async def _ledger_checks(core: Core, inspection: _Inspection) -> None:
    """Whether another release owns the environment, and whether the revision is in quarantine.

    Skipped while the ledger's schema is outdated: the quarantine is checked again when the release is recorded.
    """
    name = core.environment.name
    if await migrate.pending(core.database):
        return
    live = await releases.live(core.database, name)
    holder = await lock.holder(core.database, name)
    if live is not None and live.phase in LIVE:
        inspection.add(
            "lock",
            False,
            f"release {live.id} is {live.phase} in {name}: resume it, roll it back or abort it first "
            "(see `runbook status`)",
        )
    elif holder is not None and holder.alive:
        inspection.add(
            "lock",
            False,
            f"{holder.name} has locked {name} for release {holder.release_id}: wait until it has ended",
        )
    else:
        inspection.add("lock", True, "free, no other release is live")
    if inspection.wanted and (why := await why_quarantined(core, inspection.wanted)) is not None:
        inspection.add("quarantine", False, why)


async def _left_by(
    core: Core, inspection: _Inspection, queue: QueueSnapshot, release: str
) -> list[DeadLetter]:
    """The dead letters that a release has left behind. When there are none, the check fails."""
    try:
        ids = await left_behind.ids(core.database, core.environment.name, release)
    except RunbookError as error:
        inspection.add("left behind", False, str(error))
        return []
    letters = [letter for letter in queue.dead if letter.id in ids]
    none = f"no dead letter that release {release} has left behind remains: there is nothing to drain"
    inspection.add("left behind", bool(letters), f"{len(letters)} by release {release}" if letters else none)
    return letters


async def why_quarantined(core: Core, revision: str) -> str | None:
    """Why *revision* may not be released: a rollback put it in quarantine. None when it may."""
    quarantine = await records.find_quarantine(core.database, core.environment.name, revision)
    if quarantine is None:
        return None
    return (
        f"revision {short(revision)} is in quarantine: release {quarantine.release_id} rolled it back "
        f"({quarantine.reason}). Release another revision, or lift the quarantine with `runbook lift`"
    )
