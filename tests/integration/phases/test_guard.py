"""The guard: its checks become due, are taken once, caught up once, and a breach takes the release back."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import DatabaseDown, LockLost, Refused
from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.values import Finding
from handlers.phases import guard
from handlers.release import due, lock
from handlers.release.ledger import guards, releases
from handlers.release.ledger.guards import Kind
from handlers.release.ledger.records import files
from handlers.release.phase import Phase
from handlers.status import snapshot
from handlers.status.lines import lines
from handlers.status.view import StepState
from tasks import guard as tasks_guard
from tests.integration.host.upstreams import upstream_server
from tests.integration.phases.guarded import guarded
from tests.integration.release.steps import begun, deploying, locked

HOURS_24 = [*range(300, 3601, 300), *range(4500, 14_401, 900), *range(18_000, 86_401, 3600)]


async def test_a_release_that_succeeds_has_its_checks_in_the_same_transaction(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Every 5 min in the first hour, 15 min to hour 4, hourly to hour 24, and the report at the end."""
    async with guarded(tmp_path, database_url, engine) as place:
        assert place.run.finished_at is not None
        checks = await place.checks()
    after = [(check.due_at - place.run.finished_at).total_seconds() for check in checks]
    assert after == [*HOURS_24, 86_400]
    assert [check.kind for check in checks] == [Kind.LOOK] * 44 + [Kind.REPORT]


@pytest.mark.parametrize(
    "taken_at",
    [
        pytest.param(HOURS_24, marks=pytest.mark.soak, id="at each due time"),
        pytest.param([*HOURS_24[:2], *HOURS_24[-8:]], id="with an outage of 16 hours"),
    ],
)
async def test_through_24_hours_a_healthy_release_stays_and_then_the_guard_is_over(
    tmp_path: Path, database_url: str, engine: AsyncEngine, taken_at: list[int]
) -> None:
    """Each look has traffic of its own; the last one also says what all of the guard has found."""
    skipped = 0
    async with guarded(tmp_path, database_url, engine) as place:
        for seconds in taken_at:
            await place.at(seconds=seconds + 30)
            await place.work(2)
            taken = await place.take()
            assert taken is not None
            assert taken.finding in (Finding.HEALTHY, Finding.INCONCLUSIVE)
            skipped += taken.skipped
            assert await place.take() is None
        checks = await place.checks()
        ended = await guards.get(engine, place.run.id)
        assert (await place.now()).phase is Phase.SUCCEEDED
    assert all(check.taken_at for check in checks)
    assert skipped == sum(check.skipped for check in checks) == len(HOURS_24) - len(taken_at)
    assert checks[43].finding is Finding.HEALTHY
    assert place.reports == [place.run.id]
    assert ended is not None
    assert ended.ended.startswith(f"it is over: {len(taken_at)} looks")


