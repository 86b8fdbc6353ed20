"""Whether every event is accounted for: none lost, none applied twice, and each row the newest applied version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries

SQL = queries(__name__)
_SHOWN = 3
OLD_ERROR = "xd2s"
"""The error code that the previous revision gives to every event."""


async def disagreements(
    tx: AsyncConnection,
    release_id: str,
    sent: Sequence[UUID],
    *,
    is_finished: bool,
    is_good: bool,
    is_old_running: bool = False,
) -> list[str]:
    """What is wrong in the queue and in the ERP's tables, a sentence for each kind.

    *sent* are the live webhooks that were received; *is_good* is a revision that can apply every event. Where the
    previous one is running (again), it fails them.
    """
    found: list[str] = []
    lost = (await tx.execute(SQL["lost"], {"sent": list(sent)})).scalars()
    found += _sentence(lost, "are lost: they were received, and are not in the queue")
    found += _sentence((await tx.execute(SQL["twice"])).scalars(), "were completed twice")
    found += _sentence((await tx.execute(SQL["in_hand"])).scalars(), "are still in processing")
    values = {"release_id": release_id}
    for row in await tx.execute(SQL["undue"], values):
        found.append(
            f"planned dead letter {row.id} {row.what}: now {row.status} after {row.attempt_count} attempts "
            f"(before {row.attempts_before}), recorded as {row.recorded}"
        )
    if is_finished:
        unsettled = (await tx.execute(SQL["unsettled"], values)).scalars()
        found += _sentence(unsettled, "were sent to the workers, and have not come to rest")
    if is_good:
        buried = [
            f"{row.id} ({row.error_message})"
            for row in await tx.execute(SQL["buried"])
            if not (is_old_running and row.error_code == OLD_ERROR)
        ]
        found += _sentence(buried, "became dead letters, although nothing is wrong with the revision")
    for row in await tx.execute(SQL["rows"]):
        found.append(f"{row.entity} {row.key} is {row.stored} in the ERP instead of {row.wanted}")
    return found


async def damaged(tx: AsyncConnection, sent: Sequence[UUID], revision: str) -> list[UUID]:
    """The live webhooks that the workers of *revision* took and never completed: dead, given back, or left in retry.

    What they did not take is not damaged: the previous revision applies it after a rollback.
    """
    values = {"sent": list(sent), "revision": revision}
    return list((await tx.execute(SQL["damaged"], values)).scalars())


def _sentence(events: Iterable[object], what: str) -> Iterator[str]:
    names = [str(event) for event in events]
    if names:
        more = ", …" if len(names) > _SHOWN else ""
        yield f"{len(names)} events {what}: {', '.join(names[:_SHOWN])}{more}"
