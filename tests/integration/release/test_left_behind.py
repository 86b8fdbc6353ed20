"""Live events that died under a rolled-back revision: named where its end is shown, and drained exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.environment.load import parse
from handlers.host.way_back import HostReturn
from handlers.phases import rollback
from handlers.phases.plan import make_plan
from handlers.queue.event import EntityType
from handlers.release import left_behind
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.phase import Phase, Release
from handlers.report import gather
from handlers.status import snapshot
from handlers.status.lines import lines
from tests.integration.queue.events import change, dead_letter
from tests.integration.release.steps import begun, deploying

DRAIN = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)


@pytest_asyncio.fixture(loop_scope="session")
async def core(database_url: str, tmp_path: Path) -> AsyncIterator[Core]:
    """The tools of a step, in an environment whose only host is unreachable."""
    environment = parse(
        {
            "name": "staging",
            "database": {"url": database_url},
            "ssh": {"user": "deploy", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "port": 1, "health_url": "http://127.0.0.1:1/"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {"workers": ["tsh-erp-workers"]},
            "probe": {"limit_seconds": 0.2, "interval_seconds": 0.1},
            "reports": {"directory": str(tmp_path / "reports")},
        },
        source="test",
    )  # fmt: skip
    async with open_core(environment) as core:
        yield core


@dataclass(kw_only=True)
class RolledBack:
    """A release that went back, and the dead letters that are its doing."""

    release: Release
    left: set[UUID]


@pytest_asyncio.fixture(loop_scope="session")
async def rolled_back(core: Core) -> RolledBack:
    """A dead letter of the plan, one from long before, three under the bad revision, and one after it."""
    engine = core.database
    planned = await dead_letter(engine, "1", age=9000, started_at="sql:now() - interval '2 h'")
    await dead_letter(engine, "2", age=9000, started_at="sql:now() - interval '2 h'")
    release = await deploying(engine)
    await dead_letters.plan_events(engine, release, [(0, planned, "Product", "1")])
    left = {
        await dead_letter(engine, "3", error_message="KeyError: item 31 of 4"),
        await dead_letter(engine, "4", age=60, error_message="KeyError: item 7 of 99"),
        await dead_letter(engine, "5", entity=EntityType.INVOICE, error_message="no rate", error_code=None),
    }
    for id_ in left:
        await change(engine, id_, started_at="sql:clock_timestamp()")
    # Drained under the bad revision, it died again: it was a dead letter before, and stays one of the plan.
    await change(engine, planned, started_at="sql:clock_timestamp()")
    release = await releases.enter(engine, release, Phase.ROLLING_BACK, sentence="7 of 7 failed")
    recorder = LedgerRecorder(engine=engine, release=release)
    await recorder.intend("r-back-activate-web-1-1", "web-1", "back-activate", "activate")
    after = await dead_letter(engine, "6")
    await change(engine, after, started_at="sql:clock_timestamp()")
    return RolledBack(release=release, left=left)


async def test_exactly_the_live_events_that_died_under_it_are_its_own(
    core: Core, rolled_back: RolledBack
) -> None:
    """Neither the plan's, nor older ones, nor those that the former revision's workers gave up afterwards."""
    assert await left_behind.ids(core.database, "staging", rolled_back.release.id) == rolled_back.left
    kinds = await left_behind.kinds(core.database, rolled_back.release)
    assert [(kind.entity, kind.events) for kind in kinds] == [("Product", 2), ("Invoice", 1)]
    assert (kinds[0].oldest_at < kinds[1].oldest_at, kinds[1].error_code) == (True, None)


async def test_the_rollbacks_words_status_and_report_name_them_with_the_command(
    core: Core, rolled_back: RolledBack
) -> None:
    """The count by kind, the error, and the command that redrives them: in every place that shows the end."""
    command = f"runbook drain -e staging --left-by {rolled_back.release.id}"
    hosts = [HostReturn(host="web-1", back=True)]
    ended = await rollback.conclude(core, rolled_back.release, hosts, why="7 of 7", evidence="none")
    for words in (
        "3 live events became dead letters under the rolled-back revision: 2 Product since",
        "1 Invoice",
        command,
    ):
        assert words in ended.sentence
    await releases.enter(
        core.database, rolled_back.release, Phase.ROLLBACK_FAILED, verdict=ended.verdict, sentence="back"
    )
    shown = " ".join(" ".join(lines(await snapshot.read(core.database, "staging"))).split())
    assert "Left 3 live events became dead letters" in shown
    assert command in shown
    written = await gather.write(core, rolled_back.release)
    for form in ("md", "html"):
        text = written[form].read_text()
        assert "Left behind" in text
        assert command in text


async def test_drain_takes_exactly_what_a_release_has_left_behind(
    core: Core, rolled_back: RolledBack
) -> None:
    """Of six dead letters those three, and the plan says how many it leaves alone."""
    plan = await make_plan(core, None, DRAIN, left_by=rolled_back.release.id)
    assert {UUID(event.id) for event in plan.events} == rolled_back.left
    assert plan.set_aside == {f"not left behind by release {rolled_back.release.id}": 3}
    whole = await make_plan(core, None, DRAIN)
    assert len(whole.events) == 6


async def test_nothing_is_drained_where_nothing_was_left(core: Core, rolled_back: RolledBack) -> None:
    """The check fails for a release that left nothing, for an unknown one, and when all events are completed."""
    unbegun = await begun(core.database)
    for release, words in (
        (unbegun.id, f"no dead letter that release {unbegun.id} has left behind remains"),
        ("2020-01-01.1", "there is no release 2020-01-01.1"),
    ):
        plan = await make_plan(core, None, DRAIN, left_by=release)
        assert words in plan.refusal
        assert plan.events == ()
    for id_ in rolled_back.left:
        await change(core.database, id_, status="completed")
    assert await left_behind.kinds(core.database, rolled_back.release) == ()
    plan = await make_plan(core, None, DRAIN, left_by=rolled_back.release.id)
    assert f"no dead letter that release {rolled_back.release.id} has left behind remains" in plan.refusal


@pytest.mark.parametrize("phase", [Phase.DEPLOYING, Phase.ROLLING_BACK])
async def test_a_release_under_way_is_not_told_what_it_leaves(engine: AsyncEngine, phase: Phase) -> None:
    """Only an end is: before it the numbers are the gate's to judge."""
    release = await deploying(engine)
    id_ = await dead_letter(engine, "3")
    await change(engine, id_, started_at="sql:clock_timestamp()")
    if phase is Phase.ROLLING_BACK:
        await releases.enter(engine, release, phase)
    assert (await snapshot.read(engine, "staging")).left_behind == ()


async def test_what_was_drained_in_vain_is_still_its_own(core: Core, rolled_back: RolledBack) -> None:
    """Drained events that died again, long after the rollback, still belong to it: the next drain takes them."""
    plan = await make_plan(core, None, DRAIN, left_by=rolled_back.release.id)
    again = await releases.begin(
        core.database,
        plan=replace(plan, from_revision="a" * 40, to_revision="a" * 40),
        requested_by="ops-a",
    )
    planned = [(n, UUID(event.id), event.entity, event.key) for n, event in enumerate(plan.events)]
    await dead_letters.plan_events(core.database, again, planned)
    await change(core.database, planned[0][1], started_at="sql:clock_timestamp() + interval '1 h'")
    assert await left_behind.ids(core.database, "staging", rolled_back.release.id) == rolled_back.left
