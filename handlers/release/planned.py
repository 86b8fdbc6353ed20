"""The plan of a release: the checks, the steps, and the dead letters that it may redrive."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from handlers.gate.day_before import DayBefore
from handlers.gate.values import Baseline, Thresholds
from handlers.queue.event import DRAIN_ORDER, EntityType
from handlers.queue.look import DeadLetter
from handlers.release.host_steps import HostSteps
from handlers.release.only import ALL, Only
from handlers.release.override import PlannedOverride
from handlers.release.phase import Phase
from handlers.release.pulled import MergedPull
from handlers.release.schema_changes import Migration, one_way
from handlers.release.stored import known_fields, parse_time, thresholds_from
from handlers.release.usual import Usual, UsualSteps

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
    temporary: bool = False
    """It fails for a reason that goes away without an operator, such as a database that is away."""

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


def kind_of(scope: Iterable[Phase]) -> str:
    """What was started: `release`, or the last phase of one by hand: `canary`, `drain` or `watch`."""
    phases = set(scope)
    if Phase.DEPLOYING in phases:
        return "release"
    names = {Phase.WATCHING: "watch", Phase.DRAINING: "drain", Phase.CANARY: "canary"}
    return next((name for phase, name in names.items() if phase in phases), "release")


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
    host_steps: tuple[HostSteps, ...] = ()
    """What is done on each host and in which order; empty where nothing is deployed."""
    migrations: tuple[Migration, ...] = ()
    """The ERP's own migrations among the commits, with what each does to the revision that runs."""
    usual: Usual | None = None
    """How long the last releases took; None where there is no history."""
    usual_steps: UsualSteps = field(default_factory=UsualSteps)
    """What each step on a host took in the last releases; empty where there is no history."""
    overrides: tuple[PlannedOverride, ...] = ()
    """The freezes and missing promotions in spite of which it starts."""
    pull_request: MergedPull | None = None
    """The merged pull request that made the revision; None where there is none, or no forge."""
    left_by: str = ""
    """Only dead letters left behind by this release are planned; empty: all that can be drained."""
    only: Only = ALL
    """Which of them a person asked for."""
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
    def one_way(self) -> tuple[Migration, ...]:
        """The migrations that the revision before does not survive: it is not taken back automatically."""
        return one_way(self.migrations)

    @property
    def start_warning(self) -> str:
        """What a person confirms with the start: commits that would be gone, a way back that is not automatic."""
        found = [self.history_warning] if self.history_warning else []
        if self.one_way:
            named = ", ".join(each.sentence for each in self.one_way[:3])
            found.append(f"it is not taken back automatically ({len(self.one_way)} contract: {named})")
        return "; ".join(found)

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
        if self.migrations:
            bound["migrations"] = [(each.path, each.mark) for each in self.migrations]
        if self.settings:  # A plan of an older ledger keeps the hash that people saw.
            bound["settings"] = self.settings
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def summary(self) -> str:
        """The plan in one sentence, for the ledger and the status view."""
        return f"{self.hash}: {len(self.checks)} checks passed, {len(self.events)} dead letters to drain"

    def as_json(self) -> dict[str, object]:
        """The JSON for the ledger."""
        values: dict[str, Any] = {**asdict(self), "good": self.good, "hash": self.hash}
        for check in values["checks"]:
            if not check["temporary"]:
                del check["temporary"]
        if not self.only:
            del values["only"]
        for name in ("day_before", "host_steps", "migrations", "overrides", "pull_request", "usual"):
            if not values[name]:  # A plan of an older ledger stays as it is.
                del values[name]
        if not self.usual_steps:
            del values["usual_steps"]
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
            thresholds=thresholds_from(get("thresholds") or {}),
            baseline=Baseline(**known_fields(Baseline, baseline)) if baseline else None,
            seconds_expected=get("seconds_expected") or 0.0,
            day_before=DayBefore.from_json(before) if (before := get("day_before")) else None,
            steps=tuple(get("steps") or ()),
            host_steps=tuple(HostSteps.from_json(each) for each in get("host_steps") or ()),
            migrations=tuple(Migration.from_json(each) for each in get("migrations") or ()),
            usual=Usual.from_json(usual) if (usual := get("usual")) else None,
            usual_steps=UsualSteps.from_json(get("usual_steps") or {}),
            overrides=tuple(PlannedOverride.from_json(each) for each in get("overrides") or ()),
            pull_request=MergedPull.from_json(pull) if (pull := get("pull_request")) else None,
            left_by=get("left_by") or "",
            only=Only(**known_fields(Only, get("only") or {})),
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
            code = letter.error_code or "none"
            set_aside[f"{letter.raw_type}, error {code}: nothing handles this entity type"] += 1
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


def _error_class(event: PlannedEvent) -> tuple[str, str, str]:
    return (event.entity.value, event.error_code, event.fingerprint)
