"""What the gate sees of a real queue: what counts, what does not, and what every look leaves in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.database.clock import Moment
from handlers.errors import LockLost
from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding
from handlers.gate.weigh import weigh_again
from handlers.phases import looking, surroundings
from handlers.phases.around_state import UpstreamChange
from handlers.queue import limits, settle
from handlers.queue.changes import day_before
from handlers.queue.event import EntityType, ErrorClass
from handlers.queue.redrive import redrive
from handlers.release import lock
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import judgements
from handlers.release.note import PhaseNote
from tests.integration.phases.looks import FROM, TO, applied, buried, look, looked_at, taken
from tests.integration.queue.events import APPLIED, change, claim, event, failure, missing
from tests.integration.set_clock import set_clock

KINDS = (EntityType.PRODUCT, EntityType.INVOICE, EntityType.CUSTOMER)


async def test_three_dead_records_at_the_switch_roll_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Of errors that no retry cures, of three types: healthy releases hardly ever begin so."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        for number, kind in enumerate(KINDS):
            assert (await look(core, run, looker)).finding is not Finding.UNHEALTHY
            await buried(engine, f"{number}", entity=kind)
        judgement = await look(core, run, looker)
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.startswith("all types: 3 of 3 records since minute 0 failed beyond retry")


async def test_records_that_worked_once_and_then_die_roll_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """An old success hides no failure: thirty known records, all of which die two minutes later."""
    async with looked_at(tmp_path, database_url, since=700) as (core, run, looker):
        for number in range(30):
            id_ = await applied(engine, f"{number}", age=600)
            ago = "sql:now() - interval '590 seconds'"
            await change(engine, id_, started_at=ago, completed_at=ago)
        assert (await look(core, run, looker)).finding is Finding.INCONCLUSIVE
        for number in range(30):
            await buried(engine, f"{number}")
        assert (await look(core, run, looker)).finding is Finding.UNHEALTHY


async def test_what_came_before_the_switch_and_is_taken_after_it_counts(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The backlog of the deploy is as much the release's as what comes later."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        for number in range(5):
            await buried(engine, f"{number}", age=3600)
        assert (await look(core, run, looker)).finding is Finding.UNHEALTHY


async def test_what_the_former_revision_took_is_no_evidence(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Not before the switch, and not by a worker that still runs after it."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        for number in range(9):
            id_ = await buried(engine, f"before {number}", age=60)
            await change(
                engine,
                id_,
                processing_result="sql:jsonb_set(processing_result, '{admitted}', to_jsonb(now() - interval '30 s'))",
            )
            await buried(engine, f"after {number}", by=FROM)
        judgement = await look(core, run, looker)
        assert judgement.finding is Finding.NO_DATA


async def test_an_event_that_ended_before_the_switch_was_taken_before_it(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Also if a worker's transaction began before the event came in: then the time of its start cannot be used."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        for number in range(25):
            id_ = await applied(engine, f"{number}", age=30)
            await change(
                engine,
                id_,
                started_at="sql:now() - interval '31 s'",
                completed_at="sql:now() - interval '29 s'",
                processing_result="sql:processing_result - 'admitted'",
            )
        judgement = await look(core, run, looker, left=-1)
        assert judgement.finding is Finding.NO_DATA


async def test_an_error_of_the_day_before_is_no_evidence(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Of that type only: the same error of another type is a new one."""
    known = TypeBefore(units=200, ok=0.97, fingerprints={"boom <n>": 0.03})
    before = DayBefore(units=200, ok=0.97, types={"Product": known})
    async with looked_at(tmp_path, database_url, before=before) as (core, run, looker):
        for number in range(5):
            await buried(engine, f"{number}", message=f"boom {number}")
        assert (await look(core, run, looker)).finding is not Finding.UNHEALTHY
        for number in range(5):
            await buried(engine, f"{number}", message=f"boom {number}", entity=EntityType.INVOICE)
        judgement = await look(core, run, looker)
        assert judgement.finding is Finding.UNHEALTHY
        assert "Product" not in judgement.sentence


