"""What is due: whatever is left to do, needs no person, and is carried by nobody. From the ledger alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release import due, lock
from handlers.release.controller import this_controller
from handlers.release.due import RETRY_PAUSES, ROLLBACK_PAUSES, Care
from handlers.release.ledger import releases
from handlers.release.note import HeldBy, PhaseNote, ReturnNote
from handlers.release.phase import FINISHED, Phase, Release, Verdict
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.release.steps import begun, deploying, in_phase, locked

EXPIRED = "UPDATE runbook.lock SET expires_at = clock_timestamp(), heartbeat_at = clock_timestamp() - interval '61 s'"
SILENT = """UPDATE runbook.lock
SET heartbeat_at = heartbeat_at - interval '31 s', expires_at = expires_at - interval '31 s'"""
LATER = "UPDATE runbook.phase_record SET started_at = started_at - CAST(:passed AS interval)"
RUNNING = [Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.ROLLING_BACK]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(postgres: Postgres, adopted_template: str) -> AsyncIterator[AsyncEngine]:
    """One database for all tests of this file."""
    engine = engine_for(await postgres.create_database("test_due", template=adopted_template))
    yield engine
    await engine.dispose()
    await postgres.drop_database("test_due")


@pytest_asyncio.fixture(loop_scope="session")
async def engine(database: AsyncEngine) -> AsyncEngine:
    """The database, with an empty ledger."""
    await execute(database, "TRUNCATE runbook.release, runbook.lock CASCADE")
    return database


async def execute(engine: AsyncEngine, statement: str, **values: object) -> None:
    """Change the ledger behind the runbook."""
    async with engine.begin() as tx:
        await tx.execute(text(statement), values)


async def passes(engine: AsyncEngine, passed: timedelta) -> None:
    """Let time pass in the ledger."""
    await execute(engine, LATER, passed=passed)


async def find(engine: AsyncEngine) -> Care:
    """The care of the environment's release."""
    care = await due.find(engine, "staging")
    assert care is not None
    return care


async def hold(engine: AsyncEngine, release: Release, by: HeldBy | None) -> Release:
    """Hold a running release for this reason."""
    return await releases.hold(engine, release, "a test", note=PhaseNote(held_by=by))


async def resume(engine: AsyncEngine, release: Release) -> Release:
    """Continue a held release."""
    return await releases.resume(engine, await locked(engine, release))


async def test_nothing_is_due_where_nothing_was_released(engine: AsyncEngine) -> None:
    """An empty ledger has nothing to do."""
    assert await due.find(engine, "staging") is None


@pytest.mark.parametrize("phase", RUNNING)
async def test_a_running_release_is_due_when_its_lock_has_expired(engine: AsyncEngine, phase: Phase) -> None:
    """While the controller renews, it carries the release; afterwards nobody does, since its last sign."""
    release = await in_phase(engine, phase)
    care = await find(engine)
    assert (care.release.id, care.carried, care.due, care.due_at) == (release.id, True, False, None)
    await execute(engine, EXPIRED)
    care = await find(engine)
    assert (care.carried, care.due) == (False, True)
    assert care.at is not None
    assert care.since is not None
    assert timedelta(seconds=60) < care.at - care.since < timedelta(seconds=120)
    assert f"nobody carries this since {care.since:%H:%M} UTC" in care.sentence


async def test_a_release_whose_process_ended_on_this_machine_is_due_at_once(engine: AsyncEngine) -> None:
    """Its lock is valid for another minute, and nobody waits for it."""
    release = await deploying(engine)
    us = this_controller()
    assert us is not None
    controller = replace(us, name="ops-a:1", started=us.started - 1)
    await lock.take_over(engine, "staging", release.id, "ops-a:1", reason="a test", controller=controller)
    care = await find(engine)
    assert (care.carried, care.due) == (False, True)
    assert "its process ops-a:1 has ended" in care.sentence


async def test_a_controller_that_was_told_to_stop_leaves_its_release_due(engine: AsyncEngine) -> None:
    """A reboot sends SIGTERM: the lock is released, and the phase stays. Since then nobody carries it."""
    release = await in_phase(engine, Phase.DRAINING)
    assert release.token is not None
    await lock.free(engine, "staging", release.token)
    care = await find(engine)
    assert (care.carried, care.due) == (False, True)
    assert care.since is not None
    assert care.at is not None
    assert care.at - care.since < timedelta(seconds=30)


