"""What is around a release: shown, paged once, perhaps a hold; never a verdict, and never a delay."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.surroundings import looked_around
from flows.telling import finish_telling
from handlers.core import Clock, Core, open_core
from handlers.environment.around import Upstream
from handlers.environment.load import load_environment
from handlers.phases import surroundings
from handlers.phases.around_pages import Page
from handlers.phases.around_state import AroundState
from handlers.phases.surroundings import Surroundings
from handlers.release.decisions import Verb
from handlers.release.ledger import releases, requests
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase, Release
from handlers.report import gather
from handlers.status import snapshot
from handlers.status.lines import lines
from tasks import surroundings as background
from tests.integration.host.ssh_target import CLOSED_PORT, Target, serve
from tests.integration.host.upstreams import upstream_server
from tests.integration.release.steps import in_phase

FILE = "~/app.log"


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def told() -> AsyncIterator[None]:
    """What the background tells is told before the database is gone."""
    yield
    await finish_telling()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One host for all tests."""
    async with serve(tmp_path_factory.mktemp("around")) as target:
        yield target


@pytest.fixture(autouse=True)
def every_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are looked at each time."""
    monkeypatch.setattr(surroundings, "PAUSE_SECONDS", 0.0)


class Around:
    """A release that is watched, and the looks around it. Each goes on from what the ledger kept."""

    def __init__(self, core: Core, release: Release, target: Target) -> None:
        self.core, self.release = core, release
        self.log = target.hosts["web-1"] / "app.log"

    async def look(self, **changes: Any) -> Surroundings:
        """One look, with sections of the environment replaced."""
        core = replace(self.core, environment=self.core.environment.model_copy(update=changes))
        state = await surroundings.begin(core, self.release)
        seen = await surroundings.look(core, self.release, state)
        await surroundings.keep(core, self.release, seen)
        assert AroundState.from_json(seen.state.as_json()) == seen.state
        return seen

    def write(self, *messages: str) -> None:
        """Append to the log of the host."""
        with self.log.open("a") as file:
            file.writelines(f"{message}\n" for message in messages)

    async def view(self) -> str:
        """The status, as one line."""
        text = lines(await snapshot.read(self.core.database, "test"), width=500)
        return "\n".join(text)

    def machine(self, **bars: Any) -> Any:
        """The section [machine]."""
        return self.core.environment.machine.model_copy(update=bars)


def events(seen: Surroundings) -> list[str]:
    """The events of the pages."""
    return [page.event for page in seen.pages]


@pytest_asyncio.fixture(loop_scope="session")
async def around(target: Target, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Around]:
    """A release in its watch, whose host has a log without errors."""
    services = {"web": [], "workers": [], "logs": [], "log_files": [FILE]}
    environment = target.environment(services=services, reports={"directory": str(tmp_path / "reports")})
    async with open_core(environment) as core:
        release = await in_phase(engine, Phase.WATCHING, "test")
        found = Around(replace(core, database=engine), release, target)
        found.log.write_text("INFO began\n")
        yield found


async def test_the_readings_of_hosts_and_database_are_shown(around: Around) -> None:
    """Load, memory, disk and connections are in the status; a look without trouble pages nobody."""
    seen = await around.look()
    assert (seen.pages, seen.problems, seen.breaches, seen.holds, seen.upstream) == ((), (), (), "", None)
    view = await around.view()
    assert "Around   web-1 load " in view
    assert " % available, disk " in view
    assert "; database " in view


async def test_a_new_error_in_the_logs_is_paged_once_and_shown(around: Around) -> None:
    """The next controller knows it from the ledger. The report has it too. It decides nothing."""
    await around.look()
    around.write("ERROR no rate for item 31", "ERROR no rate for item 32")
    seen = await around.look()
    assert [signature.fingerprint for signature in seen.signatures] == ["ERROR no rate for item <n>"]
    assert seen.pages == (
        Page(
            event="log.new-error",
            source=f"web-1 {FILE}",
            sentence=f"a new kind of error since the deploy, on web-1 {FILE}: ERROR no rate for item <n>",
        ),
    )
    around.write("ERROR no rate for item 33")
    seen = await around.look()
    assert (seen.pages, seen.signatures, seen.holds) == ((), (), "")
    assert f"new in the logs, 3 times (web-1 {FILE}): ERROR no rate for item <n>" in await around.view()
    written = await gather.write(around.core, around.release)
    for form in ("md", "html", "json"):
        assert "new in the logs, 3 times" in written[form].read_text()


async def test_what_was_seen_in_one_phase_is_known_in_the_next(around: Around) -> None:
    """The state goes with the release: an error of the drain is not new again in the watch."""
    await around.look()
    around.write("ERROR no rate for item 31")
    await around.look()
    held = await releases.hold(around.core.database, around.release, "a test")
    assert (await surroundings.begin(around.core, held)).logs.seen[0].count == 1


@pytest.mark.parametrize("state", [{}, {"logs": None}, {"logs": {"deployed_at": "never"}}])
async def test_what_another_version_kept_is_looked_at_anew(around: Around, state: dict[str, Any]) -> None:
    """A state that cannot be read must not keep anybody from looking."""
    await releases.note(around.core.database, around.release, PhaseNote(around={"lines": [], "state": state}))
    around.write("ERROR before the first look")
    seen = await around.look()
    assert (seen.signatures, seen.problems) == ((), ())


async def test_an_outage_of_the_upstream_begins_with_its_first_failed_answer(around: Around) -> None:
    """It is confirmed and paged at the second one, told with its beginning, and its end is told too."""
    async with upstream_server(200, 503, 200, 429, 503, 503, 200) as server:
        settings = {"url": server.url, "interval_seconds": 0.001}
        changes = {"upstream": load_upstream(settings)}
        seen = [await around.look(**changes) for _ in range(7)]
    assert [look.upstream and look.upstream.up for look in seen] == [
        True,
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert [events(look) for look in seen] == [[], [], [], [], ["upstream.away"], [], ["upstream.back"]]
    [began], [ended] = seen[4].changes, seen[6].changes
    assert (began.up, began.at) == (False, seen[3].at)
    assert (ended.up, ended.at) == (True, seen[6].at)
    assert [len(look.changes) for look in seen] == [0, 0, 0, 0, 1, 0, 1]
    stored = await releases.upstream_changes(around.core.database, around.release)
    assert stored == [(began.at, False), (ended.at, True)]
    held = await releases.hold(around.core.database, around.release, "a test")
    assert await releases.upstream_changes(around.core.database, held) == stored
    assert seen[4].pages[0].sentence == (
        f"the upstream is away: 127.0.0.1:{server.port} answers 503 instead of 200"
    )


def load_upstream(settings: dict[str, Any]) -> Any:
    """The section [upstream]."""
    return Upstream.model_validate(settings)


async def test_the_upstream_is_asked_at_its_interval_and_sooner_only_in_doubt(around: Around) -> None:
    """Looks come every ten seconds; an API that is throttled must not be asked more often than agreed."""
    async with upstream_server(200, 503) as server:
        hourly = {"upstream": load_upstream({"url": server.url, "interval_seconds": 3600})}
        for _ in range(3):
            await around.look(**hourly)
        assert server.asked == 1
        often = {"upstream": load_upstream({"url": server.url, "interval_seconds": 0.001})}
        await around.look(**often)
        assert server.asked == 2
        seen = await around.look(**hourly)
        assert server.asked == 3
        assert seen.upstream is not None
        assert not seen.upstream.up
        seen = await around.look(**hourly)
        assert server.asked == 3
        assert not seen.upstream.up if seen.upstream else False
    assert "the upstream is away since " in await around.view()


async def test_a_broken_bar_is_paged_at_the_second_look_and_holds_only_where_it_may(around: Around) -> None:
    """One peak is nothing. It is told once until it was whole again, and then anew."""
    shows, holds, whole = (
        {"machine": around.machine(disk_free_percent=100, action="show")},
        {"machine": around.machine(disk_free_percent=100, action="hold")},
        {"machine": around.machine()},
    )
    seen = [await around.look(**each) for each in (shows, whole, shows, shows, shows)]
    assert [events(look) for look in seen] == [[], [], [], ["machine.bar-broken"], []]
    assert [look.holds for look in seen] == [""] * 5
    assert [len(look.breaches) for look in seen] == [1, 0, 1, 1, 1]
    assert "web-1 disk: " in await around.view()
    seen = [await around.look(**each) for each in (whole, holds, holds, holds)]
    assert [bool(look.holds) for look in seen] == [False, False, True, False]
    assert seen[2].holds.startswith("web-1 disk: ")


async def test_a_source_that_is_down_is_paged_at_its_deadline(around: Around) -> None:
    """A missing log file is no log without errors: it is shown at once, and paged once."""
    around.log.unlink()
    watch = around.core.environment.watch
    patient = await around.look()
    assert patient.problems == (f"web-1 {FILE}: there is no such file",)
    assert (patient.pages, patient.breaches, patient.holds) == ((), (), "")
    assert "not read since " in await around.view()
    short = {"watch": watch.model_copy(update={"source_down_seconds": 0.001})}
    seen = [await around.look(**short) for _ in range(2)]
    assert [events(look) for look in seen] == [["source.down"], []]
    assert seen[0].pages[0].sentence.startswith(f"web-1 {FILE} could not be read for ")
    around.write("INFO again")
    assert (await around.look(**short)).problems == ()


async def test_a_host_that_is_away_is_down_with_all_that_it_would_say(around: Around) -> None:
    """Its readings and its logs: none of them is taken for good."""
    await around.look()
    host = around.core.environment.hosts[0].model_copy(update={"port": CLOSED_PORT})
    seen = await around.look(hosts=(host,), machine=around.machine(load_per_cpu=1000))
    assert [problem.partition(": ")[0] for problem in seen.problems] == ["web-1 machine", f"web-1 {FILE}"]
    assert (seen.state.hosts, seen.breaches) == ((), ())
    around.write("ERROR while it was away")
    seen = await around.look()
    assert seen.problems == ()
    assert [signature.fingerprint for signature in seen.signatures] == ["ERROR while it was away"]


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port that takes connections and never says anything."""
    writers: list[asyncio.StreamWriter] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def test_slow_hosts_and_a_slow_upstream_end_no_look_later_than_agreed(around: Around) -> None:
    """Ten hosts that accept and say nothing, and an upstream that does the same: five seconds, whatever they do."""
    async with silent() as port, upstream_server() as server:
        server.silent = True
        first = around.core.environment.hosts[0]
        hosts = tuple(first.model_copy(update={"name": f"web-{n}", "port": port}) for n in range(1, 11))
        upstream = load_upstream({"url": server.url, "answer_seconds": 30})
        began = monotonic()
        seen = await around.look(hosts=hosts, upstream=upstream)
        assert monotonic() - began < 6
    assert len(seen.problems) == 20
    assert all("no answer within 3 s" in problem for problem in seen.problems)
    assert seen.state.upstream is not None
    assert "no answer within 4 s" in seen.state.upstream.sentence


