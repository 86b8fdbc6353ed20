"""Drift: what has changed on hosts, queue and settings since a plan was made. Checked before an older plan runs."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.core import Core
from handlers.database import clock
from handlers.database.jsonable import as_plain
from handlers.environment import frozen
from handlers.environment.freezes import Action
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.phases import moved
from handlers.phases.clock_checks import find_wrong_clocks
from handlers.phases.plan import make_plan
from handlers.phases.start_rules import not_proven_now
from handlers.release import approval, freeze
from handlers.release.ledger import approvals, releases
from handlers.release.note import PhaseNote
from handlers.release.override import OverrideRequest
from handlers.release.phase import Phase, Release, short
from handlers.release.planned import Plan, kind_of
from handlers.status.wrapping import age

FRESH_SECONDS = 60
"""A younger plan is not checked again, to save time, unless it has waited for an approval."""
GONE_PERCENT_MAX = 10.0
"""So many of its dead letters may be handled elsewhere while a plan waits for approval: healing goes on."""


async def since_planned(core: Core, release: Release) -> str:
    """What has changed since *release* was planned, as a sentence; empty when nothing has, or the plan is fresh.

    For a release that has not started: its process died, or its approval took long.
    """
    # The plan may have been made by another process on another machine, and a clock may have been set since.
    if wrong := await find_wrong_clocks(core):
        return f"{wrong}; nothing was changed"
    stored = await releases.plan(core.database, release.id)
    now = await clock.now(core.database)
    seconds = (now - (stored.looked_at or release.created_at)).total_seconds()
    file = await last_good(release.environment)
    # A freeze is never older than now: one that has begun since counts, also for a fresh plan.
    action = Action(kind_of(stored.scope))
    told = [each.what for each in await approvals.overrides(core.database, release.id)]
    if active := freeze.not_overridden(file.freeze, action, now, told):
        sentences = "; ".join(each.sentence for each in active)
        return f"{sentences}; nothing was changed; run `runbook plan` again afterwards"
    request = _override(stored)
    if action is Action.RELEASE and (
        why := await not_proven_now(file, release.to_revision, told, request, stored.pull_request)
    ):
        return f"{why}; nothing was changed; run `runbook plan` again afterwards"
    # The file is compared also with a fresh plan: this takes no time, and nothing has started.
    changes = "; ".join(settings_differences(stored, file))
    # A plan from the future was made before the database's clock was set back: its age is unknown.
    is_asked = approval.is_asked(stored)
    if not changes and (is_asked or not 0 <= seconds < FRESH_SECONDS):
        # By its commit: new commits on the branch do not change what was planned.
        revision = release.to_revision if Phase.DEPLOYING in stored.scope else None
        made = await make_plan(
            core,
            revision,
            stored.scope,
            left_by=stored.left_by,
            only=stored.only,
            override=request,
        )
        found = [
            *differences(stored, made, gone_percent=GONE_PERCENT_MAX if is_asked else 0.0),
            await moved.released_between(core, release, stored.looked_at or release.created_at),
        ]
        # Only where nothing else has changed: it asks a host once more.
        changes = "; ".join(filter(None, found)) or await moved.renamed(core, stored)
        if not changes and (gone := _gone(stored, made)):
            looked = f"{gone} of {len(stored.events)} planned dead letters were handled elsewhere, the others remain"
            await releases.note(core.database, release, PhaseNote(looked=looked))
    if not changes:
        return ""
    return (
        f"plan {stored.hash} is outdated, it was made {age(seconds)} ago: {changes}; "
        "nothing was changed; run `runbook plan` again"
    )


def _override(stored: Plan) -> OverrideRequest | None:
    """Whoever overrides a rule with this plan: by the rights of now."""
    if not stored.overrides:
        return None
    first = stored.overrides[0]
    rules = frozenset(each.of for each in stored.overrides)
    return OverrideRequest(person=first.person, reason=first.reason, account=first.account, of=rules)


def settings_differences(stored: Plan, file: Environment) -> list[str]:
    """The differences between the settings of a plan and the environment file, one sentence for each."""
    if not stored.settings:
        return []
    return frozen.differences(stored.settings, file, keeper="the plan", keeps="has")


def differences(stored: Plan, now: Plan, *, gone_percent: float = 0.0) -> Iterator[str]:
    """The differences between a plan from the ledger and one made *now*, one sentence for each.

    So many percent of its dead letters may have been handled elsewhere: the drain leaves them out.
    """
    if now.refusal:
        yield now.refusal
    if now.from_revision and stored.from_revision != now.from_revision:
        yield f"the hosts run {short(now.from_revision)} now, they ran {short(stored.from_revision)}"
    yield from _hosts({host.name for host in stored.hosts}, {host.name for host in now.hosts})
    gone = _gone(stored, now)
    if 100 * gone > gone_percent * len(stored.events):
        yield f"{gone} of {len(stored.events)} planned dead letters were handled elsewhere"
    # New dead letters do not count: a broken revision makes them all the time, and only planned ones are drained.
    # Otherwise a plan would be outdated before a person has read it.
    # In a plan with settings they are part of those, and have been compared.
    old, new = as_plain(stored.thresholds), as_plain(now.thresholds)
    for name in sorted(old):
        if old[name] != new[name]:
            yield f"gate.{name} is {new[name]} now, it was {old[name]}"


def _gone(stored: Plan, now: Plan) -> int:
    """How many planned dead letters are none any more."""
    return len({event.id for event in stored.events} - {event.id for event in now.events})


def _hosts(before: set[str], after: set[str]) -> Iterator[str]:
    if new := sorted(after - before):
        yield f"{', '.join(new)} is not in the plan"
    if missing := sorted(before - after):
        yield f"{', '.join(missing)} is in the plan, but could not be inspected"
