"""Healing on a real queue: old dead letters go back in growing batches, and what must not be touched is not."""

from __future__ import annotations

import asyncio

import pytest

from handlers.errors import ExitCode
from handlers.phases import heal, heal_batch, heal_letters, plan
from handlers.phases.heal_preview import preview
from handlers.queue import limits
from handlers.queue.event import EntityType
from handlers.release.ledger import heal_stops, heals
from handlers.release.phase import Phase
from tests.integration.host.upstreams import upstream_server
from tests.integration.phases.healing import CUSTOMER, DAY, NAME, OTHER, Place, place, refused, working
from tests.integration.queue.events import bytes_of, change, event, row
from tests.integration.release.steps import begun, in_phase
from tests.integration.worker.steps import until


async def quarantined(here: Place, letter: object, *, like: bool) -> int:
    """A person sets a letter aside."""
    async with here.engine.begin() as tx:
        found = await heal_letters.letter(tx, letter)  # type: ignore[arg-type]
        return await heal_stops.quarantine(tx, NAME, found, like=like, by="ops-a", reason="it is a duplicate")


async def test_old_letters_go_back_in_growing_batches(database_url: str) -> None:
    """First one of each type, then twice as many: all are healed, people are told once, and the ledger has it."""
    async with place(database_url) as here:
        for n in range(7):
            await here.letter(str(1000 + n))
        for n in range(3):
            await here.letter(str(2000 + n), CUSTOMER)
        await here.letter("3000", age=3600)
        async with working(database_url):
            healed = await here.heal()
            again = await here.heal()
        assert (healed.sentence, healed.exit_code) == ("10 of 10 dead letters completed", ExitCode.GOOD)
        assert await here.sizes() == [2, 4, 4]
        statuses = await here.statuses()
        assert statuses.pop("3000") == "dead_letter"
        assert set(statuses.values()) == {"completed"}
        assert await here.told() == {"heal.done": 1}
        assert [each.finding for each in await here.actions()] == ["HEALTHY"] * 3
        assert (again.sentence, again.did_something) == ("nothing to heal", False)


async def test_what_dies_later_begins_a_new_round(database_url: str) -> None:
    """With one letter of each type, however large the batches of the day before were."""
    async with place(database_url) as here:
        for n in range(6):
            await here.letter(str(1000 + n))
        async with working(database_url):
            await here.heal()
        for n in range(3):
            await here.letter(str(2000 + n))
        async with working(database_url):
            assert (await here.heal()).healed == "3 of 3 dead letters completed"
        assert await here.sizes() == [1, 2, 3, 1, 2]


async def test_where_nothing_is_due_nothing_is_in_the_way(database_url: str) -> None:
    """An environment without heartbeats at night is well: no letter waits for a worker."""
    async with place(database_url) as here:
        await here.letter("1", age=3600)
        healed = await here.heal()
        assert (healed.exit_code, healed.sentence) == (ExitCode.GOOD, "nothing to heal")


async def test_what_healing_must_not_touch_stays_as_it_is(database_url: str) -> None:
    """Each is named with who sees to it; none is changed in a byte, and none is in the ledger."""
    async with place(database_url) as here:
        dead = {
            "young": await here.letter("1", age=3600),
            "kind": await here.letter("2", error_message="an error in quarantine 17"),
            "like": await here.letter("3", error_message="an error in quarantine 18"),
            "letter": await here.letter("4"),
            "parent": await here.letter("5", error_code="missing_parent"),
            "hard": await here.letter("6", processing_result='sql:\'{"class": "permanent"}\'::jsonb'),
            "content": await here.letter("7", error_code="22003"),
            "killer": await here.letter("8", error_code="lease_expired"),
            "superseded": await here.letter("9"),
            "overtaken": await here.letter("10"),
            "unknown": await here.letter("11", entity_type="sql:'branch'::tds_entity_type"),
            "tried": await here.letter("12"),
        }
        await event(here.engine, "9", status="completed", completed_at="sql:now()")
        await event(here.engine, "10", status="retry", next_retry_at="sql:now() + interval '1 hour'")
        await quarantined(here, dead["kind"], like=True)
        await quarantined(here, dead["letter"], like=False)
        await here.execute(
            "INSERT INTO runbook.heal_action (environment, kind, round, by, events, ended_at)"
            f" SELECT '{NAME}', 'batch', 0, 'x', 1, now() FROM generate_series(1, 3)"
        )
        await here.execute(
            "INSERT INTO runbook.heal_event (action_id, event_id, entity_type, source_entity_id, fingerprint, former,"
            f" redriven_at, settled_at, status) SELECT id, '{dead['tried']}', 'Product', '12', '', '{{}}',"
            " now() - interval '3 days', now(), 'dead_letter' FROM runbook.heal_action"
        )
        await here.beat()
        before = await bytes_of(here.engine, list(dead.values()))
        seen = {line.id: line for line in (await preview(here.core)).letters}
        healed = await here.heal()
        assert healed.batches == ()
        assert await bytes_of(here.engine, list(dead.values())) == before
        assert {name: (seen[str(id_)].who, seen[str(id_)].what) for name, id_ in dead.items()} == {
            "young": ("healing, later", "dead for 60 min of 24 h"),
            "kind": ("a person", "in quarantine by ops-a (number 1): it is a duplicate"),
            "like": ("a person", "in quarantine by ops-a (number 1): it is a duplicate"),
            "letter": ("a person", "in quarantine by ops-a (number 2): it is a duplicate"),
            "parent": ("its parent's arrival", "it waits for its parent, whose arrival wakes it"),
            "hard": ("a release, or `runbook drain`", "no retry of the same revision cures its error"),
            "content": ("a release, or `runbook drain`", "no retry of the same revision cures its error"),
            "killer": ("a person", "workers died of it, or lost it"),
            "superseded": ("nobody: it is superseded", "a newer event of its record was applied"),
            "overtaken": ("nobody: it is superseded", "a newer event of its record is on its way"),
            "unknown": ("a person", "there is no handler for branch"),
            "tried": ("a person", "healing has tried it 3 of 3 times"),
        }


