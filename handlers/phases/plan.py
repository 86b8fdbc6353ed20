"""Looking at the world before a release: everything that must be true, asked once and told in sentences."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from handlers.core import Core
from handlers.database import migrate
from handlers.environment.model import Environment
from handlers.errors import Refused, RunbookError, TryAgain
from handlers.host.facts import HostFacts, commits_between, denied, inspect, resolve
from handlers.host.ssh import Shell, open_hosts
from handlers.phases.database_checks import QueueSnapshot, database_checks, look_at_queue
from handlers.phases.measure import thresholds
from handlers.queue.look import DeadLetter
from handlers.release import left_behind, lock
from handlers.release.ledger import records, releases
from handlers.release.phase import LIVE, Phase, short
from handlers.release.planned import EVERYTHING, Check, Plan, PlannedHost, expected_seconds, sort_out, steps

FREE_BYTES_MIN = 100 * 1024 * 1024
"""A checkout writes as much as the tree has; a full disk leaves a mixed one."""
CLOCK_SKEW_MAX_SECONDS = 30
"""More would make ages and log times of that host useless."""


@dataclass(kw_only=True)
class _Findings:
    """What the look has found so far."""

    checks: list[Check] = field(default_factory=list)
    facts: dict[str, HostFacts] = field(default_factory=dict)
    current: str = ""
    wanted: str = ""
    commits: tuple[str, ...] = ()

    def add(self, name: str, good: bool, sentence: str, *, warns: bool = False) -> None:
        self.checks.append(Check(name=name, good=good, sentence=sentence, warns=warns))


async def make_plan(
    core: Core, revision: str | None, scope: tuple[Phase, ...] = EVERYTHING, *, left_by: str = ""
) -> Plan:
    """What a release of *revision* would do now. Without one, of what already runs: nothing is deployed then.

    *left_by* takes, of all dead letters, those alone that this release has left behind. Never raises for what is
    wrong with the world: that is a check that failed, and the plan is not good.
    """
    environment, looked_at = core.environment, core.clock.now()
    seen, queue_seen = await _look(core, revision, needs_revision=Phase.DEPLOYING in scope)
    dead = await _left_by(core, seen, queue_seen, left_by) if left_by else queue_seen.dead
    events, aside = sort_out(dead) if Phase.CANARY in scope else ((), {})
    if left_by and len(dead) < len(queue_seen.dead):
        aside[f"not left behind by release {left_by}"] = len(queue_seen.dead) - len(dead)
    return Plan(
        environment=environment.name,
        requested=revision or "what runs now",
        from_revision=seen.current,
        to_revision=seen.wanted or seen.current,
        scope=scope,
        commits=seen.commits,
        hosts=tuple(
            PlannedHost(
                name=name, current=facts.revision or "", rollback_present=facts.revision == seen.current
            )
            for name, facts in sorted(seen.facts.items())
        ),
        events=events,
        set_aside=aside,
        queue=queue_seen.counts,
        failed=queue_seen.failed,
        checks=tuple(seen.checks),
        thresholds=thresholds(environment),
        baseline=queue_seen.baseline,
        seconds_expected=expected_seconds(environment, scope, len(events)),
        steps=steps(environment, scope, len(events), seen.wanted or seen.current),
        left_by=left_by,
        looked_at=looked_at,
    )


async def run_checks(core: Core, revision: str | None = None) -> tuple[Check, ...]:
    """Only the checks; without *revision* those that do not need one."""
    seen, _ = await _look(core, revision, needs_revision=revision is not None)
    return tuple(seen.checks)


async def _look(core: Core, revision: str | None, *, needs_revision: bool) -> tuple[_Findings, QueueSnapshot]:
    seen = _Findings()
    async with open_hosts(core.environment, connected=False) as shells:
        found, queue_seen = await asyncio.gather(
            asyncio.gather(*map(_facts, shells)), look_at_queue(core.database)
        )
        for shell, facts in zip(shells, found, strict=True):
            _host_checks(seen, core.environment, shell, facts)
        _one_revision(seen, core.environment)
        if needs_revision:
            assert revision is not None
            await _revision_check(seen, shells, revision)
    seen.checks += await database_checks(core, queue_seen)
    if queue_seen.problem is None:
        await _ledger_checks(core, seen)
    return seen, queue_seen


async def _facts(shell: Shell) -> HostFacts | str:
    try:
        return replace(await inspect(shell), denied=await denied(shell))
    except RunbookError as error:
        return str(error)


def _host_checks(seen: _Findings, environment: Environment, shell: Shell, facts: HostFacts | str) -> None:
    name = shell.host.name
    if isinstance(facts, str):
        seen.add(name, False, facts)
        return
    seen.facts[name] = facts
    faults = list(_faults(environment, facts))
    for fault in faults:
        seen.add(name, False, f"{name}: {fault}")
    if not faults:
        units = ", ".join(f"{unit.name} {unit.active_state}" for unit in facts.units)
        free = facts.free_bytes // (1024 * 1024)
        seen.add(name, True, f"on {short(facts.revision)}, clean, {units}, {free} MB free")
    for unit in facts.units:
        if unit.loaded and not unit.active:
            told = f"{name}: {unit.name} is {unit.active_state}: a release starts it, a drain or a watch does not"
            seen.add(name, True, told, warns=True)


def _faults(environment: Environment, facts: HostFacts) -> list[str]:
    faults = []
    directory = environment.deploy.directory
    if facts.problem:
        faults.append(f"{directory} is no usable checkout: {facts.problem}; see deploy.directory")
    if facts.dirt:
        # Which files, not the whole difference.
        files = textwrap.shorten(facts.dirt.partition("\ndiff --git")[0], 200, placeholder=" ...")
        faults.append(f"{directory} has local changes that a release would lose, keep or drop them: {files}")
    if facts.free_bytes < FREE_BYTES_MIN and not facts.problem:
        faults.append(f"only {facts.free_bytes // (1024 * 1024)} MB are free, 100 are needed: make room")
    if abs(facts.clock_skew_seconds) > CLOCK_SKEW_MAX_SECONDS:
        faults.append(f"its clock is {facts.clock_skew_seconds:.0f} s ahead of ours: mend its time service")
    faults += [
        f"there is no unit {unit.name}: see services.web and services.workers"
        for unit in facts.units
        if not unit.loaded
    ]
    if facts.denied:
        manager = " ".join(environment.services.command)
        faults.append(
            f"the SSH user may not run, without a password, `{manager}` with {', '.join(facts.denied)}: allow it in "
            "the sudoers, with the names spelt like this"
        )
    return faults


def _one_revision(seen: _Findings, environment: Environment) -> None:
    """All hosts must stand on one revision: it is the one rollback target of the whole fleet."""
    on: dict[str, list[str]] = {}
    for name, facts in seen.facts.items():
        if facts.revision:
            on.setdefault(facts.revision, []).append(name)
    if not on or len(seen.facts) < len(environment.hosts):
        return
    if len(on) > 1:
        told = "; ".join(f"{', '.join(names)} on {short(sha)}" for sha, names in sorted(on.items()))
        seen.add("revision", False, f"hosts differ ({told}): bring them to one revision first")
        return
    seen.current = next(iter(on))
    seen.add("rollback", True, f"back to {short(seen.current)}, which every host has")


async def _revision_check(seen: _Findings, shells: Sequence[Shell], revision: str) -> None:
    shell = next((one for one in shells if one.host.name in seen.facts), None)
    if shell is None or not seen.current:
        return
    try:
        seen.wanted = await resolve(shell, revision)
        if seen.wanted == seen.current:
            seen.add(
                "revision",
                False,
                f"revision {revision} is {short(seen.wanted)}, which runs already: name another, or use "
                "`runbook drain` or `runbook watch` on what runs",
            )
            return
        seen.commits = tuple(await commits_between(shell, seen.current, seen.wanted))
    except (Refused, TryAgain) as error:
        seen.add("revision", False, str(error))
        return
    count = len(seen.commits)
    seen.add(
        "revision", True, f"{revision} is {short(seen.wanted)}, {count} commits from {short(seen.current)}"
    )


async def _ledger_checks(core: Core, seen: _Findings) -> None:
    """Whether another release owns the environment, and whether this revision was set aside.

    A ledger of an older program cannot be asked yet; when the release is written down it is.
    """
    name = core.environment.name
    if await migrate.pending(core.database):
        return
    live = await releases.live(core.database, name)
    holder = await lock.holder(core.database, name)
    if live is not None and live.phase in LIVE:
        seen.add(
            "lock",
            False,
            f"release {live.id} is {live.phase} in {name}: resume it, roll it back or abort it first "
            "(runbook status shows it)",
        )
    elif holder is not None and holder.alive:
        seen.add(
            "lock",
            False,
            f"{holder.name} holds {name} for release {holder.release_id}: wait until it is done",
        )
    else:
        seen.add("lock", True, "free, no other release is live")
    if seen.wanted and (why := await why_quarantined(core, seen.wanted)) is not None:
        seen.add("quarantine", False, why)


async def _left_by(core: Core, seen: _Findings, queue_seen: QueueSnapshot, release: str) -> list[DeadLetter]:
    """The dead letters that a release has left behind; a check fails where there are none to take."""
    try:
        ids = await left_behind.ids(core.database, core.environment.name, release)
    except RunbookError as error:
        seen.add("left behind", False, str(error))
        return []
    found = [letter for letter in queue_seen.dead if letter.id in ids]
    none = f"release {release} has left nothing behind that is still a dead letter: there is nothing to drain"
    seen.add("left behind", bool(found), f"{len(found)} by release {release}" if found else none)
    return found


async def why_quarantined(core: Core, revision: str) -> str | None:
    """Why *revision* may not be released: an earlier release had to leave it, and nobody has lifted that."""
    found = await records.is_quarantined(core.database, core.environment.name, revision)
    if found is None:
        return None
    return (
        f"revision {short(revision)} was left by release {found.release_id} ({found.reason}): release another "
        "revision, or let a named person lift it (runbook lift)"
    )