async def test_the_day_before_is_read_from_the_queue(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """By type: units, success, masked errors with their shares, waits; and what older dead letters had died of."""
    for number in range(4):
        await applied(engine, f"{number}", by=FROM)
    await buried(engine, "bad", by=FROM, message="no unit 'kg 7'")
    child = await event(engine, "child", entity=EntityType.INVOICE)
    await claim(engine, "w", ids=[child])
    async with engine.begin() as tx:
        await settle.retry_later(tx, owner="w", revision=FROM, failures=[missing(child, "4711")])
    await change(engine, child, next_retry_at="sql:now()", lock_expires_at=None, locked_by=None)
    await claim(engine, "w", ids=[child])
    async with engine.begin() as tx:
        await settle.complete(tx, owner="w", revision=FROM, results={child: APPLIED})
    async with looked_at(tmp_path, database_url) as (core, _run, _looker), core.database.connect() as tx:
        found = await day_before(tx, await clock.now(tx), [("Bill", "old 3")])
    product, invoice = found.types["Product"], found.types["Invoice"]
    assert (product.units, product.ok, product.waited) == (5, 0.8, 0)
    assert product.fingerprints == {"no unit <value>": 0.2}
    assert product.latency_s is not None
    assert (invoice.units, invoice.ok, invoice.waited) == (1, 1, 1)
    assert found.knows("Bill", "old <n>")
    assert not found.knows("Product", "old <n>")
    assert found.wait_p99_s is not None
    assert DayBefore.from_json(found.as_json()) == found


async def test_one_error_that_the_environment_names_is_enough(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Also of an event that is to be tried again; not where a payload's value has that word."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        await buried(engine, "value", message="ValueError: reorder level 'greenlet_spawn' is no number")
        assert (await look(core, run, looker)).finding is not Finding.UNHEALTHY
        id_ = await event(engine, "again")
        await claim(engine, "w", ids=[id_])
        async with engine.begin() as tx:
            said = failure(id_, ErrorClass.TRANSIENT, "MissingGreenlet: greenlet_spawn has not been called")
            await settle.retry_later(tx, owner="w", revision=TO, failures=[said])
        judgement = await look(core, run, looker)
    assert judgement.finding is Finding.UNHEALTHY
    assert judgement.sentence.startswith("Product: MissingGreenlet: greenlet_spawn has not been called")


async def test_what_a_person_holds_is_no_failure(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It is free when the hold ends, and not late before its deadline."""
    async with looked_at(tmp_path, database_url, since=400) as (core, run, looker):
        for number in range(12):
            await event(engine, f"{number}", age=390 - 10 * number)
        await limits.limit(engine, None, per_ten_seconds=0, seconds=600, by="ops-a", reason="a check")
        held = await look(core, run, looker)
        assert held.finding is not Finding.UNHEALTHY
        assert looker.stands_still
        await limits.lift_all(engine)
        freed = await look(core, run, looker)
        assert freed.finding is not Finding.UNHEALTHY, "it is free since now, and not late yet"
        assert not looker.stands_still


async def test_what_nobody_takes_rolls_back(tmp_path: Path, database_url: str, engine: AsyncEngine) -> None:
    """Free for longer than the deadline, and nothing is taken: the workers never came up."""
    async with looked_at(tmp_path, database_url, since=400) as (core, run, looker):
        for number in range(12):
            await event(engine, f"{number}", age=390 - 10 * number)
        assert (await look(core, run, looker)).finding is Finding.UNHEALTHY


async def test_a_breach_at_the_first_look_after_a_gap_must_show_again(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The controller was away, and something may have been away with it that is back. The look is stored as it was."""
    async with looked_at(tmp_path, database_url, since=400) as (core, run, looker):
        await look(core, run, looker)
        async with engine.begin() as tx:
            await tx.exec_driver_sql("UPDATE runbook.judgement SET taken_at = taken_at - interval '200 s'")
        for number in range(12):
            await event(engine, f"{number}", age=390 - 10 * number)
        judgement = await look(core, run, await looking.begin(core, run))
        assert judgement.finding is Finding.INCONCLUSIVE
        assert judgement.sentence.startswith(
            "all types: a breach at the first look after a while without one"
        )
        stored = (await judgements(core.database, run))[-1]
    assert "unwatched" in {fact["ev"] for fact in stored.inputs["facts"]}


async def test_where_the_erp_has_no_workers_nothing_is_untaken(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Then only the release itself applies events, and live ones wait for whoever does it otherwise."""
    inline = 'execution = "inline"'
    async with looked_at(tmp_path, database_url, since=900, more=inline) as (core, run, looker):
        for number in range(12):
            await event(engine, f"{number}", age=600)
        assert (await look(core, run, looker)).finding is Finding.NO_DATA


async def test_an_event_that_is_deleted_is_no_failure(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Waiting or in hand: it is gone, and was nobody's fault."""
    async with looked_at(tmp_path, database_url, since=900) as (core, run, looker):
        ids = [await event(engine, f"{number}", age=50) for number in range(8)]
        await claim(engine, "w", ids=ids[:4])
        await look(core, run, looker)
        async with engine.begin() as tx:
            await tx.exec_driver_sql("DELETE FROM tds_sync_queue")
        await look(core, run, looker)
        assert not looker.facts.open()
        assert not looker.gate.units.open
        assert not looker.gate.holds.queued()


async def test_a_dead_letter_of_the_release_is_no_live_traffic(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The drain judges them."""
    letters = [await buried(engine, f"{number}", by=FROM, age=600) for number in range(5)]
    async with looked_at(tmp_path, database_url) as (core, run, _):
        planned = [(number, id_, "Product", f"{number}") for number, id_ in enumerate(letters)]
        await dead_letters.plan_events(core.database, run, planned)
        looker = await looking.begin(core, run)
        async with engine.begin() as tx:
            await redrive(tx, letters)
        await claim(engine, "w", ids=letters)
        async with engine.begin() as tx:
            failures = [failure(id_, ErrorClass.PERMANENT) for id_ in letters]
            await settle.bury(tx, owner="w", revision=TO, failures=failures)
        assert (await look(core, run, looker)).finding is Finding.NO_DATA


@pytest.mark.parametrize("seconds", [1620.0, -1620.0])
async def test_a_set_clock_makes_nothing_late(
    tmp_path: Path, database_url: str, engine: AsyncEngine, seconds: float
) -> None:
    """What workers have in hand looks 27 minutes older, or is of the future: neither is a failure."""
    async with looked_at(tmp_path, database_url, since=7200) as (core, run, looker):
        ids = [await event(engine, f"{number}", age=1) for number in range(8)]
        await claim(engine, "w", ids=ids)
        await look(core, run, looker)
        await set_clock(database_url, seconds)
        await core.database.dispose()
        assert (await look(core, run, looker)).finding is Finding.INCONCLUSIVE
        assert [ahead for _, ahead in looker.facts.timeline.shifts] == [pytest.approx(seconds, abs=1)]
        assert looker.gate.units.tables["*"].failures["soft"] == 0
        again = await looking.begin(core, run)
        await look(core, run, again)
        assert again.now == pytest.approx(looker.now, abs=5)
        assert again.gate.units.tables["*"].failures["soft"] == 0


async def test_another_controller_goes_on_where_the_last_one_was(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """From the ledger alone, also when the queue has forgotten: the same records, nothing twice."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        for number in range(6):
            await applied(engine, f"{number}")
        await buried(engine, "bad")
        before = await look(core, run, looker)
        async with engine.begin() as tx:
            await tx.exec_driver_sql("DELETE FROM tds_sync_queue")
        after = await look(core, run, await looking.begin(core, run))
    assert after.inputs["proof"] == before.inputs["proof"]


async def test_every_look_can_be_judged_again(tmp_path: Path, database_url: str, engine: AsyncEngine) -> None:
    """From what is stored: the facts of all looks until then, and the numbers of the first."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        for number, kind in enumerate(KINDS):
            await applied(engine, f"good {number}", entity=kind)
            await look(core, run, looker)
            await buried(engine, f"{number}", entity=kind)
            await look(core, run, looker)
        looker = await looking.begin(core, run)
        for number in range(12):
            await buried(engine, f"more {number}")
        await look(core, run, looker)
        stored = [
            each for each in await judgements(core.database, run) if each.inputs["rule"] == "sequential"
        ]
    begin = stored[0].inputs["begin"]
    gate = Gate(
        begin["types"],
        DayBefore.from_json(begin["before"]),
        Parameters(**begin["parameters"]),
        slow_start=False,
    )
    assert len(stored) == 7
    for each in stored:
        for fact in each.inputs["facts"]:
            gate.observe(fact)
        again = gate.verdict(each.inputs["now"], left=each.inputs["left"])
        assert (again.finding, again.sentence) == (each.finding, each.sentence)
    weighed = stored[-1].inputs["weighed"]
    assert weigh_again(weighed)[0] == pytest.approx(weighed["odds"])
    assert stored[-1].finding is Finding.UNHEALTHY


async def test_what_fails_while_the_upstream_is_away_is_no_evidence(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The look around the release has noted it; nothing is promoted until it answers."""
    upstream = '[upstream]\nurl = "http://127.0.0.1:1/"'
    async with looked_at(tmp_path, database_url, after=upstream) as (core, run, looker):
        at = await clock.now(core.database)
        state = await surroundings.begin(core, run)
        away = replace(state, changes=(UpstreamChange(at=at, up=False),))
        await releases.note(core.database, run, PhaseNote(around={"lines": [], "state": away.as_json()}))
        for number in range(9):
            await buried(engine, f"{number}")
        judgement = await look(core, run, looker, left=-1)
    assert judgement.finding is Finding.INCONCLUSIVE
    assert judgement.sentence == "the upstream is away: nothing is promoted until it answers"


@pytest.mark.parametrize("failed", [300, 900])
async def test_what_waits_behind_a_retry_of_its_record_is_not_untaken(
    tmp_path: Path, database_url: str, engine: AsyncEngine, failed: int
) -> None:
    """No worker may take it, for as long as the backoff of the older event: under this revision and the former."""
    async with looked_at(tmp_path, database_url, since=600) as (core, run, looker):
        looker.gate.breaker.held.clear()
        for number in range(8):
            id_ = await event(engine, f"{number}", age=failed)
            await taken(engine, id_)
            async with engine.begin() as tx:
                said = failure(id_, ErrorClass.TRANSIENT, "deadlock detected")
                await settle.retry_later(tx, owner="w", revision=TO, failures=[said])
            ago = f"now() - interval '{failed} s'"
            both = "sql:processing_result || jsonb_build_object('admitted', {0}, 'attempts',"
            both += " jsonb_set(processing_result -> 'attempts', '{{0,at}}', to_jsonb({0})))"
            await change(engine, id_, processing_result=both.format(ago), lock_expires_at=f"sql:{ago}")
            await event(engine, f"{number}", age=failed - 1)
        await applied(engine, "later")
        judgement = await look(core, run, looker)
        assert not list(looker.gate.holds.untaken(looker.now, 0.0))
        assert judgement.finding is not Finding.UNHEALTHY
        async with engine.begin() as tx:
            await tx.exec_driver_sql("DELETE FROM tds_sync_queue WHERE status = 'retry'")
        await applied(engine, "last")
        await look(core, run, looker)
        untaken = list(looker.gate.holds.untaken(looker.now + 1, 0.0))
        assert untaken
        assert all(each.free == pytest.approx(looker.now, abs=1) for each in untaken)


async def test_a_child_that_has_found_its_parent_and_fails_otherwise_waits_no_more(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Its new error is one that a retry cures: it is no wait in vain."""
    async with looked_at(tmp_path, database_url, since=900) as (core, run, looker):
        ids = [await event(engine, f"{number}") for number in range(6)]
        await taken(engine, *ids)
        async with engine.begin() as tx:
            waits = [missing(id_, f"parent of {id_}") for id_ in ids]
            await settle.retry_later(tx, owner="w", revision=TO, failures=waits)
        await look(core, run, looker)
        assert all(course.waiting_since is not None for course in looker.gate.units.open.values())
        for id_ in ids:
            await change(engine, id_, next_retry_at="sql:now()", lock_expires_at="sql:now()")
        await taken(engine, *ids)
        await look(core, run, looker)
        assert all(course.waiting_since is not None for course in looker.gate.units.open.values())
        async with engine.begin() as tx:
            failures = [failure(id_, ErrorClass.TRANSIENT) for id_ in ids]
            await settle.retry_later(tx, owner="w", revision=TO, failures=failures)
        await look(core, run, looker)
        assert len(looker.gate.units.open) == 6
        assert all(course.waiting_since is None for course in looker.gate.units.open.values())
        # Now it waits for another parent.
        await change(engine, ids[0], next_retry_at="sql:now()", lock_expires_at="sql:now()")
        await taken(engine, ids[0])
        async with engine.begin() as tx:
            await settle.retry_later(tx, owner="w", revision=TO, failures=[missing(ids[0], "another")])
        await look(core, run, looker)
        waiting = [each.parent for each in looker.gate.units.open.values() if each.waiting_since is not None]
        assert waiting == ["another"]


async def test_a_time_of_the_future_is_told_once(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Every look reads such rows again, also when what was told of them is forgotten."""
    async with looked_at(tmp_path, database_url, since=2000) as (core, run, looker):
        in_3_h = "sql:now() + interval '3 hours'"
        for number in range(3):
            id_ = await event(engine, f"{number}", age=-10800)
            await change(engine, id_, status="completed", started_at=in_3_h, completed_at=in_3_h)
        await look(core, run, looker)
        looker.facts.forget(looker.now + 1)
        await look(core, run, looker)
        stored = await judgements(core.database, run)
    arrived = [sum(fact["ev"] == "arrive" for fact in each.inputs["facts"]) for each in stored]
    assert arrived == [3, 0]


async def test_a_dead_letter_of_before_that_a_person_sends_back_is_no_live_traffic(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It may be hopeless, and fail of another error than before: that says nothing about live traffic."""
    old = [await buried(engine, f"{number}", by=FROM, age=7200) for number in range(6)]
    for id_ in old:
        await change(engine, id_, started_at="sql:now() - interval '2 hours'", lock_expires_at="sql:now()")
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        new = await buried(engine, "new", age=7200)
        async with engine.begin() as tx:
            await redrive(tx, old)
        await look(core, run, looker)
        await taken(engine, *old)
        async with engine.begin() as tx:
            failures = [failure(id_, ErrorClass.PERMANENT, "another error") for id_ in old]
            await settle.bury(tx, owner="w", revision=TO, failures=failures)
        assert (await look(core, run, looker)).finding is Finding.INCONCLUSIVE
        items = looker.gate.traffic.items
        assert {items[str(id_)].kind for id_ in old} == {"replay"}
        assert items[str(new)].kind == "live"


async def test_what_happened_just_before_the_clock_was_set_is_as_old_as_it_is(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It has a time of the old clock, however long before the next look that was set."""
    async with looked_at(tmp_path, database_url, since=7200) as (core, run, looker):
        await look(core, run, looker)
        # As if that look had been nine seconds ago.
        ago = looker.moment.database - timedelta(seconds=9)
        looker.moment = Moment(monotonic=looker.moment.monotonic - 9, database=ago)
        ids = [await event(engine, f"{number}") for number in range(6)]
        await taken(engine, *ids)
        await set_clock(database_url, 1620)
        await core.database.dispose()
        await look(core, run, looker)
        admitted = [course.admitted for course in looker.gate.units.open.values()]
        assert admitted == [pytest.approx(looker.now, abs=5)] * 6


async def test_a_controller_that_lost_its_lock_records_no_look(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Another one looks now: the facts of both would not add up when they are judged again."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        await look(core, run, looker)
        await lock.free(core.database, run.environment, run.token)
        await lock.take(core.database, run.environment, run.id, "ops-b:2")
        await applied(engine, "1")
        with pytest.raises(LockLost):
            await look(core, run, looker)
        assert len(await judgements(core.database, run)) == 1