async def test_a_silent_controller_has_a_time_at_which_its_release_is_due(engine: AsyncEngine) -> None:
    """Two renewals are missing: it may be dead, so the end of its lock is waited for. Force is never used."""
    await deploying(engine)
    await execute(engine, SILENT)
    care = await find(engine)
    holder = await lock.holder(engine, "staging")
    assert holder is not None
    assert (care.carried, care.due, care.due_at) == (True, False, holder.expires_at)


async def test_a_lock_of_another_release_is_nobody_to_carry_this_one(engine: AsyncEngine) -> None:
    """A dead release under the lock of a living one: it is not carried, and not due before that lock is free."""
    release = await in_phase(engine, Phase.WATCHING)
    await execute(engine, EXPIRED)
    other = await begun(engine)
    await lock.take(engine, "staging", other.id, "ops-b:1")
    care = await due.care(engine, await releases.get(engine, release.id))
    assert (care.carried, care.due) == (False, False)
    assert f"ops-b:1 has the lock for release {other.id}" in care.sentence


async def test_a_planned_release_is_due_only_if_somebody_started_it(engine: AsyncEngine) -> None:
    """Nothing starts by itself. Who took its lock has been told to start it."""
    release = await begun(engine)
    care = await find(engine)
    assert (care.carried, care.due) == (None, False)
    assert "nobody has started it" in care.sentence
    started = await locked(engine, release)
    assert (await find(engine)).carried
    assert started.token is not None
    await lock.free(engine, "staging", started.token)
    assert (await find(engine)).due


async def test_an_approved_release_is_due(engine: AsyncEngine) -> None:
    """Killed between its approval and its first change, it goes on."""
    await releases.enter(engine, await begun(engine), Phase.APPROVED)
    assert (await find(engine)).due


@pytest.mark.parametrize("phase", sorted(FINISHED - {Phase.ROLLBACK_FAILED, Phase.REFUSED, Phase.ABORTED}))
async def test_what_has_ended_is_never_due(engine: AsyncEngine, phase: Phase) -> None:
    """An end is an end, also when nobody has the lock."""
    release = await in_phase(engine, phase)
    assert await due.find(engine, "staging") is None
    care = await due.care(engine, release)
    assert (care.carried, care.due) == (None, False)


@pytest.mark.parametrize("by", [HeldBy.OPERATOR, HeldBy.GATE, None])
async def test_a_hold_that_a_person_must_end_is_never_due(engine: AsyncEngine, by: HeldBy | None) -> None:
    """The operator's word, the gate's question, and what an older version held: they wait for ever."""
    await hold(engine, await in_phase(engine, Phase.WATCHING), by)
    await passes(engine, timedelta(days=30))
    care = await find(engine)
    assert (care.carried, care.due, care.due_at) == (None, False, None)


async def test_a_hold_by_the_database_is_due_as_soon_as_it_answers(engine: AsyncEngine) -> None:
    """Who can read this has the database back."""
    await hold(engine, await in_phase(engine, Phase.DRAINING), HeldBy.DATABASE)
    care = await find(engine)
    assert (care.carried, care.due) == (False, True)
    assert "the database was away" in care.sentence


async def test_a_hold_that_a_person_took_over_is_the_persons(engine: AsyncEngine) -> None:
    """`runbook hold` on a release that the database held keeps it from going on by itself."""
    release = await hold(engine, await in_phase(engine, Phase.DRAINING), HeldBy.DATABASE)
    await releases.note(engine, release, PhaseNote(held_by=HeldBy.OPERATOR))
    care = await find(engine)
    assert (care.carried, care.due) == (None, False)


