"""The lock of an environment: its holder, its expiry, and the fencing token that every host checks.

Times are the database's. Each taking of the lock gets a higher token. A holder with an old token gets LockLost at its
next write, and must stop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Locked, LockLost, Refused
from handlers.release.controller import Controller, this_controller

SQL = queries(__name__)
TTL_SECONDS = 60.0
"""The lock expires when its holder does not renew it for so long."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The holder of an environment's lock, and when it last renewed the lock."""

    environment: str
    release_id: str
    name: str
    token: int
    taken_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    silent_seconds: float
    has_ended: bool
    """Its process ran on this machine and has ended, which another machine cannot know."""
    is_ours: bool
    """Its process is this one."""
    alive: bool
    """False when the lock has expired or its process has ended: another controller may take it without force."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Holder:
        """From the query `holder`."""
        values = dict(row._mapping)
        name, stored = values.pop("holder"), values.pop("process")
        controller = Controller.from_json(json.loads(stored) if stored else None, name)
        has_ended = controller is not None and controller.has_ended()
        return cls(
            name=name,
            has_ended=has_ended,
            is_ours=controller is not None and controller == this_controller(),
            alive=values.pop("is_valid") and not has_ended,
            **values,
        )


async def take(
    bind: Bind,
    environment: str,
    release_id: str,
    holder: str,
    ttl: float = TTL_SECONDS,
    *,
    controller: Controller | None = None,
) -> int:
    """Take the lock for a release and return its token, which is stored in the release's row as well.

    *holder* names one process, and *controller* tells it from all others. It may take its own lock again, for a new
    token. The lock of a process that ended on this machine is free. Raises Locked while another controller holds it.
    """
    async with transaction(bind) as tx:
        token = await _take(
            tx, environment, release_id, holder, ttl=ttl, controller=controller, by_force=False
        )
        if token is None:
            present = await _holder(tx, environment)
            message = locked_message(present, environment)
            raise Locked(message, release_id=present.release_id if present else None)
        return token


async def take_over(
    bind: Bind,
    environment: str,
    release_id: str,
    holder: str,
    *,
    reason: str,
    ttl: float = TTL_SECONDS,
    controller: Controller | None = None,
) -> int:
    """Take the lock from a live controller, and record the reason. The previous holder is fenced off.

    Raises Refused without a reason.
    """
    if not reason.strip():
        raise Refused("taking over the lock needs a reason: the ledger keeps it")
    async with transaction(bind) as tx:
        previous = await _holder(tx, environment)
        token = await _take(
            tx, environment, release_id, holder, ttl=ttl, controller=controller, by_force=True
        )
        if token is None:
            raise RuntimeError("the lock could not be taken by force")
        await tx.execute(
            SQL["record_takeover"],
            {
                "environment": environment,
                "release_id": release_id,
                "former_holder": previous.name if previous else "",
                "holder": clean(holder),
                "token": token,
                "reason": clean(reason),
            },
        )
        return token


async def renew(bind: Bind, environment: str, token: int, ttl: float = TTL_SECONDS) -> None:
    """Extend the lock by *ttl* seconds. Raises LockLost when another controller has taken it."""
    async with transaction(bind) as tx:
        row = await tx.execute(SQL["renew"], {"environment": environment, "token": token, "ttl": float(ttl)})
        if row.one_or_none() is None:
            raise LockLost(_lost_message(await _holder(tx, environment), environment, token))


async def free(bind: Bind, environment: str, token: int) -> bool:
    """Release the lock. False if it was lost already; that is harmless."""
    async with transaction(bind) as tx:
        row = await tx.execute(SQL["free"], {"environment": environment, "token": token})
        return row.one_or_none() is not None


async def holder(bind: Bind, environment: str) -> Holder | None:
    """The holder of the lock, also after its expiry; None when the lock is free."""
    async with transaction(bind) as tx:
        return await _holder(tx, environment)


async def last_sign(bind: Bind, environment: str, token: int) -> datetime | None:
    """When the controller with this *token* renewed or released the lock last; None after a later one took it."""
    async with transaction(bind) as tx:
        row = await tx.execute(SQL["last_sign"], {"environment": environment, "token": token})
        sign: datetime | None = row.scalar_one_or_none()
        return sign


async def fence(tx: AsyncConnection, environment: str, token: int | None) -> None:
    """Check that *token* is the lock's, and block take-overs until the transaction ends.

    Raises LockLost when it is not, and Refused when the release has no token yet.
    """
    if token is None:
        raise Refused(f"{environment} is not locked for this release: take its lock before any change")
    row = await tx.execute(SQL["fence"], {"environment": environment, "token": token})
    if row.one_or_none() is None:
        raise LockLost(_lost_message(await _holder(tx, environment), environment, token))


async def _take(
    tx: AsyncConnection,
    environment: str,
    release_id: str,
    holder: str,
    *,
    ttl: float,
    controller: Controller | None,
    by_force: bool,
) -> int | None:
    target = {"environment": environment, "release_id": release_id}
    if (await tx.execute(SQL["lock_release"], target)).one_or_none() is None:
        raise Refused(f"there is no release {release_id} in {environment}: `runbook history` lists them")
    present = await _holder(tx, environment)
    values = {
        **target,
        "holder": clean(holder),
        "process": as_json(controller.as_json()) if controller is not None else None,
        "ttl": float(ttl),
        "by_force": by_force,
        # By its token: had another process taken the lock meanwhile, the token would be another one.
        "ended_token": present.token if present is not None and present.has_ended else None,
    }
    token: int | None = (await tx.execute(SQL["take"], values)).scalar_one_or_none()
    if token is not None:
        await tx.execute(SQL["give_token"], {**target, "token": token})
    return token


async def _holder(tx: AsyncConnection, environment: str) -> Holder | None:
    row = (await tx.execute(SQL["holder"], {"environment": environment})).one_or_none()
    return Holder.from_row(row) if row else None


def locked_message(holder: Holder | None, environment: str) -> str:
    """Who has locked the environment, and what the operator can do."""
    if holder is None:
        return f"the lock of {environment} was released just now: try again"
    since = holder.taken_at.astimezone(UTC).strftime("%H:%M")
    return (
        f"{environment} is locked by {holder.name} for release {holder.release_id} since {since} UTC "
        f"(renewed {holder.silent_seconds:.0f} s ago, token {holder.token}). Wait until it has ended, "
        "or take the lock over with `runbook resume --take-over REASON`"
    )


def _lost_message(holder: Holder | None, environment: str, token: int) -> str:
    if holder is None or holder.token == token:
        return f"the lock of {environment} with token {token} was released: take it again before any change"
    return (
        f"{holder.name} has taken the lock of {environment} (token {holder.token}, ours was {token}) "
        f"for release {holder.release_id}: this controller must stop"
    )
