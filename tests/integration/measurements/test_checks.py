"""The checks on a real queue, real tables and a real host: what cannot be read is never good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.core import Core, open_core
from handlers.database import clock
from handlers.environment.bars import CHECKS
from handlers.gate.day_before import DayBefore
from handlers.measurements import everything, window
from handlers.measurements.everything import measure
from handlers.measurements.measurement import Action, Measurement, State
from handlers.phases import synthetic
from handlers.release.ledger import releases
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase
from tests.integration.host.ssh_target import CLOSED_PORT, Target, serve
from tests.integration.queue.events import change, event
from tests.integration.release.steps import begun, deploying, plan_of

FILE = "~/app.log"
NO_LOGS = {"web": [], "workers": [], "logs": [], "log_files": []}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One host for all tests."""
    async with serve(tmp_path_factory.mktemp("checks")) as target:
        yield target


@pytest_asyncio.fixture(loop_scope="session")
async def core(target: Target, engine: AsyncEngine) -> AsyncIterator[Core]:
    """The tools of a step, on the test's database and one host without logs."""
    async with open_core(target.environment(services=NO_LOGS)) as core:
        yield replace(core, database=engine)


def with_bars(core: Core, **bars: Any) -> Core:
    """The same with other bars."""
    changed = core.environment.bars.model_copy(update=bars)
    return replace(core, environment=core.environment.model_copy(update={"bars": changed}))


async def checks(core: Core, **about: Any) -> dict[str, Measurement]:
    """Everything that is measured now, by name and subject."""
    return {each.key: each for each in await measure(core, **about)}


async def ended(
    engine: AsyncEngine,
    number: int,
    status: str = "completed",
    *,
    age: float = 60,
    took: float = 1,
    **columns: Any,
) -> None:
    """So many events that ended *age* seconds ago and took *took* seconds."""
    async with engine.begin() as tx:
        values = {"number": number, "status": status, "age": age, "took": took}
        await tx.execute(text(ENDED), values)


ENDED = """
WITH inbox AS (
    INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, content_hash,
        received_at)
    SELECT gen_random_uuid(), 'zoho', 'product', 'item ' || n, '{}', 'x', now()
    FROM generate_series(1, CAST(:number AS integer)) n
    RETURNING id, source_entity_id
)
INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload,
    status, priority, attempt_count, max_retry_attempts, created_at, started_at, completed_at)
SELECT gen_random_uuid(), inbox.id, 'product', inbox.source_entity_id, 'update', '{}',
    CAST(:status AS tds_event_status), 5, 1, 3,
    now() - make_interval(secs => CAST(:age AS float) + CAST(:took AS float)),
    now() - make_interval(secs => CAST(:age AS float) + CAST(:took AS float)),
    CASE WHEN :status = 'completed' THEN now() - make_interval(secs => CAST(:age AS float)) END
FROM inbox
"""


async def test_every_check_is_measured_once_in_the_order_of_people(core: Core) -> None:
    """None is forgotten; tables and hosts have one each."""
    found = await measure(core)
    names = [each.name for each in found]
    assert sorted(set(names), key=CHECKS.index) == list(CHECKS)
    assert names == sorted(names, key=CHECKS.index)
    assert len({each.key for each in found}) == len(found)
    assert all(each.sentence and len(each.sentence.split()) <= 25 for each in found)


async def test_nothing_at_all_is_no_success(core: Core) -> None:
    """An empty queue tells nothing: neither good nor broken."""
    found = await checks(core)
    for name in ("success_1h", "success_24h", "failing_1h", "failing_24h", "error_rise", "webhook_seconds"):
        assert found[name].state is State.NO_DATA, name
    assert found["silent_workers"].state is State.NO_DATA
    assert found["freshness products"].state is State.NO_DATA


async def test_success_is_judged_over_an_hour_and_a_day_apart(core: Core, engine: AsyncEngine) -> None:
    """A good day hides no bad hour."""
    await ended(engine, 970, age=7200)
    await ended(engine, 18)
    await ended(engine, 2, "dead_letter")
    found = await checks(core)
    assert (found["success_1h"].value, found["success_1h"].state) == (90.0, State.BROKEN)
    assert found["success_24h"].state is State.GOOD
    assert found["success_24h"].sentence.startswith("988 of 990 that ended since ")
    assert found["failing_1h"].state is State.BROKEN
    assert (found["dead_letters_1h"].value, found["dead_letters_1h"].state) == (2, State.BROKEN)
    assert found["dead_letters_24h"].state is State.BROKEN


