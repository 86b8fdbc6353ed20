"""What people decided about plans that wait for approval, and the freezes and promotions that they have overridden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, remembered_yes, transaction
from handlers.environment.people import key_of
from handlers.release.approval import Given
from handlers.release.override import PlannedOverride

SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Override:
    """A freeze, or a missing promotion, that a person has overridden for a release."""

    what: str
    """What kept it from starting, as it was told."""
    person: str
    account: str
    by_right: str
    reason: str
    given_at: datetime

    @property
    def sentence(self) -> str:
        """For the status view and the report."""
        return f'{self.person} ({self.by_right}) starts it although {self.what}: "{self.reason}"'


async def give(
    tx: AsyncConnection,
    release_id: str,
    *,
    person: str,
    account: str,
    way: str,
    plan_hash: str,
    is_yes: bool,
    starts: bool,
    reason: str,
) -> bool:
    """Record what a person decides. False when this person has decided the same before."""
    values = {
        "release_id": release_id,
        "person_key": key_of(person),
        "person": clean(person),
        "account": clean(account),
        "way": way,
        "plan_hash": plan_hash,
        "is_yes": is_yes,
        "starts": starts,
        "reason": clean(reason),
    }
    return (await tx.execute(SQL["give"], values)).one_or_none() is not None


async def given(bind: Bind, release_id: str) -> list[Given]:
    """Everything that people have decided about this release, in order."""
    return (await of_releases(bind, [release_id])).get(release_id, [])


async def of_releases(bind: Bind, release_ids: Sequence[str]) -> dict[str, list[Given]]:
    """The same of several releases; one without a decision is missing."""
    found: dict[str, list[Given]] = {}
    async with transaction(bind) as tx:
        if not await _are_there(tx):
            return found
        for row in await tx.execute(SQL["given"], {"release_ids": list(release_ids)}):
            found.setdefault(row.release_id, []).append(_given(row))
    return found


async def expired(bind: Bind, environment: str) -> list[str]:
    """The plans that waited too long, by id."""
    async with transaction(bind) as tx:
        return [row.id for row in await tx.execute(SQL["expired"], {"environment": environment})]


async def override(tx: AsyncConnection, release_id: str, overrides: Sequence[PlannedOverride]) -> None:
    """Record what a person overrides with the request of this release."""
    for each in overrides:
        values = {
            "what": each.what,
            "person": clean(each.person),
            "account": clean(each.account),
            "by_right": each.by_right,
            "reason": clean(each.reason),
        }
        await tx.execute(SQL["override"], {"release_id": release_id, **values})


async def overrides(bind: Bind, release_id: str) -> list[Override]:
    """What was overridden for this release."""
    async with transaction(bind) as tx:
        if not await _are_there(tx):
            return []
        rows = await tx.execute(SQL["overrides"], {"release_id": release_id})
        return [Override(**row._mapping) for row in rows]


async def _are_there(tx: AsyncConnection) -> bool:
    return await remembered_yes(tx, "approvals", SQL["is_there"])


def _given(row: Row[Any]) -> Given:
    values = dict(row._mapping)
    del values["release_id"]
    return Given(**values)
