"""The plan of a release: inspect hosts, queue and ledger once, and report every check as a sentence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from handlers.core import Core
from handlers.database import clock, migrate
from handlers.environment import frozen
from handlers.environment.exposed import exposed_password
from handlers.environment.freezes import Action
from handlers.environment.model import Environment
from handlers.errors import RunbookError
from handlers.host.facts import HostFacts
from handlers.host.ssh import open_hosts
from handlers.notify.address_checks import address_checks
from handlers.phases import merged_check, promotion_check, receiver_check, start_rules
from handlers.phases.clock_checks import DATABASE, clock_checks, read_database_clock
from handlers.phases.database_checks import QueueSnapshot, database_checks, read_queue
from handlers.phases.host_checks import common_revision, host_checks, look_at
from handlers.phases.measure import thresholds
from handlers.phases.revision_checks import look_at_revision
from handlers.phases.start_rules import StartRules
from handlers.phases.upstream_pause import check as upstream_check
from handlers.queue.look import DeadLetter
from handlers.release import left_behind, lock
from handlers.release.expected import expected_seconds, steps
from handlers.release.host_steps import host_steps
from handlers.release.ledger import durations, heals, records, releases
from handlers.release.only import ALL, Only
from handlers.release.override import OverrideRequest
from handlers.release.phase import LIVE, Phase, short
from handlers.release.planned import (
    EVERYTHING,
    Check,
    Plan,
    PlannedHost,
    kind_of,
    select_drainable,
)
from handlers.release.pulled import MergedPull
from handlers.release.schema_changes import Migration
from handlers.release.usual import Usual, UsualSteps
from handlers.status.wrapping import age


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
    migrations: tuple[Migration, ...] = ()
    at: datetime | None = None
    """When it began, by the database's clock; None while the database is away."""

    def add(self, name: str, good: bool, sentence: str) -> None:
        self.checks.append(Check(name=name, good=good, sentence=sentence))


async def make_plan(
    core: Core,
    revision: str | None,
    scope: tuple[Phase, ...] = EVERYTHING,
    *,
    left_by: str = "",
    only: Only = ALL,
    override: OverrideRequest | None = None,
) -> Plan:
    """Plan a release of *revision*, or of the revision that runs already; then nothing is deployed.

    With *left_by*, only the dead letters that this release has left behind are planned; of all these, what *only* asks
    for. *override* is a person who starts it in spite of a rule. A problem of a host or of the database raises nothing:
    it is a failed check, and the plan is not good.
    """
    environment = core.environment
    inspection, queue = await _inspect(core, revision, deploys=Phase.DEPLOYING in scope)
    dead = await _left_by(core, inspection, queue, left_by) if left_by else queue.dead
    events, set_aside = select_drainable(dead) if Phase.CANARY in scope else ((), {})
    if left_by and len(dead) < len(queue.dead):
        set_aside[f"not left behind by release {left_by}"] = len(queue.dead) - len(dead)
    if only:
        events, others = only.choose(events)
        set_aside |= others
        if not events:
            inspection.add("letters", False, f"no dead letter that can be drained matches {only.sentence}")
    seconds = expected_seconds(environment, scope, len(events))
    merged = await merged_check.look(environment, inspection.wanted) if inspection.wanted else None
    pull = merged.pull if merged else None
    rules = await _rules(environment, scope, inspection, seconds, override, pull=pull)
    return Plan(
        environment=environment.name,
        requested=revision or "what runs now",
        from_revision=inspection.current,
        to_revision=inspection.wanted or inspection.current,
        scope=scope,
        commits=inspection.commits,
        migrations=inspection.migrations,
        usual=await _usual(core, scope),
        usual_steps=await _usual_steps(core),
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
        checks=(*inspection.checks, *([merged.check] if merged else []), *rules.checks),
        pull_request=pull,
        thresholds=thresholds(environment),
        baseline=queue.baseline,
        day_before=queue.day_before,
        seconds_expected=seconds,
        steps=steps(environment, scope, len(events), inspection.wanted or inspection.current),
        overrides=rules.overrides,
        host_steps=host_steps(environment, scope),
        left_by=left_by,
        only=only,
        settings=frozen.settings(environment),
        looked_at=inspection.at,
    )


