"""What nobody looks after: a release that nobody carries, and checks of a guard that nobody takes.

Each timer looks for what the others should have done, so that one that has stopped is noticed.
"""

from __future__ import annotations

from datetime import timedelta

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import Bind
from handlers.notify.tell import tell
from handlers.release import due
from handlers.release.due import Care
from handlers.release.ledger import guards, releases
from handlers.release.topic import Topic
from handlers.status.guard_step import uncarried

AFTER = timedelta(minutes=3)
"""A release that is due for so long is carried by nobody: the timers come each minute. Real time."""


async def uncarried_release(bind: Bind, environment: str) -> Care | None:
    """The release that is due for minutes and that nobody carries; None where there is none. Raises DatabaseDown."""
    care = await due.find(bind, environment)
    if care is None or not care.due or care.at is None:
        return None
    since = care.due_at or care.since
    return care if since is not None and care.at - since >= AFTER else None


async def tell_neglected(core: Core) -> None:
    """Tell people of what nobody looks after, once for each outage. Raises DatabaseDown."""
    name = core.environment.name
    care = await uncarried_release(core.database, name)
    if care is not None:
        sentence = f"it is {care.release.phase}, and due: {care.sentence}"
        await tell(core, care.release, Topic.UNCARRIED, sentence, once=True)
    guarded = await guards.newest(core.database, name)
    guard = await guards.get(core.database, guarded) if guarded is not None else None
    if guard is None or guarded is None or guard.ended_at is not None:
        return
    checks = await guards.checks(core.database, guarded)
    if sentence := uncarried(guard, checks, await clock.now(core.database)):
        run = await releases.get(core.database, guarded)
        await tell(core, run, Topic.GUARD_OVERDUE, sentence, once=True)
