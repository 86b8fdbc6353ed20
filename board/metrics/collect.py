"""From what is known of each environment to samples. Pure: what could not be read gets no sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import product

from board.alert import Alert, Name
from board.metrics.samples import Samples
from board.reading import GuardNow, HealNow, Reading, ReleaseNow, Source
from handlers.environment.notification import Severity
from handlers.gate.values import Finding
from handlers.measurements.measurement import Measurement, State
from handlers.release.ledger.guards import Kind
from handlers.release.phase import Phase, short
from handlers.worker.roster import Sign, WorkerRow
from handlers.zoho.runs import State as SyncState
from handlers.zoho.standing import Syncs

_OF_CHECKS: Mapping[str, tuple[str, Mapping[str, str], float]] = {
    "success_1h": ("success_ratio", {"window": "1h"}, 100.0),
    "success_24h": ("success_ratio", {"window": "24h"}, 100.0),
    "failing_1h": ("failing_ratio", {"window": "1h"}, 100.0),
    "failing_24h": ("failing_ratio", {"window": "24h"}, 100.0),
    "dead_letters_1h": ("dead_letters", {"window": "1h"}, 1.0),
    "dead_letters_24h": ("dead_letters", {"window": "24h"}, 1.0),
    "error_rise": ("error_rise_ratio", {}, 100.0),
    "webhook_seconds": ("processing_p95_seconds", {}, 1.0),
    "throughput": ("throughput_events_per_second", {}, 60.0),
    "queue_depth": ("queue_open_events", {}, 1.0),
    "oldest": ("queue_oldest_due_seconds", {}, 1.0),
    "stuck": ("stuck_events", {}, 1.0),
}
"""The metric of each check, its labels, and how many of its units are one base unit. Workers have one of their own."""


def scrape(known: Mapping[str, tuple[Reading | None, Sequence[Alert]]]) -> bytes:
    """The samples of the environments, by name. None: nothing could be read of it."""
    samples = Samples()
    samples.info("board", version=version("tds-runbook"))
    samples.set("board_environments", len(known))
    for name, (reading, alerts) in known.items():
        samples.set("up", reading is not None, environment=name)
        samples.set("scrape_error", reading is None or bool(reading.down), environment=name)
        _alerts(samples, name, reading, alerts)
        if reading is not None:
            _reading(samples, name, reading)
    return samples.text()


def _reading(samples: Samples, name: str, now: Reading) -> None:
    samples.set("reading_seconds", now.seconds, environment=name)
    samples.set("reading_timestamp_seconds", now.at, environment=name)
    for source in Source:
        samples.set("source_up", source not in now.down, environment=name, source=source)
    if now.release is not None:
        _release(samples, name, now.release)
    if now.queue is not None:
        samples.set("intake_limits", len(now.queue.limits), environment=name)
        for status, events in now.queue.status.items():
            samples.set("queue_events", events, environment=name, status=status)
        for row in now.queue.by_type:
            samples.set(
                "queue_events_by_type", row.events, environment=name, status=row.status, entity=row.entity
            )
    for entity, times in sorted((now.times or {}).items()):
        samples.histogram("processing_seconds", times, environment=name, entity=entity)
    for check in now.checks or []:
        _check(samples, name, check)
    _around(samples, name, now)


def _around(samples: Samples, name: str, now: Reading) -> None:
    """Workers, guard, healing, syncs and messages."""
    if now.workers is not None:
        _workers(samples, name, now.workers)
    if now.guard is not None:
        _guard(samples, name, now.guard, now)
    if now.syncs is not None:
        _syncs(samples, name, now.syncs)
    if now.heal is not None:
        _heal(samples, name, now.heal)
    if now.messages is not None:
        messages = now.messages.messages
        for state in ("sent", "waiting", "given_up"):
            samples.set("messages", getattr(messages, state), environment=name, state=state)


def _release(samples: Samples, name: str, release: ReleaseNow) -> None:
    for phase, number in release.outcomes.items():
        samples.set("releases", number, environment=name, phase=phase)
    samples.set("release_neglected", release.neglected is not None, environment=name)
    view, run = release.view, release.view.release
    if run is None:
        return
    for phase in Phase:
        samples.set("release_phase", phase is run.phase, environment=name, phase=phase)
    if view.running_seconds is not None:
        began = view.at.timestamp() - view.running_seconds / run.speed
        samples.set("release_phase_started_timestamp_seconds", began, environment=name)
    samples.set("release_carried", view.carried, environment=name)
    samples.info(
        "release",
        environment=name,
        release=run.id,
        from_revision=short(run.from_revision),
        to_revision=short(run.to_revision),
    )
    for finding in Finding:
        samples.set(
            "release_judgements", (view.findings or {}).get(finding, 0), environment=name, finding=finding
        )
    for state, events in (
        ("planned", view.events_planned),
        ("settled", view.events_settled),
        ("set_aside", view.events_set_aside),
    ):
        samples.set("release_events", events, environment=name, state=state)


def _check(samples: Samples, name: str, check: Measurement) -> None:
    metric, labels, units = _OF_CHECKS.get(check.name, ("", {}, 1.0))
    if metric and check.value is not None:
        samples.set(metric, check.value / units, environment=name, **labels)
    if check.bar is not None:
        samples.set("check_bar", check.bar / units, environment=name, check=check.name)
    if check.state in (State.GOOD, State.BROKEN):
        samples.set("check_broken", check.state is State.BROKEN, environment=name, check=check.name)


def _workers(samples: Samples, name: str, workers: Sequence[WorkerRow]) -> None:
    signs = Counter(worker.sign for worker in workers)
    for sign in Sign:
        samples.set("workers", signs[sign], environment=name, sign=sign)
    revisions = {worker.revision for worker in workers if worker.sign in (Sign.LIVE, Sign.QUIET)}
    samples.set("workers_revisions", len(revisions), environment=name)


def _guard(samples: Samples, name: str, now: GuardNow, reading: Reading) -> None:
    guard = now.guard
    is_active = guard is not None and guard.ended_at is None
    samples.set("guard_active", is_active, environment=name)
    if guard is None:
        return
    looks = [check for check in now.checks if check.kind is Kind.LOOK]
    taken = [check for check in looks if check.taken_at is not None and not check.skipped]
    states = {
        "taken": len(taken),
        "skipped": sum(check.skipped for check in looks),
        "to_come": sum(check.taken_at is None for check in looks),
    }
    for state, number in states.items():
        samples.set("guard_checks", number, environment=name, state=state)
    open_ = [check.due_at for check in now.checks if check.taken_at is None]
    overdue = (reading.at - min(open_)).total_seconds() if now.overdue and open_ else 0.0
    samples.set("guard_overdue_seconds", overdue, environment=name)
    if taken and taken[-1].finding is not None and is_active:
        for finding in Finding:
            samples.set("guard_finding", finding is taken[-1].finding, environment=name, finding=finding)


def _heal(samples: Samples, name: str, heal: HealNow) -> None:
    samples.set("heal_ran_timestamp_seconds", heal.state.ran_at, environment=name)
    samples.set("heal_out_events", heal.out.events if heal.out else 0, environment=name)
    for state in ("events", "completed", "failed", "returned"):
        number = sum(getattr(action, state) or 0 for action in heal.actions)
        samples.set("heal_events", number, environment=name, state="taken" if state == "events" else state)


def _syncs(samples: Samples, name: str, syncs: Syncs) -> None:
    samples.set("sync_calls_today", syncs.calls_today, environment=name)
    for sync in syncs.newest:
        is_stopped = sync.state is SyncState.STOPPED or (
            sync.state is SyncState.RUNNING and not sync.is_carried
        )
        samples.set("sync_running", sync.is_carried, environment=name, kind=sync.kind)
        samples.set("sync_stopped", is_stopped, environment=name, kind=sync.kind)
        samples.set("sync_done_timestamp_seconds", sync.done_at, environment=name, kind=sync.kind)


def _alerts(samples: Samples, name: str, reading: Reading | None, alerts: Sequence[Alert]) -> None:
    counted = Counter((alert.name, alert.severity) for alert in alerts)
    # Of what could not be read nobody knows that there is no alert.
    is_whole = reading is not None and not reading.down
    for alert, severity in product(Name, Severity):
        number = counted[alert, severity]
        samples.set(
            "alerts",
            number if number or is_whole else None,
            environment=name,
            alert=alert,
            severity=severity,
        )
