"""What the rules of an environment say about a start: its freezes, and the promotion from another environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from handlers.environment.freezes import Action
from handlers.environment.model import Environment
from handlers.phases import promotion_check
from handlers.release import freeze
from handlers.release.override import OverrideRequest, PlannedOverride
from handlers.release.planned import Check
from handlers.release.pulled import MergedPull


@dataclass(frozen=True, kw_only=True)
class StartRules:
    """The checks of the rules, and what a person overrides."""

    checks: tuple[Check, ...] = ()
    overrides: tuple[PlannedOverride, ...] = ()

    def as_warnings(self) -> tuple[Check, ...]:
        """The checks of a place that is ready: a release is only kept from its start for now."""
        return tuple(
            each if each.good or each.temporary else replace(each, good=True, warns=True)
            for each in self.checks
        )


async def rule(
    environment: Environment,
    action: Action,
    revision: str,
    at: datetime,
    *,
    lasts_seconds: float,
    request: OverrideRequest | None = None,
    pull: MergedPull | None = None,
) -> StartRules:
    """The rules for *action* at this time of the database.

    *revision* is the whole commit id of a release, *pull* the pull request that made it.
    """
    checks: list[Check] = []
    overrides: list[PlannedOverride] = []
    ruling = freeze.rule(
        environment.freeze, environment.roles, action, at, lasts_seconds=lasts_seconds, request=request
    )
    if ruling is not None:
        checks.append(Check(name="freeze", good=ruling.good, warns=ruling.warns, sentence=ruling.sentence))
        overrides += ruling.overrides
    if action is Action.RELEASE and revision:
        found = await promotion_check.check(environment, revision, request, pull)
        if found is not None:
            checks.append(found[0])
            overrides += found[1]
    return StartRules(checks=tuple(checks), overrides=tuple(overrides))


async def not_proven_now(
    environment: Environment,
    revision: str,
    told: list[str],
    request: OverrideRequest | None,
    pull: MergedPull | None = None,
) -> str:
    """Why a planned release may not start any more: the proof is gone. Empty when it may.

    What was overridden with the plan are the sentences *told*; another one was not.
    """
    found = await promotion_check.check(environment, revision, request, pull)
    if found is None:
        return ""
    checked, overrides = found
    if not checked.good:
        return checked.sentence
    new = [each.what for each in overrides if each.what not in told]
    return f"{'; '.join(new)}; that was not overridden" if new else ""
