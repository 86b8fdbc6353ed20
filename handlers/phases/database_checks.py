"""The checks of the database before a release: reachable, readable queue, our schema, the ERP's tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core
from handlers.database import migrate
from handlers.database.queries import queries
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.erp import adopt
from handlers.errors import Refused, RunbookError
from handlers.gate.values import Baseline
from handlers.queue import diagnose, look
from handlers.queue.event import ENTITY_TYPES
from handlers.queue.look import DeadLetter
from handlers.release.planned import Check
from handlers.status.lines import age

SQL = queries(__name__)
BASELINE_HOURS = 24


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """The queue at one moment, or the problem that prevented reading it."""

    counts: dict[str, int] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    baseline: Baseline | None = None
    newest_at: datetime | None = None
    problem: str | None = None


async def read_queue(database: AsyncEngine) -> QueueSnapshot:
    """Count the events, list the dead letters, and count the outcomes of the last 24 h. Never raises RunbookError."""
    try:
        async with transaction(database) as tx:
            counts = await look.counts(tx)
            dead = await look.dead_letters(tx)
            failed = Counter(
                _failed_kind(row.raw_type, row.error_code, row.error_message)
                for row in await tx.execute(SQL["failed"])
            )
            since = datetime.now(UTC) - timedelta(hours=BASELINE_HOURS)
            outcomes = await look.outcomes_since(tx, since=since, late_seconds=BASELINE_HOURS * 3600)
            newest_at = (await tx.execute(SQL["newest"])).scalar_one()
    except RunbookError as error:
        return QueueSnapshot(problem=str(error))
    except ProgrammingError as error:
        return QueueSnapshot(
            problem=f"the queue cannot be read: {message_of(error)}; is database.url the ERP's database, "
            "and may its user read tds_sync_queue?"
        )
    return QueueSnapshot(
        counts={str(status): count for status, count in counts.items()},
        dead=dead,
        failed=dict(failed),
        baseline=Baseline(
            completed=sum(count.completed for count in outcomes),
            failed=sum(count.failed for count in outcomes),
        ),
        newest_at=newest_at,
    )


async def database_checks(core: Core, queue: QueueSnapshot) -> list[Check]:
    """The checks of the database, the queue, the ledger's schema and the ERP's tables."""
    if queue.problem is not None:
        return [Check(name="database", good=False, sentence=queue.problem)]
    where = core.environment.database.shown()
    checks = [Check(name="database", good=True, sentence=f"{where} answers")]
    newest = "the queue is empty"
    if queue.newest_at is not None:
        seconds = (datetime.now(UTC) - queue.newest_at).total_seconds()
        newest = f"newest event {age(seconds)} old"
    counts = ", ".join(f"{count} {status}" for status, count in queue.counts.items() if count) or "no events"
    checks.append(Check(name="queue", good=True, sentence=f"{counts}; {newest}"))
    checks.append(await _schema_check(core))
    checks.append(await _tables_check(core))
    return checks


async def _schema_check(core: Core) -> Check:
    pending = await migrate.pending(core.database)
    async with transaction(core.database) as tx:
        may = (await tx.execute(SQL["may_keep_a_ledger"])).scalar_one()
    if pending and not may:
        return Check(
            name="ledger",
            good=False,
            sentence="the database user may not create the schema runbook: grant it CREATE on the database, "
            "or run `runbook db upgrade` as the owner of the database",
        )
    state = "will be created or migrated" if pending else "up to date"
    return Check(name="ledger", good=True, sentence=f"schema runbook {state}")


async def _tables_check(core: Core) -> Check:
    """Our workers need additional columns in the ERP's tables; the ERP's own worker does not."""
    inline = core.environment.execution == "inline"
    try:
        missing = await adopt.required_statements(core.database)
    except Refused as error:
        return Check(name="tables", good=not inline, sentence=str(error))
    if not missing:
        return Check(
            name="tables", good=True, sentence="the ERP's tables have all columns that `runbook worker` needs"
        )
    sentence = (
        f"{len(missing)} additions to the ERP's tables are missing; `runbook worker` needs them: "
        "run `runbook db adopt`, or list them with --dry-run"
    )
    return Check(name="tables", good=not inline, sentence=sentence)


def _failed_kind(raw_type: str, code: str | None, message: str | None) -> str:
    kind = ENTITY_TYPES.get(raw_type, raw_type)
    return f"{kind}, error {code or diagnose.fingerprint(message or '')[:60] or 'not recorded'}"
