"""Steps that put a release into a state in one line."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release


async def begun(engine: AsyncEngine, environment: str = "staging") -> Release:
    """A planned release."""
    plan: Mapping[str, object] = {"hosts": ["web-1", "web-2"]}
    return await releases.begin(
        engine,
        environment=environment,
        from_revision="a" * 40,
        to_revision="b" * 40,
        requested_by="ops-a",
        plan=plan,
        plan_hash="7be1",
        speed=1.0,
    )


async def locked(engine: AsyncEngine, release: Release, holder: str = "ops-a:1") -> Release:
    """The release with the lock of its environment."""
    await lock.take(engine, release.environment, release.id, holder)
    return await releases.get(engine, release.id)


async def deploying(engine: AsyncEngine, environment: str = "staging") -> Release:
    """A release that changes hosts."""
    release = await releases.enter(engine, await begun(engine, environment), Phase.APPROVED)
    return await releases.enter(engine, await locked(engine, release), Phase.DEPLOYING)
