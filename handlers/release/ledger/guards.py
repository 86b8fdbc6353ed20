"""The guard of a release: its checks after the end, as rows that become due, and who takes them.

A taker claims a guard for a while. A claim that expires is free, and whoever held it is fenced off by its number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, remembered_yes, transaction
from handlers.environment.day_after import Guard as Settings
from handlers.errors import LockLost, Refused
from handlers.gate.values import Finding
from handlers.release.phase import Phase, Release

SQL = queries(__name__)

log = logging.getLogger(__name__)

CLAIM_SECONDS = 180.0
"""A taker that was killed has the checks for so long. A check ends sooner."""


class Kind(StrEnum):
    """What a check does."""

    LOOK = "look"
    REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The guard of one release."""

    release_id: str
    environment: str
    begun_at: datetime
    until: datetime
    """When its last check is due."""
    pages_only_by: str
    """The person who has taken the rollback over; empty where a breach takes the release back."""
    pages_only: str
    """Why."""
    ended_at: datetime | None
    ended_by: str
    ended: str
    """Why it has ended."""
    claimed_by: str
    is_claimed: bool
    """Whether somebody takes checks now."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Guard:
        """From the query `get`."""
        return cls(**{**row._mapping, "is_claimed": bool(row.is_claimed)})


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: due, taken or skipped."""

    id: int
    release_id: str
    number: int
    kind: Kind
    due_at: datetime
    taken_at: datetime | None
    skipped: bool
    """Whether nobody takes it: another check stands for it, or the guard has ended."""
    finding: Finding | None
    sentence: str
    measurements: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_row(cls, row: Row[Any]) -> Check:
        """From the query `checks`."""
        return cls(
            **{
                **row._mapping,
                "kind": Kind(row.kind),
                "finding": Finding(row.finding) if row.finding else None,
                "measurements": tuple(json.loads(row.measurements)),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to take the checks of a guard."""

    release_id: str
    number: int


async def follow(tx: AsyncConnection, before: Phase, release: Release) -> None:
    """Begin or end guards, in the transaction in which *release* has left the phase *before*.

    A release that succeeds is guarded. Its own way back, and a newer release that has changed hosts, end that.
    """
    if release.from_revision == release.to_revision or not await _are_there(tx):
        return
    if release.phase is Phase.SUCCEEDED:
        await _begin(tx, release)
    elif before is Phase.SUCCEEDED:
        await end(tx, release.id, sentence=f"the release goes back: {release.reason}")
    elif release.phase in (Phase.PROBING, Phase.ROLLING_BACK):
        # A deploy that is refused has changed nothing, so it ends nobody's guard.
        former = (
            await tx.execute(SQL["former"], {"environment": release.environment, "release_id": release.id})
        ).scalars()
        for id_ in list(former):
            await end(tx, id_, sentence=f"release {release.id} has changed the hosts")


async def end(bind: Bind, release_id: str, *, sentence: str, by: str = "") -> bool:
    """End a guard, and skip what is left of it. False when it has ended before."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["lock_release"], {"release_id": release_id})
        values = {"release_id": release_id, "by": clean(by), "sentence": clean(sentence)}
        if (await tx.execute(SQL["end"], values)).one_or_none() is None:
            return False
        await tx.execute(
            SQL["skip_open"], {"release_id": release_id, "sentence": f"not taken: {clean(sentence)}"}
        )
        return True


async def stop(bind: Bind, release_id: str, *, by: str, reason: str) -> None:
    """A person ends the guard. Raises Refused without a reason, or where there is none to end."""
    if not reason.strip():
        raise Refused("ending a guard needs a reason: the ledger keeps it")
    if not await end(bind, release_id, by=by, sentence=f"stopped by {by}: {reason}"):
        raise await _none_open(bind, release_id)


async def page_only(bind: Bind, release_id: str, *, by: str, reason: str) -> None:
    """A person takes the rollback over: the checks go on, and a breach only pages. Raises Refused as `stop` does."""
    if not reason.strip():
        raise Refused("taking the rollback over needs a reason: the ledger keeps it")
    async with transaction(bind) as tx:
        values = {"release_id": release_id, "by": clean(by), "reason": clean(reason)}
        if (await tx.execute(SQL["page_only"], values)).one_or_none() is None:
            raise await _none_open(tx, release_id)


async def get(bind: Bind, release_id: str) -> Guard | None:
    """The guard of a release; None where it has none."""
    async with transaction(bind) as tx:
        if not await _are_there(tx):
            return None
        row = (await tx.execute(SQL["get"], {"release_id": release_id})).one_or_none()
        return Guard.from_row(row) if row else None


async def settings_of(tx: AsyncConnection, release: Release) -> Settings:
    """The guard's settings of a release, as they were frozen with its plan."""
    stored = (await tx.execute(SQL["settings"], {"release_id": release.id})).scalar_one()
    return _settings(json.loads(stored) if stored else {})


async def newest(bind: Bind, environment: str) -> str | None:
    """The id of the release that was guarded last in this environment."""
    async with transaction(bind) as tx:
        id_: str | None = (await tx.execute(SQL["newest"], {"environment": environment})).scalar_one_or_none()
        return id_


async def checks(bind: Bind, release_id: str) -> list[Check]:
    """The checks of a release, in the order of their times."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["checks"], {"release_id": release_id})
        return [Check.from_row(row) for row in rows]


async def open_guards(bind: Bind, environment: str) -> dict[str, bool]:
    """The guarded releases of an environment, the oldest first, and whether a check of each is due."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["open"], {"environment": environment})
        return {row.release_id: row.is_due for row in rows}


async def claim(bind: Bind, release_id: str, *, by: str, seconds: float = CLAIM_SECONDS) -> Claim | None:
    """Claim the checks of a guard; None where none is due, or another taker has them."""
    async with transaction(bind) as tx:
        values = {"release_id": release_id, "by": clean(by), "seconds": float(seconds)}
        number = (await tx.execute(SQL["claim"], values)).scalar_one_or_none()
        return Claim(release_id=release_id, number=number) if number is not None else None


async def fence(tx: AsyncConnection, claim: Claim) -> None:
    """Check that the claim is still ours, and keep it so until the transaction ends.

    Raises LockLost when it has expired, or when the guard has ended.
    """
    await tx.execute(SQL["lock_release"], {"release_id": claim.release_id})
    values = {"release_id": claim.release_id, "claim": claim.number}
    if (await tx.execute(SQL["fence"], values)).one_or_none() is None:
        raise LockLost(
            f"the guard of release {claim.release_id} has ended, or another taker has its checks now"
        )


async def free(bind: Bind, claim: Claim) -> None:
    """Give a claim back."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["free"], {"release_id": claim.release_id, "claim": claim.number})


async def take(
    tx: AsyncConnection,
    check: Check,
    *,
    finding: Finding | None,
    sentence: str,
    measurements: Sequence[object] = (),
) -> None:
    """Write down what a check has found."""
    values = {
        "id": check.id,
        "finding": finding,
        "sentence": clean(sentence),
        "measurements": as_json(list(measurements)),
    }
    (await tx.execute(SQL["take"], values)).one()


async def skip(tx: AsyncConnection, skipped: Collection[Check], sentence: str) -> None:
    """Mark checks that another one stands for."""
    await tx.execute(SQL["skip"], {"ids": [check.id for check in skipped], "sentence": clean(sentence)})


async def _are_there(tx: AsyncConnection) -> bool:
    """Whether the ledger has guards."""
    return await remembered_yes(tx, "guards", SQL["is_there"])


async def _begin(tx: AsyncConnection, release: Release) -> None:
    settings = await settings_of(tx, release)
    if not settings.active:
        return
    due_after = [seconds / release.speed for seconds in settings.due_after()]
    await tx.execute(SQL["begin"], {"release_id": release.id, "seconds": due_after[-1]})
    kinds = [Kind.LOOK] * len(due_after) + [Kind.REPORT] * settings.report
    seconds = due_after + due_after[-1:] * settings.report
    await tx.execute(SQL["begin_checks"], {"release_id": release.id, "kinds": kinds, "seconds": seconds})


def _settings(stored: Mapping[str, Any]) -> Settings:
    """The settings of the plan. What only another version of the program knows does not keep a release from its end."""
    try:
        return Settings.model_validate({key: stored[key] for key in Settings.model_fields if key in stored})
    except ValidationError as error:
        log.warning("the guard's settings in the plan cannot be used, the defaults hold: %s", error)
        return Settings()


async def _none_open(bind: Bind, release_id: str) -> Refused:
    found = await get(bind, release_id)
    if found is None:
        return Refused(f"release {release_id} has no guard: only a deploy that succeeded has one")
    return Refused(f"the guard of release {release_id} has ended: {found.ended}")
