"""The guard in the report of a release: what each check has found in the hours after it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.release.ledger import guards
from handlers.release.ledger.guards import Kind
from handlers.release.phase import Release


async def guard_part(tx: AsyncConnection, release: Release) -> dict[str, Any] | None:
    """The checks that were taken, and how many were skipped or are still due; None for a release without a guard."""
    guard = await guards.get(tx, release.id)
    if guard is None:
        return None
    looks = [check for check in await guards.checks(tx, release.id) if check.kind is Kind.LOOK]
    taken = [check for check in looks if check.taken_at is not None and not check.skipped]
    return {
        "begun_at": guard.begun_at,
        "until": guard.until,
        "ended_at": guard.ended_at,
        "ended": guard.ended,
        "pages_only": f"{guard.pages_only_by}: {guard.pages_only}" if guard.pages_only_by else "",
        "planned": len(looks),
        "skipped": sum(check.skipped for check in looks),
        "checks": [
            {"taken_at": check.taken_at, "finding": check.finding, "sentence": check.sentence}
            for check in taken
        ],
    }
