"""Approval: what waits, who may let it go on, and what ends it. On a real ledger, without hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.environment import frozen
from handlers.environment.load import parse
from handlers.errors import Refused
from handlers.phases import approve as approving
from handlers.phases.approve import Decided, end_expired, reject, why_waiting
from handlers.phases.begin import abort, record_release
from handlers.release import due
from handlers.release.ledger import releases
from handlers.release.ledger.approvals import given
from handlers.release.phase import Phase, Release
from handlers.release.planned import Plan
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.release.steps import deploying, plan_of
from tests.unit.environment.files import environment, values

EXPIRED = """UPDATE runbook.phase_record
SET detail = jsonb_set(detail, '{approval,until}', to_jsonb(clock_timestamp() - interval '1 s'))
WHERE release_id = :id AND finished_at IS NULL"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(postgres: Postgres, adopted_template: str) -> AsyncIterator[AsyncEngine]:
    """One database for all tests of this file."""
    engine = engine_for(await postgres.create_database("test_approve", template=adopted_template))
    yield engine
    await engine.dispose()
    await postgres.drop_database("test_approve")


@pytest_asyncio.fixture(loop_scope="session")
async def core(database: AsyncEngine) -> AsyncIterator[Core]:
    """The database with an empty ledger, and an environment whose hosts are never asked."""
    async with database.begin() as tx:
        await tx.execute(text("TRUNCATE runbook.release, runbook.lock CASCADE"))
    async with open_core(environment()) as core:
        yield replace(core, database=database)


def plan(*, scope: tuple[Phase, ...] | None = None, **approval: Any) -> Plan:
    """A plan of an environment that asks for approvals."""
    settings = frozen.settings(environment(approval={"needed": 1, **approval}))
    made = replace(plan_of(), settings=settings)
    return replace(made, scope=scope) if scope else made


async def asked(core: Core, *, starts: bool = True, **approval: Any) -> Release:
    """A release of ops-a that waits for approval."""
    return await record_release(core, plan(**approval), requested_by="ops-a", reason="x", starts=starts)


async def approve(core: Core, run: Release, by: str = "ops-b", **changes: Any) -> Decided:
    """Approve it with the right hash and a reason."""
    right = {"plan": (await releases.plan(core.database, run.id)).hash, "reason": "tested on staging"}
    return await approving.approve(core.database, "staging", run.id, by=by, **{**right, **changes})


async def expire(core: Core, run: Release) -> None:
    """Let the time of the request, or of the approval, be over."""
    async with core.database.begin() as tx:
        await tx.execute(text(EXPIRED), {"id": run.id})


async def phase_of(core: Core, run: Release) -> Phase:
    """The phase in the ledger."""
    return (await releases.get(core.database, run.id)).phase


async def told(core: Core) -> list[str]:
    """The topics that people were told."""
    async with core.database.begin() as tx:
        return [row.topic for row in await tx.execute(text("SELECT topic FROM runbook.message ORDER BY id"))]


async def is_locked(core: Core) -> bool:
    """Whether anything holds a lock."""
    async with core.database.begin() as tx:
        found = await tx.execute(text("SELECT count(*) FROM runbook.lock WHERE release_id IS NOT NULL"))
        return bool(found.scalar_one())


async def test_a_release_waits_in_the_ledger_and_holds_nothing(core: Core) -> None:
    """No lock, no process: only the plan with its hash, and a message to people with what to type."""
    run = await asked(core, needed=2, people=["ops-b", "ops-c", "ops-d"])
    assert (run.phase, run.token, await is_locked(core)) == (Phase.PLANNED, None, False)
    why = await why_waiting(core.database, run)
    stored = await releases.plan(core.database, run.id)
    assert f"release {run.id} waits for approval, 0 of 2, until " in why
    assert "ask ops-b, ops-c, ops-d" in why
    assert f"`runbook approve {run.id} -e staging --plan {stored.hash} --reason REASON`" in why
    care = await due.find(core.database, "staging")
    assert care is not None
    assert (care.due, care.carried) == (False, None)
    assert await told(core) == ["release.waiting"]


async def test_with_enough_approvals_it_is_approved_and_due(core: Core) -> None:
    """The first one waits for the second, the second makes it due; the ledger has who, when and why."""
    run = await asked(core, needed=2)
    first = await approve(core, run, "ops-b")
    assert (first.is_approved, first.starts) == (False, False)
    assert first.sentence == "approved by 1 of 2 (ops-b); ask anybody else"
    second = await approve(core, run, "ops-c", reason="the fix is right", account="deploy")
    assert (second.is_approved, second.starts) == (True, True)
    assert second.sentence == "approved by 2 of 2 (ops-b, ops-c); it starts within a minute"
    assert await why_waiting(core.database, second.release) == ""
    care = await due.find(core.database, "staging")
    assert care is not None
    assert (care.due, care.release.id) == (True, run.id)
    assert "it is approved since" in care.sentence
    rows = await given(core.database, run.id)
    assert [(row.person, row.account, row.reason) for row in rows] == [
        ("ops-b", "", "tested on staging"),
        ("ops-c", "deploy", "the fix is right"),
    ]
    assert await told(core) == ["release.waiting", "release.approved"]
    assert not await is_locked(core)


