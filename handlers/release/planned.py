"""What a release would do, before anything is done: the checks, the steps, and the dead letters it may touch."""

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
from handlers.gate.values import Baseline, Thresholds
from handlers.queue.event import DRAIN_ORDER, EntityType
from handlers.queue.look import DeadLetter
from handlers.release.phase import Phase, short
from handlers.release.stored import known, moment

EVERYTHING = (Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
"""The scope of a whole release; a canary, a drain or a watch by hand is a release with a smaller one."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that must be true before a release may start."""

    name: str
    good: bool
    sentence: str
    warns: bool = False
    """Nothing that forbids a release, but somebody should know it before they say yes."""

    @property
    def mark(self) -> str:
        """How a list of checks shows it, all marks as wide as each other."""
        return "[FAIL]" if not self.good else "[warn]" if self.warns else "[ok]  "


@dataclass(frozen=True, kw_only=True)
class PlannedHost:
    """What stands on one host before the release."""

    name: str
    current: str
    """The commit that its tree is on, full hash."""
    rollback_present: bool


@dataclass(frozen=True, kw_only=True)
class PlannedEvent:
    """One dead letter that this release may send back; no other is ever touched."""

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
    """A release as it would happen. Its hash changes when the world it was made in changes."""

    environment: str
    requested: str
    """The revision as it was asked for."""
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
    """How many events stand in each status."""
    failed: dict[str, int]
    """Events in status failed, counted by what is wrong with them: nobody redrives those without a person."""
    checks: tuple[Check, ...]
    thresholds: Thresholds
    """The environment's bars."""
    baseline: Baseline | None
    """What became of live events in the 24 h before: completed and failed."""
    seconds_expected: float
    steps: tuple[str, ...] = field(default=())
    left_by: str = ""
    """The release whose left behind dead letters alone are taken; empty: all that can be drained."""
    looked_at: datetime | None = None
    """When the world was looked at; a plan that has lain for a while is compared with it before it is carried out."""

    @property
    def good(self) -> bool:
        """Whether every check passed."""
        return all(check.good for check in self.checks)

    @property
    def refusal(self) -> str:
        """Why it may not start: the sentences of the checks that failed."""
        return "; ".join(check.sentence for check in self.checks if not check.good)

    @property
    def hash(self) -> str:
        """Twelve digits that stand for what would change and what it was decided on."""
        bound = {
            "environment": self.environment,
            "from": self.from_revision,
            "to": self.to_revision,
            "scope": self.scope,
            "hosts": sorted(host.name for host in self.hosts),
            "events": [event.id for event in self.events],
            "thresholds": asdict(self.thresholds),
        }
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, object]:
        """As the ledger keeps it."""
        return {**asdict(self), "good": self.good, "hash": self.hash}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """From the ledger, also one that an older program wrote: what it did not know is empty or as by default.

        Numbers stay as they are written there: 95 and 95.0 are one bar, but two hashes.
        """
        told = stored.get
        baseline = told("baseline")
        return cls(
            environment=stored["environment"],
            requested=told("requested") or "",
            from_revision=stored["from_revision"],
            to_revision=stored["to_revision"],
            scope=tuple(Phase(phase) for phase in stored["scope"]),
            commits=tuple(told("commits") or ()),
            hosts=tuple(PlannedHost(**known(PlannedHost, host)) for host in stored["hosts"]),
            events=tuple(PlannedEvent.from_json(event) for event in stored["events"]),
            set_aside=told("set_aside") or {},
            queue=told("queue") or {},
            failed=told("failed") or {},
            checks=tuple(Check(**known(Check, check)) for check in told("checks") or ()),
            thresholds=_thresholds(told("thresholds") or {}),
            baseline=Baseline(**known(Baseline, baseline)) if baseline else None,
            seconds_expected=told("seconds_expected") or 0.0,
            steps=tuple(told("steps") or ()),
            left_by=told("left_by") or "",
            looked_at=moment(told("looked_at")),
        )

    def by_type_and_error(self) -> Counter[tuple[str, str]]:
        """The planned dead letters counted by kind of record and error code."""
        return Counter((event.entity.value, event.error_code) for event in self.events)


def sort_out(dead: list[DeadLetter]) -> tuple[tuple[PlannedEvent, ...], dict[str, int]]:
    """The dead letters in the order they may be drained, and the others counted by why not."""
    aside: Counter[str] = Counter()
    events = []
    for letter in dead:
        if letter.entity is None:
            aside[f"no handler for entity type {letter.raw_type}"] += 1
        else:
            events.append((DRAIN_ORDER.index(letter.entity), letter.created_at, letter))
    events.sort(key=lambda each: (each[0], each[1], str(each[2].id)))
    return tuple(planned_event(letter) for _, _, letter in events), dict(aside)


def planned_event(letter: DeadLetter) -> PlannedEvent:
    """A dead letter of a known kind, as a plan names it."""
    assert letter.entity is not None
    return PlannedEvent(
        id=str(letter.id),
        entity=letter.entity,
        key=letter.key,
        error_code=letter.error_code or "none",
        fingerprint=letter.fingerprint,
    )


def canary_of(events: tuple[PlannedEvent, ...], ages: dict[UUID, float]) -> PlannedEvent | None:
    """The dead letter that proves most: of the commonest error on one kind of record in the backlog, the oldest.

    *ages* gives seconds by event id; an event that is missing there is no longer a dead letter.
    """
    there = [event for event in events if UUID(event.id) in ages]
    if not there:
        return None
    common = Counter(_error_class(event) for event in there).most_common()
    most = max(count for _, count in common)
    chosen = min(kind for kind, count in common if count == most)
    return max(
        (event for event in there if _error_class(event) == chosen),
        key=lambda event: (ages[UUID(event.id)], event.id),
    )


def steps(
    environment: Environment, scope: tuple[Phase, ...], events: int, to_revision: str
) -> tuple[str, ...]:
    """The release as a list of sentences, for people."""
    hosts = ", ".join(host.name for host in environment.hosts)
    target = short(to_revision)
    told = {
        Phase.DEPLOYING: f"deploy {target} to {hosts}: workers stop everywhere, one host first, then the others",
        Phase.PROBING: f"probe: {environment.probe.consecutive} good answers in a row from each host, "
        f"with {target} in them",
        Phase.CANARY: "canary: one dead letter through the deployed workers, followed to its end",
        Phase.DRAINING: f"drain: the other dead letters ({max(0, events - 1)}), one of each type first, "
        "then growing batches",
        Phase.WATCHING: f"watch: {environment.watch.window_seconds / 60:g} min, a look every "
        f"{environment.watch.interval_seconds:g} s",
    }
    return tuple(told[phase] for phase in EVERYTHING if phase in scope)


def expected_seconds(environment: Environment, scope: tuple[Phase, ...], events: int) -> float:
    """About how long it will take: the bounds of the waits, and a guess of 20 s for each host.

    Batches double, so their number is the logarithm of the events'.
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
    values = known(Thresholds, stored)
    if "instant_errors" in values:
        values["instant_errors"] = tuple(values["instant_errors"])
    return Thresholds(**values)


def _error_class(event: PlannedEvent) -> tuple[str, str, str]:
    return (event.entity.value, event.error_code, event.fingerprint)
