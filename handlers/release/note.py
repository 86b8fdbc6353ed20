"""What a phase keeps in the ledger beside its verdict and its sentence, for whoever watches or goes on. Pure.

A field is named as the ledger's JSON names it, so that ledgers that exist keep their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from handlers.gate.values import Finding
from handlers.release.stored import known, moment


@dataclass(frozen=True, kw_only=True)
class HostNote:
    """A host as it was last seen."""

    have: str | None = None
    """The revision in its answer."""
    ok: bool | None = None
    """None when nobody has asked it yet."""
    note: str = ""
    """What is wrong with it; empty when nothing is."""
    seen_at: datetime | None = None
    in_a_row: int = 0
    """So many good answers, one after the other."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> HostNote:
        """From the ledger."""
        values = known(cls, stored)
        return cls(**values | {"seen_at": moment(values.get("seen_at"))})


@dataclass(frozen=True, kw_only=True)
class StepNote:
    """One step of a deploy on one host, and what came of it."""

    step: str
    outcome: str
    sentence: str = ""
    operation: str = ""
    """The operation's id; empty when the host could not even be asked."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StepNote:
        """From the ledger."""
        return cls(**{"step": "", "outcome": ""} | known(cls, stored))


@dataclass(frozen=True, kw_only=True)
class NextLook:
    """What comes next, and when."""

    what: str = ""
    at: datetime | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> NextLook:
        """From the ledger."""
        values = known(cls, stored)
        return cls(**values | {"at": moment(values.get("at"))})


@dataclass(frozen=True, kw_only=True)
class PhaseNote:
    """What a phase tells. None is unset: it is not written, and so replaces nothing that is there already."""

    hosts: dict[str, HostNote] | None = None
    """Each host as it was last seen."""
    steps: dict[str, tuple[StepNote, ...]] | None = None
    """What a deploy or a rollback did on each host, in order."""
    changed: bool | None = None
    """Whether anything that runs may have changed."""
    next: NextLook | None = None
    looked: str | None = None
    """The sentence of the last look."""
    window_seconds: float | None = None
    """How long a watch lasts, in runbook seconds."""
    finding: Finding | None = None
    """What the numbers said at a watch's last look."""
    synthetic_event: UUID | None = None
    """The synthetic event that is out with the workers. It and the next field are one key, `synthetic`, in the ledger:
    the end of a canary takes the place of its event, so that one that was judged is not followed again."""
    synthetic: bool | None = None
    """Of a canary that has come to its end: whether it was a synthetic event."""
    event: UUID | None = None
    """The event that a canary was."""
    failed: dict[str, int] | None = None
    """Events in status failed, counted by what is wrong with them, where nothing else could be a canary."""
    batch: int | None = None
    """The batch at which a drain ended."""
    drained: int | None = None
    left: int | None = None
    """So many planned dead letters were not drained."""
    why: str | None = None
    """Why a rollback was begun."""
    evidence: str | None = None
    """What was saved before it."""
    activated: str | None = None
    """How the former revision came back to the hosts."""

    def __post_init__(self) -> None:
        if self.synthetic_event is not None and self.synthetic is not None:
            raise ValueError("a synthetic event is either under way or at its end")

    def as_json(self) -> dict[str, object]:
        """As the ledger keeps it: what is set, and nothing else."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        if self.synthetic_event is not None:
            values["synthetic"] = values.pop("synthetic_event")
        return values

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PhaseNote:
        """From the ledger, also one of an older program: what it did not write is unset, what is unknown is ignored."""
        values = known(cls, stored)
        if isinstance(event := values.get("synthetic"), str):
            del values["synthetic"]
            values["synthetic_event"] = UUID(event)
        if "hosts" in values:
            values["hosts"] = {name: HostNote.from_json(host) for name, host in values["hosts"].items()}
        if "steps" in values:
            values["steps"] = {
                name: tuple(StepNote.from_json(step) for step in steps)
                for name, steps in values["steps"].items()
            }
        for name, read in (("next", NextLook.from_json), ("finding", Finding), ("event", UUID)):
            if name in values:
                values[name] = read(values[name])
        return cls(**values)
