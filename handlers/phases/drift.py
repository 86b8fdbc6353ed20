"""Is the world still the one in which a release was planned? Asked before an older plan is carried out."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.core import Core
from handlers.database.jsonable import as_plain
from handlers.phases.plan import make_plan
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, short
from handlers.release.planned import Plan

FRESH_SECONDS = 60
"""A plan that was made just now is not looked at twice: that would only cost time."""


async def since_planned(core: Core, release: Release) -> str:
    """What has moved since *release* was planned, in a sentence; empty when nothing has, or it was planned just now.

    For a release that has done nothing yet: its process died, or somebody took long to say yes.
    """
    stored = await releases.plan(core.database, release.id)
    seconds = (core.clock.now() - (stored.looked_at or release.created_at)).total_seconds()
    if seconds < FRESH_SECONDS:
        return ""
    # By its commit: a branch that has gone on meanwhile does not change what was planned.
    revision = release.to_revision if Phase.DEPLOYING in stored.scope else None
    now = await make_plan(core, revision, stored.scope, left_by=stored.left_by)
    told = "; ".join(differences(stored, now))
    if not told:
        return ""
    return (
        f"the world has moved since the plan {stored.hash} was made {seconds / 60:.0f} min ago: {told}; "
        "nothing was done, make a new plan"
    )


def differences(stored: Plan, now: Plan) -> Iterator[str]:
    """What a plan from the ledger says otherwise than one made *now*, a sentence each."""
    if now.refusal:
        yield now.refusal
    if now.from_revision and stored.from_revision != now.from_revision:
        yield f"the hosts run {short(now.from_revision)} now, they ran {short(stored.from_revision)}"
    yield from _hosts({host.name for host in stored.hosts}, {host.name for host in now.hosts})
    before, after = {event.id for event in stored.events}, {event.id for event in now.events}
    if gone := len(before - after):
        yield f"{gone} of {len(before)} planned dead letters are none any more"
    # New ones are no reason: under the revision that is to be replaced they come all the time, and exactly the planned
    # ones are drained. Else no plan that a person takes two minutes to read could ever be carried out.
    was, is_ = as_plain(stored.thresholds), as_plain(now.thresholds)
    for name in sorted(was):
        if was[name] != is_[name]:
            yield f"gate.{name} is {is_[name]} now, it was {was[name]}"


def _hosts(before: set[str], after: set[str]) -> Iterator[str]:
    if came := sorted(after - before):
        yield f"{', '.join(came)} is not in the plan"
    if gone := sorted(before - after):
        yield f"{', '.join(gone)} is in the plan and cannot be seen"