@pytest.mark.parametrize("by", [HeldBy.RUNBOOK, HeldBy.SETTINGS, HeldBy.HOST, HeldBy.UPSTREAM])
async def test_our_own_error_is_tried_again_a_few_times_with_growing_pauses(
    engine: AsyncEngine, by: HeldBy
) -> None:
    """After the last try a person decides: a bug that stays must not repeat for ever."""
    release = await in_phase(engine, Phase.WATCHING)
    for pause in RETRY_PAUSES:
        release = await hold(engine, release, by)
        care = await find(engine)
        assert (care.carried, care.due) == (False, False)
        assert care.at is not None
        assert care.due_at is not None
        assert timedelta(0) < care.due_at - care.at <= pause
        await passes(engine, pause)
        assert (await find(engine)).due
        release = await resume(engine, release)
    await hold(engine, release, by)
    await passes(engine, timedelta(days=1))
    care = await find(engine)
    assert (care.carried, care.due) == (None, False)
    assert "a person decides" in care.sentence


async def test_errors_in_different_phases_are_counted_apart(engine: AsyncEngine) -> None:
    """A phase that passed after its error has ended that error."""
    release = await in_phase(engine, Phase.DRAINING)
    for _ in RETRY_PAUSES:
        release = await resume(engine, await hold(engine, release, HeldBy.RUNBOOK))
    release = await releases.enter(engine, release, Phase.WATCHING, verdict=Verdict.PASS)
    await hold(engine, release, HeldBy.RUNBOOK)
    await passes(engine, RETRY_PAUSES[0])
    assert (await find(engine)).due


async def not_back(
    engine: AsyncEngine, release: Release, away: tuple[str, ...] = (), **back: bool
) -> Release:
    """The end of a rollback with these hosts back or not, and some of these away."""
    names = {name.replace("_", "-"): value for name, value in back.items()}
    returns = {name: ReturnNote(back=value, away=name in away) for name, value in names.items()}
    return await releases.enter(
        engine,
        release,
        Phase.ROLLBACK_FAILED,
        verdict=Verdict.FAIL,
        sentence="web-2 is away",
        note=PhaseNote(returns=returns),
    )


async def test_a_failed_rollback_is_tried_again_with_growing_pauses(engine: AsyncEngine) -> None:
    """A host that is not back may be reachable again later; the last pause repeats."""
    release = await in_phase(engine, Phase.ROLLING_BACK)
    for pause in (*ROLLBACK_PAUSES, ROLLBACK_PAUSES[-1]):
        release = await not_back(engine, release, web_1=True, web_2=False)
        care = await find(engine)
        assert (care.release.id, care.carried, care.due) == (release.id, False, False)
        assert care.sentence.startswith("web-2 is not back")
        await passes(engine, pause)
        assert (await find(engine)).due
        release = await releases.enter(engine, await locked(engine, release), Phase.ROLLING_BACK)


async def test_a_host_that_was_away_is_asked_for_before_its_time(engine: AsyncEngine) -> None:
    """Only hosts that could not be reached: one that answered and failed waits for its time."""
    release = await in_phase(engine, Phase.ROLLING_BACK)
    await not_back(engine, release, web_1=True, web_2=False, web_3=False, away=("web-1", "web-2"))
    care = await find(engine)
    assert (care.due, care.away) == (False, ("web-2",))
    assert care.sentence.endswith("or when web-2 answers again")


async def test_a_failed_rollback_whose_hosts_are_all_back_needs_a_person(engine: AsyncEngine) -> None:
    """Then something else has failed, which another try does not change."""
    await not_back(engine, await in_phase(engine, Phase.ROLLING_BACK), web_1=True)
    await passes(engine, timedelta(days=1))
    assert not (await find(engine)).due


async def test_a_plan_on_top_does_not_hide_a_failed_rollback(engine: AsyncEngine) -> None:
    """Nobody has started the plan; the hosts below it still wait."""
    release = await not_back(engine, await in_phase(engine, Phase.ROLLING_BACK), web_1=False)
    plan = await begun(engine)
    await passes(engine, ROLLBACK_PAUSES[0])
    care = await find(engine)
    assert (care.release.id, care.due) == (release.id, True)
    assert (await due.unfinished(engine, "staging")).id == plan.id


async def test_a_later_release_hides_a_failed_rollback(engine: AsyncEngine) -> None:
    """The hosts were deployed again since: going back to the older revision would undo that."""
    await not_back(engine, await in_phase(engine, Phase.ROLLING_BACK), web_1=False)
    await in_phase(engine, Phase.SUCCEEDED)
    assert await due.find(engine, "staging") is None