async def run_checks(core: Core, revision: str | None = None) -> tuple[Check, ...]:
    """Only the checks of a plan; without *revision* those that do not need one."""
    inspection, _ = await _inspect(core, revision, deploys=True)
    rules = await _rules(core.environment, EVERYTHING, inspection, 0.0, None)
    if inspection.wanted:
        return (*inspection.checks, *rules.as_warnings())
    others = (
        await promotion_check.can_be_asked(core.environment),
        await merged_check.can_be_asked(core.environment),
    )
    return (*inspection.checks, *rules.as_warnings(), *(each for each in others if each is not None))


async def _rules(
    environment: Environment,
    scope: tuple[Phase, ...],
    inspection: _Inspection,
    seconds: float,
    override: OverrideRequest | None,
    *,
    pull: MergedPull | None = None,
) -> StartRules:
    """The rules about the start, by the database's clock. Without that the plan is not good anyway."""
    if inspection.at is None:
        return StartRules()
    return await start_rules.rule(
        environment,
        Action(kind_of(scope)),
        inspection.wanted,
        inspection.at,
        lasts_seconds=seconds,
        request=override,
        pull=pull,
    )


async def _inspect(core: Core, revision: str | None, *, deploys: bool) -> tuple[_Inspection, QueueSnapshot]:
    """All checks. Without *deploys* the present revision must be healthy, because nothing will be restarted."""
    environment = core.environment
    inspection = _Inspection(at=await _now(core))
    async with open_hosts(environment, connected=False) as shells:
        looks, queue, upstream, receiver, addresses = await asyncio.gather(
            look_at(core, shells),
            read_queue(core.database, inline=environment.execution == "inline"),
            upstream_check(core),
            receiver_check.check(core),
            address_checks(environment),
        )
        for look in looks:
            inspection.checks += host_checks(environment, look, deploys=deploys)
            if look.facts is not None:
                inspection.facts[look.host.name] = look.facts
        inspection.current, check = common_revision(environment, inspection.facts)
        inspection.checks += [check] if check is not None else []
        reached = [shell for shell in shells if shell.host.name in inspection.facts]
        if deploys and revision is not None and inspection.current and reached:
            found = await look_at_revision(reached, revision, inspection.current)
            inspection.wanted, inspection.commits = found.wanted, found.commits
            inspection.migrations = found.migrations
            inspection.checks += found.checks
    database = await read_database_clock(core.database)
    hosts = {name: facts.clock for name, facts in inspection.facts.items()}
    inspection.checks += clock_checks({DATABASE: database, **hosts} if database is not None else hosts)
    inspection.checks += await database_checks(core, queue, inspection.current)
    inspection.checks += [each for each in (upstream, receiver) if each is not None]
    inspection.checks += addresses
    if exposed := exposed_password(environment):
        inspection.checks.append(Check(name="secrets", good=True, warns=True, sentence=exposed))
    if queue.problem is None:
        await _ledger_checks(core, inspection)
    return inspection, queue


async def _usual(core: Core, scope: tuple[Phase, ...]) -> Usual | None:
    """How long the last releases took. None while the ledger cannot tell."""
    try:
        return await durations.usual(core.database, core.environment.name, scope)
    except RunbookError:
        return None


async def _usual_steps(core: Core) -> UsualSteps:
    try:
        return await durations.usual_steps(core.database, core.environment.name)
    except RunbookError:
        return UsualSteps()


async def _now(core: Core) -> datetime | None:
    try:
        return await clock.now(core.database)
    except RunbookError:
        return None


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
    elif holder is not None and holder.alive and not holder.is_ours:
        inspection.add(
            "lock",
            False,
            f"{holder.name} has locked {name} for release {holder.release_id}: wait until it has ended",
        )
    else:
        inspection.add("lock", True, "free, no other release is live")
    if inspection.wanted and (why := await why_quarantined(core, inspection.wanted)) is not None:
        inspection.add("quarantine", False, why)
    if (out := await heals.out(core.database, name)) is not None:
        sentence = (
            f"{out.events} dead letters are out for {age(out.seconds)}: they are called back when it starts"
        )
        inspection.checks.append(
            Check(name="healing", good=True, warns=True, sentence=f"{sentence}, and are not in this plan")
        )


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
        f"({quarantine.reason}). Release another revision, or allow this one again with "
        f"`runbook unblock {short(revision)} --by NAME`"
    )