async def test_the_hosts_are_not_asked_at_every_look(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal looks several times a second; what was seen of the hosts stays until the next look at them."""
    monkeypatch.setattr(surroundings, "PAUSE_SECONDS", 3600.0)
    whole = {"machine": around.machine(disk_free_percent=100)}
    await around.look(**whole)
    around.write("ERROR later")
    seen = await around.look(**whole)
    assert (seen.signatures, len(seen.breaches), seen.pages) == ((), 1, ())
    monkeypatch.setattr(surroundings, "PAUSE_SECONDS", 0.0)
    assert len((await around.look()).signatures) == 1


async def test_bars_ask_to_hold_only_what_can_be_held(around: Around) -> None:
    """A hold is asked for as a person would. A release on its way back is never paused."""
    await surroundings.ask_to_hold(around.core, around.release, "web-1 disk: 1 % are free; the bar is 10 %")
    [request] = await requests.see(around.core.database, around.release)
    assert (request.verb, request.reason) == (Verb.HOLD, "web-1 disk: 1 % are free; the bar is 10 %")
    await requests.answer(around.core.database, around.release, "seen")
    back = await releases.enter(around.core.database, around.release, Phase.ROLLING_BACK)
    await surroundings.ask_to_hold(around.core, back, "again")
    assert await requests.see(around.core.database, back) == []


_TOML = """name = "test"
[database]
url = "{database}"
[ssh]
user = "{user}"
key_file = "{key}"
known_hosts_file = "{known}"
connect_seconds = 2
[[hosts]]
name = "web-1"
address = "127.0.0.1"
port = {port}
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "~/erp it's"
[services]
logs = []
log_files = ["{file}"]
[machine]
disk_free_percent = 100
action = "hold"
"""


def write_file(folder: Path, target: Target, database_url: str) -> None:
    """The environment file of the release, which the background reads by its name."""
    server = target.servers["web-1"]
    text = _TOML.format(
        database=database_url,
        user=server.user,
        key=server.key_file,
        known=target.folder / "known_hosts",
        port=server.port,
        file=FILE,
    )
    (folder / "test.toml").write_text(text)
    load_environment(str(folder / "test.toml"))


async def test_the_background_looks_pages_and_asks_to_hold(
    around: Around,
    target: Target,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For as long as the release runs: a line of level ERROR for each page, and a hold where the bars say so."""
    write_file(tmp_path, target, database_url)
    monkeypatch.setattr(background, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(background, "TICK_SECONDS_MIN", 0.01)
    with caplog.at_level(logging.WARNING):
        async with looked_around(around.release):
            asked: list[requests.Request] = []
            for _ in range(400):
                asked = asked or await requests.see(around.core.database, around.release)
                if asked and "INFO began" not in around.log.read_text().splitlines()[-1]:
                    break
                if asked:
                    around.write("ERROR no rate for item 31")
                await asyncio.sleep(0.05)
            for _ in range(400):
                if "no rate" in caplog.text:
                    break
                await asyncio.sleep(0.05)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert errors[0].startswith(f"release {around.release.id}: web-1 disk: ")
    assert errors[1].endswith(": ERROR no rate for item <n>")
    assert [(request.verb, request.requested_by) for request in asked] == [
        (Verb.HOLD, "the bars of the environment")
    ]


async def test_a_database_that_stays_away_is_paged_and_ends_nothing(
    around: Around,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without it nothing can be measured: that is the source of all sources. The release goes on meanwhile."""
    write_file(tmp_path, target, "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.05)
    release = replace(around.release, speed=600.0)
    with caplog.at_level(logging.WARNING):
        async with looked_around(release):
            for _ in range(400):
                if "could not be read" in caplog.text:
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(0)
    paged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(paged) == 1
    assert re.match(rf"release {release.id}: the database could not be read for \d+ min: ", paged[0])
    assert caplog.text.count("the look around release") == 1


async def test_an_error_in_the_background_reaches_nobody_but_the_log(
    around: Around, target: Target, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a look neither ends the release nor keeps it from ending."""
    write_file(tmp_path, target, database_url)
    broken = 0

    async def breaks(*_: object, **__: object) -> None:
        nonlocal broken
        broken += 1
        raise RuntimeError("a bug")

    monkeypatch.setattr(surroundings, "look", breaks)
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.01)
    async with looked_around(around.release):
        for _ in range(400):
            if broken >= 2:
                break
            await asyncio.sleep(0.05)
    assert broken >= 2


def test_a_rehearsal_is_no_faster_than_its_machines() -> None:
    """At 600 to 1 a look would come every 17 ms."""
    assert Clock(speed=600).real(background.TICK_SECONDS).total_seconds() < background.TICK_SECONDS_MIN
