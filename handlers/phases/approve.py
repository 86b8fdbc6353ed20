"""Approval: a plan waits in the ledger until enough people have approved exactly its hash. Nothing runs meanwhile.

The board, the Prefect page and the command line call `approve` and `reject`. They need only the ledger's database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database import clock
from handlers.database.transaction import Bind, transaction
from handlers.environment.load import env_option
from handlers.environment.people import NAME_MAX
from handlers.errors import Refused
from handlers.release import approval
from handlers.release.approval import Given, Policy
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.ledger import approvals, outbox, releases
from handlers.release.note import ApprovalNote, PhaseNote
from handlers.release.phase import Phase, Release, Verdict, short
from handlers.release.planned import Plan
from handlers.release.topic import Topic

REASON_MAX = 500


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What came of an approval or a rejection."""

    release: Release
    """As it is now: approved once enough people have."""
    given: tuple[Given, ...]
    needed: int
    starts: bool
    """Whether it starts by itself within a minute."""
    sentence: str

    @property
    def is_approved(self) -> bool:
        """Whether enough people have approved it."""
        return self.release.phase is Phase.APPROVED


async def ask(tx: AsyncConnection, run: Release, plan: Plan, *, starts: bool) -> None:
    """Let a new release wait for approval, if its environment asks for one, and tell people so.

    Raises Refused when the release is asked for by nobody in particular. *starts*: by itself, once it is approved.
    """
    if not approval.is_asked(plan):
        return
    approval.raise_unless_named(run.requested_by)
    policy = approval.policy_of(plan.settings)
    await _wait(tx, run, policy, starts=starts)
    change = f"{short(run.from_revision)} to {short(run.to_revision)}"
    whom = approval.ask_whom(policy, run, ())
    sentence = f"{run.requested_by} asks for {change}, plan {approval.shown(plan.hash)}: {whom}"
    await outbox.write(tx, run.environment, Topic.WAITING, sentence, release_id=run.id)


async def approve(
    bind: Bind,
    environment: str,
    release_id: str,
    *,
    plan: str,
    by: str,
    reason: str,
    account: str = "",
    way: str = "command line",
    starts: bool | None = None,
) -> Decided:
    """Approve the plan with this whole hash. With enough approvals the release is approved.

    A second approval of one person counts once, and is no error. *starts* says whether it may start by itself, by
    default as was asked for. Raises Refused, with the reason and what to do.
    """
    by, reason = _named(by), _reasoned(reason)
    async with transaction(bind) as tx:
        run, stored, policy = await _waiting(tx, environment, release_id, Verb.APPROVE)
        note = (await releases.phase_records(tx, run))[-1].note.approval
        if policy.needed == 0 or note is None:
            raise Refused(
                f"release {run.id} needs no approval: {environment} asks for none; `runbook resume` starts it"
            )
        raise_unless_hash(run, stored, plan)
        await _raise_if_expired(tx, run, note)
        approval.raise_unless_may_approve(policy, run, by)
        may_start = note.starts if starts is None else starts
        is_new = await approvals.give(
            tx, run.id, person=by, account=account, way=way, plan_hash=stored.hash, is_yes=True, starts=may_start,
            reason=reason,
        )  # fmt: skip
        given = await approvals.given(tx, run.id)
        if approval.count(given) < policy.needed:
            more = f"approved by {approval.progress(policy, given)}; {approval.ask_whom(policy, run, given)}"
            again = "" if is_new else f"{by} has approved it before, and counts once; "
            return _decided(run, given, policy, starts=False, sentence=f"{again}{more}")
        return await _approved(tx, run, stored, policy, given)


async def reject(
    bind: Bind,
    environment: str,
    release_id: str,
    *,
    by: str,
    reason: str,
    account: str = "",
    way: str = "command line",
) -> Decided:
    """End a plan that waits for approval or for its start: it is refused with the reason. Everybody with a name may."""
    by, reason = _named(by), _reasoned(reason)
    async with transaction(bind) as tx:
        run, stored, policy = await _waiting(tx, environment, release_id, Verb.REJECT)
        _raise_if_carried(run)
        await approvals.give(
            tx, run.id, person=by, account=account, way=way, plan_hash=stored.hash, is_yes=False, starts=False,
            reason=reason,
        )  # fmt: skip
        sentence = f"rejected by {by}: {reason}; nothing was changed"
        ended = await _refuse(tx, run, sentence)
        return _decided(ended, await approvals.given(tx, run.id), policy, starts=False, sentence=sentence)


async def end_expired(bind: Bind, environment: str) -> list[Release]:
    """End the plans that waited too long: nobody starts them any more. Returns them."""
    ended = []
    for release_id in await approvals.expired(bind, environment):
        async with transaction(bind) as tx:
            run = await releases.get_locked(tx, release_id)
            if run.phase not in (Phase.PLANNED, Phase.APPROVED) or run.token is not None:
                continue
            ended.append(await _refuse(tx, run, await _why_expired(tx, run)))
    return ended


