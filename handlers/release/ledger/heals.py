"""Healing in the ledger: who is at it, what it has done, and each letter that it has tried."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, remembered_yes, transaction
from handlers.errors import LockLost
from handlers.gate.values import Finding
from handlers.release.ledger.dead_letters import Restorable

SQL = queries(__name__)

RETURNED = "returned"
"""The status of a letter that was not finished, and is the dead letter again that it was."""
IDS_KEPT = 1000
"""Of the events that came back from dead workers so many are named."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to heal an environment."""

    environment: str
    number: int
    by: str


@dataclass(frozen=True, kw_only=True)
class Out:
    """The batch that is out."""

    id: int
    round: int
    begun_at: datetime
    by: str
    events: int
    seconds: float
    """How long it has been out."""


@dataclass(frozen=True, kw_only=True)
class HealEvent:
    """One letter that healing has sent back. *former* has its values from before."""

    batch: int
    event_id: UUID
    entity_type: str
    source_entity_id: str
    fingerprint: str
    former: dict[str, Any]
    redriven_at: datetime
    settled_at: datetime | None
    status: str | None
    error: str | None
    counts: bool

    @classmethod
    def from_row(cls, row: Row[Any]) -> HealEvent:
        """From the query `events`."""
        return cls(**{**row._mapping, "former": json.loads(row.former)})


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A letter that goes back now."""

    entity: str
    key: str
    fingerprint: str
    former: Restorable


@dataclass(frozen=True, kw_only=True)
class Settled:
    """How a letter came to rest."""

    id: UUID
    status: str
    error: str | None = None
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Action:
    """One line of the history."""

    id: int
    kind: str
    round: int | None
    begun_at: datetime
    ended_at: datetime | None
    by: str
    events: int
    completed: int | None
    failed: int | None
    returned: int | None
    finding: Finding | None
    sentence: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Action:
        """From the query `history`."""
        return cls(**{**row._mapping, "finding": Finding(row.finding) if row.finding else None})


@dataclass(frozen=True, kw_only=True)
class State:
    """How far the healing of an environment has come."""

    round: int = 1
    ran_at: datetime | None = None
    sentence: str = ""
    claimed_by: str = ""
    """Who heals now."""


@dataclass(frozen=True, kw_only=True)
class Tries:
    """How often healing has tried a letter."""

    number: int
    last_at: datetime | None


async def are_there(tx: AsyncConnection) -> bool:
    """Whether the ledger has healing."""
    return await remembered_yes(tx, "heal", SQL["is_there"])


async def claim(bind: Bind, environment: str, *, by: str, seconds: float) -> Claim | None:
    """Claim the healing of an environment; None where somebody else has it."""
    async with transaction(bind) as tx:
        values = {"environment": environment, "by": clean(by), "seconds": float(seconds)}
        number = (await tx.execute(SQL["claim"], values)).scalar_one_or_none()
    return Claim(environment=environment, number=number, by=by) if number is not None else None


async def fence(tx: AsyncConnection, claim: Claim) -> int:
    """Check that the claim is still ours, keep it so until the transaction ends, and return the round.

    Raises LockLost when it has expired.
    """
    values = {"environment": claim.environment, "claim": claim.number}
    round_: int | None = (await tx.execute(SQL["fence"], values)).scalar_one_or_none()
    if round_ is None:
        raise LockLost(f"another run heals {claim.environment} now: this one took too long, and stops")
    return round_


async def free(bind: Bind, claim: Claim, *, sentence: str = "") -> None:
    """Give a claim back, with what the run found; without it the one before stays."""
    async with transaction(bind) as tx:
        values = {"environment": claim.environment, "claim": claim.number, "sentence": clean(sentence)}
        await tx.execute(SQL["free"], values)


async def state(bind: Bind, environment: str) -> State:
    """How far the healing of an environment has come."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["state"], {"environment": environment})).one_or_none()
        return State(**row._mapping) if row else State()


async def end_round(tx: AsyncConnection, claim: Claim) -> None:
    """The next batch begins with one letter of each type again."""
    await tx.execute(SQL["end_round"], {"environment": claim.environment})


async def taken_back(tx: AsyncConnection, claim: Claim, ids: Sequence[UUID], sentence: str) -> None:
    """Record events that came back from dead workers, in the transaction that takes them back."""
    values = {
        "environment": claim.environment,
        "by": clean(claim.by),
        "events": len(ids),
        "sentence": clean(sentence),
        "detail": as_json({"ids": list(ids[:IDS_KEPT])}),
    }
    await tx.execute(SQL["taken_back"], values)


async def begin_batch(tx: AsyncConnection, claim: Claim, round_: int, letters: Sequence[Sent]) -> int:
    """Record a batch with its letters, in the transaction that redrives them. Returns its id."""
    values = {
        "environment": claim.environment,
        "round": round_,
        "by": clean(claim.by),
        "events": len(letters),
    }
    action: int = (await tx.execute(SQL["begin_batch"], values)).scalar_one()
    await tx.execute(
        SQL["begin_events"],
        {
            "action": action,
            "ids": [UUID(str(letter.former.id)) for letter in letters],
            "entities": [letter.entity for letter in letters],
            "keys": [clean(letter.key) for letter in letters],
            "fingerprints": [clean(letter.fingerprint) for letter in letters],
            "formers": [as_json(dataclasses.asdict(letter.former)) for letter in letters],
        },
    )
    return action


async def out(bind: Bind, environment: str) -> Out | None:
    """The batch that is out; None where none is."""
    async with transaction(bind) as tx:
        row = (await tx.execute(SQL["out"], {"environment": environment})).one_or_none()
        return Out(**row._mapping) if row else None


async def events(
    tx: AsyncConnection, environment: str, *, round_: int | None = None, action: int | None = None
) -> list[HealEvent]:
    """The letters of one round, or of one batch."""
    values = {"environment": environment, "round": round_, "action": action}
    return [HealEvent.from_row(row) for row in await tx.execute(SQL["events"], values)]


async def settle_events(tx: AsyncConnection, action: int, settled: Sequence[Settled]) -> None:
    """Record how letters of a batch came to rest."""
    values = {
        "action": action,
        "ids": [each.id for each in settled],
        "statuses": [each.status for each in settled],
        "errors": [clean(each.error) if each.error else None for each in settled],
        "counts": [each.counts for each in settled],
    }
    await tx.execute(SQL["settle_events"], values)


async def end_batch(tx: AsyncConnection, action: int, *, finding: Finding, sentence: str) -> None:
    """Record the end of a batch. All its letters have come to rest."""
    values = {"action": action, "finding": finding, "sentence": clean(sentence)}
    await tx.execute(SQL["end_batch"], values)


async def history(bind: Bind, environment: str, limit: int) -> list[Action]:
    """What healing has done, the newest first."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["history"], {"environment": environment, "limit": limit})
        return [Action.from_row(row) for row in rows]


async def tries(tx: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Tries]:
    """How often healing has tried each of these events; one that it never had is left out."""
    rows = await tx.execute(SQL["tries"], {"ids": list(ids)})
    return {row.event_id: Tries(number=row.tries, last_at=row.last_at) for row in rows}


async def replays(tx: AsyncConnection, since: datetime) -> dict[UUID, datetime]:
    """What healing has sent back since then or had out, and when: it is no live traffic. Empty in an older ledger."""
    if not await are_there(tx):
        return {}
    rows = await tx.execute(SQL["replays"], {"since": since})
    return {row.id: row.at for row in rows}
