"""A release with a contract migration is never taken back automatically: it is held, and a person says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from flows import release as flow
from flows import rollback
from handlers.errors import Refused
from handlers.gate.values import Finding
from handlers.phases import held
from handlers.phases.one_way import raise_if_one_way, why_not_back
from handlers.release.ledger import durations, releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.release.planned import EVERYTHING
from handlers.release.schema_changes import Mark, Migration
from tests.integration.phases.guarded import guarded
from tests.integration.phases.looks import buried, looked_at
from tests.integration.release.steps import begun, in_phase, plan_of

CONTRACT = Migration(path="migrations/3.sql", mark=Mark.CONTRACT, why="drops a column")
PLANNED = """UPDATE runbook.release SET plan = plan
|| '{"migrations": [{"path": "migrations/3.sql", "mark": "contract", "why": "drops a column"}]}'"""
WHY = "1 contract migration: migrations/3.sql (drops a column), which the revision before does not survive"


async def cannot_be_undone(engine: AsyncEngine) -> None:
    """Every release has a contract migration in its plan."""
    async with engine.begin() as tx:
        await tx.execute(text(PLANNED))


@pytest.mark.parametrize("mark", [Mark.EXPAND, Mark.UNKNOWN])
async def test_other_migrations_keep_nothing_from_going_back(engine: AsyncEngine, mark: Mark) -> None:
    """Unknown is a warning in the plan: a rollback that is held by guesses is none."""
    plan = replace(plan_of(), migrations=(replace(CONTRACT, mark=mark),))
    run = await releases.begin(engine, plan=plan, requested_by="ops-a")
    assert await why_not_back(engine, run) == ""
    assert (await releases.plan(engine, run.id)).migrations == plan.migrations


async def test_a_person_has_to_say_so(engine: AsyncEngine) -> None:
    """The refusal names the migration and what to type. A way back that was decided goes on."""
    run = await in_phase(engine, Phase.SUCCEEDED)
    await cannot_be_undone(engine)
    with pytest.raises(Refused, match=r"drops a column.*`runbook rollback --past-migrations`"):
        await raise_if_one_way(engine, run, past_migrations=False)
    await raise_if_one_way(engine, run, past_migrations=True)
    for phase in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED):
        assert await why_not_back(engine, replace(run, phase=phase)) == ""


async def test_a_held_release_that_dies_is_paged_and_stays(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is at the keyboard, and going back would be worse."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        run = await releases.hold(
            core.database, run, "not decided", note=PhaseNote(held_by=HeldBy.GATE)
        )  # fmt: skip
        await cannot_be_undone(engine)
        for number in range(9):
            await buried(engine, f"{number}")
        assert (await held.look(core, run)).phase is Phase.HELD
        looked = (await releases.phase_records(core.database, run))[-1].note.looked
    assert looked is not None
    assert "9 of 9 records" in looked
    assert f"it is not taken back ({WHY}" in caplog.text


async def test_the_guard_pages_and_takes_nothing_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """The check says why; the guard goes on."""
    async with guarded(tmp_path, database_url, engine) as place:
        await cannot_be_undone(engine)
        await place.at(hours=6, minutes=1)
        await place.fail(12)
        assert (taken := await place.take()) is not None
        assert taken.finding is Finding.UNHEALTHY
        assert (await place.now()).phase is Phase.SUCCEEDED
        sentences = [check.sentence for check in await place.checks() if check.taken_at and not check.skipped]
    assert sentences[-1].startswith(f"not taken back: {WHY}")


async def test_a_failed_phase_holds_it_and_a_rollback_is_refused(
    tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow's own decision; then the rollback of the page and of the driver, without the word of a person."""

    async def fails(_run: Release) -> Conclusion:
        return Conclusion(verdict=Verdict.FAIL, sentence="everything dies")

    async with looked_at(tmp_path, database_url) as (core, run, _):
        await cannot_be_undone(engine)
        monkeypatch.setitem(flow.STEPS, Phase.WATCHING, (fails, Phase.SUCCEEDED))
        ended = await flow._taken_back(run, await fails(run))
        assert (ended.phase, ended.resume_phase) == (Phase.HELD, Phase.WATCHING)
        assert ended.reason.startswith(f"everything dies; it is not taken back: {WHY}")
        records = await releases.phase_records(core.database, run)
        assert records[-2].note.held_by is HeldBy.GATE
        with pytest.raises(Refused, match="--past-migrations"):
            await rollback.roll_back("looked", reason="x", requested_by="ops-a")
        assert (await releases.get(engine, run.id)).phase is Phase.HELD


async def test_the_usual_time_is_that_of_releases_that_succeeded(engine: AsyncEngine) -> None:
    """Of the same scope and the same environment, by phase, in runbook seconds. Without one there is none."""
    assert await durations.usual(engine, "staging", EVERYTHING) is None
    await begun(engine)
    await in_phase(engine, Phase.SUCCEEDED)
    rolled_back = await in_phase(engine, Phase.ROLLED_BACK)
    await in_phase(engine, Phase.SUCCEEDED, "production")
    async with engine.begin() as tx:
        await tx.execute(
            text("""UPDATE runbook.phase_record SET started_at = finished_at - interval '10 s'
            WHERE finished_at IS NOT NULL""")
        )
        await tx.execute(text("UPDATE runbook.release SET speed = 60"))
        await tx.execute(
            text("""UPDATE runbook.phase_record SET started_at = finished_at - interval '1 h'
            WHERE release_id = :id AND finished_at IS NOT NULL"""),
            {"id": rolled_back.id},
        )
    usual = await durations.usual(engine, "staging", EVERYTHING)
    assert usual is not None
    assert usual.releases == 1
    assert {name: span.usual for name, span in usual.phases.items()} == dict.fromkeys(EVERYTHING, 600.0)
    assert usual.total.longest == 3000.0
    assert await durations.usual(engine, "staging", EVERYTHING[:2]) is None
