"""The note of a phase in the ledger, beside its verdict and sentence, for the status view and for a resume. Pure.

Fields are named like the keys of the stored JSON, so that existing ledgers stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from handlers.gate.values import Finding
from handlers.release.stored import known_fields, parse_time


class HeldBy(StrEnum):
    """What holds a release. It decides whether the release goes on by itself."""

    OPERATOR = "operator"
    """A person asked for it."""
    GATE = "gate"
    """The numbers or the hosts leave a question that a person must answer."""
    DATABASE = "database"
    """Our database was away for longer than a step waits."""
    HOST = "host"
    """A host could not be reached where a measurement needed it."""
    UPSTREAM = "upstream"
    """The upstream was away for longer than a drain waits."""
    SETTINGS = "settings"
    """The environment file, or a secret that it names, cannot be used."""
    RUNBOOK = "runbook"
    """An error in the runbook itself."""


@dataclass(frozen=True, kw_only=True)
class HostNote:
    """The newest health of a host."""

    have: str | None = None
    """The revision in its answer."""
    ok: bool | None = None
    """None before its first probe."""
    note: str = ""
    """What is wrong with it; empty when it is healthy."""
    seen_at: datetime | None = None
    in_a_row: int = 0
    """The number of consecutive good answers."""
    needed: int = 0
    """So many prove the host; 0 when it was only looked at."""
    seconds: float | None = None
    """Real seconds from the first look to its proof, or to the newest look; None when it was only looked at."""
    unit_failed: bool = False
    """Whether a unit has failed, so that waiting cannot help."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> HostNote:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**values | {"seen_at": parse_time(values.get("seen_at"))})


@dataclass(frozen=True, kw_only=True)
class StepNote:
    """One step of a deploy on one host, and its outcome."""

    step: str
    outcome: str
    sentence: str = ""
    operation: str = ""
    """The operation's id; empty when the host could not be reached."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StepNote:
        """From the ledger."""
        return cls(**{"step": "", "outcome": ""} | known_fields(cls, stored))


@dataclass(frozen=True, kw_only=True)
class ReturnNote:
    """How far one host is on its way back to the previous revision."""

    back: bool = False
    sentence: str = ""
    """What it waits for, or its health once it is back."""
    revision: str | None = None
    """The revision in its newest answer, or of its tree."""
    units: str = ""
    """The states of its units; empty once it is back."""
    operation: str = ""
    """The newest operation and its outcome."""
    tries: int = 0
    away: bool = False
    """It could not be reached at the newest try. Once it answers, the next try is due."""
    seen_at: datetime | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ReturnNote:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**values | {"seen_at": parse_time(values.get("seen_at"))})


@dataclass(frozen=True, kw_only=True)
class ArmedNote:
    """Whether every host still has the rollback target."""

    ok: bool = False
    sentence: str = ""
    at: datetime | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ArmedNote:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**values | {"at": parse_time(values.get("at"))})


@dataclass(frozen=True, kw_only=True)
class NextLook:
    """What happens next, and its time."""

    what: str = ""
    at: datetime | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> NextLook:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**values | {"at": parse_time(values.get("at"))})


@dataclass(frozen=True, kw_only=True)
class ApprovalNote:
    """What a plan waits for: approvals while it is planned, its start once it is approved."""

    needed: int = 0
    until: datetime | None = None
    """When it has waited too long."""
    starts: bool = False
    """Whether it starts by itself once it is approved."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ApprovalNote:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**values | {"until": parse_time(values.get("until"))})


