"""The ledger: the truth about every release, in the schema `runbook` of the environment's database.

Every function takes an engine (and is a transaction of its own) or a connection (and joins the caller's).
One transaction for one fact: a kill between any two lines leaves a state from which the release goes on.
"""

from __future__ import annotations

from handlers.ledger.events import (
    Batch,
    ReleaseEvent,
    batches,
    events,
    mark_returned,
    plan_events,
    record_batch,
    settle_batch,
    undrained,
    unsettled,
)
from handlers.ledger.operations import (
    LedgerRecorder,
    Operation,
    confirm,
    intend,
    open_operations,
    operations,
)
from handlers.ledger.records import (
    File,
    JudgementRecord,
    Quarantine,
    files,
    is_quarantined,
    judgements,
    lift,
    quarantine,
    record_file,
    record_judgement,
)
from handlers.ledger.releases import (
    PhaseRecord,
    begin,
    enter,
    get,
    history,
    hold,
    latest,
    live,
    note,
    phase_records,
    plan,
    resume,
)
from handlers.migrate import pending, upgrade

__all__ = [
    "Batch",
    "File",
    "JudgementRecord",
    "LedgerRecorder",
    "Operation",
    "PhaseRecord",
    "Quarantine",
    "ReleaseEvent",
    "batches",
    "begin",
    "confirm",
    "enter",
    "events",
    "files",
    "get",
    "history",
    "hold",
    "intend",
    "is_quarantined",
    "judgements",
    "latest",
    "lift",
    "live",
    "mark_returned",
    "note",
    "open_operations",
    "operations",
    "pending",
    "phase_records",
    "plan",
    "plan_events",
    "quarantine",
    "record_batch",
    "record_file",
    "record_judgement",
    "resume",
    "settle_batch",
    "undrained",
    "unsettled",
    "upgrade",
]