async def test_an_event_in_retry_fails_but_one_that_waits_for_its_parent_does_not(
    core: Core, engine: AsyncEngine
) -> None:
    """Before they end, errors show in the failing share."""
    await ended(engine, 30)
    for number in range(10):
        retry = {
            "status": "retry",
            "started_at": "sql:now()",
            "error_code": "23505" if number < 3 else "missing_parent",
        }
        await event(engine, f"again {number}", **retry)
    found = await checks(core)
    assert found["success_1h"].state is State.GOOD
    assert found["failing_1h"].sentence.startswith("0 failed and 3 retry of 33 since")
    assert found["failing_1h"].state is State.BROKEN


async def test_what_was_before_the_deploy_is_not_held_against_the_release(
    core: Core, engine: AsyncEngine
) -> None:
    """The dead letters of the old revision are no evidence about the new one."""
    await ended(engine, 50, "dead_letter", age=1800)
    release = await deploying(engine, "test")
    found = await checks(core, release=release)
    assert found["success_24h"].state is State.NO_DATA
    assert found["dead_letters_24h"].state is State.GOOD
    assert (await checks(core))["dead_letters_24h"].value == 50


async def test_a_replayed_letter_counts_when_it_ended_and_not_when_it_came(
    core: Core, engine: AsyncEngine
) -> None:
    """Our workers leave the time of their lease, by which it is found."""
    leased = {"lock_expires_at": "sql:now() + interval '1 minute'", "started_at": "sql:now()"}
    for number in range(20):
        done = {"status": "completed", "completed_at": "sql:now()", **leased}
        await event(engine, f"old {number}", age=40 * 86_400, **done)
    found = await checks(core)
    assert found["success_1h"].sentence.startswith("20 of 20 that ended")


async def test_the_synthetic_event_is_no_live_traffic(core: Core, engine: AsyncEngine) -> None:
    """Neither its success nor its failure is anybody's."""
    async with engine.begin() as tx:
        failed, open_ = await synthetic.insert(tx, "2026-11-29.1"), await synthetic.remove(tx, "2026-11-29.1")
    await change(engine, failed, status="dead_letter")
    assert open_
    found = await checks(core)
    assert (found["dead_letters_1h"].value, found["queue_depth"].value) == (0, 0)
    assert found["oldest"].sentence.startswith("no event is due")


@pytest.mark.parametrize(("took", "state"), [(4, State.GOOD), (6, State.BROKEN)])
async def test_the_time_for_a_webhook_is_that_of_nineteen_of_twenty(
    core: Core, engine: AsyncEngine, took: float, state: State
) -> None:
    """One slow event is not the bar's, and the sentence names it."""
    await ended(engine, 99, took=took)
    await ended(engine, 1, took=40)
    found = (await checks(core))["webhook_seconds"]
    assert found.state is state
    assert f"at most {took}.00 s" in found.sentence
    assert "the slowest 40.0 s" in found.sentence


async def test_few_events_a_minute_are_slow_only_while_others_wait(core: Core, engine: AsyncEngine) -> None:
    """Without a backlog a low rate says that little came in."""
    await ended(engine, 30, age=10)
    assert (await checks(core))["throughput"].state is State.SHOWN
    await event(engine, "left", age=400)
    found = await checks(core)
    assert (found["throughput"].state, found["throughput"].value) == (State.BROKEN, 6)
    assert found["oldest"].state is State.BROKEN


async def test_a_letter_that_was_just_sent_again_does_not_wait_for_a_month(
    core: Core, engine: AsyncEngine
) -> None:
    """It waits since it was redriven."""
    id_ = await event(engine, "letter", age=30 * 86_400)
    release = await begun(engine, "test")
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.release_event (release_id, event_id, position, entity_type, source_entity_id,"
                " batch, redriven_at) VALUES (:release, :id, 1, 'product', 'letter', 1, now())"
            ),
            {"release": release.id, "id": id_},
        )
    assert (await checks(core))["oldest"].state is State.GOOD


async def test_a_rise_counts_against_the_day_before_the_release(core: Core, engine: AsyncEngine) -> None:
    """The plan has that day: meanwhile its dead letters may be completed."""
    plan = replace(plan_of("test"), day_before=DayBefore(units=1000, ok=0.99))
    release = await releases.begin(engine, plan=plan, requested_by="ops-a")
    release = await deploying(engine, release=release)
    await ended(engine, 90, age=0, took=0)
    await ended(engine, 10, "dead_letter", age=0, took=0)
    found = (await checks(core, release=release))["error_rise"]
    assert found.state is State.BROKEN
    assert found.sentence.startswith("10.0 % fail now, 1.0 % before: +9.0 points")


async def test_a_rise_that_chance_explains_breaks_no_bar(core: Core, engine: AsyncEngine) -> None:
    """Two of twenty after one of fifty is nothing yet. Without a release the same span before is the measure."""
    await ended(engine, 49, age=100_000)
    await ended(engine, 1, "dead_letter", age=100_000)
    await ended(engine, 18)
    await ended(engine, 2, "dead_letter")
    found = (await checks(core))["error_rise"]
    assert (found.state, round(found.value or 0)) == (State.SHOWN, 8)
    assert found.sentence.endswith("that may be chance")


