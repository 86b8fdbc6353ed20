"""The start of a release in the status view: its approvals, overridden freezes, and a freeze that is active."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.environment import freezes
from handlers.environment.freezes import Action
from handlers.environment.load import env_option, load_environment
from handlers.errors import ConfigError
from handlers.release import approval
from handlers.release.ledger import approvals
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import Phase, Release
from handlers.release.planned import Plan
from handlers.status.view import ApprovalView, StartView


async def start_part(
    tx: AsyncConnection, release: Release, records: list[PhaseRecord], plan: Plan, at: datetime
) -> StartView:
    """What the start of this release needs or needed."""
    return StartView(
        approval=await _approval(tx, release, records, plan),
        overrides=tuple(each.sentence for each in await approvals.overrides(tx, release.id)),
        freeze=freeze_now(release.environment, at),
        pull_request=f"{pull.sentence}: {pull.url}" if (pull := plan.pull_request) else "",
    )


def freeze_now(environment: str, at: datetime) -> str:
    """The freeze of releases that is active, as the file says now; empty when there is none, or no file to read."""
    try:
        known = load_environment(environment).freeze
    except ConfigError:
        return ""
    return "; ".join(each.sentence for each in freezes.active(known, Action.RELEASE, at))


async def _approval(
    tx: AsyncConnection, release: Release, records: list[PhaseRecord], plan: Plan
) -> ApprovalView | None:
    if not approval.is_asked(plan):
        return None
    policy, given = approval.policy_of(plan.settings), await approvals.given(tx, release.id)
    waits = records[-1].note.approval if release.phase in (Phase.PLANNED, Phase.APPROVED) else None
    is_open = release.phase is Phase.PLANNED
    hint = (
        f"runbook approve {release.id} {env_option(release.environment)} --plan {plan.hash} --reason REASON"
    )
    return ApprovalView(
        needed=policy.needed,
        given=tuple(given),
        until=waits.until if waits else None,
        starts=waits.starts if waits else None,
        progress=approval.progress(policy, given),
        whom=approval.ask_whom(policy, release, given) if is_open else "",
        command=hint if is_open else "",
    )
