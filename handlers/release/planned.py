"""The plan of a release: the checks, the steps, and the dead letters that it may redrive."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from handlers.environment.model import Environment
from handlers.gate.day_before import DayBefore
from handlers.gate.values import Baseline, Thresholds
from handlers.queue.event import DRAIN_ORDER, EntityType
from handlers.queue.look import DeadLetter
from handlers.release.phase import Phase, short
from handlers.release.stored import known_fields, parse_time

EVERYTHING = (Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
"""The scope of a whole release. A canary, a drain or a watch by hand is a release with a smaller scope."""
HISTORY = "history"
"""The name of the check that warns when a release loses commits that run now."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition for the start of a release, checked."""

    name: str
    good: bool
    sentence: str
    warns: bool = False
    """It passes, but its sentence is a warning that the operator should read before the approval."""

    @property
    def mark(self) -> str:
        """Its mark in a list of checks; all marks have the same width."""
        return "[FAIL]" if not self.good else "[warn]" if self.warns else "[ok]  "


@dataclass(frozen=True, kw_only=True)
class PlannedHost:
    """The state of one host before the release."""

    name: str
    current: str
    """The commit of its tree, full hash."""
    rollback_present: bool


@dataclass(frozen=True, kw_only=True)
class PlannedEvent:
    """One dead letter that this release may redrive; it never redrives any other."""

    id: str
    entity: EntityType
    key: str
    error_code: str
    fingerprint: str

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PlannedEvent:
        """From the ledger."""
        return cls(
            id=stored["id"],
            entity=EntityType(stored["entity"]),
            key=stored["key"],
            error_code=stored["error_code"],
            fingerprint=stored["fingerprint"],
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A release before it starts. Its hash changes when hosts, dead letters or settings change."""

    environment: str
    requested: str
    """The revision as the operator named it."""
    from_revision: str
    to_revision: str
    scope: tuple[Phase, ...]
    commits: tuple[str, ...]
    """One line for each commit between the two, newest first."""
    hosts: tuple[PlannedHost, ...]
    events: tuple[PlannedEvent, ...]
    """In the order of the drain: parents first, oldest first."""
    set_aside: dict[str, int]
    """Dead letters that are not drained, counted by reason."""
    queue: dict[str, int]
    """The number of events in each status."""
    failed: dict[str, int]
    """Events in status failed, counted by error. They are never redriven automatically."""
    checks: tuple[Check, ...]
    thresholds: Thresholds
    """The environment's thresholds."""
    baseline: Baseline | None
    """The outcomes of live events in the 24 h before."""
    seconds_expected: float
    day_before: DayBefore | None = None
    """The 24 hours before, by type: what was wrong then is no evidence against the release."""
    steps: tuple[str, ...] = field(default=())
    left_by: str = ""
    """Only dead letters left behind by this release are planned; empty: all that can be drained."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The environment file's settings, which the release keeps to its end. Empty in plans of older ledgers."""
    looked_at: datetime | None = None
    """When hosts, queue and ledger were inspected. An older plan is checked for drift before it runs."""

    @property
    def good(self) -> bool:
        """Whether every check passed."""
        return all(check.good for check in self.checks)

    @property
    def history_warning(self) -> str:
        """That commits which run now would be gone: a person confirms it with the start. Empty when none would."""
        return "; ".join(check.sentence for check in self.checks if check.name == HISTORY and check.warns)

    @property
    def refusal(self) -> str:
        """Why it may not start: the sentences of the failed checks."""
        return "; ".join(check.sentence for check in self.checks if not check.good)

    @property
    def hash(self) -> str:
        """Twelve hex digits that identify the planned changes and the settings. An approval names them."""
        bound: dict[str, object] = {
            "environment": self.environment,
            "from": self.from_revision,
            "to": self.to_revision,
            "scope": self.scope,
            "hosts": sorted(host.name for host in self.hosts),
            "events": [event.id for event in self.events],
            "thresholds": asdict(self.thresholds),
        }
        if self.settings:  # A plan of an older ledger keeps the hash that people saw.
            bound["settings"] = self.settings
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, object]:
        """The JSON for the ledger."""
        values = {**asdict(self), "good": self.good, "hash": self.hash}
        if self.day_before is None:  # A plan of an older ledger stays as it is.
            del values["day_before"]
        return values

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """From the ledger of this or an older version: a missing value is empty or the default.

        Numbers keep their stored form: 95 and 95.0 are the same threshold, but give different hashes.
        """
        get = stored.get
        baseline = get("baseline")
        return cls(
            environment=stored["environment"],
            requested=get("requested") or "",
            from_revision=stored["from_revision"],
            to_revision=stored["to_revision"],
            scope=tuple(Phase(phase) for phase in stored["scope"]),
            commits=tuple(get("commits") or ()),
            hosts=tuple(PlannedHost(**known_fields(PlannedHost, host)) for host in stored["hosts"]),
            events=tuple(PlannedEvent.from_json(event) for event in stored["events"]),
            set_aside=get("set_aside") or {},
            queue=get("queue") or {},
            failed=get("failed") or {},
            checks=tuple(Check(**known_fields(Check, check)) for check in get("checks") or ()),
            thresholds=_thresholds(get("thresholds") or {}),
            baseline=Baseline(**known_fields(Baseline, baseline)) if baseline else None,
            seconds_expected=get("seconds_expected") or 0.0,
            day_before=DayBefore.from_json(before) if (before := get("day_before")) else None,
            steps=tuple(get("steps") or ()),
            left_by=get("left_by") or "",
            settings=get("settings") or {},
            looked_at=parse_time(get("looked_at")),
        )

    def by_type_and_error(self) -> Counter[tuple[str, str]]:
        """The planned dead letters counted by kind of record and error code."""
        return Counter((event.entity.value, event.error_code) for event in self.events)


