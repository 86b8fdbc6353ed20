"""Who may start a release although a rule of the environment keeps it from starting: a freeze, or a promotion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.environment.people import Role, key_of, members
from handlers.release.stored import known_fields


class Barrier(StrEnum):
    """A rule that keeps something from starting, and that a person may override."""

    FREEZE = "freeze"
    PROMOTION = "promotion"


@dataclass(frozen=True, kw_only=True)
class OverrideRequest:
    """A person wants to start something although one of these rules keeps it from starting."""

    person: str
    reason: str
    account: str = ""
    of: frozenset[Barrier] = frozenset({Barrier.FREEZE})


def requested(
    person: str, reason: str, *, freeze: bool, promotion: bool, account: str = ""
) -> OverrideRequest | None:
    """The request to override these rules; None when none is to be overridden."""
    wanted = {Barrier.FREEZE: freeze, Barrier.PROMOTION: promotion}
    rules = frozenset(barrier for barrier, is_wanted in wanted.items() if is_wanted)
    return OverrideRequest(person=person, reason=reason, account=account, of=rules) if rules else None


@dataclass(frozen=True, kw_only=True)
class PlannedOverride:
    """A rule that a plan starts in spite of, and the right of the person who wants it."""

    what: str
    """What keeps it from starting, as it was told. Another sentence later is not overridden."""
    person: str
    account: str
    by_right: str
    """`role release-manager`, or `by name`."""
    reason: str
    of: Barrier = Barrier.FREEZE

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PlannedOverride:
        """From the ledger of this or an older version, which knew freezes only."""
        values: dict[str, Any] = dict.fromkeys(("what", "person", "account", "by_right", "reason"), "")
        values |= known_fields(cls, stored)
        return cls(**{**values, "of": Barrier(values.get("of") or Barrier.FREEZE)})


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What one of the rules of an environment says about a start."""

    good: bool
    warns: bool
    sentence: str
    overrides: tuple[PlannedOverride, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rights:
    """Who may override a rule: people by name, and the people of roles."""

    people: tuple[str, ...]
    role_names: tuple[str, ...]
    roles: tuple[Role, ...]
    """The roles of the environment."""

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody who may, by name, each once."""
        return members(self.people, self.role_names, self.roles)

    def of(self, person: str) -> str | None:
        """By which right this person may; None without one."""
        if key_of(person) in map(key_of, self.people):
            return "by name"
        for role in self.roles:
            if role.name in self.role_names and key_of(person) in map(key_of, role.people):
                return f"role {role.name}"
        return None


def decide(known: Iterable[tuple[str, Rights]], request: OverrideRequest, of: Barrier) -> Ruling:
    """Whether a person may start something in spite of all that is *known* against it: sentences, and who may override.

    A right for one of them is no right for the others, and a reason is needed.
    """
    found, overrides = tuple(known), []
    for what, rights in found:
        right = rights.of(request.person)
        if right is None:
            whom = f"ask {', '.join(rights.members)}" if rights.members else "nobody may"
            return _refused(f"{what}; {request.person} may not override it: {whom}")
        overrides.append(
            PlannedOverride(
                what=what,
                person=request.person,
                account=request.account,
                by_right=right,
                reason=request.reason,
                of=of,
            )
        )
    if not request.reason.strip():
        return _refused(f"{found[0][0]}; to override it give a reason: --reason")
    told = "; ".join(what for what, _ in found)
    sentence = (
        f'{told}; {request.person} ({overrides[0].by_right}) starts it all the same: "{request.reason}"'
    )
    return Ruling(good=True, warns=True, sentence=sentence, overrides=tuple(overrides))


def _refused(sentence: str) -> Ruling:
    return Ruling(good=False, warns=False, sentence=sentence)