async def why_waiting(bind: Bind, run: Release) -> str:
    """Why a release that has not started may not start now, and what to type; empty when it may."""
    if run.phase not in (Phase.PLANNED, Phase.APPROVED):
        return ""
    async with transaction(bind) as tx:
        stored = await releases.plan(tx, run.id)
        if not approval.is_asked(stored):
            return ""
        note = (await releases.phase_records(tx, run))[-1].note.approval
        if await _is_expired(tx, note):
            return f"release {run.id}: {await _why_expired(tx, run)}"
        if run.phase is Phase.APPROVED:
            return ""
        policy, given = approval.policy_of(stored.settings), await approvals.given(tx, run.id)
    until = f", until {approval.clock(note.until)}" if note and note.until else ""
    return (
        f"release {run.id} waits for approval, {approval.progress(policy, given)}{until}: "
        f"{approval.ask_whom(policy, run, given)}; `{command(run, stored)}`"
    )


def command(run: Release, plan: Plan) -> str:
    """What another person types to approve it. The hash is that of the plan that was shown."""
    return f"runbook approve {run.id} {env_option(run.environment)} --plan {plan.hash} --reason REASON"


def raise_unless_hash(run: Release, plan: Plan, typed: str) -> None:
    """Raise Refused when the plan that waits is not the one that was read."""
    if typed.strip().lower() != plan.hash:
        raise Refused(
            f"plan {typed[:12] or '(none)'} is not what waits: the plan of release {run.id} begins with "
            f"{plan.hash[: approval.SHOWN_DIGITS]}. Read it with `runbook plan --release {run.id}`"
        )


async def _approved(
    tx: AsyncConnection, run: Release, plan: Plan, policy: Policy, given: Sequence[Given]
) -> Decided:
    """Enough people have approved it. It starts by itself if it was asked to, and nobody of them objects."""
    starts = all(each.starts for each in given if each.is_yes)
    run = await releases.enter(tx, run, Phase.APPROVED, verdict=Verdict.PASS, sentence=plan.summary)
    await _wait(tx, run, policy, starts=starts)
    names = f"approved by {approval.progress(policy, given)}"
    sentence = f"{names}; it starts within a minute" if starts else f"{names}; `runbook resume` starts it"
    await outbox.write(tx, run.environment, Topic.APPROVED, sentence, release_id=run.id)
    return _decided(run, given, policy, starts=starts, sentence=sentence)


async def _wait(tx: AsyncConnection, run: Release, policy: Policy, *, starts: bool) -> None:
    """Note what the present phase waits for, and until when by the database's clock."""
    until = await clock.now(tx) + timedelta(seconds=policy.approval.expires_seconds)
    note = ApprovalNote(needed=policy.needed, until=until, starts=starts)
    await releases.note(tx, run, PhaseNote(approval=note))


async def _waiting(
    tx: AsyncConnection, environment: str, release_id: str, verb: Verb
) -> tuple[Release, Plan, Policy]:
    """The release with its row locked: two approvals at once count one after the other."""
    run = await releases.get_locked(tx, release_id)
    if run.environment != environment:
        raise Refused(f"release {run.id} belongs to {run.environment}, not to {environment}")
    raise_unless_allowed(verb, run)
    stored = await releases.plan(tx, run.id)
    return run, stored, approval.policy_of(stored.settings)


async def _refuse(tx: AsyncConnection, run: Release, sentence: str) -> Release:
    ended = await releases.enter(tx, run, Phase.REFUSED, verdict=Verdict.FAIL, sentence=sentence)
    if run.phase is Phase.PLANNED:
        # Of an approved one people are told with its phase.
        await outbox.write(tx, run.environment, Topic.REFUSED, sentence, release_id=run.id)
    return ended


def _raise_if_carried(run: Release) -> None:
    if run.token is not None:
        raise Refused(f"release {run.id} is being started: `runbook hold` pauses it, `runbook abort` ends it")


async def _is_expired(tx: AsyncConnection, note: ApprovalNote | None) -> bool:
    return note is not None and note.until is not None and await clock.now(tx) >= note.until


async def _raise_if_expired(tx: AsyncConnection, run: Release, note: ApprovalNote) -> None:
    if await _is_expired(tx, note):
        raise Refused(f"release {run.id}: {await _why_expired(tx, run)}")


async def _why_expired(tx: AsyncConnection, run: Release) -> str:
    note = (await releases.phase_records(tx, run))[-1].note.approval
    until = approval.clock(note.until) if note and note.until else "then"
    policy = approval.policy_of((await releases.plan(tx, run.id)).settings)
    if run.phase is Phase.APPROVED:
        what = f"its approval expired at {until}, and it had not started"
    else:
        done = approval.progress(policy, await approvals.given(tx, run.id))
        what = f"it expired at {until} with {done} approvals"
    return f"{what}; nothing was changed; run `runbook plan` and ask again"


def _decided(run: Release, given: Sequence[Given], policy: Policy, *, starts: bool, sentence: str) -> Decided:
    return Decided(release=run, given=tuple(given), needed=policy.needed, starts=starts, sentence=sentence)


def _named(by: str) -> str:
    name = " ".join(by.split())
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise Refused(f"give your name, with at most {NAME_MAX} characters: an approval is a person's")
    return name


def _reasoned(reason: str) -> str:
    text = " ".join(reason.split())
    if not text:
        raise Refused("give a reason: what makes you sure, in one sentence")
    if len(text) > REASON_MAX:
        raise Refused(
            f"the reason has {len(text)} characters: at most {REASON_MAX}, the rest belongs elsewhere"
        )
    return text