def select_drainable(dead: list[DeadLetter]) -> tuple[tuple[PlannedEvent, ...], dict[str, int]]:
    """The dead letters that can be drained, in the order of the drain; the others are counted by reason."""
    set_aside: Counter[str] = Counter()
    events = []
    for letter in dead:
        if letter.entity is None:
            set_aside[f"no handler for entity type {letter.raw_type}"] += 1
        else:
            events.append((DRAIN_ORDER.index(letter.entity), letter.created_at, letter))
    events.sort(key=lambda event: (event[0], event[1], str(event[2].id)))
    return tuple(planned_event(letter) for _, _, letter in events), dict(set_aside)


def planned_event(letter: DeadLetter) -> PlannedEvent:
    """A dead letter of a known entity type as an event of a plan."""
    assert letter.entity is not None
    return PlannedEvent(
        id=str(letter.id),
        entity=letter.entity,
        key=letter.key,
        error_code=letter.error_code or "none",
        fingerprint=letter.fingerprint,
    )


def canary_of(events: tuple[PlannedEvent, ...], came_at: Mapping[UUID, datetime]) -> PlannedEvent | None:
    """The dead letter that proves the most: the oldest with the most common error of one entity type.

    *came_at* maps event ids to the times of their arrival; an event that is not in it is not a dead letter any more.
    """
    available = [event for event in events if UUID(event.id) in came_at]
    if not available:
        return None
    counts = Counter(_error_class(event) for event in available)
    count_max = max(counts.values())
    chosen = min(kind for kind, count in counts.items() if count == count_max)
    return min(
        (event for event in available if _error_class(event) == chosen),
        key=lambda event: (came_at[UUID(event.id)], event.id),
    )


def steps(
    environment: Environment, scope: tuple[Phase, ...], events: int, to_revision: str
) -> tuple[str, ...]:
    """The release as a list of sentences, for people."""
    hosts = ", ".join(host.name for host in environment.hosts)
    target = short(to_revision)
    sentences = {
        Phase.DEPLOYING: f"deploy {target} to {hosts}: stop the workers everywhere, change one host first, then "
        "the others",
        Phase.PROBING: f"probe: {environment.probe.consecutive} good answers in a row with {target} from each host",
        Phase.CANARY: "canary: send one dead letter to the deployed workers and follow it until it settles"
        if events
        else "canary: no dead letter can be drained, so a synthetic event goes to the deployed workers",
        Phase.DRAINING: f"drain: redrive the other dead letters ({max(0, events - 1)}), one of each type first, "
        "then growing batches; what fails again is set aside"
        if events > 1
        else "drain: there is no other dead letter",
        Phase.WATCHING: f"watch: measure live traffic for {environment.watch.window_seconds / 60:g} min, every "
        f"{environment.watch.interval_seconds:g} s",
    }
    return tuple(sentences[phase] for phase in EVERYTHING if phase in scope)


def expected_seconds(environment: Environment, scope: tuple[Phase, ...], events: int) -> float:
    """The estimated duration: the waits of each phase, and 20 s for each host.

    Batches double, so their number grows with the logarithm of the number of events.
    """
    deploy = 20.0 * len(environment.hosts)
    probe = environment.probe.consecutive * environment.probe.interval_seconds
    batches = 2 + events.bit_length()
    parts = {
        Phase.DEPLOYING: deploy,
        Phase.PROBING: probe,
        Phase.CANARY: 5.0,
        Phase.DRAINING: 5.0 * batches if events else 0.0,
        Phase.WATCHING: environment.watch.window_seconds,
    }
    return sum(seconds for phase, seconds in parts.items() if phase in scope)


def _thresholds(stored: Mapping[str, Any]) -> Thresholds:
    values = known_fields(Thresholds, stored)
    if "instant_errors" in values:
        values["instant_errors"] = tuple(values["instant_errors"])
    return Thresholds(**values)


def _error_class(event: PlannedEvent) -> tuple[str, str, str]:
    return (event.entity.value, event.error_code, event.fingerprint)