async def test_three_hours_without_a_scheduler_are_caught_up_once(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """One look for all that are overdue; the others say which look stands for them. No burst."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=61)
        assert (taken := await place.take()) is not None
        assert taken.skipped == 11
        await place.at(hours=4, minutes=1)
        assert (taken := await place.take()) is not None
        assert taken.skipped == 11
        assert await place.take() is None
        skipped = [check for check in await place.checks() if check.skipped]
    assert len(skipped) == 22
    assert "the look that was due at" in skipped[-1].sentence


async def test_an_outage_over_the_end_leaves_one_look_and_the_report(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Nobody came for two days: the last look is taken, the report written, the guard ended."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(hours=48)
        assert (taken := await place.take()) is not None
        assert (taken.skipped, taken.reported) == (43, "written")
        ended = await guards.get(engine, place.run.id)
    assert ended is not None
    assert ended.ended == "it is over: 1 looks, 1 NO_DATA; 43 skipped"


async def test_a_breach_at_hour_six_takes_the_release_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It was fine for six hours. Its rollback is due at once, for the same driver as any; the rest is not taken."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(hours=5, minutes=1)
        await place.work(30)
        assert (taken := await place.take()) is not None
        assert taken.finding is Finding.HEALTHY
        await place.at(hours=6, minutes=1)
        await place.fail(12)
        assert (taken := await place.take()) is not None
        assert taken.release.phase is Phase.ROLLING_BACK
        back = await place.now()
        assert back.reason.startswith("in the hours after it: ")
        care = await due.find(engine, back.environment)
        assert care is not None
        assert care.due
        assert await lock.holder(engine, back.environment) is None
        records = await releases.phase_records(engine, back)
        assert records[-2].note.blames_revision is True
        ended = await guards.get(engine, back.id)
        checks = await place.checks()
        assert await place.take() is None
    assert ended is not None
    assert ended.ended.startswith("the release goes back: ")
    assert [check.finding for check in checks if check.taken_at and not check.skipped][
        -1
    ] is Finding.UNHEALTHY
    assert all(check.taken_at for check in checks)
    assert checks[-1].sentence.startswith("not taken: the release goes back")


async def test_no_new_event_is_no_data_and_no_pass(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Thirty good records in the first minutes say nothing about the fifth hour. It stays, and says so."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        await place.work(30)
        assert (taken := await place.take()) is not None
        assert taken.finding is Finding.HEALTHY
        await place.at(hours=5, minutes=1)
        assert (taken := await place.take()) is not None
        assert (await place.now()).phase is Phase.SUCCEEDED
    assert taken.finding is Finding.NO_DATA
    assert taken.sentence.startswith("no live event since the look before")


async def test_two_takers_at_once_take_a_check_once(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A timer and Prefect in the same second: one takes it, the others find nothing to do."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        await place.work(3)
        found = await asyncio.gather(*(place.take() for _ in range(6)))
        looks = [check for check in await place.checks() if check.taken_at]
    assert len([taken for taken in found if taken is not None]) == 1
    assert len(looks) == 1


async def test_the_claim_of_a_killed_taker_comes_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Until its claim ends nobody else looks; afterwards the check is taken, and the dead one can write nothing."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        killed = await guards.claim(engine, place.run.id, by="killed")
        assert killed is not None
        assert await place.take() is None
        await place.at(seconds=360 + guards.CLAIM_SECONDS + 1)
        assert (await place.take()) is not None
        async with engine.begin() as tx:
            with pytest.raises(LockLost):
                await guards.fence(tx, killed)


@pytest.mark.parametrize("asleep_in", ["begin", "measure"])
async def test_a_taker_that_slept_over_its_claim_writes_nothing(
    tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, asleep_in: str
) -> None:
    """It was stopped in the middle of a check, and another one took it: the ledger has one finding."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        await place.work(1)
        where: Any = guard.looking if asleep_in == "begin" else guard
        first = getattr(where, asleep_in)

        async def slow(*given: Any, **named: Any) -> object:
            async with engine.begin() as tx:
                await tx.exec_driver_sql("UPDATE runbook.guard SET claimed_until = clock_timestamp()")
            monkeypatch.setattr(where, asleep_in, first)
            assert (await place.take()) is not None
            return await first(*given, **named)

        monkeypatch.setattr(where, asleep_in, slow)
        with pytest.raises(LockLost):
            await place.take()
        assert len([check for check in await place.checks() if check.taken_at]) == 1


async def test_a_newer_release_that_changes_hosts_ends_the_guard(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Not when it begins: one that is refused by the first host has changed nothing, and the guard goes on."""
    async with guarded(tmp_path, database_url, engine) as place:
        newer = await deploying(engine, "looked")
        await releases.enter(engine, newer, Phase.REFUSED)
        await place.at(minutes=6)
        assert (await place.take()) is not None
        newer = await deploying(engine, "looked")
        newer = await releases.enter(engine, newer, Phase.PROBING)
        ended = await guards.get(engine, place.run.id)
        await place.at(minutes=11)
        assert await place.take() is None
        assert await guards.open_guards(engine, "looked") == {}
    assert ended is not None
    assert ended.ended == f"release {newer.id} has changed the hosts"


async def test_a_breach_of_a_release_that_is_not_the_newest_rolls_nothing_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer release has just begun: nobody touches its hosts, and the check stays due or is only told."""
    async with guarded(tmp_path, database_url, engine) as place:
        await deploying(engine, "looked")
        await place.at(minutes=6)
        await place.fail(12)
        assert (taken := await place.take()) is not None
        assert (await place.now()).phase is Phase.SUCCEEDED
    assert taken.finding is Finding.UNHEALTHY
    assert "is newer" in caplog.text


async def test_a_rollback_by_hand_ends_the_guard(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """In the transaction in which it begins."""
    async with guarded(tmp_path, database_url, engine) as place:
        run = await locked(engine, place.run)
        await releases.enter(engine, run, Phase.ROLLING_BACK, sentence="rollback requested by ops-a: slow")
        ended = await guards.get(engine, run.id)
        await place.at(hours=1)
        assert await place.take() is None
    assert ended is not None
    assert ended.ended == "the release goes back: rollback requested by ops-a: slow"


@pytest.mark.parametrize("comes_in", ["begin", "measure", "_why_no_rollback"])
async def test_a_rollback_by_hand_in_the_middle_of_a_check_comes_first(
    tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, comes_in: str
) -> None:
    """The check loses: it writes nothing, and begins no second rollback."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        await place.fail(12)
        where: Any = guard.looking if comes_in == "begin" else guard
        first = getattr(where, comes_in)

        async def meanwhile(*given: Any, **named: Any) -> object:
            run = await locked(engine, place.run)
            await releases.enter(engine, run, Phase.ROLLING_BACK, sentence="by hand")
            return await first(*given, **named)

        monkeypatch.setattr(where, comes_in, meanwhile)
        with pytest.raises(Refused):
            await place.take()
        records = await releases.phase_records(engine, place.run)
    assert [record.phase for record in records].count(Phase.ROLLING_BACK) == 1


async def test_a_person_who_takes_it_over_is_only_paged(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The checks go on, and every one says why nothing goes back."""
    async with guarded(tmp_path, database_url, engine) as place:
        await guards.page_only(engine, place.run.id, by="ops-b", reason="the customer knows")
        await place.at(minutes=6)
        await place.fail(12)
        assert (taken := await place.take()) is not None
        assert (await place.now()).phase is Phase.SUCCEEDED
        [check] = [check for check in await place.checks() if check.taken_at]
    assert taken.finding is Finding.UNHEALTHY
    assert "ops-b has taken that over: the customer knows" in check.sentence
    assert "ops-b has taken that over" in caplog.text


async def test_where_the_environment_forbids_it_a_breach_only_pages(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """guard.roll_back = false."""
    async with guarded(tmp_path, database_url, engine, after="[guard]\nroll_back = false\n") as place:
        await place.at(minutes=6)
        await place.fail(12)
        await place.take()
        assert (await place.now()).phase is Phase.SUCCEEDED
    assert "guard.roll_back is false" in caplog.text


async def test_a_stopped_guard_keeps_who_and_why(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Nothing is due any more, and a second stop says that it has ended."""
    async with guarded(tmp_path, database_url, engine) as place:
        with pytest.raises(Refused, match="needs a reason"):
            await guards.stop(engine, place.run.id, by="ops-b", reason=" ")
        await guards.stop(engine, place.run.id, by="ops-b", reason="moved to the new site")
        with pytest.raises(Refused, match="has ended: stopped by ops-b: moved to the new site"):
            await guards.stop(engine, place.run.id, by="ops-c", reason="again")
        await place.at(hours=1)
        assert await place.take() is None
        assert all(check.skipped for check in await place.checks())


async def test_a_phase_by_hand_and_a_rollback_have_no_guard(engine: AsyncEngine) -> None:
    """Nothing new runs after them."""
    run = await begun(engine, "looked")
    async with engine.begin() as tx:
        await tx.exec_driver_sql("UPDATE runbook.release SET to_revision = from_revision")
    run = await deploying(engine, "looked", release=await releases.get(engine, run.id))
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED):
        run = await releases.enter(engine, run, phase)
    assert await guards.get(engine, run.id) is None
    with pytest.raises(Refused, match="only a deploy that succeeded has one"):
        await guards.stop(engine, run.id, by="ops-a", reason="none")


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"active": False}, 0),
        ({"every_seconds": [60], "until_seconds": [90], "report": False}, 2),
        ({"from": 1}, 45),
    ],
)
async def test_the_schedule_is_the_plans(
    engine: AsyncEngine, settings: dict[str, object], number: int
) -> None:
    """Frozen with the plan; what only a newer program knows is left out, and the last check is at the very end."""
    run = await deploying(engine, "looked")
    stored = json.dumps({"settings": {"guard": settings}})
    async with engine.begin() as tx:
        await tx.exec_driver_sql(f"UPDATE runbook.release SET plan = plan || '{stored}'::jsonb, speed = 60")
    run = await releases.get(engine, run.id)
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED):
        run = await releases.enter(engine, run, phase)
    checks = await guards.checks(engine, run.id)
    assert len(checks) == number
    if number == 2:
        assert run.finished_at is not None
        after = [check.due_at - run.finished_at for check in checks]
        assert after == [timedelta(seconds=1), timedelta(seconds=1.5)]


async def test_a_database_that_goes_away_leaves_the_check_due(
    tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about the release. The next taker after the claim's end takes it."""
    async with guarded(tmp_path, database_url, engine) as place:
        await place.at(minutes=6)
        await place.work(1)

        async def away(*_given: Any, **_named: Any) -> object:
            raise DatabaseDown("the database does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(guard.looking, "begin", away)
            with pytest.raises(DatabaseDown):
                await place.take()
        assert [check for check in await place.checks() if check.taken_at] == []
        assert (await place.take()) is not None


async def test_the_status_says_when_the_next_check_is_and_when_nobody_takes_them(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A scheduler that is off is seen within minutes, and not only at the end of the day."""
    async with guarded(tmp_path, database_url, engine) as place:
        before = await snapshot.read(engine, "looked")
        await place.at(minutes=6)
        await place.work(1)
        await place.take()
        taken = await snapshot.read(engine, "looked")
        await place.at(minutes=12)
        late = await snapshot.read(engine, "looked")
        await place.at(minutes=29)
        off = await snapshot.read(engine, "looked")
        await guards.claim(engine, place.run.id, by="somebody")
        claimed = await snapshot.read(engine, "looked")
        await guards.stop(engine, place.run.id, by="ops-b", reason="enough")
        ended = await snapshot.read(engine, "looked")
    steps = [view.steps[-1] for view in (before, taken, late, off, claimed, ended)]
    assert {step.name for step in steps} == {"guard"}
    assert [step.state for step in steps] == [
        StepState.NEXT,
        StepState.NEXT,
        StepState.NEXT,
        StepState.FAILED,
        StepState.NEXT,
        StepState.DONE,
    ]
    assert re.fullmatch(r"every 5 min to \d\d:\d\d, 15 min to \d\d:\d\d, 1 h to \d\d:\d\d", steps[0].sentence)
    assert steps[1].sentence.endswith("; 1 of 44 taken, the last INCONCLUSIVE")
    assert steps[3].sentence.startswith("nobody takes the checks: 4 overdue since ")
    assert steps[5].sentence == "stopped by ops-b: enough"
    assert any("[next]    guard" in line for line in lines(taken))


async def test_the_report_at_the_end_has_every_check_and_the_day_before(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Written by the real writer, over the whole day, as a person reads it."""
    day = DayBefore(units=40, ok=0.975, types={"Product": TypeBefore(units=40, ok=0.975)})
    reports = f'[reports]\ndirectory = "{tmp_path}/reports"\n'
    async with guarded(tmp_path, database_url, engine, before=day, after=reports) as place:
        for hours in (1, 23, 24):
            await place.at(hours=hours, minutes=1)
            await place.work(8)
            await guard.take(place.core, place.run, tasks_guard.write_report)
        [file] = [each for each in await files(engine, place.run) if each.path.endswith("report.json")]
        report = json.loads(Path(file.path).read_text(encoding="utf-8"))
        page = Path(file.path).with_suffix(".html").read_text(encoding="utf-8")
        checks = await place.checks()
    assert checks[-1].sentence.startswith("the report of the whole guard: ")
    assert [check["finding"] for check in report["guard"]["checks"]] == [
        "INCONCLUSIVE",
        "INCONCLUSIVE",
        "HEALTHY",
    ]
    assert report["guard"]["skipped"] == 41
    [product] = [row for row in report["before_after"] if row["entity"] == "Product"]
    assert (product["before_events"], product["before_percent"]) == (40, 97.5)
    assert (product["after_events"], product["after_percent"]) == (24, 100.0)
    assert "<h2>The hours after</h2>" in page


async def test_an_outage_of_the_upstream_between_two_checks_takes_nothing_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It came and went in the minutes between: who comes each minute has asked, and the check knows of it."""
    async with upstream_server(503) as server:
        upstream = f'[upstream]\nurl = "{server.url}"\ninterval_seconds = 0.001\nfailures = 1\n'
        async with guarded(tmp_path, database_url, engine, after=upstream) as place:
            await place.at(minutes=2)
            await guard.ask_upstream(place.core, place.run)
            await place.fail(12)
            await place.at(minutes=3)
            server.statuses = [200]
            await guard.ask_upstream(place.core, place.run)
            await place.at(minutes=6)
            assert (taken := await place.take()) is not None
            assert (await place.now()).phase is Phase.SUCCEEDED
    assert taken.finding is not Finding.UNHEALTHY
