"""Steps that put a release into a state in one line."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.gate.values import Thresholds
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import LIVE, NEXT, Phase, Release, Verdict
from handlers.release.planned import EVERYTHING, Plan


def plan_of(environment: str = "staging", to_revision: str = "b" * 40) -> Plan:
    """A plan that every check was content with."""
    return Plan(
        environment=environment,
        requested=to_revision,
        from_revision="a" * 40,
        to_revision=to_revision,
        scope=EVERYTHING,
        commits=(),
        hosts=(),
        events=(),
        set_aside={},
        queue={},
        failed={},
        checks=(),
        thresholds=Thresholds(),
        baseline=None,
        seconds_expected=1,
    )


async def begun(engine: AsyncEngine, environment: str = "staging") -> Release:
    """A planned release."""
    return await releases.begin(engine, plan=plan_of(environment), requested_by="ops-a")


async def locked(engine: AsyncEngine, release: Release, holder: str = "ops-a:1") -> Release:
    """The release with the lock of its environment."""
    await lock.take(engine, release.environment, release.id, holder)
    return await releases.get(engine, release.id)


async def deploying(
    engine: AsyncEngine, environment: str = "staging", *, release: Release | None = None
) -> Release:
    """A release that changes hosts: a new one, or a planned *release*."""
    release = await releases.enter(engine, release or await begun(engine, environment), Phase.APPROVED)
    return await releases.enter(engine, await locked(engine, release), Phase.DEPLOYING)


async def in_phase(engine: AsyncEngine, phase: Phase, environment: str = "staging") -> Release:
    """A release in *phase*, on the shortest way there without a hold; while it is live its controller has the lock."""
    ways: dict[Phase, list[Phase]] = {Phase.PLANNED: []}
    for at in (reached := [Phase.PLANNED]):
        for to in sorted(NEXT[at] - ways.keys() - ({Phase.HELD} if phase is not Phase.HELD else set())):
            ways[to] = [*ways[at], to]
            reached.append(to)
    release = await begun(engine, environment)
    for to in ways[phase]:
        if release.token is None and to in LIVE:
            release = await locked(engine, release)
        release = await releases.enter(engine, release, to, verdict=Verdict.PASS)
    return release
