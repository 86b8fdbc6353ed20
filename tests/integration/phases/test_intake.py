"""Holding the intake: in the gate's own name, beside people, and only as long as the workers keep to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import clock
from handlers.gate.values import Finding
from handlers.phases import intake, looking
from handlers.phases.looker import CLAIM
from handlers.queue import limits, settle
from handlers.queue.event import EntityType
from tests.integration.phases.looks import applied, look, looked_at
from tests.integration.queue.events import change, claim, event


async def test_the_gate_holds_the_intake_from_the_switch_on_and_opens_it(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """To three at first; with probes that complete to more; at the end to none."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        await intake.hold_at_the_switch(core, run)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [3]
        for number in range(3):
            await applied(engine, f"{number}")
        await look(core, run, looker)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [3]
        for number in range(3):
            await applied(engine, f"more {number}")
        await look(core, run, looker)
        (limit,) = await limits.limits(engine)
        assert (limit.per_ten_seconds, limit.set_by, limit.entity) == (6, f"gate of release {run.id}", None)
        await intake.open_intake(core, run)
        assert await limits.limits(engine) == []


async def test_nothing_comes_in_while_hosts_go_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """What the gate held would otherwise all go to the workers to leave. A person's limit stays theirs."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        await intake.hold_at_the_switch(core, run)
        await limits.limit(
            engine, EntityType.BILL, per_ten_seconds=5, seconds=600, by="ops-a", reason="a check"
        )
        waiting = [await event(engine, f"{number}") for number in range(5)]
        await intake.close_intake(core, run)
        assert await claim(engine, "w", ids=waiting) == []
        in_force = {each.entity: (each.set_by, each.per_ten_seconds) for each in await limits.limits(engine)}
        assert in_force == {
            None: (f"gate of release {run.id}", 0),
            EntityType.BILL: ("ops-a", 5),
        }
        await intake.open_intake(core, run)
        assert len(await claim(engine, "w", ids=waiting)) == 5


async def test_on_suspicion_nothing_comes_in_until_the_probes_have_ended(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Three are in the workers' hands without an end: no fourth."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        await claim(engine, "w", ids=[await event(engine, f"{number}") for number in range(3)])
        await look(core, run, looker)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [0]


async def test_the_limit_of_a_person_is_left_alone_and_told_to_the_gate(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """It is theirs until it ends: nothing passes, and nothing fails, while they hold it."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        for number in range(25):
            await applied(engine, f"{number}")
        await limits.limit(engine, None, per_ten_seconds=1, seconds=600, by="ops-a", reason="a check")
        judgement = await look(core, run, looker, left=-1)
        assert (judgement.finding, judgement.sentence) == (
            Finding.INCONCLUSIVE,
            "a person holds all types",
        )
        assert [(each.set_by, each.per_ten_seconds) for each in await limits.limits(engine)] == [("ops-a", 1)]
        await intake.open_intake(core, run)
        assert len(await limits.limits(engine)) == 1


async def test_workers_that_know_no_limits_are_noticed(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once; the gate goes on without the hold."""
    async with looked_at(tmp_path, database_url) as (core, run, looker):
        await look(core, run, looker)
        assert looker.intake.set_at is not None
        while await clock.now(engine) <= looker.intake.set_at + CLAIM:
            pass
        for number in range(30):
            id_ = await event(engine, f"{number}")
            now = "sql:clock_timestamp()"
            await change(engine, id_, status="completed", started_at=now, completed_at=now)
        await look(core, run, looker)
        assert "the workers do not honour limits: they took 30 items" in looker.intake.ignored
        await look(core, run, looker)
    assert caplog.text.count("the workers do not honour limits") == 1


async def test_probes_that_a_worker_gave_back_can_be_taken_again(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A worker was restarted, or lost its connection: nobody has them, so they must not keep the intake closed."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        ids = [await event(engine, f"{number}") for number in range(3)]
        await claim(engine, "w", ids=ids)
        await look(core, run, looker)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [0]
        async with engine.begin() as tx:
            await settle.release(tx, owner="w")
        await look(core, run, looker)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [3]
        await limits.lift_all(engine)
        await claim(engine, "w", ids=ids)
        await look(core, run, looker)
        assert [each.per_ten_seconds for each in await limits.limits(engine)] == [0]
        again = await looking.begin(core, run)
        assert again.facts.open() == looker.facts.open()
        assert (await look(core, run, again)).inputs["proof"] == looker.judgement.inputs["proof"]  # type: ignore[union-attr]


async def test_what_a_person_lets_through_is_no_disobedience_of_the_workers(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Their limit is in force, and not the one of the gate. So it is after a pause in which the gate's has ended."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        await look(core, run, looker)
        await limits.limit(engine, None, per_ten_seconds=1000, seconds=600, by="ops-a", reason="a check")
        for _ in range(2):
            looker.intake.admitted["Product"] = 60
            await look(core, run, looker)
        await limits.lift_all(engine)
        await look(core, run, looker)
        looker.intake.admitted["Product"] = 6000
        await looker.intake.steer(core, looker.gate, 300.0)
        assert not looker.intake.ignored
        looker.intake.admitted["Product"] = 6000
        await looker.intake.steer(core, looker.gate, 10.0)
        assert looker.intake.ignored


async def test_what_was_taken_before_the_limits_were_set_is_no_disobedience(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The look reads what was taken, and sets its limits a moment later: a batch in between saw none."""
    async with looked_at(tmp_path, database_url, since=5) as (core, run, looker):
        read = await clock.now(engine)
        ids = [await event(engine, f"{number}") for number in range(60)]
        await look(core, run, looker)
        between = f"sql:CAST('{read.isoformat()}' AS timestamptz)".replace(":", "\\:").replace(
            "sql\\:", "sql:"
        )
        for id_ in ids:
            await change(engine, id_, status="completed", created_at=between, started_at=between)
        await look(core, run, looker)
        assert looker.gate.units.live == 60
        assert not looker.intake.ignored
