"""What is kept about a release besides its phases: judgements, quarantined revisions, files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from handlers.database.jsonable import as_json, clean
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.errors import Refused
from handlers.gate.values import Finding, Judgement
from handlers.release.phase import Phase, Release, short

SQL = queries(__name__)
SHORTEST = 7
"""A commit may be named by so many of its first digits, as git shows them."""


@dataclass(frozen=True, kw_only=True)
class JudgementRecord:
    """A judgement as it was made, with its inputs."""

    id: int
    phase: Phase
    taken_at: datetime
    finding: Finding
    sentence: str
    inputs: dict[str, Any]

    @classmethod
    def from_row(cls, row: Row[Any]) -> JudgementRecord:
        """From the queries about judgements."""
        return cls(
            **{
                **row._mapping,
                "phase": Phase(row.phase),
                "finding": Finding(row.finding),
                "inputs": json.loads(row.inputs),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """A revision that a release had to leave."""

    environment: str
    revision: str
    release_id: str
    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file about a release, with the hash that proves it unchanged."""

    kind: str
    path: str
    sha256: str
    written_at: datetime


async def record_judgement(bind: Bind, release: Release, judgement: Judgement) -> JudgementRecord:
    """Keep a judgement, under the phase in which the release stands."""
    async with transaction(bind) as tx:
        row = await tx.execute(
            SQL["record_judgement"],
            {
                "release_id": release.id,
                "phase": release.phase,
                "finding": judgement.finding,
                "sentence": clean(judgement.sentence),
                "inputs": as_json(judgement.inputs),
            },
        )
        return JudgementRecord.from_row(row.one())


async def judgements(bind: Bind, release: Release) -> list[JudgementRecord]:
    """Every judgement about the release, in order."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["judgements"], {"release_id": release.id})
        return [JudgementRecord.from_row(row) for row in rows]


async def quarantine(bind: Bind, release: Release, reason: str) -> None:
    """Set the released revision aside until a named person lifts this; doing so twice is the same as once."""
    async with transaction(bind) as tx:
        await tx.execute(
            SQL["quarantine"],
            {
                "environment": release.environment,
                "revision": release.to_revision,
                "release_id": release.id,
                "reason": clean(reason),
            },
        )


async def is_quarantined(bind: Bind, environment: str, revision: str) -> Quarantine | None:
    """Why the revision is set aside in this environment; None when it is not."""
    async with transaction(bind) as tx:
        row = (
            await tx.execute(SQL["quarantined"], {"environment": environment, "revision": revision})
        ).one_or_none()
    return Quarantine(**row._mapping) if row else None


async def lift(bind: Bind, environment: str, revision: str, *, lifted_by: str) -> str:
    """Let a revision be released again, named whole or by how it begins; returns the whole one.

    Refused when nobody is named, and when not exactly one revision that is set aside begins like that.
    """
    if not lifted_by.strip():
        raise Refused("lifting a quarantine needs the name of a person")
    async with transaction(bind) as tx:
        left = (await tx.execute(SQL["set_aside"], {"environment": environment})).scalars().all()
        meant = [one for one in left if one.startswith(revision.lower()) and len(revision) >= SHORTEST]
        if len(meant) != 1:
            what = "names more than one revision that is" if meant else "is no revision that is"
            known = ", ".join(short(one) for one in left) or "none"
            raise Refused(
                f"{revision!r} {what} quarantined in {environment}: name it by {SHORTEST} digits or more ({known})"
            )
        values = {"environment": environment, "revision": meant[0], "lifted_by": clean(lifted_by)}
        await tx.execute(SQL["lift"], values)
    whole: str = meant[0]
    return whole


async def record_file(bind: Bind, release: Release, *, kind: str, path: str, sha256: str) -> None:
    """Keep where a file about the release is, and the hash that proves it unchanged."""
    async with transaction(bind) as tx:
        await tx.execute(
            SQL["record_file"], {"release_id": release.id, "kind": kind, "path": path, "sha256": sha256}
        )


async def files(bind: Bind, release: Release) -> list[FileRecord]:
    """The files about the release, oldest first."""
    async with transaction(bind) as tx:
        return [
            FileRecord(**row._mapping) for row in await tx.execute(SQL["files"], {"release_id": release.id})
        ]
