"""The checks of the database before a release: reachable, readable queue, our schema, the ERP's tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core
from handlers.database import clock, migrate
from handlers.database.privileges import Obstacles, obstacles
from handlers.database.queries import queries
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.erp import adopt
from handlers.erp.controller_needs import CONTROLLER_NEEDS
from handlers.errors import Refused, RunbookError, TryAgain
from handlers.gate.day_before import DayBefore
from handlers.gate.values import Baseline
from handlers.phases import worker_checks
from handlers.phases.clock_checks import CLOCKS_DIFFER_MAX_SECONDS
from handlers.queue import diagnose, look
from handlers.queue.changes import day_before
from handlers.queue.event import ENTITY_TYPES
from handlers.queue.look import DeadLetter
from handlers.release.planned import Check
from handlers.status.wrapping import age
from handlers.worker.needs import needs as worker_needs

SQL = queries(__name__)
SILENT_SECONDS_MAX = 24 * 3600.0
SILENT_SECONDS_MIN, SILENT_FACTOR = 600.0, 5
"""The queue is silent for unusually long after so many times its usual pause, at least ten minutes, at most a day."""
PAUSES_MIN = 20
"""With fewer pauses between events none is usual."""


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """The queue at one moment, or the problem that prevented reading it."""

    counts: dict[str, int] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    day_before: DayBefore | None = None
    newest_seconds: float | None = None
    """The age of the newest event; None when there is none."""
    usual_seconds: float | None = None
    """The usual pause between two events; None when there are too few."""
    problem: str | None = None
    temporary: bool = False
    """The problem is a database that does not answer now."""
    obstacles: Obstacles = field(default_factory=Obstacles)
    """What our user may not do: a queue that row security hides would be an empty one."""

    @property
    def baseline(self) -> Baseline | None:
        """The outcomes of the day before: records, each once in ten minutes."""
        if self.day_before is None:
            return None
        good = round(self.day_before.units * self.day_before.ok)
        return Baseline(completed=good, failed=self.day_before.units - good)


async def read_queue(database: AsyncEngine, *, inline: bool = False) -> QueueSnapshot:
    """Count the events, list the dead letters, and count the outcomes of the last 24 h. Never raises RunbookError.

    First it asks what our user may do; *inline* when the controller applies the events as well.
    """
    try:
        # Whether the tables are adopted is a check of its own.
        ours = [replace(need, columns=(), optional=True) for need in worker_needs()] if inline else []
        found = await obstacles(database, [*CONTROLLER_NEEDS, *ours])
        if found.denied:
            return QueueSnapshot(problem=found.sentence())
        async with transaction(database) as tx:
            counts = await look.counts(tx)
            dead = await look.dead_letters(tx)
            failed = Counter(
                _failed_kind(row.raw_type, row.error_code, row.error_message)
                for row in await tx.execute(SQL["failed"])
            )
            letters = [(letter.entity or letter.raw_type, letter.error_message or "") for letter in dead]
            before = await day_before(tx, await clock.now(tx), letters)
            intake = (await tx.execute(SQL["intake"])).one()
    except RunbookError as error:
        return QueueSnapshot(problem=str(error), temporary=isinstance(error, TryAgain))
    except ProgrammingError as error:
        return QueueSnapshot(
            problem=f"the queue cannot be read: {message_of(error)}; is database.url the ERP's database, "
            "and may its user read tds_sync_queue?"
        )
    return QueueSnapshot(
        counts={str(status): count for status, count in counts.items()},
        dead=dead,
        failed=dict(failed),
        day_before=before,
        newest_seconds=intake.newest_seconds,
        usual_seconds=intake.usual_seconds if intake.pauses >= PAUSES_MIN else None,
        obstacles=found,
    )


async def database_checks(core: Core, queue: QueueSnapshot, current: str) -> list[Check]:
    """The checks of the database, the queue, the workers, the ledger's schema and the ERP's tables.

    *current* is the revision of the hosts, empty when it is unknown.
    """
    if queue.problem is not None:
        return [Check(name="database", good=False, sentence=queue.problem, temporary=queue.temporary)]
    where = core.environment.database.shown()
    if queue.obstacles.read_only:
        return [Check(name="database", good=False, sentence=f"{where}: {queue.obstacles.read_only}")]
    checks = [Check(name="database", good=True, sentence=f"{where} answers, and may be written")]
    checks.append(queue_check(queue))
    if not await migrate.pending(core.database):
        checks += await worker_checks.run(core, current)
    checks.append(await _schema_check(core))
    checks.append(await _tables_check(core))
    return checks


def queue_check(queue: QueueSnapshot) -> Check:
    """The events in each status, and a warning when none has arrived for unusually long."""
    counts = ", ".join(f"{count} {status}" for status, count in queue.counts.items() if count) or "no events"
    seconds, usual = queue.newest_seconds, queue.usual_seconds
    if seconds is None:
        return Check(name="queue", good=True, sentence=f"{counts}; the queue is empty")
    sentence = f"{counts}; newest event {age(seconds)} old"
    if seconds < -CLOCKS_DIFFER_MAX_SECONDS:
        future = f"{counts}; the newest event is {age(-seconds)} in the future: what writes the queue"
        sentence = f"{future} has a wrong clock, or writes local times as UTC"
        return Check(name="queue", good=True, warns=True, sentence=sentence)
    unusual = max(SILENT_SECONDS_MIN, SILENT_FACTOR * usual) if usual is not None else SILENT_SECONDS_MAX
    if seconds <= min(unusual, SILENT_SECONDS_MAX):
        return Check(name="queue", good=True, sentence=sentence)
    usually = f", usually one arrives within {age(usual)}" if usual is not None else ""
    consequence = "check that webhooks arrive; without live traffic a watch cannot pass"
    return Check(name="queue", good=True, warns=True, sentence=f"{sentence}{usually}: {consequence}")


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
    # A worker of ours that is restarted without them ends at once.
    return Check(name="tables", good=not inline, warns=await _has_workers(core), sentence=sentence)


async def _has_workers(core: Core) -> bool:
    if await migrate.pending(core.database):
        return False
    async with transaction(core.database) as tx:
        return (await tx.execute(SQL["live_workers"])).first() is not None


def _failed_kind(raw_type: str, code: str | None, message: str | None) -> str:
    kind = ENTITY_TYPES.get(raw_type, raw_type)
    return f"{kind}, error {code or diagnose.fingerprint(message or '')[:60] or 'not recorded'}"
