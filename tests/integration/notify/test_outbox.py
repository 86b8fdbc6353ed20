"""What is written into the outbox: with the phase, not too often, and that a trouble is over."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import Refused
from handlers.release.ledger import outbox, releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import Phase, Verdict
from handlers.release.topic import Topic
from tests.integration.notify.listeners import http_listener
from tests.integration.notify.told import Told
from tests.integration.release.steps import begun, deploying, in_phase, locked


async def topics(told: Told) -> list[str]:
    """What was written, in order."""
    return [entry.topic for entry in await told.entries()]


async def test_every_change_that_people_should_hear_of_is_written_with_its_phase(told: Told) -> None:
    """A release that is held, goes on, and goes back, with its failed try."""
    run = await deploying(told.engine, "told")
    run = await releases.hold(told.engine, run, "no data", note=PhaseNote(held_by=HeldBy.GATE))
    run = await releases.resume(told.engine, await locked(told.engine, run), "by ops-b")
    for phase in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED):
        run = await releases.enter(told.engine, run, phase, verdict=Verdict.FAIL, sentence=f"now {phase}")
    run = await locked(told.engine, run)
    for phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
        run = await releases.enter(told.engine, run, phase, verdict=Verdict.PASS, sentence=f"now {phase}")
    assert [(entry.topic, entry.severity) for entry in await told.entries()] == [
        ("release.started", "info"),
        ("release.held", "page"),
        ("release.resumed", "page"),
        ("release.rolling_back", "page"),
        ("release.rollback_failed", "page"),
        ("release.rolled_back", "page"),
    ]


async def test_a_release_that_succeeds_is_no_page(told: Told) -> None:
    """It waits in the quiet hours, as its start does."""
    await in_phase(told.engine, Phase.SUCCEEDED, "told")
    assert {entry.severity for entry in await told.entries()} == {"info"}


async def test_a_hold_that_a_person_asked_for_is_no_page(told: Told) -> None:
    """They know."""
    run = await deploying(told.engine, "told")
    await releases.hold(told.engine, run, "asked for", note=PhaseNote(held_by=HeldBy.OPERATOR))
    assert (await told.entries())[-1].severity == "info"


async def test_a_change_that_does_not_happen_is_not_told(told: Told) -> None:
    """The message is in the transaction of the phase: both or none."""
    run = await deploying(told.engine, "told")

    async def fails() -> None:
        async with told.engine.begin() as tx:
            await releases.hold(tx, run, "no data")
            raise Refused("the transaction ends here")

    with pytest.raises(Refused):
        await fails()
    assert await topics(told) == ["release.started"]


async def test_a_plan_that_nobody_began_is_not_told(told: Told) -> None:
    """Whoever typed it sees the refusal."""
    run = await begun(told.engine, "told")
    await releases.enter(told.engine, run, Phase.REFUSED, verdict=Verdict.FAIL, sentence="drift")
    assert await topics(told) == []


async def test_three_of_a_kind_are_sent_and_then_how_many_more(told: Told) -> None:
    """The fourth stands for all others, and is sent once, ten minutes later, with their number."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"))
        for number in range(9):
            await told.say(f"error {number}", Topic.NEW_ERROR)
        assert (await told.send()).taken == 3
        await told.later(outbox.SUMMARY_SECONDS)
        assert (await told.send()).taken == 1
        assert listener.got[-1]["message"].startswith("6 more of the same. New error in the logs: error 3")
        await told.say("error 9", Topic.NEW_ERROR)
        assert (await told.send()).taken == 0
        await told.later(outbox.WINDOW_SECONDS)
        await told.say("error 10", Topic.NEW_ERROR)
        assert (await told.send()).taken == 1


async def test_other_kinds_and_other_releases_are_counted_apart(told: Told) -> None:
    """A topic of one release silences nothing else."""
    first, second = await in_phase(told.engine, Phase.SUCCEEDED, "told"), await begun(told.engine, "told")
    for run in (first, second):
        for number in range(3):
            await told.say(f"error {number}", Topic.NEW_ERROR, release_id=run.id)
    await told.say("no answer", Topic.UPSTREAM_AWAY, release_id=first.id)
    assert "not sent" not in await told.states()


async def test_a_recovery_is_told_where_the_trouble_was_told(told: Told) -> None:
    """Once; after that the trouble is news again. Of another host it ends nothing."""
    assert await told.say("web-1 is back", Topic.BACK, subject="web-1") is None
    for _ in range(5):
        await told.say("web-1 does not answer", Topic.NOT_BACK, subject="web-1")
    assert await told.say("web-2 is back", Topic.BACK, subject="web-2") is None
    assert await told.say("web-1 is back", Topic.BACK, subject="web-1") is not None
    assert await told.say("web-1 is back", Topic.BACK, subject="web-1") is None
    await told.say("web-1 does not answer again", Topic.NOT_BACK, subject="web-1")
    assert [entry.not_sent for entry in await told.entries()] == [
        "",
        "",
        "",
        "the trouble was over before",
        outbox.MORE,
        "",
        "",
    ]


async def test_what_is_told_once_is_told_again_after_it_was_over(told: Told) -> None:
    """A timer that says it each minute pages once for each outage."""
    said = [await told.say("nobody takes the checks", Topic.GUARD_OVERDUE, once=True) for _ in range(3)]
    assert [each is not None for each in said] == [True, False, False]
    await told.say("taken", Topic.GUARD_TAKEN)
    assert await told.say("nobody takes the checks", Topic.GUARD_OVERDUE, once=True) is not None


async def test_a_ledger_without_an_outbox_keeps_no_release_from_its_phases(engine: AsyncEngine) -> None:
    """It is from before the migration, and a rollback must work all the same."""
    async with engine.begin() as tx:
        await tx.exec_driver_sql("DROP TABLE runbook.delivery; ")
        await tx.exec_driver_sql("DROP TABLE runbook.message")
    run = await deploying(engine, "told")
    assert (await releases.hold(engine, run, "no data")).phase is Phase.HELD
    assert not await outbox.is_due(engine, "told")
