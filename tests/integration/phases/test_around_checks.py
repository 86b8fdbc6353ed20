"""The checks in a watch: shown and paged; those that the environment names hold a release or roll it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.environment.bars import Bars
from handlers.measurements import everything
from handlers.measurements.measurement import Action, State, compared, source_down
from handlers.phases import around_checks, surroundings
from handlers.phases.around_state import AroundState, Broken
from handlers.phases.surroundings import Surroundings
from handlers.release.decisions import Verb
from handlers.release.ledger import releases, requests
from handlers.release.phase import Phase, Release
from handlers.status import snapshot
from handlers.status.lines import lines
from tests.integration.host.ssh_target import Target, serve
from tests.integration.queue.events import event
from tests.integration.release.steps import in_phase

FILE = "~/app.log"
OLD = Bars(oldest_seconds=10)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One host for all tests."""
    async with serve(tmp_path_factory.mktemp("acting")) as target:
        yield target


@pytest.fixture(autouse=True)
def every_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is looked at each time."""
    monkeypatch.setattr(surroundings, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(around_checks, "PAUSE_SECONDS", 0.0)


class Watched:
    """A release in its watch, and the looks around it."""

    def __init__(self, core: Core, release: Release) -> None:
        self.core, self.release = core, release

    async def look(self, bars: Bars = OLD) -> Surroundings:
        """One look that goes on from what the ledger kept."""
        environment = self.core.environment
        often = environment.watch.model_copy(update={"interval_seconds": 0.001})
        core = replace(self.core, environment=environment.model_copy(update={"bars": bars, "watch": often}))
        seen = await surroundings.look(core, self.release, await surroundings.begin(core, self.release))
        await surroundings.keep(core, self.release, seen)
        assert AroundState.from_json(seen.state.as_json()) == seen.state
        return seen

    async def asked(self) -> list[tuple[Verb, str]]:
        """What the controller was asked for, and by whom."""
        found = await requests.see(self.core.database, self.release)
        return [(each.verb, each.requested_by) for each in found]


@pytest_asyncio.fixture(loop_scope="session")
async def watched(target: Target, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Watched]:
    """A release in its watch with one event that waits for a worker since 20 s."""
    services = {"web": [], "workers": [], "logs": [], "log_files": [FILE]}
    environment = target.environment(services=services, reports={"directory": str(tmp_path / "reports")})
    (target.hosts["web-1"] / "app.log").write_text("INFO began\n")
    async with open_core(environment) as core:
        release = await in_phase(engine, Phase.WATCHING, "test")
        await event(engine, "left", age=20)
        yield Watched(replace(core, database=engine), release)


async def test_a_broken_bar_is_shown_and_paged_once_and_decides_nothing(watched: Watched) -> None:
    """At the second look in a row. By default no check acts."""
    seen = [await watched.look() for _ in range(3)]
    assert [[page.event for page in each.pages] for each in seen] == [[], ["check.bar-broken"], []]
    assert seen[1].pages[0].sentence.startswith("oldest: the oldest due event waits 2")
    assert {(each.holds, each.rolls_back) for each in seen} == {("", "")}
    view = "\n".join(lines(await snapshot.read(watched.core.database, "test"), width=400))
    assert "oldest: the oldest due event waits " in view
    assert "queue_depth 1, oldest 2" in view


@pytest.mark.parametrize("acts", ["hold", "roll_back"])
async def test_a_named_check_acts_at_the_second_look_in_a_row(watched: Watched, acts: str) -> None:
    """One peak is nothing. It asks once."""
    bars = OLD.model_copy(update={acts: ("oldest",)})
    assert [
        (each.holds, each.rolls_back) for each in (await watched.look(bars), await watched.look(Bars()))
    ] == [
        ("", ""),
        ("", ""),
    ]
    seen = [await watched.look(bars) for _ in range(3)]
    found = [(bool(each.holds), bool(each.rolls_back)) for each in seen]
    assert found == [(False, False), (acts == "hold", acts == "roll_back"), (False, False)]


async def test_a_bar_of_the_machines_may_roll_back_too(watched: Watched) -> None:
    """Where the environment names it: a memory leak is a reason of the source's runbook."""
    machine = watched.core.environment.machine.model_copy(update={"disk_free_percent": 100.0})
    environment = watched.core.environment.model_copy(update={"machine": machine})
    watched.core = replace(watched.core, environment=environment)
    seen = [await watched.look(Bars(roll_back=("disk",))) for _ in range(2)]
    assert seen[1].rolls_back.startswith("web-1 disk: ")


