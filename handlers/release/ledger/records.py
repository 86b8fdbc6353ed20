"""Other records about a release besides its phases: judgements, quarantined revisions, files."""

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
PREFIX_LENGTH_MIN = 7
"""A commit may be named by its first digits, but not by fewer than these."""


@dataclass(frozen=True, kw_only=True)
class JudgementRecord:
    """A stored judgement with its inputs."""

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
class Stretch:
    """Judgements by one rule, one after the other and with the same finding in one phase: the looks of a watch."""

    phase: Phase
    rule: str
    finding: Finding
    taken_at: datetime
    until: datetime
    """The time of the last one."""
    number: int
    sentence: str
    """Of the last one."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Stretch:
        """From the query `stretches`."""
        return cls(**{**row._mapping, "phase": Phase(row.phase), "finding": Finding(row.finding)})


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """A quarantined revision, and the release that rolled it back."""

    environment: str
    revision: str
    release_id: str
    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file about a release, with its checksum."""

    kind: str
    path: str
    sha256: str
    written_at: datetime


async def record_judgement(bind: Bind, release: Release, judgement: Judgement) -> JudgementRecord:
    """Record a judgement under the current phase of the release."""
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


async def stretches(bind: Bind, release: Release) -> list[Stretch]:
    """Every judgement about the release without its inputs, in order of the last of each stretch."""
    async with transaction(bind) as tx:
        rows = await tx.execute(SQL["stretches"], {"release_id": release.id})
        return [Stretch.from_row(row) for row in rows]


async def quarantine(bind: Bind, release: Release, reason: str) -> None:
    """Quarantine the released revision until a named person lifts it. A second call changes nothing."""
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


async def find_quarantine(bind: Bind, environment: str, revision: str) -> Quarantine | None:
    """The quarantine of the revision in this environment; None when it is not in quarantine."""
    async with transaction(bind) as tx:
        row = (
            await tx.execute(SQL["quarantined"], {"environment": environment, "revision": revision})
        ).one_or_none()
    return Quarantine(**row._mapping) if row else None


async def lift(bind: Bind, environment: str, revision: str, *, lifted_by: str) -> str:
    """Lift the quarantine of a revision, named whole or by its first digits; returns the whole commit id.

    Raises Refused without a person's name, and when not exactly one quarantined revision has these digits.
    """
    if not lifted_by.strip():
        raise Refused("lifting a quarantine needs the name of a person")
    async with transaction(bind) as tx:
        quarantined = (await tx.execute(SQL["set_aside"], {"environment": environment})).scalars().all()
        prefix = revision.lower()
        matches = [sha for sha in quarantined if sha.startswith(prefix) and len(prefix) >= PREFIX_LENGTH_MIN]
        if len(matches) != 1:
            problem = (
                "matches more than one quarantined revision" if matches else "matches no quarantined revision"
            )
            shown = ", ".join(short(sha) for sha in quarantined) or "none"
            raise Refused(
                f"{revision!r} {problem} of {environment}: name one by {PREFIX_LENGTH_MIN} digits or more ({shown})"
            )
        values = {"environment": environment, "revision": matches[0], "lifted_by": clean(lifted_by)}
        await tx.execute(SQL["lift"], values)
    whole: str = matches[0]
    return whole


async def record_file(bind: Bind, release: Release, *, kind: str, path: str, sha256: str) -> None:
    """Record the path and the checksum of a file about the release."""
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
