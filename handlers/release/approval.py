"""Whether a release needs approval, and what a person may decide about its plan. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from handlers.environment.people import Approval, Role, key_of
from handlers.errors import Refused
from handlers.release.phase import Phase, Release
from handlers.release.planned import Plan

log = logging.getLogger(__name__)

UNNAMED = frozenset({"", "prefect", "unknown", "root"})
"""What stands for nobody in particular. Where approvals are needed a person asks, so that another one can approve."""
SHOWN_DIGITS = 4
"""The digits of a hash in a sentence: enough to recognize it, too few to approve a plan without reading it."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who must approve a release, as its plan keeps it."""

    approval: Approval
    approvers: tuple[str, ...]
    """Who may approve; empty when everybody may."""

    @property
    def needed(self) -> int:
        """The number of people who must approve."""
        return self.approval.needed


@dataclass(frozen=True, kw_only=True)
class Given:
    """What one person decided about a plan."""

    person: str
    account: str
    way: str
    plan_hash: str
    is_yes: bool
    starts: bool
    reason: str
    given_at: datetime

    @property
    def sentence(self) -> str:
        """For the status view: `ops-b, plan 7be1.., "fix tested on staging"`."""
        verb = "" if self.is_yes else "rejected by "
        return f'{verb}{self.person}, plan {shown(self.plan_hash)}, "{self.reason}"'


def shown(plan_hash: str) -> str:
    """A hash in a sentence."""
    return f"{plan_hash[:SHOWN_DIGITS]}.."


def policy_of(settings: Mapping[str, Any]) -> Policy:
    """The policy in the settings of a plan. A plan of an older ledger has none, and needs no approval.

    Raises Refused when it cannot be understood: that is never taken for "no approval needed".
    """
    try:
        approval = Approval.model_validate(_known(Approval, settings.get("approval") or {}))
        roles = [Role.model_validate(_known(Role, role)) for role in settings.get("roles") or ()]
    except ValidationError as error:
        raise Refused(
            f"the plan's [approval] cannot be understood ({error.errors()[0]['msg']}): plan the release again"
        ) from error
    return Policy(approval=approval, approvers=approval.approvers(roles))


def is_asked(plan: Plan) -> bool:
    """Whether a release with this plan waits for approval: it deploys, and its environment asks for one."""
    return Phase.DEPLOYING in plan.scope and policy_of(plan.settings).needed > 0


def raise_unless_named(requested_by: str) -> None:
    """Raise Refused when the release is asked for by nobody in particular."""
    if key_of(requested_by) in UNNAMED:
        raise Refused(
            f"{requested_by or 'nobody'!r} asks for a release that others must approve: give your own name "
            "(--by, or requested_by on the Prefect page)"
        )


def raise_unless_may_approve(policy: Policy, run: Release, by: str) -> None:
    """Raise Refused when this person may not approve this release; the sentence says who may."""
    if key_of(by) in UNNAMED:
        raise Refused(f"{by or 'nobody'!r} is no person: give your own name with --by")
    allowed = {key_of(person) for person in policy.approvers}
    if allowed and key_of(by) not in allowed:
        raise Refused(f"{by} may not approve release {run.id}: {ask_whom(policy, run, ())}")
    if key_of(by) == key_of(run.requested_by) and not policy.approval.own:
        raise Refused(
            f"{by} has asked for release {run.id}, so somebody else must approve it: {ask_whom(policy, run, ())}"
        )


def ask_whom(policy: Policy, run: Release, given: Sequence[Given]) -> str:
    """Who can still approve, as an advice."""
    done = {key_of(each.person) for each in given}
    if not policy.approval.own:
        done.add(key_of(run.requested_by))
    open_ = [person for person in policy.approvers if key_of(person) not in done]
    if open_:
        return f"ask {', '.join(open_)}"
    return "ask anybody else" if not policy.approval.own else "anybody may"


def count(given: Sequence[Given]) -> int:
    """The number of people who have approved."""
    return len({key_of(each.person) for each in given if each.is_yes})


def in_words(given: Sequence[Given]) -> str:
    """All approvals, for the ledger."""
    return "; ".join(each.sentence for each in given)


def progress(policy: Policy, given: Sequence[Given]) -> str:
    """How many have approved, and who: `1 of 2 (ops-b)`."""
    names = ", ".join(each.person for each in given if each.is_yes)
    return f"{count(given)} of {policy.needed}" + (f" ({names})" if names else "")


def clock(at: datetime) -> str:
    """A time of a deadline."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _known(kind: type[Approval | Role], stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: stored[key] for key in kind.model_fields if key in stored}
