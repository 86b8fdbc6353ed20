"""While a release is held its live traffic is looked at: a breach begins the way back, unless a person holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core
from handlers.errors import Locked
from handlers.phases import held
from handlers.release import due, lock
from handlers.release.ledger import releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import Phase, Release
from tests.integration.host.upstreams import upstream_server
from tests.integration.phases.looks import applied, buried, looked_at


async def put_on_hold(core: Core, run: Release, by: HeldBy) -> Release:
    """The release, held, without anybody who carries it."""
    return await releases.hold(core.database, run, "not decided", note=PhaseNote(held_by=by))


@pytest.mark.parametrize("by", [HeldBy.GATE, HeldBy.HOST, HeldBy.RUNBOOK])
async def test_a_held_release_that_dies_goes_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine, by: HeldBy
) -> None:
    """It was fine when it was held. Then every record dies, and nobody is at the keyboard."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        run = await put_on_hold(core, run, by)
        for number in range(5):
            await applied(engine, f"good {number}")
        assert (await held.look(core, run)).phase is Phase.HELD
        for number in range(9):
            await buried(engine, f"{number}")
        ended = await held.look(core, run)
        assert ended.phase is Phase.ROLLING_BACK
        assert ended.reason.startswith("while it was held: ")
        care = await due.find(core.database, run.environment)
        assert care is not None
        assert care.due
        assert (await lock.holder(core.database, run.environment)) is None
        records = await releases.phase_records(core.database, run)
        assert next(each.note.blames_revision for each in records if each.phase is Phase.HELD) is True


async def test_an_outage_of_the_upstream_rolls_no_held_release_back(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked at each look, also while nobody carries the release; the outage is paged, and then it is over."""
    async with upstream_server(503) as server:
        upstream = f'[upstream]\nurl = "{server.url}"\ninterval_seconds = 0.001\n'
        async with looked_at(tmp_path, database_url, after=upstream) as (core, run, _):
            run = await put_on_hold(core, run, HeldBy.GATE)
            for number in range(9):
                await buried(engine, f"{number}")
            assert (await held.look(core, run)).phase is Phase.HELD
            assert (
                f"release {run.id}: the upstream is away: 127.0.0.1:{server.port} answers 503" in caplog.text
            )
            server.statuses = [200]
            await held.look(core, run)
        stored = await releases.upstream_changes(engine, run)
    assert [up for _, up in stored] == [False, True]


async def test_what_a_person_holds_is_only_shown(
    tmp_path: Path, database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """They have taken it over. The status has the sentence, and the log an error that pages."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        run = await put_on_hold(core, run, HeldBy.OPERATOR)
        for number in range(9):
            await buried(engine, f"{number}")
        assert (await held.look(core, run)).phase is Phase.HELD
        looked = (await releases.phase_records(core.database, run))[-1].note.looked
    assert looked is not None
    assert "9 of 9 records" in looked
    assert "is held by a person, and all types: 9 of 9 records" in caplog.text


async def test_a_release_that_somebody_carries_is_left_to_them(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """They look themselves."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        for number in range(9):
            await buried(engine, f"{number}")
        with pytest.raises(Locked):
            await held.look(core, run)
        assert (await releases.get(core.database, run.id)).phase is Phase.WATCHING


async def test_a_hold_before_the_workers_run_is_not_watched(tmp_path: Path, database_url: str) -> None:
    """Nothing of the new revision takes events yet. So it is when nothing was deployed at all."""
    async with looked_at(tmp_path, database_url) as (core, run, _):
        on_hold = await put_on_hold(core, run, HeldBy.GATE)
        assert due.is_watched(on_hold)
        assert not due.is_watched(run)
