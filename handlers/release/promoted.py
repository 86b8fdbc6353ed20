"""Whether another environment has proven a commit, and what that means for a release to this one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handlers.environment.people import Role
from handlers.environment.promoting import Promotion
from handlers.release.ledger.commit_history import CommitRun
from handlers.release.override import Barrier, OverrideRequest, Rights, Ruling, decide
from handlers.release.phase import LIVE, Phase, short

NEVER_RAN = (Phase.PLANNED, Phase.APPROVED, Phase.REFUSED, Phase.ABORTED)
"""No host was changed by a release in one of these."""
_TAKEN_BACK = (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What an environment says about a commit."""

    good: bool
    what: str
    """The sentence. It names times and no ages, so that it stays the same while nothing happens."""
    advice: str = ""
    """What to do about it."""
    release_id: str = ""
    """The release that it is about; empty where there is none."""


def judge(
    runs: Sequence[CommitRun],
    environment: str,
    revision: str,
    now: datetime,
    *,
    max_age_hours: float,
    option: str = "",
) -> Proof:
    """What the *runs* of a commit in *environment*, newest first, prove by *now*, the time of that ledger.

    The newest release of the commit counts, if it succeeded and nobody skipped a phase of it. A later watch by hand
    that succeeded renews it; a run that is held puts it in doubt. *option* names the environment in advised commands.
    """
    commit, option = short(revision), option or f"-e {environment}"
    ran = [run for run in runs if run.phase not in NEVER_RAN]
    newest = next((run for run in ran if run.deploys), None)
    if newest is None:
        waits = next(
            (run for run in runs if run.deploys and run.phase in (Phase.PLANNED, Phase.APPROVED)), None
        )
        so_far = f": release {waits.id} is {waits.phase} there" if waits else ""
        advice = f"release it there first: `runbook release {commit} {option}`"
        return Proof(
            good=False, what=f"no release of {commit} has succeeded in {environment}{so_far}", advice=advice
        )
    about = f"release {newest.id} of {environment}"
    if (doubt := _doubt(newest, ran, commit=commit, environment=environment, option=option)) is not None:
        return doubt
    assert newest.finished_at is not None
    at = max([newest.finished_at, *_renewals(ran, newest.finished_at)])
    if now - at > timedelta(hours=max_age_hours):
        what = f"{about} proved {commit}, but at {_time(at)}: more than {max_age_hours:g} h ago"
        advice = f"prove it there again: `runbook watch {option}`"
        return Proof(good=False, what=what, advice=advice, release_id=newest.id)
    return Proof(good=True, what=f"{about} proved {commit} at {_time(at)}", release_id=newest.id)


def _doubt(
    newest: CommitRun, ran: Sequence[CommitRun], *, commit: str, environment: str, option: str
) -> Proof | None:
    """Why the newest release of a commit proves nothing, or not yet; None when it does."""
    held = next((run for run in ran if run.phase is Phase.HELD), None)
    release_id, about = newest.id, f"release {newest.id} of {environment}"
    if newest.phase in _TAKEN_BACK:
        what = f"{about}, the newest of {commit}, is {newest.phase}: {newest.reason}"
        advice = "release another commit"
    elif held is not None:
        release_id = held.id
        what = f"release {held.id} of {environment} with {commit} is held: {held.reason}"
        advice = f"resume it there or roll it back: `runbook status {option}`"
    elif newest.phase in LIVE:
        what = f"{about} with {commit} has not ended, it is {newest.phase}"
        advice = f"wait for its end: `runbook status --watch {option}`"
    elif newest.skipped:
        what = (
            f"{about} with {commit} succeeded without its {' and '.join(newest.skipped)}, which was skipped"
        )
        advice = "only a whole release is a proof"
    else:
        return None
    return Proof(good=False, what=what, advice=advice, release_id=release_id)


def rule(
    proof: Proof, promotion: Promotion, roles: tuple[Role, ...], request: OverrideRequest | None
) -> Ruling:
    """Whether a release may start with this *proof*, or because a person wants it all the same."""
    if proof.good:
        limit = f" (it counts for {promotion.max_age_hours:g} h)"
        return Ruling(good=True, warns=False, sentence=f"{proof.what}{limit}")
    rights = Rights(people=promotion.override_people, role_names=promotion.override_roles, roles=roles)
    if request is not None and Barrier.PROMOTION in request.of:
        return decide([(proof.what, rights)], request, Barrier.PROMOTION)
    advice = f"; {proof.advice}" if proof.advice else ""
    may = (
        f". {' or '.join(rights.members)} may add --override-promotion --reason REASON"
        if rights.members
        else ""
    )
    return Ruling(good=False, warns=False, sentence=f"{proof.what}{advice}{may}")


def _renewals(ran: Sequence[CommitRun], proven_at: datetime) -> list[datetime]:
    return [
        run.finished_at
        for run in ran
        if run.watches and not run.deploys and not run.skipped and run.phase is Phase.SUCCEEDED
        if run.finished_at is not None and run.finished_at > proven_at
    ]


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%a %Y-%m-%d %H:%M} UTC"
