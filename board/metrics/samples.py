"""The samples of one scrape, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from board.metrics.names import BY_NAME, METRICS, PREFIX
from handlers.queue.processing_times import BOUNDS, Times


class Samples(Collector):
    """Collects samples by the names in METRICS; another name is a KeyError."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def set(
        self, name: str, value: float | bool | datetime | None, *, environment: str = "", **labels: str
    ) -> None:
        """Add a sample. None is not known: then there is none."""
        metric = BY_NAME[name]
        if value is None:
            return
        number = value.timestamp() if isinstance(value, datetime) else float(value)
        family = self._families.setdefault(
            name, GaugeMetricFamily(PREFIX + name, metric.help, labels=self._label_names(name))
        )
        assert isinstance(family, GaugeMetricFamily)
        family.add_metric(self._label_values(name, environment, labels), number)

    def info(self, name: str, *, environment: str = "", **labels: str) -> None:
        """Add the one series of an info metric."""
        metric = BY_NAME[name]
        family = self._families.setdefault(name, InfoMetricFamily(PREFIX + name, metric.help, labels=[]))
        assert isinstance(family, InfoMetricFamily)
        values = dict(labels) if metric.of_board else {"environment": environment, **labels}
        family.add_metric([], values)

    def histogram(self, name: str, times: Times, *, environment: str, **labels: str) -> None:
        """Add a histogram with cumulative buckets."""
        metric = BY_NAME[name]
        family = self._families.setdefault(
            name, HistogramMetricFamily(PREFIX + name, metric.help, labels=self._label_names(name))
        )
        assert isinstance(family, HistogramMetricFamily)
        below, buckets = 0, []
        for bound, events in zip([*map(_bound, BOUNDS), "+Inf"], times.buckets, strict=True):
            below += events
            buckets.append((bound, float(below)))
        family.add_metric(self._label_values(name, environment, labels), buckets, times.seconds)

    def collect(self) -> Iterator[Family]:
        """The families in the order of METRICS."""
        for metric in METRICS:
            if metric.name in self._families:
                yield self._families[metric.name]

    def text(self) -> bytes:
        """The answer to a scrape."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def _label_names(self, name: str) -> list[str]:
        metric = BY_NAME[name]
        return [*([] if metric.of_board else ["environment"]), *metric.labels]

    def _label_values(self, name: str, environment: str, labels: Mapping[str, str]) -> list[str]:
        metric = BY_NAME[name]
        given = [labels[label] for label in metric.labels]
        return given if metric.of_board else [environment, *given]


def _bound(seconds: float) -> str:
    return str(float(seconds))
