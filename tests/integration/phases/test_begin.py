"""Recording a release, and ending one early: an abort never leaves a new revision in place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from handlers.core import Core, open_core
from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.errors import Locked, Refused
from handlers.phases.begin import abort, changed_hosts, clear_the_way, record_release, rollback_candidate
from handlers.release import lock
from handlers.release.ledger import intents, records, releases
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.release.steps import begun, deploying, in_phase, locked, plan_of


def staging(database_url: str) -> Environment:
    """An environment whose host is never asked."""
    return parse(
        {
            "name": "staging",
            "database": {"url": database_url},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {"web": ["tsh-erp"]},
        },
        source="test",
    )


async def intend(core: Core, run: Release, kind: str) -> None:
    """Record that an operation on the host began."""
    await intents.intend(
        core.database, run, operation_id=f"{run.id}-{kind}", host="web-1", kind=kind, command="true"
    )


async def by_hand(core: Core) -> Release:
    """A canary by hand that a living controller runs: it deploys nothing."""
    plan = replace(plan_of(to_revision="a" * 40), scope=(Phase.PROBING, Phase.CANARY))
    run = await releases.begin(core.database, plan=plan, requested_by="ops-a")
    run = await releases.enter(core.database, run, Phase.APPROVED)
    run = await locked(core.database, run)
    for phase in (Phase.DEPLOYING, Phase.PROBING, Phase.CANARY):
        run = await releases.enter(core.database, run, phase, verdict=Verdict.PASS)
    return run


async def die(core: Core) -> None:
    """Let the lock of a dead controller expire."""
    async with core.database.begin() as tx:
        await tx.execute(text("UPDATE runbook.lock SET expires_at = clock_timestamp()"))


async def test_a_quarantine_that_the_plan_did_not_know_refuses(database_url: str) -> None:
    """A plan cannot read a ledger whose migration is pending: the release checks it after the migration."""
    async with open_core(staging(database_url)) as core:
        rolled_back = await deploying(core.database)
        await records.quarantine(core.database, rolled_back, "7 of 7 failed")
        with pytest.raises(Refused, match=r"is in quarantine: release .* \(7 of 7 failed\).*runbook unblock"):
            await record_release(
                core, plan_of(to_revision=rolled_back.to_revision), requested_by="ops", reason="again"
            )
        assert len(await releases.history(core.database, "staging")) == 1


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.APPROVED, Phase.DEPLOYING, Phase.CANARY, Phase.HELD])
async def test_an_abort_ends_a_release_that_changed_no_host(database_url: str, phase: Phase) -> None:
    """Nothing is left behind: the release is aborted by name and with a reason, and its lock is free."""
    async with open_core(staging(database_url)) as core:
        run = await in_phase(core.database, phase)
        await die(core)
        ended = await abort(core, await releases.get(core.database, run.id), by="ops-b", reason="a mistake")
        assert ended.phase is Phase.ABORTED
        assert ended.reason.startswith("aborted by ops-b: a mistake; no host was changed")
        assert await lock.holder(core.database, "staging") is None


async def test_an_abort_never_leaves_a_new_revision_in_place(database_url: str) -> None:
    """A release that changed a host is not ended here: it must go back. Preparing a host changes nothing."""
    async with open_core(staging(database_url)) as core:
        run = await deploying(core.database)
        await intend(core, run, "prepare")
        assert not await changed_hosts(core, run)
        await intend(core, run, "stop-workers")
        assert await changed_hosts(core, run)
        await die(core)
        with pytest.raises(Refused, match="has changed hosts: `runbook rollback`"):
            await abort(core, run, by="ops-b", reason="a mistake")
        assert (await releases.get(core.database, run.id)).phase is Phase.DEPLOYING


async def test_nobody_aborts_under_a_living_controller(database_url: str) -> None:
    """Its lock is respected: the refusal names the holder, and the release stays as it is."""
    async with open_core(staging(database_url)) as core:
        run = await in_phase(core.database, Phase.DRAINING)
        with pytest.raises(Locked, match="is locked by ops-a:1"):
            await abort(core, run, by="ops-b", reason="a mistake")
        assert (await releases.get(core.database, run.id)).phase is Phase.DRAINING


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.REFUSED, Phase.ABORTED, Phase.ROLLED_BACK])
async def test_what_has_ended_cannot_be_aborted(database_url: str, phase: Phase) -> None:
    """The refusal names the way back."""
    async with open_core(staging(database_url)) as core:
        run = await in_phase(core.database, phase)
        with pytest.raises(Refused, match="has ended; `runbook rollback`"):
            await abort(core, run, by="ops-b", reason="a mistake")


async def test_a_rollback_is_possible_under_a_plan_that_has_not_started(database_url: str) -> None:
    """The plan on top is ended with the reason, and the release below it is the one to roll back."""
    async with open_core(staging(database_url)) as core:
        deployed = await in_phase(core.database, Phase.SUCCEEDED)
        plan = await begun(core.database)
        found = await rollback_candidate(core)
        assert found.id == deployed.id
        await clear_the_way(core, found, by="ops-b")
        ended = await releases.get(core.database, plan.id)
        assert (ended.phase, f"release {deployed.id} below it" in ended.reason) == (Phase.ABORTED, True)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_rollback_is_possible_under_a_phase_by_hand(database_url: str, *, is_held: bool) -> None:
    """Held, or left by a dead controller: it deployed nothing, and is ended."""
    async with open_core(staging(database_url)) as core:
        deployed = await in_phase(core.database, Phase.SUCCEEDED)
        hand = await by_hand(core)
        if is_held:
            await releases.hold(core.database, hand, "a person decides")
        await die(core)
        found = await rollback_candidate(core)
        assert found.id == deployed.id
        await clear_the_way(core, found, by="ops-b")
        assert (await releases.get(core.database, hand.id)).phase is Phase.ABORTED


async def test_a_phase_by_hand_under_a_living_controller_is_not_ended(database_url: str) -> None:
    """The rollback is refused with the name of the controller, and nothing is changed."""
    async with open_core(staging(database_url)) as core:
        await in_phase(core.database, Phase.SUCCEEDED)
        hand = await by_hand(core)
        with pytest.raises(Locked):
            await clear_the_way(core, await rollback_candidate(core), by="ops-b")
        assert (await releases.get(core.database, hand.id)).phase is Phase.CANARY


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED])
async def test_a_rollback_that_is_not_done_can_be_asked_for_again(database_url: str, phase: Phase) -> None:
    """It goes on with the same release."""
    async with open_core(staging(database_url)) as core:
        run = await in_phase(core.database, phase)
        assert (await rollback_candidate(core)).id == run.id