async def test_two_approvals_at_the_same_time_count_both(core: Core) -> None:
    """Neither is lost, and one of them finds that it was the last one."""
    run = await asked(core, needed=2)
    done = await asyncio.gather(approve(core, run, "ops-b"), approve(core, run, "ops-c"))
    assert sorted(each.is_approved for each in done) == [False, True]
    assert await phase_of(core, run) is Phase.APPROVED


@pytest.mark.parametrize("name", ["ops-b", "OPS-B", "  ops-b "])
async def test_one_person_counts_once(core: Core, name: str) -> None:
    """Twice by the same person, however it is written: no error, and no second approval."""
    run = await asked(core, needed=2)
    await approve(core, run, "ops-b")
    again = await approve(core, run, name)
    assert not again.is_approved
    assert "has approved it before, and counts once; approved by 1 of 2 (ops-b)" in again.sentence
    assert len(await given(core.database, run.id)) == 1


@pytest.mark.parametrize("name", ["ops-a", "Ops-A"])
async def test_nobody_approves_what_they_asked_for(core: Core, name: str) -> None:
    """The sentence says who can; nothing is recorded."""
    run = await asked(core, people=["ops-a", "ops-b"])
    with pytest.raises(Refused, match=f"{name} has asked for release .* somebody else must .*: ask ops-b"):
        await approve(core, run, name)
    assert await given(core.database, run.id) == []


async def test_an_environment_may_allow_it(core: Core) -> None:
    """`approval.own` is the exception that an environment makes for itself."""
    run = await asked(core, own=True)
    assert (await approve(core, run, "ops-a")).is_approved


async def test_only_the_people_of_the_list_and_of_the_roles_approve(core: Core) -> None:
    """Another name is refused with those who may."""
    file = values(approval={"needed": 1, "people": ["ops-b"], "roles": ["lead"]})
    file["roles"] = [{"name": "lead", "people": ["ops-c"]}]
    made = replace(plan_of(), settings=frozen.settings(parse(file, source="test")))
    run = await record_release(core, made, requested_by="ops-a", reason="x")
    with pytest.raises(Refused, match=r"ops-d may not approve release .*: ask ops-b, ops-c"):
        await approve(core, run, "ops-d")
    assert (await approve(core, run, "ops-c")).is_approved


async def test_a_wrong_hash_is_refused_with_the_first_letters_of_the_right_one(core: Core) -> None:
    """Not more of it than that: whoever approves has read the plan."""
    run = await asked(core)
    stored = await releases.plan(core.database, run.id)
    for wrong in ("7be1aaaaaaaa", stored.hash[:8], "", stored.hash + "0"):
        with pytest.raises(
            Refused, match=f"begins with {stored.hash[:4]}. Read it with `runbook plan"
        ) as error:
            await approve(core, run, plan=wrong)
        assert stored.hash not in str(error.value) or wrong.startswith(stored.hash)
    assert await given(core.database, run.id) == []


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
async def test_an_approval_has_a_reason(core: Core, reason: str) -> None:
    """Without one it is refused, and one that is a letter as well."""
    run = await asked(core)
    with pytest.raises(Refused, match="reason"):
        await approve(core, run, reason=reason)


@pytest.mark.parametrize("name", ["", "  ", "prefect", "unknown", "root", "a\x07b", "x" * 81])
async def test_an_approval_is_a_persons(core: Core, name: str) -> None:
    """The login of a machine is nobody."""
    run = await asked(core)
    with pytest.raises(Refused, match="name"):
        await approve(core, run, name)


@pytest.mark.parametrize("name", ["prefect", "unknown", "root"])
async def test_who_asks_gives_a_name(core: Core, name: str) -> None:
    """Otherwise the same person could approve it under their own one. Nothing is recorded."""
    with pytest.raises(Refused, match="asks for a release that others must approve: give your own name"):
        await record_release(core, plan(), requested_by=name, reason="x")
    assert await releases.history(core.database, "staging") == []


async def test_after_its_time_a_request_is_refused_and_then_ended(core: Core) -> None:
    """Too late is too late; who comes each minute ends it, so that nothing old waits for ever."""
    run = await asked(core, needed=2)
    await approve(core, run, "ops-b")
    await expire(core, run)
    with pytest.raises(Refused, match=r"it expired at .* UTC with 1 of 2 \(ops-b\) approvals"):
        await approve(core, run, "ops-c")
    assert "expired at" in await why_waiting(core.database, run)
    [ended] = await end_expired(core.database, "staging")
    assert (ended.id, ended.phase) == (run.id, Phase.REFUSED)
    assert "nothing was changed; run `runbook plan` and ask again" in ended.reason
    assert await end_expired(core.database, "staging") == []
    assert await told(core) == ["release.waiting", "release.refused"]


