"""A person holds a release: its living controller is asked, and one that nobody carries is held at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import open_core
from handlers.environment.load import env_option
from handlers.errors import Refused
from handlers.phases import begin
from handlers.release import due, lock
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.ledger import requests
from handlers.release.phase import Phase, Release
from handlers.release.settings import environment_of

SEEN_SECONDS = 5.0
"""A living controller reads requests every second."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Held:
    """What came of it."""

    release_id: str
    sentence: str


async def is_carried(database: AsyncEngine, run: Release) -> bool:
    """Whether a living controller runs this release. Raises Refused when one runs another release here."""
    holder = await lock.holder(database, run.environment)
    if holder is None or not holder.alive:
        return False
    if holder.release_id != run.id:
        raise Refused(lock.locked_message(holder, run.environment))
    return True


async def hold(database: AsyncEngine, environment: str, release_id: str, *, by: str, reason: str) -> Held:
    """Hold the release that a person sees. Its controller holds a deploy before its next group of hosts.

    Raises Refused when another release has begun since, or when there is nothing to hold.
    """
    run = await due.unfinished(database, environment)
    if run.id != release_id:
        raise Refused(f"release {release_id} is not what runs now: it is {run.id}, {run.phase}")
    raise_unless_allowed(Verb.HOLD, run)
    if not await is_carried(database, run):
        async with open_core(await environment_of(run), speed=run.speed) as core:
            held = await begin.hold(core, run, by=by, reason=reason)
        return Held(release_id=run.id, sentence=f"release {held.id} is held: {held.reason}")
    request_id = await requests.ask(database, run, Verb.HOLD, by=by, reason=reason)
    deadline = monotonic() + SEEN_SECONDS
    while (await requests.get(database, request_id)).seen_at is None:
        if monotonic() > deadline:
            sentence = (
                f"the request is in the ledger, and the controller has not read it for {SEEN_SECONDS:.0f} s; "
                f"if it stays so, `runbook resume {env_option(environment)} --take-over REASON` takes its lock"
            )
            return Held(release_id=run.id, sentence=sentence)
        await asyncio.sleep(_POLL_SECONDS)
    group = " before its next group of hosts" if run.phase is Phase.DEPLOYING else ""
    return Held(
        release_id=run.id, sentence=f"its controller has read the request, and holds release {run.id}{group}"
    )
