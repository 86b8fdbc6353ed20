"""The doctor, on a whole target: each fault is named with what to do, and its bundle tells no secret."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from handlers.core import Core, open_core
from handlers.database import migrate
from handlers.environment.around import Upstream
from handlers.environment.load import load_environment
from handlers.phases import bundle, examination
from handlers.queue import limits
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, Verdict
from rehearsal.target import Target
from tests.integration.host.upstreams import upstream_server
from tests.integration.release.steps import plan_of

TABLES = "runbook.release, runbook.lock"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One target for all tests; each leaves it as it was."""
    home = tmp_path_factory.mktemp("doctor")
    try:
        async with Target.create("good", folder=home) as target:
            yield target
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def core(target: Target) -> AsyncIterator[Core]:
    """Its core, with a ledger that is empty afterwards."""
    async with open_core(load_environment(str(target.environment_path))) as core:
        await migrate.upgrade(core.database)
        try:
            yield core
        finally:
            async with direct(target) as connection:
                await connection.execute(f"TRUNCATE {TABLES} CASCADE")


@asynccontextmanager
async def direct(target: Target) -> AsyncIterator[asyncpg.Connection]:
    """A session of somebody else."""
    connection = await asyncpg.connect(target.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def named(core: Core, name: str) -> list[str]:
    """The sentences of the findings with this name."""
    return [each.sentence for each in (await examination.examine(core)).findings if each.name == name]


async def ended(core: Core, target: Target, end: Phase, *, to: str) -> Release:
    """A release of the revision *to* that has come to *end*."""
    plan = replace(plan_of("rehearsal", target.revisions[to]), from_revision=target.revisions["broken"])
    run = await releases.begin(core.database, plan=plan, requested_by="ops-a")
    run = await releases.enter(core.database, run, Phase.APPROVED)
    await lock.take(core.database, "rehearsal", run.id, "ops-a:1")
    run = await releases.get(core.database, run.id)
    way = [Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED]
    if end is Phase.ROLLED_BACK:
        way = [Phase.DEPLOYING, Phase.ROLLING_BACK, end]
    if end is Phase.HELD:
        way = [Phase.DEPLOYING, end]
    for phase in way:
        run = await releases.enter(core.database, run, phase, verdict=Verdict.PASS, sentence="as told")
    return run


async def test_where_nothing_is_wrong_it_says_what_it_looked_at(core: Core) -> None:
    """And which versions it met. What the ERP's own schema has too much of is named always."""
    examined = await examination.examine(core)
    assert {each.name for each in examined.findings} <= {"index", "column", "queue"}
    assert "each host against the ledger" in examined.checked
    assert examined.versions["ledger"] == migrate.newest()
    assert examined.versions["postgresql"].startswith("1")


async def test_a_host_that_is_not_where_the_ledger_says_is_named(core: Core, target: Target) -> None:
    """Its tree and its process: `git checkout` by hand, or a restore from a backup."""
    run = await ended(core, target, Phase.SUCCEEDED, to="fixed")
    for host in ("web-1", "web-2"):
        [sentence] = [each for each in await named(core, host) if "should be on" in each]
        assert sentence.startswith(
            f"{host} should be on {target.revisions['fixed'][:7]} since release {run.id}, but its tree is on "
            f"{target.revisions['broken'][:7]} and its process is on {target.revisions['broken'][:7]}"
        )


async def test_a_fleet_that_went_back_is_where_the_ledger_says(core: Core, target: Target) -> None:
    await ended(core, target, Phase.ROLLED_BACK, to="fixed")
    assert [each for each in await named(core, "web-1") if "should be on" in each] == []


async def test_a_held_release_waits_for_a_person(core: Core, target: Target) -> None:
    """Between its hosts and the ledger nothing is compared: it changes them."""
    run = await ended(core, target, Phase.HELD, to="fixed")
    [sentence] = await named(core, "release")
    assert sentence.startswith(f"release {run.id} is held: as told. A person decides")
    assert [each for each in await named(core, "web-1") if "should be on" in each] == []


async def test_a_dead_lock_and_one_of_a_finished_release_are_told_apart(core: Core, target: Target) -> None:
    """The first hides a release that nobody carries."""
    run = await ended(core, target, Phase.SUCCEEDED, to="fixed")
    await lock.take(core.database, "rehearsal", run.id, "ops-b:1")
    [left] = await named(core, "lock")
    assert left.startswith(f"ops-b:1 holds the lock for release {run.id}, which is succeeded")
    other = await releases.begin(core.database, plan=plan_of("rehearsal"), requested_by="ops-c")
    async with direct(target) as connection:
        await connection.execute(
            "UPDATE runbook.lock SET release_id = $1, expires_at = now() - interval '1 min'",
            other.id,
        )
    [dead] = await named(core, "lock")
    assert "is dead (it has expired" in dead
    assert "`runbook resume --due` goes on with the release" in dead


async def test_a_planned_release_that_nobody_started_is_named(core: Core) -> None:
    run = await releases.begin(core.database, plan=plan_of("rehearsal"), requested_by="ops-a")
    [sentence] = await named(core, "release")
    assert sentence == (
        f"release {run.id} is planned: it has not started: `runbook resume` starts it, `runbook abort` ends it"
    )


async def test_a_limit_that_a_person_forgot_is_named(core: Core) -> None:
    await limits.limit(core.database, None, per_ten_seconds=1, seconds=600, by="ops-a", reason="slow disk")
    try:
        [sentence] = await named(core, "limit")
    finally:
        await limits.lift_all(core.database)
    assert "by ops-a: slow disk" in sentence
    assert "`runbook queue unthrottle` removes it" in sentence


async def test_a_session_that_blocks_others_is_named(
    core: Core, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its process number, since when, and how to end it; so is one that only forgot to commit."""
    monkeypatch.setattr(examination, "BLOCKED_SECONDS", 0.0)
    monkeypatch.setattr(examination, "IDLE_SECONDS", 0.0)
    async with direct(target) as first, direct(target) as second, first.transaction():
        await first.execute("SELECT pg_advisory_xact_lock(4711)")
        waits = asyncio.ensure_future(second.execute("SELECT pg_advisory_lock(4711)"))
        try:
            async with asyncio.timeout(60):
                found: list[str] = []
                while len(found) < 2:
                    found = await _about(core, first.get_server_pid())
        finally:
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
    [blocks, idle] = found
    assert "sessions have waited for session" in blocks
    assert f"pg_terminate_backend({first.get_server_pid()})" in blocks
    assert "has left a transaction open" in idle


async def _about(core: Core, process: int) -> list[str]:
    return [each for each in await named(core, "locks") if f"session {process} " in each]


async def test_the_bundle_has_what_a_report_needs_and_no_secret(
    core: Core, target: Target, tmp_path: Path
) -> None:
    """Only its owner can read it, and a file that is there is never overwritten."""
    await ended(core, target, Phase.SUCCEEDED, to="fixed")
    path = tmp_path / "bundle.tar.gz"
    names = await bundle.write(core, await examination.examine(core), "", path)
    assert {"environment.json", "doctor.json", "status.json", "history.json", "queue.json"} <= set(names)
    assert path.stat().st_mode & 0o777 == 0o600
    password = make_url(target.database_url).password
    assert password
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert len(members) == len(names)
        for member in members:
            file = archive.extractfile(member)
            assert file is not None
            assert password.encode() not in file.read(), member.name
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        await bundle.write(core, None, "away", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


async def test_an_upstream_that_is_away_is_named_once(core: Core) -> None:
    async with upstream_server(503) as server:
        away = Upstream(url=server.url, interval_seconds=0.05)
        place = core.environment.model_copy(update={"upstream": away})
        [sentence] = await named(replace(core, environment=place), "upstream")
    assert "answers 503" in sentence
