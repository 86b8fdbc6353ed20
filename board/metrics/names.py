"""The metrics that the board exports: name, type, labels and meaning. Nothing else is exported.

Units are base units: seconds, and ratios from 0 to 1. What could not be read has no sample: it is absent, never 0.
Every metric but the two of the board itself has the label `environment` before the ones here.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "tds_runbook_"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    """Without the prefix."""
    kind: str
    """`gauge`, `histogram` or `info`."""
    help: str
    labels: tuple[str, ...] = ()
    of_board: bool = False
    """It is about the board, and has no label `environment`."""

    @property
    def full_name(self) -> str:
        """The name as it is in a query, without the suffixes of a histogram."""
        return f"{PREFIX}{self.name}{'_info' if self.kind == 'info' else ''}"


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", help=help_, labels=labels)


METRICS: tuple[Metric, ...] = (
    Metric(name="board", kind="info", help="The version of the board.", labels=("version",), of_board=True),
    Metric(
        name="board_environments",
        kind="gauge",
        help="How many environments the board serves.",
        of_board=True,
    ),
    _gauge("up", "Whether the environment's database and file could be read (1), or not (0)."),
    _gauge(
        "scrape_error",
        "Whether anything of the environment could not be read (1). What is missing then is absent.",
    ),
    _gauge("source_up", "Whether this source could be read. Absent while `up` is 0.", "source"),
    _gauge("reading_seconds", "How long the reading took that these samples are of."),
    _gauge("reading_timestamp_seconds", "The database's time of the reading that these samples are of."),
    # The release.
    _gauge(
        "release_phase", "1 for the phase of the live or newest release, 0 for every other phase.", "phase"
    ),
    _gauge(
        "release_phase_started_timestamp_seconds",
        "When the phase of the live release began. Absent when it has ended.",
    ),
    _gauge(
        "release_carried",
        "Whether a living controller runs the release. Absent where it needs none: it has ended, or a person decides.",
    ),
    _gauge("release_neglected", "Whether a release is due for three minutes and nobody carries it."),
    Metric(
        name="release",
        kind="info",
        help="The live or newest release and its revisions: one series.",
        labels=("release", "from_revision", "to_revision"),
    ),
    _gauge(
        "release_judgements",
        "The judgements of the live or newest release by finding. A new release begins at 0.",
        "finding",
    ),
    _gauge("release_events", "The planned dead letters of the live or newest release by state.", "state"),
    _gauge("releases", "The releases in the ledger by phase.", "phase"),
    _gauge("intake_limits", "The limits on the intake of the queue that are in force."),
    # The queue.
    _gauge("queue_events", "The events in the queue by status.", "status"),
    _gauge(
        "queue_events_by_type",
        "The same by entity type. Completed events are left out, and so is a pair without an event.",
        "status",
        "entity",
    ),
    _gauge("queue_open_events", "The events that are pending, in processing or in retry; no synthetic one."),
    _gauge("queue_oldest_due_seconds", "How long the oldest due event waits; 0 when none is due."),
    _gauge("success_ratio", "Of the events that ended in the window, the share that completed.", "window"),
    _gauge("failing_ratio", "Of the events taken in the window, the share that failed or retries.", "window"),
    _gauge("dead_letters", "The events that became dead letters in the window.", "window"),
    _gauge("error_rise_ratio", "How much more of the events fail than in the window before."),
    _gauge(
        "processing_p95_seconds",
        "19 of 20 events of the last hour took at most this long, claim to completion.",
    ),
    _gauge(
        "throughput_events_per_second", "The events that ended in the last five minutes, for each second."
    ),
    _gauge("stuck_events", "The events in processing that no worker has."),
    Metric(
        name="processing_seconds",
        kind="histogram",
        help="Time from claim to completion of the events that completed while this board ran.",
        labels=("entity",),
    ),
    # The checks.
    _gauge(
        "check_broken", "Whether the check's bar is broken. Absent without a bar, data or source.", "check"
    ),
    _gauge("check_bar", "The bar of the check, in seconds, as a ratio or as a number.", "check"),
    # Workers, guard, healing, sync, messages.
    _gauge("workers", "The workers of the last day by sign of life.", "sign"),
    _gauge("workers_revisions", "How many different revisions the live workers run."),
    _gauge("guard_active", "Whether a release is guarded now."),
    _gauge("guard_checks", "The checks of the newest guard by state.", "state"),
    _gauge(
        "guard_overdue_seconds", "How long the oldest check is due that nobody takes; 0 when all are taken."
    ),
    _gauge(
        "guard_finding",
        "1 for the newest finding of the guard, 0 for the others. Absent before the first.",
        "finding",
    ),
    _gauge("heal_ran_timestamp_seconds", "When healing ran last. Absent where it never did."),
    _gauge("heal_out_events", "The dead letters that healing has sent back and that are not settled."),
    _gauge("heal_events", "The events that healing dealt with in the last day by state.", "state"),
    _gauge(
        "sync_running", "Whether a process carries a sync of this kind. Absent where there was none.", "kind"
    ),
    _gauge("sync_stopped", "Whether the newest sync of this kind is not done and nobody carries it.", "kind"),
    _gauge("sync_done_timestamp_seconds", "When the last sync of this kind ended well.", "kind"),
    _gauge("sync_calls_today", "Calls of the source's API today (UTC)."),
    _gauge("messages", "The deliveries of messages of the last day by state.", "state"),
    _gauge(
        "alerts",
        "What /alerts lists, by name and severity. A 0 is absent while anything could not be read.",
        "alert",
        "severity",
    ),
)
"""In the order in which they are exported."""

BY_NAME = {metric.name: metric for metric in METRICS}
