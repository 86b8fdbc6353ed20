"""Letters that healing leaves alone: after a bad batch until a time, or quarantined until a person lifts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.gate.heal_rules import ALL, Candidate, Stop

SQL = queries(__name__)

REST_SECONDS_MAX = 86_400 * 31.0
"""Letters rest at most for so long: then one of them shows whether its error is cured."""


async def stops(tx: AsyncConnection, environment: str) -> list[Stop]:
    """What healing leaves alone now."""
    rows = await tx.execute(SQL["open"], {"environment": environment})
    return [Stop(**row._mapping) for row in rows]


async def rest(
    tx: AsyncConnection,
    environment: str,
    kinds: Sequence[tuple[str, str]],
    *,
    seconds: float,
    by: str,
    reason: str,
) -> None:
    """Let letters of these types and errors rest after a bad batch, each time twice as long."""
    for entity, former in kinds:
        values = {
            "environment": environment,
            "entity": entity,
            "former": clean(former),
            "seconds": float(seconds),
            "seconds_max": REST_SECONDS_MAX,
            "by": clean(by),
            "reason": clean(reason),
        }
        await tx.execute(SQL["rest"], values)


async def forget(
    tx: AsyncConnection, environment: str, completed: Iterable[tuple[str, str]], *, by: str
) -> None:
    """Letters of these types and errors completed: a later stop of theirs begins with the first time again."""
    kinds = {kind for entity, former in completed for kind in ((entity, former), (entity, ALL), (ALL, ALL))}
    values = {
        "environment": environment,
        "entities": [entity for entity, _ in sorted(kinds)],
        "formers": [clean(former) for _, former in sorted(kinds)],
        "by": clean(by),
    }
    await tx.execute(SQL["forget"], values)


async def quarantine(
    bind: Bind, environment: str, letter: Candidate, *, like: bool, by: str, reason: str
) -> int:
    """A person sets a letter aside, or with *like* all of its type and error. Returns the number to lift it by.

    Raises Refused without a reason.
    """
    if not reason.strip():
        raise Refused("a quarantine needs a reason: the ledger keeps it")
    values = {
        "environment": environment,
        "entity": letter.entity or letter.raw_type,
        "former": clean(letter.former),
        "by": clean(by),
        "reason": clean(reason),
    }
    async with transaction(bind) as tx:
        if like:
            id_: int = (await tx.execute(SQL["quarantine_kind"], values)).scalar_one()
        else:
            id_ = (await tx.execute(SQL["quarantine_event"], values | {"event_id": letter.id})).scalar_one()
    return id_


async def lift(bind: Bind, environment: str, id_: int, *, by: str) -> str:
    """Healing may try them again; returns what. Raises Refused where nothing with this number is stopped."""
    async with transaction(bind) as tx:
        row = (
            await tx.execute(SQL["lift"], {"environment": environment, "id": id_, "by": clean(by)})
        ).one_or_none()
    if row is None:
        raise Refused(
            f"healing of {environment} leaves nothing alone under number {id_}: see `runbook heal --dry-run`"
        )
    return f"{row.entity_type}, {row.fingerprint or 'no error text'}"