async def test_events_that_no_worker_has_are_stuck(core: Core, engine: AsyncEngine) -> None:
    """In processing, with a lease that has run out."""
    gone = {"status": "processing", "lock_expires_at": "sql:now() - interval '1 minute'"}
    await event(engine, "stuck", **gone)
    found = (await checks(core))["stuck"]
    assert (found.value, found.state) == (1, State.BROKEN)


WORKER = """
INSERT INTO runbook.worker (owner, host, pid, revision, beat_at, stopped_at)
VALUES ('worker {name}', 'web-1', 1, 'abc', now() - interval '{age} s', {stopped})
"""


@pytest.mark.parametrize(
    ("beats", "state"),
    [
        ([("1", "NULL")], State.GOOD),
        ([("1", "NULL"), ("300", "NULL")], State.BROKEN),
        ([("1", "NULL"), ("300", "now()")], State.GOOD),
        # Nobody cleans up after a host that is long gone.
        ([("1", "NULL"), ("200000", "NULL")], State.GOOD),
        # A backlog that nobody takes from does not fail by itself.
        ([("60", "NULL")], State.BROKEN),
        # After a rollback the ERP's own workers may be at work, and they send none.
        ([("300", "now()")], State.NO_DATA),
    ],
)
async def test_a_worker_that_fell_silent_and_no_worker_at_all_are_broken(
    core: Core, engine: AsyncEngine, beats: list[tuple[str, str]], state: State
) -> None:
    """One that stopped properly is not missed."""
    async with engine.begin() as tx:
        for number, (age, stopped) in enumerate(beats):
            await tx.exec_driver_sql(WORKER.format(name=number, age=age, stopped=stopped))
    assert (await checks(core))["silent_workers"].state is state


async def test_a_table_tells_its_rows_and_how_old_the_newest_is(core: Core, engine: AsyncEngine) -> None:
    """A time without a zone is UTC. The bar is for the named tables."""
    async with engine.begin() as tx:
        for number, age in enumerate((30, 7200, 90_000)):
            await tx.exec_driver_sql(
                "INSERT INTO products (zoho_item_id, name, synced_at)"
                f" VALUES ('p{number}', 'x', now() - interval '{age} s')"
            )
        await tx.exec_driver_sql(
            "INSERT INTO vendors (zoho_vendor_id, synced_at, updated_at)"
            " VALUES ('v', now() - interval '2 days', timezone('UTC', now()) - interval '2 days')"
        )
    core = with_bars(core, freshness_seconds=3600, freshness_tables=("products",))
    found = await checks(core)
    products = found["freshness products"]
    assert products.sentence.startswith("3 rows, 1 changed in the last hour, the newest 3")
    assert (products.state, found["freshness vendors"].state) == (State.GOOD, State.SHOWN)
    every = await checks(with_bars(core, freshness_tables=()))
    assert every["freshness vendors"].state is State.BROKEN


async def test_a_table_that_may_not_be_read_is_down_and_hides_no_other(
    core: Core, engine: AsyncEngine
) -> None:
    """One view without its column, one table that works."""
    async with engine.begin() as tx:
        await tx.exec_driver_sql("ALTER TABLE vendors RENAME TO vendors_before")
        await tx.exec_driver_sql(
            "CREATE VIEW vendors AS SELECT (1 / (id - id))::text::timestamptz AS updated_at FROM vendors_before"
        )
        await tx.exec_driver_sql("INSERT INTO vendors_before (zoho_vendor_id) VALUES ('v')")
    found = await checks(core)
    assert found["freshness vendors"].state is State.SOURCE_DOWN
    assert "division by zero" in found["freshness vendors"].sentence
    assert found["freshness products"].state is State.NO_DATA
    assert found["oldest"].state is State.GOOD


