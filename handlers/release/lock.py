"""The lock of an environment: who may change it, until when, and the fencing token that every host checks.

Times are the database's. Whoever takes the lock gets a higher token than anyone before, and a holder whose
token has been passed finds out at the next write: LockLost, stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import LockLost, Refused

SQL = queries(__name__)
TTL_SECONDS = 60.0
"""A holder that gives no sign of life for so long is taken for dead."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds an environment's lock, and when it was last heard of."""

    environment: str
    release_id: str
    name: str
    token: int
    taken_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    silent_seconds: float
    alive: bool
    """False when the time has run out: the next one may simply take it."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Holder:
        """From the query `holder`."""
        values = dict(row._mapping)
        return cls(name=values.pop("holder"), **values)


async def take(bind: Bind, environment: str, release_id: str, holder: str, ttl: float = TTL_SECONDS) -> int:
    """Take the lock for a release and return its token, which the release's row then carries as well.

    *holder* names one process: the same one may take again, for a new token. Refused while another lives.
    """
    async with transaction(bind) as tx:
        token = await _take(tx, environment, release_id, holder, ttl, by_force=False)
        if token is None:
            raise Refused(held(await _holder(tx, environment), environment))
        return token


async def steal(
    bind: Bind, environment: str, release_id: str, holder: str, *, reason: str, ttl: float = TTL_SECONDS
) -> int:
    """Take the lock away from whoever has it, and keep who did so and why. The former one is fenced off."""
    if not reason.strip():
        raise Refused("taking over the lock needs a reason: it stays in the ledger")
    async with transaction(bind) as tx:
        former = await _holder(tx, environment)
        token = await _take(tx, environment, release_id, holder, ttl, by_force=True)
        if token is None:
            raise RuntimeError("the lock was taken by force and yet not taken")
        await tx.execute(
            SQL["record_takeover"],
            {
                "environment": environment,
                "release_id": release_id,
                "former_holder": former.name if former else "",
                "holder": clean(holder),
                "token": token,
                "reason": clean(reason),
            },
        )
        return token


async def renew(bind: Bind, environment: str, token: int, ttl: float = TTL_SECONDS) -> None:
    """Give a sign of life. LockLost when somebody else has the lock by now."""
    async with transaction(bind) as tx:
        row = await tx.execute(SQL["renew"], {"environment": environment, "token": token, "ttl": float(ttl)})
        if row.one_or_none() is None:
            raise LockLost(_lost(await _holder(tx, environment), environment, token))


async def free(bind: Bind, environment: str, token: int) -> bool:
    """Give the lock back; False when it was no longer ours, which harms nobody."""
    async with transaction(bind) as tx:
        row = await tx.execute(SQL["free"], {"environment": environment, "token": token})
        return row.one_or_none() is not None


async def holder(bind: Bind, environment: str) -> Holder | None:
    """Who holds the lock, dead or alive; None when it is free."""
    async with transaction(bind) as tx:
        return await _holder(tx, environment)


async def fence(tx: AsyncConnection, environment: str, token: int | None) -> None:
    """Let the transaction go on only while *token* is the lock's; a take-over waits until it has ended."""
    if token is None:
        raise Refused(f"{environment} is not locked for this release: take its lock before changing anything")
    row = await tx.execute(SQL["fence"], {"environment": environment, "token": token})
    if row.one_or_none() is None:
        raise LockLost(_lost(await _holder(tx, environment), environment, token))


async def _take(
    tx: AsyncConnection, environment: str, release_id: str, holder: str, ttl: float, *, by_force: bool
) -> int | None:
    whose = {"environment": environment, "release_id": release_id}
    if (await tx.execute(SQL["hold_release"], whose)).one_or_none() is None:
        raise Refused(f"there is no release {release_id} in {environment}: `runbook history` lists them")
    token: int | None = (
        await tx.execute(
            SQL["take"], {**whose, "holder": clean(holder), "ttl": float(ttl), "by_force": by_force}
        )
    ).scalar_one_or_none()
    if token is not None:
        await tx.execute(SQL["give_token"], {**whose, "token": token})
    return token


async def _holder(tx: AsyncConnection, environment: str) -> Holder | None:
    row = (await tx.execute(SQL["holder"], {"environment": environment})).one_or_none()
    return Holder.from_row(row) if row else None


def held(now: Holder | None, environment: str) -> str:
    """Who holds the lock, in a sentence that says what to do."""
    if now is None:
        return f"the lock of {environment} was free again a moment later: try once more"
    since = now.taken_at.astimezone(UTC).strftime("%H:%M")
    return (
        f"{environment} is locked by {now.name} for release {now.release_id} since {since} UTC "
        f"(renewed {now.silent_seconds:.0f} s ago, token {now.token}): wait until it is done "
        "or its lock runs out, or take it over with a reason (runbook resume --take-over REASON)"
    )


def _lost(now: Holder | None, environment: str, token: int) -> str:
    if now is None or now.token == token:
        return f"the lock of {environment} with token {token} was given back: take it again before going on"
    return (
        f"{now.name} has taken the lock of {environment} (token {now.token}, ours was {token}) "
        f"for release {now.release_id}: this controller must stop"
    )
