"""What has happened to an environment between a plan and its start that the plan's own checks do not see."""

from __future__ import annotations

from datetime import datetime

from handlers.core import Core
from handlers.errors import Refused, RunbookError
from handlers.host.facts import count_between, resolve
from handlers.host.ssh import Shell, open_hosts
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, short
from handlers.release.planned import Plan

LOOK_BACK = 50
"""So many releases are looked through for one in between."""


async def released_between(core: Core, release: Release, since: datetime) -> str:
    """Another release that has changed the hosts since the plan was made; empty when there was none.

    What runs may be the same again, after a rollback: the plan was made for what was there before.
    """
    for other in await releases.history(core.database, release.environment, limit=LOOK_BACK):
        deploys = other.from_revision != other.to_revision and other.token is not None
        never_ran = other.phase in (Phase.REFUSED, Phase.ABORTED)
        ended_before = other.finished_at is not None and other.finished_at <= since
        if other.id != release.id and deploys and not never_ran and not ended_before:
            return f"release {other.id} ({short(other.to_revision)}) ran in between: it is {other.phase}"
    return ""


async def renamed(core: Core, plan: Plan) -> str:
    """What the name of the revision means now, if that is no later commit than the planned one; empty otherwise.

    A branch that has new commits still contains what was planned, which is what is deployed. A tag that was moved, or a
    branch that was forced, does not.
    """
    if Phase.DEPLOYING not in plan.scope or plan.to_revision.startswith(plan.requested):
        return ""
    async with open_hosts(core.environment, connected=False) as shells:
        shell = await first_reachable(shells)
        if shell is None:
            return ""
        try:
            now = await resolve(shell, plan.requested)
        except Refused as error:
            return f"{plan.requested} is not what it was: {error}"
        if now == plan.to_revision:
            return ""
        lost, _ = await count_between(shell, plan.to_revision, now)
    if lost:
        return f"{plan.requested} is {short(now)} now, which does not contain {short(plan.to_revision)}"
    return ""


async def first_reachable(shells: list[Shell]) -> Shell | None:
    """The first host that can be reached, connected; None when none can be."""
    for shell in shells:
        try:
            await shell.connect()
        except RunbookError:
            continue
        return shell
    return None