async def test_a_lifted_quarantine_lets_healing_try(database_url: str) -> None:
    """With the number that the person was given."""
    async with place(database_url) as here:
        letter = await here.letter("1")
        number = await quarantined(here, letter, like=True)
        async with working(database_url):
            assert (await here.heal()).batches == ()
            await heal_stops.lift(here.engine, NAME, number, by="ops-b")
            assert (await here.heal()).sentence == "1 of 1 dead letters completed"


async def test_a_bad_batch_stops_the_healing_of_its_error(database_url: str) -> None:
    """Two of two die again: the others like them are left alone, people are told, and other errors are healed."""
    async with place(database_url) as here:
        for n in range(6):
            await here.letter(str(1000 + n), payload=refused(str(1000 + n)), error_message=OTHER)
        for n in range(3):
            await here.letter(str(2000 + n), CUSTOMER)
        async with working(database_url):
            healed = await here.heal()
            again = await here.heal()
            statuses = await here.statuses()
            assert sum(status == "completed" for status in statuses.values()) == 3
            tried = {each.source_entity_id for each in await here.events() if each.entity_type == "Product"}
            assert len(tried) == 2
            assert healed.exit_code is ExitCode.HELD
            assert "all of Product rests" in healed.sentence
            assert again.batches == ()
            assert await here.told() == {"heal.stopped": 1, "heal.done": 1}
            untouched = [key for key in statuses if key.startswith("1") and key not in tried]
            for n in untouched:
                found = (await here.letter_of(n))["error_message"], (await here.letter_of(n))["attempt_count"]
                assert found == (OTHER, 3)
            # When the rest is over one of them is tried, and the next rest is twice as long.
            await here.execute("UPDATE runbook.heal_stop SET until = now() - interval '1 second'")
            await here.heal()
            rests = await here.rests()
            assert rests[0][1] == 2
            assert 1.9 * DAY < rests[0][2] <= 2 * DAY


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.HELD, Phase.WATCHING])
async def test_nothing_goes_back_while_a_release_is_unfinished(database_url: str, phase: Phase) -> None:
    """Healing says so, does the rest, and nothing is wrong."""
    async with place(database_url) as here:
        letter = await here.letter("1")
        lost = await event(
            here.engine, "2", status="processing", locked_by="worker-1", lock_expires_at="sql:now()"
        )
        await here.beat()
        release = await in_phase(here.engine, phase, NAME)
        before = await row(here.engine, letter)
        healed = await here.heal()
        assert f"no dead letter goes back: release {release.id} is {phase}" in healed.sentence
        assert healed.exit_code is ExitCode.GOOD
        assert await row(here.engine, letter) == before
        assert (await row(here.engine, lost))["status"] == "retry"


async def test_a_plan_that_nobody_starts_keeps_healing_from_nothing(database_url: str) -> None:
    """After a day it is forgotten."""
    async with place(database_url) as here:
        await here.letter("1")
        await begun(here.engine, NAME)
        await here.execute("UPDATE runbook.release SET created_at = created_at - interval '25 hours'")
        async with working(database_url):
            assert (await here.heal()).sentence == "1 of 1 dead letters completed"


