"""Whether a freeze keeps something from starting, and who may start it all the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from handlers.environment import freezes
from handlers.environment.freezes import Action, Active, Freeze
from handlers.environment.people import Role
from handlers.release.override import Barrier, OverrideRequest, Rights, Ruling, decide


def rule(
    known: Sequence[Freeze],
    roles: Iterable[Role],
    action: Action,
    now: datetime,
    *,
    lasts_seconds: float,
    request: OverrideRequest | None = None,
) -> Ruling | None:
    """Whether *action* may start now. None where the environment has no freeze for it."""
    if not any(action in freeze.actions for freeze in known):
        return None
    active = freezes.active(known, action, now)
    if not active:
        return _free(known, action, now, lasts_seconds)
    if request is None or Barrier.FREEZE not in request.of:
        return Ruling(good=False, warns=False, sentence=_why_not(known, action, now, active))
    people = tuple(roles)
    told = [(each.sentence, _rights(each.freeze, people)) for each in active]
    return decide(told, request, Barrier.FREEZE)


def not_overridden(
    known: Sequence[Freeze], action: Action, now: datetime, overridden: Iterable[str]
) -> tuple[Active, ...]:
    """The freezes that are active now, without those that were overridden, by their sentences."""
    allowed = set(overridden)
    return tuple(each for each in freezes.active(known, action, now) if each.sentence not in allowed)


def _free(known: Sequence[Freeze], action: Action, now: datetime, lasts_seconds: float) -> Ruling:
    """None is active. One that begins before the end is named: what runs then goes on."""
    coming = freezes.coming(known, action, now)
    if coming is None:
        return Ruling(good=True, warns=False, sentence="none is active")
    begins = freezes.when(coming.until, coming.freeze.time_zone)
    if coming.until <= now + timedelta(seconds=lasts_seconds):
        sentence = (
            f"one begins before this ends, at {begins} ({coming.freeze.reason}); what runs then goes on"
        )
        return Ruling(good=True, warns=True, sentence=sentence)
    sentence = f"none is active, the next one begins {begins} ({coming.freeze.reason})"
    return Ruling(good=True, warns=False, sentence=sentence)


def _why_not(known: Sequence[Freeze], action: Action, now: datetime, active: Sequence[Active]) -> str:
    sentence = "; ".join(each.sentence for each in active)
    free = freezes.free_from(known, action, now)
    zone = active[0].freeze.time_zone
    if free is None:
        return f"{sentence}; no end of the freezes can be seen"
    again = "" if free == active[-1].until and len(active) == 1 else f"; free from {freezes.when(free, zone)}"
    return f"{sentence}{again}. A person whom it names may add --override-freeze --reason REASON"


def _rights(freeze: Freeze, roles: tuple[Role, ...]) -> Rights:
    return Rights(people=freeze.override_people, role_names=freeze.override_roles, roles=roles)
