"""How far a commit has come in one environment: released already, under way, waiting, or not begun.

A chain of environments that was broken off is begun again at the first that the commit has not passed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from handlers.core import Core
from handlers.database import migrate
from handlers.errors import Unreachable
from handlers.host.facts import resolve
from handlers.host.ssh import open_hosts
from handlers.phases import approve, promotion_check
from handlers.phases.holding import is_carried
from handlers.phases.moved import first_reachable
from handlers.release import due, promoted
from handlers.release.ledger import releases
from handlers.release.phase import FINISHED, Phase, Release, short

_WHOLE = re.compile(r"[0-9a-f]{40}")
_LOOK_BACK = 50


class Next(StrEnum):
    """What is to be done about a commit in an environment."""

    NOTHING = "nothing"
    """It has been released."""
    START = "start"
    FOLLOW = "follow"
    """A living controller carries its release."""
    CONTINUE = "continue"
    """Its release is recorded, and nobody carries it."""
    WAIT = "wait"
    """Its release waits for people, or needs their decision."""


@dataclass(frozen=True, kw_only=True)
class CommitProgress:
    """How far a commit has come in an environment."""

    next: Next
    release: Release | None = None
    """Its release; None before the start."""
    sentence: str = ""
    """Why nothing is to be done, or what is waited for. Before a start: why an earlier release does not count."""


async def commit_of(core: Core, revision: str) -> str:
    """The whole commit id of *revision*, as the first host that can be reached has fetched it.

    A whole id is itself, and no host is asked. Raises Refused where there is no such revision.
    """
    if _WHOLE.fullmatch(revision):
        return revision
    async with open_hosts(core.environment, connected=False) as shells:
        shell = await first_reachable(shells)
        if shell is None:
            raise Unreachable(
                f"no host of {core.environment.name} can be reached to say which commit {revision} is. "
                "Name the whole commit id, or try again"
            )
        return await resolve(shell, revision)


async def progress(core: Core, commit: str, *, max_age_hours: float | None) -> CommitProgress:
    """How far this whole commit id has come. *max_age_hours*: how long a release counts as a proof for the next place.

    None for the last environment of a chain: there it is enough that the commit is what was released last. Ends what
    has waited too long for an approval. Raises DatabaseDown.
    """
    name = core.environment.name
    if not await migrate.upgrade_existing(core.database):
        return CommitProgress(next=Next.START)
    await approve.end_expired(core.database, name)
    for run in await due.unfinished_releases(core.database, name):
        if run.to_revision == commit and await _deploys(core, run):
            return await _unfinished(core, run)
    if max_age_hours is None:
        last = await _last(core)
        if last is not None and last.to_revision == commit and last.phase is Phase.SUCCEEDED:
            sentence = (
                f"release {last.id} of {name} is the newest there, and has succeeded with {short(commit)}"
            )
            return CommitProgress(next=Next.NOTHING, release=last, sentence=sentence)
        return CommitProgress(next=Next.START)
    proof = await promotion_check.ask(core.environment, commit, max_age_hours)
    earlier = await releases.get(core.database, proof.release_id) if proof.release_id else None
    if proof.good:
        return CommitProgress(next=Next.NOTHING, release=earlier, sentence=proof.what)
    return CommitProgress(next=Next.START, sentence=proof.what if earlier is not None else "")


async def _unfinished(core: Core, run: Release) -> CommitProgress:
    if run.phase in FINISHED or run.phase is Phase.HELD:
        return CommitProgress(
            next=Next.WAIT, release=run, sentence=f"release {run.id} is {run.phase}: {run.reason}"
        )
    if why := await approve.why_waiting(core.database, run):
        return CommitProgress(next=Next.WAIT, release=run, sentence=why)
    carried = await is_carried(core.database, run)
    return CommitProgress(next=Next.FOLLOW if carried else Next.CONTINUE, release=run)


async def _last(core: Core) -> Release | None:
    """The newest release that deployed something, or began to."""
    for run in await releases.history(core.database, core.environment.name, limit=_LOOK_BACK):
        if run.phase not in promoted.NEVER_RAN and await _deploys(core, run):
            return run
    return None


async def _deploys(core: Core, run: Release) -> bool:
    return Phase.DEPLOYING in (await releases.plan(core.database, run.id)).scope
