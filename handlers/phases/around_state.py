"""What is known of the surroundings of a release between two looks, and what the status view shows of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from handlers.database.connections import DatabaseConnections
from handlers.host.log_state import LogState
from handlers.host.machine import HostLoad, shown
from handlers.host.upstream import UpstreamAnswer, UpstreamState
from handlers.measurements.measurement import Action, Measurement
from handlers.phases.source_down import Down

CHANGES_MAX = 50
"""The beginnings and ends of outages that are kept."""
CHECKS_SHOWN = ("success_1h", "webhook_seconds", "throughput", "queue_depth", "oldest")
"""The checks whose numbers are in the status view also while their bars are kept."""
SIGNATURES_SHOWN = 3
"""The kinds of new errors in the status view; the report has them all."""


@dataclass(frozen=True, kw_only=True)
class UpstreamChange:
    """Since when the upstream is away, or answers again."""

    at: datetime
    up: bool


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A bar that is broken."""

    sentence: str
    looks: int = 1
    """In a row."""
    told: bool = False
    """Whether it was paged, and has held the release where it may."""
    action: Action = Action.SHOW
    """What it does to the release."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Broken:
        """From what `asdict` has made of it."""
        return cls(**{**stored, "action": Action(stored.get("action", Action.SHOW))})


@dataclass(frozen=True, kw_only=True)
class AroundState:
    """The surroundings as the looks so far saw them."""

    logs: LogState
    upstream: UpstreamState | None = None
    """None before the first answer, and where the environment has no upstream."""
    asked_at: datetime | None = None
    failed_at: datetime | None = None
    """The first of the failed answers in a row."""
    changes: tuple[UpstreamChange, ...] = ()
    hosts: tuple[HostLoad, ...] = ()
    connections: DatabaseConnections | None = None
    measured_at: datetime | None = None
    """The newest look at the hosts."""
    down: Mapping[str, Down] = field(default_factory=dict)
    """The sources that cannot be read, by their names."""
    broken: Mapping[str, Broken] = field(default_factory=dict)
    """The bars that are broken, by host and reading, or by check."""
    checks: tuple[Measurement, ...] = ()
    """The newest measurements of queue and workers."""
    checked_at: datetime | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the newest answers of the upstream failed, but too few to call it away."""
        return self.failed_at is not None and self.upstream is not None and self.upstream.up

    def answered(self, answer: UpstreamAnswer, failures: int, at: datetime) -> AroundState:
        """The state after an answer of the upstream. An outage begins with the first of its failed answers."""
        before = self.upstream or UpstreamState()
        upstream = before.after(answer, failures)
        failed_at = None if answer.up else self.failed_at or at
        changes = self.changes
        if upstream.up is not before.up:
            began = at if upstream.up else failed_at or at
            changes = (*changes, UpstreamChange(at=began, up=upstream.up))[-CHANGES_MAX:]
        return replace(self, upstream=upstream, asked_at=at, failed_at=failed_at, changes=changes)

    def lines(self) -> list[str]:
        """What a person should know of the surroundings, the most important first."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.upstream is not None and not self.upstream.up:
            began = f" since {self.changes[-1].at.astimezone(UTC):%H:%M} UTC" if self.changes else ""
            yield f"the upstream is away{began}: {self.upstream.sentence}"
        for broken in self.broken.values():
            yield broken.sentence
        newest = self.logs.seen[-SIGNATURES_SHOWN:]
        for signature in newest:
            times = f"{signature.count} times" if signature.count > 1 else "once"
            yield f"new in the logs, {times} ({', '.join(signature.where)}): {signature.fingerprint}"
        if len(self.logs.seen) > len(newest):
            yield f"{len(self.logs.seen) - len(newest)} more kinds of errors are new in the logs"
        for source, down in self.down.items():
            yield f"not read since {down.since.astimezone(UTC):%H:%M} UTC: {source}: {down.why}"
        readings = [shown(self.hosts, self.connections)] if self.hosts or self.connections else []
        if self.upstream is not None and self.upstream.up:
            readings.insert(0, self.upstream.sentence)
        if any(readings):
            yield "; ".join(filter(None, readings))
        shown_checks = [each for each in self.checks if each.name in CHECKS_SHOWN and each.value is not None]
        if shown_checks:
            yield ", ".join(f"{each.name} {each.value:.4g} {each.unit}".rstrip() for each in shown_checks)

    def as_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "logs": self.logs.as_json(),
            "upstream": None if self.upstream is None else asdict(self.upstream),
            "asked_at": _text(self.asked_at),
            "failed_at": _text(self.failed_at),
            "changes": [[change.at.isoformat(), change.up] for change in self.changes],
            "hosts": [host.as_json() for host in self.hosts],
            "connections": None if self.connections is None else self.connections.as_json(),
            "measured_at": _text(self.measured_at),
            "down": {source: down.as_json() for source, down in self.down.items()},
            "broken": {key: asdict(broken) for key, broken in self.broken.items()},
            "checks": [each.as_json() for each in self.checks],
            "checked_at": _text(self.checked_at),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> AroundState:
        """From what `as_json` has made of it."""
        upstream, connections = stored.get("upstream"), stored.get("connections")
        return cls(
            logs=LogState.from_json(stored["logs"]),
            upstream=None if upstream is None else UpstreamState.from_json(upstream),
            asked_at=_time(stored.get("asked_at")),
            failed_at=_time(stored.get("failed_at")),
            changes=tuple(
                UpstreamChange(at=datetime.fromisoformat(at), up=up) for at, up in stored.get("changes") or ()
            ),
            hosts=tuple(HostLoad.from_json(host) for host in stored.get("hosts") or ()),
            connections=None if connections is None else DatabaseConnections.from_json(connections),
            measured_at=_time(stored.get("measured_at")),
            down={source: Down.from_json(down) for source, down in (stored.get("down") or {}).items()},
            broken={key: Broken.from_json(broken) for key, broken in (stored.get("broken") or {}).items()},
            checks=tuple(Measurement.from_json(each) for each in stored.get("checks") or ()),
            checked_at=_time(stored.get("checked_at")),
        )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
