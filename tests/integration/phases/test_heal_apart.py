"""What healing sends back is no live traffic: neither for the gate of a guard, nor for a bar, nor left behind."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.errors import ExitCode
from handlers.gate.values import Finding
from handlers.measurements import window
from handlers.measurements.measurement import State
from handlers.measurements.window import Window
from handlers.phases import heal_alarms, heal_batch
from handlers.queue import limits
from handlers.queue.event import EntityType
from handlers.release import left_behind
from handlers.release.ledger import heals, releases
from handlers.release.phase import Phase
from handlers.status import one_event
from tests.integration.phases.guarded import guarded
from tests.integration.phases.healing import CUSTOMER, NAME, Place, place, refused, working
from tests.integration.phases.looks import TO
from tests.integration.queue.events import change, event
from tests.integration.release.steps import in_phase


async def test_a_guard_counts_no_letter_that_healing_sends_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """They are applied by the released workers while it looks, and are no data about the release."""
    async with guarded(tmp_path, database_url, engine) as release:
        here = Place(core=release.core)
        await limits.lift_all(engine)
        letters = [await here.letter(str(n), EntityType.PRODUCT) for n in range(3)]
        letters += [await here.letter(str(10 + n), CUSTOMER) for n in range(3)]
        async with working(database_url, TO):
            healed = await here.heal()
        assert healed.sentence == "6 of 6 dead letters completed"
        await release.at(minutes=5)
        taken = await release.take()
        assert taken is not None
        assert taken.finding is Finding.NO_DATA, taken.sentence
        assert len(letters) == 6


async def test_letters_that_die_again_break_no_bar(database_url: str) -> None:
    """Nor does a batch that is out look like a backlog of two days."""
    async with place(database_url) as here:
        for n in range(2):
            await here.letter(str(n), payload=refused(str(n)))
        async with working(database_url):
            await here.heal()
        async with here.engine.begin() as tx:
            span = Window.of(here.core.clock, await clock.now(tx))
            found = {
                each.name: each for each in await window.read(tx, here.core.environment.bars, span, None)
            }
        assert (await here.statuses())["0"] == "dead_letter"
        assert found["dead_letters_1h"].value == 0
        await here.letter("9", CUSTOMER)
        await here.beat()
        claim = await heals.claim(here.engine, NAME, by="x", seconds=60)
        assert claim is not None
        assert await heal_batch.send(here.core, claim) is not None
        measured = {each.name: each for each in await heal_alarms.measure(here.core)}
        assert measured["oldest"].state is State.GOOD, measured["oldest"].sentence


async def test_a_letter_of_healing_is_not_left_behind_by_a_release(database_url: str) -> None:
    """It was out when the release began, and died again under its revision: no live event did."""
    async with place(database_url) as here:
        letter = await here.letter("1")
        live = await event(here.engine, "2", status="dead_letter")
        await here.beat()
        claim = await heals.claim(here.engine, NAME, by="x", seconds=60)
        assert claim is not None
        assert await heal_batch.send(here.core, claim) is not None
        release = await in_phase(here.engine, Phase.ROLLED_BACK, NAME)
        await change(here.engine, letter, status="dead_letter", started_at="sql:clock_timestamp()")
        await change(here.engine, live, started_at="sql:clock_timestamp()")
        found = await left_behind.ids(here.engine, NAME, release.id)
        assert found == {live}
        kinds = await left_behind.kinds(here.engine, await releases.get(here.engine, release.id))
        assert sum(kind.events for kind in kinds) == 1


async def test_an_event_says_how_often_healing_tried_it(database_url: str) -> None:
    """With each batch, and what came of it."""
    async with place(database_url) as here:
        letter = await here.letter("1", payload=refused("1"))
        async with working(database_url):
            await here.heal()
        async with here.engine.connect() as tx:
            view = await one_event.read(tx, letter)
        assert (view.healing_tries, [each.status for each in view.healings]) == (1, ["dead_letter"])


async def test_an_alarm_is_told_once_and_again_when_it_is_over(database_url: str) -> None:
    """A backlog and a worker that fell silent: exit code 4 as long as they last."""
    async with place(database_url, bars={"queue_depth": 1, "oldest_seconds": 600}) as here:
        for n in range(3):
            await event(here.engine, str(n), age=3600)
        await here.beat()
        await here.execute("UPDATE runbook.worker SET beat_at = now() - interval '5 minutes'")
        for _ in range(2):
            healed = await here.heal()
            assert healed.exit_code is ExitCode.HELD
            assert [each.name for each in healed.alarms] == ["queue_depth", "oldest", "silent_workers"]
        assert await here.told() == {"check.bar-broken": 3}
        async with working(database_url):
            await here.execute("UPDATE runbook.worker SET stopped_at = now() WHERE owner LIKE 'test-1-%'")
            while set((await here.statuses()).values()) != {"completed"}:
                await here.core.clock.sleep(0.05)
            healed = await here.heal()
        assert (healed.exit_code, healed.sentence) == (ExitCode.GOOD, "nothing to heal")
        assert await here.told() == {"check.bar-broken": 3, "check.bar-whole": 3}