async def test_a_query_that_hangs_is_down_within_its_time(
    core: Core, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody locks the queue: the checks of the queue are down, the tables and hosts are not."""
    monkeypatch.setattr(everything, "SOURCE_SECONDS", 0.3)
    async with engine.begin() as tx:
        await tx.exec_driver_sql("LOCK TABLE tds_sync_queue IN ACCESS EXCLUSIVE MODE")
        found = await checks(core)
    for name in window.CHECKS:
        assert found[name].state is State.SOURCE_DOWN, name
    assert found["stuck"].state is State.SOURCE_DOWN
    assert found["freshness products"].state is State.NO_DATA
    assert found["load web-1"].value is not None


async def test_without_the_database_the_hosts_are_measured_and_nothing_is_fine(core: Core) -> None:
    """All that comes from it is down, also the logs: nobody knows what is new in them."""
    environment = core.environment.model_copy(
        update={"services": core.environment.services.model_copy(update={"log_files": (FILE,)})}
    )
    nowhere = create_async_engine(f"postgresql+asyncpg://nobody@127.0.0.1:{CLOSED_PORT}/none")
    found = await checks(replace(core, database=nowhere, environment=environment))
    await nowhere.dispose()
    hosts = {key for key in found if found[key].name in ("load", "memory", "disk")}
    assert {found[key].state for key in hosts} == {State.SHOWN}
    assert {found[key].state for key in found.keys() - hosts} == {State.SOURCE_DOWN}
    assert {each.name for each in found.values()} == set(CHECKS)


async def test_a_host_that_does_not_answer_is_down_by_its_name(target: Target, engine: AsyncEngine) -> None:
    """Its readings and its logs, and nothing else."""
    environment = target.environment(services=NO_LOGS | {"log_files": [FILE]})
    gone = environment.hosts[0].model_copy(update={"name": "gone", "port": CLOSED_PORT})
    async with open_core(environment.model_copy(update={"hosts": (gone,)})) as core:
        found = await checks(replace(core, database=engine))
    down = {key for key, each in found.items() if each.state is State.SOURCE_DOWN}
    assert down == {"load gone", "memory gone", "disk gone", f"new_signatures gone {FILE}"}


async def test_new_errors_in_the_logs_are_counted_since_the_deploy(
    core: Core, target: Target, engine: AsyncEngine
) -> None:
    """Where the watch has read already, the next look goes on."""
    services = core.environment.services.model_copy(update={"log_files": (FILE,)})
    core = replace(core, environment=core.environment.model_copy(update={"services": services}))
    at = await clock.now(engine)
    log = target.hosts["web-1"] / "app.log"
    before, after = at - timedelta(hours=2), at + timedelta(seconds=0.1)
    log.write_text(f"{before:%Y-%m-%d %H:%M:%S}+0000 ERROR no rate for item 1\n")
    release = await deploying(engine, "test")
    first = (await checks(core, release=release))["new_signatures"]
    assert (first.value, first.state) == (0, State.GOOD)
    with log.open("a") as file:
        file.write(f"{after:%Y-%m-%d %H:%M:%S}+0000 ERROR no rate for item 2\n")
        file.write(f"{at + timedelta(seconds=2):%Y-%m-%d %H:%M:%S}+0000 ERROR greenlet_spawn of item 2\n")
    found = (await checks(core, release=release))["new_signatures"]
    assert (found.value, found.state) == (1, State.BROKEN)
    assert "greenlet_spawn of item <n>" in found.sentence


async def test_a_kept_state_that_another_version_wrote_is_read_anew(core: Core, engine: AsyncEngine) -> None:
    """Never raises."""
    release = await deploying(engine, "test")
    await releases.note(engine, release, PhaseNote(around={"lines": [], "state": {"logs": None}}))
    assert (await checks(core, release=release))["oldest"].state is State.GOOD


async def test_named_checks_act_and_the_machines_keep_their_own_action(core: Core) -> None:
    """machine.action = "hold" is for all of its bars; a name in [bars] says more."""
    machine = core.environment.machine.model_copy(update={"action": "hold"})
    core = replace(core, environment=core.environment.model_copy(update={"machine": machine}))
    found = await checks(with_bars(core, hold=("oldest",), roll_back=("load",)))
    assert found["oldest"].action is Action.HOLD
    assert found["load web-1"].action is Action.ROLL_BACK
    assert found["disk web-1"].action is Action.HOLD
    assert found["success_1h"].action is Action.SHOW


async def test_a_bar_of_the_machines_is_measured_too(core: Core) -> None:
    """Nobody has so much free disk."""
    machine = core.environment.machine.model_copy(
        update={"disk_free_percent": 100.0, "connections_percent": 0.0, "load_per_cpu": 1000.0}
    )
    core = replace(core, environment=core.environment.model_copy(update={"machine": machine}))
    found = await checks(core)
    states = [found[key].state for key in ("disk web-1", "connections", "load web-1", "memory web-1")]
    assert states == [State.BROKEN, State.BROKEN, State.GOOD, State.SHOWN]


async def test_a_release_that_has_not_begun_is_measured_from_its_plan_on(
    core: Core, engine: AsyncEngine
) -> None:
    """Nothing is deployed yet, so nothing is held against it."""
    await ended(engine, 50, "dead_letter", age=1800)
    release = await begun(engine, "test")
    assert release.phase is Phase.PLANNED
    assert (await checks(core, release=release))["dead_letters_24h"].value == 0
