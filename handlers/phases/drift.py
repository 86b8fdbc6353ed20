"""Drift: what has changed on hosts, queue and settings since a plan was made. Checked before an older plan runs."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.core import Core
from handlers.database import clock
from handlers.database.jsonable import as_plain
from handlers.environment import frozen
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.phases.clock_checks import find_wrong_clocks
from handlers.phases.plan import make_plan
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, short
from handlers.release.planned import Plan
from handlers.status.lines import age

FRESH_SECONDS = 60
"""A younger plan is not checked again, to save time."""


async def since_planned(core: Core, release: Release) -> str:
    """What has changed since *release* was planned, as a sentence; empty when nothing has, or the plan is fresh.

    For a release that has not started: its process died, or its approval took long.
    """
    # The plan may have been made by another process on another machine, and a clock may have been set since.
    if wrong := await find_wrong_clocks(core):
        return f"{wrong}; nothing was changed"
    stored = await releases.plan(core.database, release.id)
    seconds = (await clock.now(core.database) - (stored.looked_at or release.created_at)).total_seconds()
    # The file is compared also with a fresh plan: this takes no time, and nothing has started.
    changes = "; ".join(settings_differences(stored, await last_good(release.environment)))
    # A plan from the future was made before the database's clock was set back: its age is unknown.
    if not changes and not 0 <= seconds < FRESH_SECONDS:
        # By its commit: new commits on the branch do not change what was planned.
        revision = release.to_revision if Phase.DEPLOYING in stored.scope else None
        now = await make_plan(core, revision, stored.scope, left_by=stored.left_by)
        changes = "; ".join(differences(stored, now))
    if not changes:
        return ""
    return (
        f"plan {stored.hash} is outdated, it was made {age(seconds)} ago: {changes}; "
        "nothing was changed; run `runbook plan` again"
    )


def settings_differences(stored: Plan, file: Environment) -> list[str]:
    """The differences between the settings of a plan and the environment file, one sentence for each."""
    if not stored.settings:
        return []
    return frozen.differences(stored.settings, file, keeper="the plan", keeps="has")


def differences(stored: Plan, now: Plan) -> Iterator[str]:
    """The differences between a plan from the ledger and one made *now*, one sentence for each."""
    if now.refusal:
        yield now.refusal
    if now.from_revision and stored.from_revision != now.from_revision:
        yield f"the hosts run {short(now.from_revision)} now, they ran {short(stored.from_revision)}"
    yield from _hosts({host.name for host in stored.hosts}, {host.name for host in now.hosts})
    before, after = {event.id for event in stored.events}, {event.id for event in now.events}
    if gone := len(before - after):
        yield f"{gone} of {len(before)} planned dead letters were handled elsewhere"
    # New dead letters do not count: a broken revision makes them all the time, and only planned ones are drained.
    # Otherwise a plan would be outdated before a person has read it.
    # In a plan with settings they are part of those, and have been compared.
    old, new = as_plain(stored.thresholds), as_plain(now.thresholds)
    for name in sorted(old):
        if old[name] != new[name]:
            yield f"gate.{name} is {new[name]} now, it was {old[name]}"


def _hosts(before: set[str], after: set[str]) -> Iterator[str]:
    if new := sorted(after - before):
        yield f"{', '.join(new)} is not in the plan"
    if missing := sorted(before - after):
        yield f"{', '.join(missing)} is in the plan, but could not be inspected"
