"""What people ask of a release while a controller runs it. The controller reads it every second."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from handlers.database.jsonable import clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.release.decisions import Verb
from handlers.release.phase import Release

SQL = queries(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, who made it and why, and what came of it."""

    id: int
    verb: Verb
    requested_by: str
    reason: str
    requested_at: datetime
    seen_at: datetime | None
    answered_at: datetime | None
    answer: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Request:
        """From the queries about requests."""
        return cls(**{**row._mapping, "verb": Verb(row.verb)})

    @property
    def sentence(self) -> str:
        """Who asked for what, and why."""
        return f"{self.verb} requested by {self.requested_by}: {self.reason}"


async def ask(bind: Bind, release: Release, verb: Verb, *, by: str, reason: str) -> int:
    """Ask the controller of the release for something; returns the id of the request."""
    async with transaction(bind) as tx:
        values = {
            "release_id": release.id,
            "verb": verb,
            "requested_by": clean(by),
            "reason": clean(reason),
        }
        request_id: int = (await tx.execute(SQL["ask"], values)).scalar_one()
        return request_id


async def get(bind: Bind, request_id: int) -> Request:
    """The request with this id."""
    async with transaction(bind) as tx:
        return Request.from_row((await tx.execute(SQL["get"], {"id": request_id})).one())


async def see(bind: Bind, release: Release) -> list[Request]:
    """The open requests of a release, in order. They are marked as seen: their controller reacts."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["see"], {"release_id": release.id})
        return sorted((Request.from_row(row) for row in rows), key=lambda request: request.id)


async def answer(bind: Bind, release: Release, sentence: str) -> None:
    """Answer every open request of a release with what happened."""
    async with transaction(bind) as tx:
        await tx.execute(SQL["answer"], {"release_id": release.id, "answer": clean(sentence)})