async def test_new_errors_in_the_logs_roll_back_where_the_environment_says_so(
    watched: Watched, target: Target
) -> None:
    """They were paged when they were found, and are not paged twice."""
    bars = Bars(roll_back=("new_signatures",))
    await watched.look(bars)
    with (target.hosts["web-1"] / "app.log").open("a") as file:
        file.write("ERROR no rate for item 31\n")
    seen = [await watched.look(bars) for _ in range(2)]
    assert [[page.event for page in each.pages] for each in seen] == [["log.new-error"], []]
    assert "no rate for item <n>" in seen[1].rolls_back


async def test_what_a_bar_asks_for_is_asked_as_a_person_would(watched: Watched) -> None:
    """The controller answers it as it answers a person. A release that deployed nothing is held instead."""
    await surroundings.ask_to_roll_back(watched.core, watched.release, "oldest: too old")
    by = "the bars of the environment"
    assert await watched.asked() == [(Verb.ROLLBACK, by)]
    await requests.answer(watched.core.database, watched.release, "seen")
    drained = replace(watched.release, from_revision=watched.release.to_revision)
    await surroundings.ask_to_roll_back(watched.core, drained, "oldest: too old")
    assert await watched.asked() == [(Verb.HOLD, by)]


async def test_nothing_is_checked_before_the_watch(watched: Watched) -> None:
    """While workers are stopped for a deploy, no worker lives and everything waits."""
    held = await releases.hold(watched.core.database, watched.release, "a test")
    watched.release = held
    seen = await watched.look()
    assert (seen.state.checks, seen.breaches) == ((), ())


async def test_checks_that_cannot_be_read_are_a_source_that_is_down(
    watched: Watched, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither good nor broken: a breach is not over, and asks for nothing."""
    bars = OLD.model_copy(update={"roll_back": ("oldest",)})
    await watched.look(bars)
    monkeypatch.setattr(everything, "SOURCE_SECONDS", 0.3)
    async with engine.connect() as tx:
        await tx.exec_driver_sql("LOCK TABLE tds_sync_queue IN ACCESS EXCLUSIVE MODE")
        seen = await watched.look(bars)
        await tx.rollback()
    assert seen.problems == ("checks: it could not be read: not within 0.3 s",)
    assert seen.rolls_back == ""
    seen = await watched.look(bars)
    assert (seen.problems, bool(seen.rolls_back)) == ((), True)


def test_one_fact_is_paged_once_though_two_windows_show_it() -> None:
    """In the first hour after the deploy the hour is the day."""

    def low(name: str, sentence: str, action: Action = Action.SHOW) -> Any:
        return replace(compared(name, 1, 2, "", sentence, good_above=True), action=action)

    both = [low("success_1h", "1 of 2"), low("success_24h", "1 of 2")]
    assert list(around_checks.broken({}, both)) == ["success_1h"]
    acting = [both[0], low("success_24h", "1 of 2", Action.HOLD)]
    assert list(around_checks.broken({}, acting)) == ["success_1h", "success_24h"]
    apart = [both[0], low("success_24h", "3 of 9")]
    assert list(around_checks.broken({}, apart)) == ["success_1h", "success_24h"]


def test_a_look_without_an_answer_makes_no_breach_longer() -> None:
    """Two looks in a row must both have seen it."""
    before = {"oldest": Broken(sentence="old")}
    assert around_checks.broken(before, [source_down("oldest", "gone")]) == before
    assert around_checks.broken({}, [source_down("oldest", "gone")]) == {}
    good = compared("oldest", 0, 1, "s", "fresh")
    assert good.state is State.GOOD
    assert around_checks.broken(before, [good]) == {}