@dataclass(frozen=True, kw_only=True)
class PhaseNote:
    """The note of a phase. None is unset: it is not written, so that it does not replace a stored value."""

    hosts: dict[str, HostNote] | None = None
    """The newest health of each host."""
    steps: dict[str, tuple[StepNote, ...]] | None = None
    """What a deploy or a rollback did on each host, in order."""
    returns: dict[str, ReturnNote] | None = None
    """How far each host is on its way back."""
    changed: bool | None = None
    """Whether a running service may have changed."""
    armed: ArmedNote | None = None
    """The rollback target on the hosts at the newest look."""
    next: NextLook | None = None
    around: dict[str, Any] | None = None
    """What is around the release: its `lines` for the status view, and the `state` for the next look at it."""
    looked: str | None = None
    """The sentence of the newest measurement."""
    window_seconds: float | None = None
    """How long a watch lasts, in runbook seconds."""
    watched_seconds: float | None = None
    """How much of the watch is over, measured, in runbook seconds."""
    watched_at: datetime | None = None
    """When that was measured, by the database's clock."""
    finding: Finding | None = None
    """The newest finding of a watch."""
    synthetic_event: UUID | None = None
    """The synthetic event that the workers have not settled. It and the next field share the stored key `synthetic`:
    the end of a canary replaces its event, so that a judged event is not followed again."""
    synthetic: bool | None = None
    """Of a judged canary: whether it was a synthetic event."""
    event: UUID | None = None
    """The event of the canary."""
    failed: dict[str, int] | None = None
    """Events in status failed, counted by error, when there was no dead letter for the canary."""
    batch: int | None = None
    """The batch at which a drain ended."""
    drained: int | None = None
    left: int | None = None
    """The number of planned dead letters that were not drained."""
    set_aside: dict[str, int] | None = None
    """Of those left, the letters that the drain has set aside so far, counted by reason."""
    blames_revision: bool | None = None
    """Of the phase before a rollback: whether its failure is evidence against the revision. None in older ledgers."""
    held_by: HeldBy | None = None
    """Of the phase before a hold: what holds the release. Of a hold: that a person took it over. None in older
    ledgers."""
    skipped_by: str | None = None
    """The person who ended this phase without its result."""
    approval: ApprovalNote | None = None
    """Of a plan that waits for approval, or that was approved."""
    why: str | None = None
    """The reason of a rollback."""
    evidence: str | None = None
    """The evidence that was saved before the rollback."""
    activated: str | None = None
    """How the previous revision was activated on the hosts."""

    def __post_init__(self) -> None:
        if self.synthetic_event is not None and self.synthetic is not None:
            raise ValueError("a synthetic event is either open or judged, not both")

    def stamped(self, at: datetime) -> PhaseNote:
        """The same with *at* as the time of what was seen and has none: the database's time of the writing."""
        hosts, returns, armed = self.hosts, self.returns, self.armed
        return replace(
            self,
            hosts=hosts and {name: replace(host, seen_at=host.seen_at or at) for name, host in hosts.items()},
            returns=returns
            and {name: replace(host, seen_at=host.seen_at or at) for name, host in returns.items()},
            armed=armed and replace(armed, at=armed.at or at),
        )

    def as_json(self) -> dict[str, object]:
        """The JSON for the ledger: only the fields that are set."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        if self.synthetic_event is not None:
            values["synthetic"] = values.pop("synthetic_event")
        return values

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PhaseNote:
        """From the ledger of this or another version: missing keys are unset, unknown keys are ignored."""
        values = known_fields(cls, stored)
        if isinstance(event := values.get("synthetic"), str):
            del values["synthetic"]
            values["synthetic_event"] = UUID(event)
        if "hosts" in values:
            values["hosts"] = {name: HostNote.from_json(host) for name, host in values["hosts"].items()}
        if "returns" in values:
            values["returns"] = {name: ReturnNote.from_json(note) for name, note in values["returns"].items()}
        if "steps" in values:
            values["steps"] = {
                name: tuple(StepNote.from_json(step) for step in steps)
                for name, steps in values["steps"].items()
            }
        for name, parse in (
            ("next", NextLook.from_json),
            ("armed", ArmedNote.from_json),
            ("approval", ApprovalNote.from_json),
            ("watched_at", parse_time),
            ("finding", Finding),
            ("held_by", HeldBy),
            ("event", UUID),
        ):
            if name in values:
                values[name] = parse(values[name])
        return cls(**values)
