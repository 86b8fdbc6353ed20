"""The metrics of the receiver, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The metrics of one receiver, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter(
            "runbook_webhooks_received",
            "Webhooks that were answered with success, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.queued = Counter(
            "runbook_webhook_events_queued", "Events written to the queue.", ["kind"], registry=self.registry
        )
        self.duplicates = Counter(
            "runbook_webhook_events_duplicate",
            "Records without new content, which were not queued.",
            ["kind"],
            registry=self.registry,
        )
        self.refused = Counter(
            "runbook_webhooks_refused", "Webhooks that were not accepted.", ["reason"], registry=self.registry
        )
        self.checks = Counter(
            "runbook_webhook_checks", "Empty check calls, answered and ignored.", registry=self.registry
        )
        self.seconds = Histogram(
            "runbook_webhook_seconds",
            "Time from the first byte of a call to its answer.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "runbook_webhooks_waiting", "Calls that wait to be written.", registry=self.registry
        )