async def test_an_approval_that_is_not_used_expires(core: Core) -> None:
    """A release that was approved in the morning does not start at night."""
    run = await asked(core)
    approved = (await approve(core, run)).release
    await expire(core, run)
    care = await due.find(core.database, "staging")
    assert care is not None
    assert not care.due
    assert "its approval expired at" in await why_waiting(core.database, approved)
    [ended] = await end_expired(core.database, "staging")
    assert "and it had not started" in ended.reason


async def test_nothing_else_expires(core: Core) -> None:
    """A plan without approval, one that still waits, and a release that runs stay as they are."""
    waiting = await asked(core)
    plain = await record_release(core, plan_of(), requested_by="ops-a", reason="x")
    running = await deploying(core.database, release=await record_release(
        core, plan_of(), requested_by="ops-a", reason="x"
    ))  # fmt: skip
    assert await end_expired(core.database, "staging") == []
    phases = [await phase_of(core, run) for run in (waiting, plain, running)]
    assert phases == [Phase.PLANNED, Phase.PLANNED, Phase.DEPLOYING]


@pytest.mark.parametrize("starts", [None, True, False])
async def test_it_starts_by_itself_only_if_everybody_says_so(core: Core, *, starts: bool | None) -> None:
    """As was asked for; an approval may say otherwise. One that does not start waits for `runbook resume`."""
    run = await asked(core, needed=2)
    await approve(core, run, "ops-b", starts=starts)
    done = await approve(core, run, "ops-c")
    care = await due.find(core.database, "staging")
    assert care is not None
    assert (done.starts, care.due) == (starts is not False, starts is not False)
    if starts is False:
        assert "`runbook resume` starts it" in done.sentence
        assert "`runbook resume` starts it" in care.sentence


async def test_a_plan_that_was_only_stored_does_not_start_by_itself(core: Core) -> None:
    """Approved in good time: a person starts it."""
    run = await asked(core, starts=False)
    assert not (await approve(core, run)).starts
    care = await due.find(core.database, "staging")
    assert care is not None
    assert not care.due


@pytest.mark.parametrize("is_approved", [False, True])
async def test_a_rejection_ends_it_with_the_reason(core: Core, *, is_approved: bool) -> None:
    """Before and after the approval; also by somebody who has approved it and thought again."""
    run = await asked(core)
    if is_approved:
        await approve(core, run, "ops-b")
    done = await reject(core.database, "staging", run.id, by="ops-b", reason="the fix is wrong")
    assert done.release.phase is Phase.REFUSED
    assert done.release.reason == "rejected by ops-b: the fix is wrong; nothing was changed"
    assert not (await given(core.database, run.id))[-1].is_yes
    with pytest.raises(Refused, match="is refused: it has ended"):
        await approve(core, run, "ops-c")


async def test_what_was_aborted_is_not_approved(core: Core) -> None:
    """The requester has taken it back; the sentence says that it has ended."""
    run = await asked(core)
    await abort(core, run, by="ops-a", reason="not today")
    with pytest.raises(Refused, match="is aborted: it has ended: plan it again"):
        await approve(core, run)


async def test_what_is_approved_needs_no_more(core: Core) -> None:
    """A third person is told that it is enough."""
    run = await asked(core)
    await approve(core, run)
    with pytest.raises(Refused, match="is approved: enough people have approved it"):
        await approve(core, run, "ops-c")


async def test_what_needs_no_approval_is_not_approved(core: Core) -> None:
    """An environment without approvals, and a phase by hand, wait for nobody."""
    run = await record_release(core, plan_of(), requested_by="prefect", reason="x")
    by_hand = plan(scope=(Phase.PROBING, Phase.CANARY))
    hand = await record_release(core, by_hand, requested_by="prefect", reason="x")
    for each in (run, hand):
        assert await why_waiting(core.database, each) == ""
        with pytest.raises(Refused, match=r"needs no approval: .*`runbook resume` starts it"):
            await approve(core, each)


async def test_a_policy_that_cannot_be_understood_is_never_none(core: Core) -> None:
    """A newer program wrote it: it is not taken for an environment that asks for nobody."""
    made = plan()
    made.settings["approval"]["needed"] = "two"
    with pytest.raises(Refused, match=r"the plan's \[approval\] cannot be understood"):
        await record_release(core, made, requested_by="ops-a", reason="x")


async def test_an_approval_for_another_environment_is_refused(core: Core) -> None:
    """An id that was typed with the wrong -e."""
    run = await asked(core)
    with pytest.raises(Refused, match="belongs to staging, not to production"):
        await approving.approve(
            core.database, "production", run.id, plan="0" * 12, by="ops-b", reason="a typo"
        )
    with pytest.raises(Refused, match=r"there is no release 2020-01-01\.1"):
        await approving.approve(
            core.database, "staging", "2020-01-01.1", plan="0" * 12, by="ops-b", reason="a typo"
        )
