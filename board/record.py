"""What the ledger keeps of one release: its decisions, operations, phases, plan and files."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.errors import Refused
from handlers.release.ledger import intents, records, releases
from handlers.release.ledger.intents import OperationRecord
from handlers.release.ledger.records import FileRecord, Stretch
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import Release
from handlers.release.planned import Plan


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of one release."""

    release: Release
    plan: Plan
    decisions: list[Stretch]
    """Judgements with the same finding, one after the other, are one."""
    phases: list[PhaseRecord]
    operations: list[OperationRecord]
    files: list[FileRecord]


async def read(tx: AsyncConnection, environment: str, release_id: str) -> Record:
    """The record of a release. Raises Refused when there is none in this environment."""
    release = await releases.get(tx, release_id)
    if release.environment != environment:
        raise Refused(f"there is no release {release_id} in {environment}")
    return Record(
        release=release,
        plan=await releases.plan(tx, release_id),
        decisions=await records.stretches(tx, release),
        phases=await releases.phase_records(tx, release),
        operations=await intents.operations(tx, release),
        files=await records.files(tx, release),
    )
