"""The troubles that people were told of and that are not over, and whether messages reach them. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.database.transaction import remembered_yes
from handlers.environment.notification import Severity
from handlers.release.topic import ENDS, Topic

SQL = queries(__name__)
DAYS_MAX = 2
"""An older message tells of nothing that is still of use: its release has ended long ago."""
TROUBLES = tuple(sorted({topic for ended in ENDS.values() for topic in ended}))
"""The topics that another one ends."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One trouble, by its first message."""

    topic: Topic
    subject: str
    """A host, a bar or a source; empty where it is the release."""
    release_id: str | None
    severity: Severity
    sentence: str
    since: datetime

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From the query `open`."""
        return cls(
            topic=Topic(row.topic),
            subject=row.subject,
            release_id=row.release_id,
            severity=Severity(row.severity),
            sentence=row.sentence,
            since=row.written_at,
        )


@dataclass(frozen=True, kw_only=True)
class Messages:
    """What came of the messages of the last day, counted for each address."""

    sent: int = 0
    waiting: int = 0
    given_up: int = 0
    waiting_since: datetime | None = None
    """When the oldest one was written that is due and not sent."""
    given_up_at: datetime | None = None
    """When the newest one was given up."""
    answer: str = ""
    """What the address answered then."""


async def open_troubles(tx: AsyncConnection, environment: str) -> list[Trouble]:
    """The troubles of an environment that are not over, the oldest first; empty where the ledger has no outbox."""
    if not await remembered_yes(tx, "outbox", SQL["is_there"]):
        return []
    values = {"environment": environment, "topics": list(TROUBLES), "days": DAYS_MAX}
    found = [Trouble.from_row(row) for row in await tx.execute(SQL["open"], values)]
    return sorted(found, key=lambda trouble: trouble.since)


async def messages(tx: AsyncConnection, environment: str) -> Messages:
    """What came of the messages of the last day."""
    if not await remembered_yes(tx, "outbox", SQL["is_there"]):
        return Messages()
    row = (await tx.execute(SQL["messages"], {"environment": environment})).one()
    return Messages(**{**row._mapping, "answer": row.answer or ""})