async def test_a_release_that_begins_calls_a_batch_back(database_url: str) -> None:
    """What no worker has taken is the dead letter again that it was, and was no try."""
    async with place(database_url) as here:
        ids = [await here.letter("1"), await here.letter("2", CUSTOMER)]
        before = await bytes_of(here.engine, ids)
        await here.beat()
        running = asyncio.create_task(here.heal())

        async def is_out() -> bool:
            return await heals.out(here.engine, NAME) is not None

        await until(is_out, 20)
        release = await in_phase(here.engine, Phase.DEPLOYING, NAME)
        healed = await running
        assert healed.block is not None
        assert healed.block.sentence.startswith(f"release {release.id} is ")
        assert await bytes_of(here.engine, ids) == before
        assert [(each.status, each.counts) for each in await here.events()] == [("returned", False)] * 2
        assert not await is_out()


async def test_a_plan_says_that_a_batch_is_out(database_url: str) -> None:
    """As a warning: it is called back when the release starts."""
    async with place(database_url) as here:
        await here.letter("1")
        await here.beat()
        claim = await heals.claim(here.engine, NAME, by="x", seconds=60)
        assert claim is not None
        assert await heal_batch.send(here.core, claim) is not None
        [check] = [check for check in await plan.run_checks(here.core) if check.name == "healing"]
        assert (check.good, check.warns) == (True, True)
        assert check.sentence.startswith("1 dead letters are out for ")


async def test_nothing_goes_back_while_the_queue_is_limited(database_url: str) -> None:
    """A gate or a person holds it."""
    async with place(database_url) as here:
        await here.letter("1")
        await here.beat()
        await limits.limit(
            here.engine, EntityType.BILL, per_ten_seconds=1, seconds=60, by="ops-a", reason="slow"
        )
        healed = await here.heal()
        assert "no dead letter goes back: the queue is limited: 1 events of Bill" in healed.sentence
        assert healed.exit_code is ExitCode.GOOD
        assert await here.events() == []


async def test_nothing_goes_back_while_the_upstream_is_away(database_url: str) -> None:
    """A failure would say nothing about a letter; somebody must look."""
    async with (
        upstream_server(503) as up,
        place(database_url, upstream={"url": up.url, "failures": 1}) as here,
    ):
        await here.letter("1")
        await here.beat()
        healed = await here.heal()
        assert "no dead letter goes back: the upstream is away" in healed.sentence
        assert healed.exit_code is ExitCode.HELD
        assert await here.events() == []


async def test_nothing_goes_back_without_a_worker(database_url: str) -> None:
    """Neither without heartbeats and completed events, nor where the only worker has fallen silent."""
    async with place(database_url) as here:
        await here.letter("1")
        healed = await here.heal()
        assert "no worker sends heartbeats here, and no event was completed" in healed.sentence
        await here.beat()
        await here.execute("UPDATE runbook.worker SET beat_at = now() - interval '5 minutes'")
        healed = await here.heal()
        assert "no dead letter goes back: no worker is alive" in healed.sentence
        assert healed.exit_code is ExitCode.HELD
        assert await here.events() == []


async def test_letters_that_are_not_finished_in_time_are_put_back(database_url: str) -> None:
    """With their former attempts and error. Where nobody had tried them it was no try."""
    async with place(database_url, heal={"settle_seconds": 3}) as here:
        ids = [await here.letter("1"), await here.letter("2", CUSTOMER)]
        before = await bytes_of(here.engine, ids)
        await here.beat()
        running = asyncio.create_task(here.heal())

        async def one_is_tried() -> bool:
            if await heals.out(here.engine, NAME) is None:
                return False
            await change(here.engine, ids[0], status="retry", attempt_count=1, error_message="boom")
            return True

        await until(one_is_tried, 20)
        healed = await running
        assert await bytes_of(here.engine, ids) == before
        assert {(each.source_entity_id, each.status, each.counts) for each in await here.events()} == {
            ("1", "returned", True),
            ("2", "returned", False),
        }
        assert healed.out == 0
        assert healed.block is not None
        assert healed.block.sentence == "workers have not taken 1 of 2 letters in all their time"
        assert healed.exit_code is ExitCode.HELD


async def test_dead_letters_wait_where_the_environment_says_so(database_url: str) -> None:
    """The rest is healed; and where healing is off nothing is."""
    async with place(database_url, heal={"dead_letters": False}) as here:
        await here.letter("1")
        lost = await event(
            here.engine, "2", status="processing", locked_by="worker-1", lock_expires_at="sql:now()"
        )
        await here.beat()
        assert (await here.heal()).taken_back == "1 events of dead workers are back in the queue"
        assert (await row(here.engine, lost))["status"] == "retry"
        assert await here.events() == []
    async with place(database_url, heal={"active": False}) as off:
        assert (await heal.run(off.core)).sentence == "healing is switched off: heal.active is false"
