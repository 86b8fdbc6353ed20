"""A release keeps the settings that it was planned with, whatever becomes of its environment file."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.environment import last_good, load
from handlers.environment.frozen import settings
from handlers.environment.load import load_environment
from handlers.errors import ConfigError, DatabaseDown, Refused
from handlers.release import settings as release_settings
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from handlers.release.settings import environment_of, stored_settings, without_ledger
from handlers.status.lines import lines
from handlers.status.snapshot import read
from rehearsal.postgres import Postgres
from tasks import ledger
from tests.integration.release.steps import deploying, plan_of

PASSWORD = "s3ntinel-passw0rd"
FILE = """
name = "here"
execution = "workers"
database = {{url = "{url}"}}
deploy = {{directory = "/srv/erp"}}
services = {{web = ["tsh-erp"]}}
ssh = {{user = "deploy", key_file = "/key", known_hosts_file = "/known", key_passphrase = "env:PASSPHRASE"}}
gate = {{good_percent = {good}}}
hosts = [
{hosts}]
"""
HOST = '  {{name = "{0}", address = "{0}", health_url = "http://{0}/health"}},\n'


class Here:
    """The environment file of a test, on the test's database."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self.write()

    def write(self, *hosts: str, good: float = 95, url: str | None = None) -> None:
        """Write the file, with two hosts unless others are named."""
        listed = "".join(HOST.format(name) for name in hosts or ("web-1", "web-2"))
        self.path.write_text(FILE.format(url=url or self.url, good=good, hosts=listed))

    async def planned(self, engine: AsyncEngine) -> Release:
        """A release that was planned with the file as it is."""
        plan = replace(plan_of("here"), settings=settings(load_environment("here")))
        return await releases.begin(engine, plan=plan, requested_by="ops-a")


@pytest.fixture
def here(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Here:
    """An environment called `here`."""
    monkeypatch.setenv(load.DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PASSPHRASE", PASSWORD)
    monkeypatch.setattr(last_good, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(last_good, "WAIT_SECONDS", 0.05)
    return Here(tmp_path / "here.toml", database_url)


async def test_an_edited_file_changes_no_release(here: Here, engine: AsyncEngine) -> None:
    """A host was removed and the gate changed: hosts and gate are as planned, and each later read says the same."""
    release = await here.planned(engine)
    here.write("web-1", good=90)
    for _ in range(2):
        environment = await environment_of(release)
        assert [host.name for host in environment.hosts] == ["web-1", "web-2"]
        assert environment.gate.good_percent == 95
    assert [host.name for host in (await last_good.last_good("here")).hosts] == ["web-1"]


async def test_a_deleted_file_changes_no_release(here: Here, engine: AsyncEngine) -> None:
    """Neither for the process that runs it, nor for the next one."""
    release = await here.planned(engine)
    planned = await environment_of(release)
    here.path.unlink()
    assert await environment_of(release) == planned
    for memory in (last_good._GOOD, last_good._KEPT, release_settings._FROZEN):
        memory.clear()
    assert await environment_of(release) == planned


async def test_the_ledger_has_no_secret(here: Here, engine: AsyncEngine, database_url: str) -> None:
    """Neither the password in the database's address, nor the one behind a reference: in no row of any table."""
    release = await here.planned(engine)
    passphrase = (await environment_of(release)).ssh.key_passphrase
    assert passphrase is not None
    secrets = (passphrase.get_secret_value(), make_url(database_url).password or "")
    assert min(map(len, secrets)) > 8
    reader = await asyncpg.connect(database_url)
    try:
        tables = await reader.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'runbook'")
        for table in tables:
            rows = await reader.fetch(f"SELECT t::text AS row FROM runbook.{table['tablename']} AS t")
            assert not [row for row in rows if any(secret in row["row"] for secret in secrets)], table
        plan = await reader.fetchval("SELECT plan::text FROM runbook.release WHERE id = $1", release.id)
        assert "env:PASSPHRASE" in plan
    finally:
        await reader.close()


async def test_a_release_of_an_older_ledger_uses_the_file(here: Here, engine: AsyncEngine) -> None:
    """Its plan has no settings: the file counts at each step, as it did when it was planned."""
    release = await releases.begin(engine, plan=plan_of("here"), requested_by="ops-a")
    assert (await environment_of(release)).gate.good_percent == 95
    here.write("web-1", good=90)
    assert (await environment_of(release)).gate.good_percent == 90
    assert (await read(engine, "here")).differences == ()


async def test_another_database_in_the_file_does_not_lose_the_release(
    here: Here, engine: AsyncEngine, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong address, and a ledger without this release: it goes on where it is, and says so. A new name of the same
    database is used."""
    release = await here.planned(engine)
    former = (await environment_of(release)).database
    without_ledger = make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    for wrong in ("postgresql://runbook@127.0.0.1:1/none", without_ledger):
        here.write(url=wrong)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert (await environment_of(release)).database == former
        assert f"which has no release {release.id}" in caplog.text
    moved = make_url(here.url).set(host="localhost").render_as_string(hide_password=False)
    here.write(url=moved)
    assert (await environment_of(release)).database.url == moved


async def test_another_ledger_has_no_settings_of_this_release(here: Here, engine: AsyncEngine) -> None:
    """Two ledgers may have releases of one id: the creation time tells them apart."""
    release = await here.planned(engine)
    other = replace(release, created_at=release.created_at.replace(year=2001))
    with pytest.raises(Refused, match="there is no release"):
        await stored_settings(engine, other)


async def test_the_status_names_each_difference(here: Here, engine: AsyncEngine) -> None:
    """While the release may still use its settings; a file that cannot be used is named with its fault."""
    release = await here.planned(engine)
    assert (await read(engine, "here")).differences == ()
    here.write("web-1", good=90)
    view = await read(engine, "here")
    assert view.differences == (
        "hosts: web-2 is not in the file now, the plan has it",
        "gate.good_percent is 90 now, the plan has 95",
    )
    assert view.as_json()["differences"] == list(view.differences)
    running = await deploying(engine, release=release)
    view = await read(engine, "here")
    assert view.differences[1] == "gate.good_percent is 90 now, this release keeps 95"
    assert "Differs  gate.good_percent is 90 now, this release keeps 95" in lines(view)
    here.path.write_text("name = ")
    [fault] = (await read(engine, "here")).differences
    assert f"{here.path} is not valid TOML" in fault
    assert fault.endswith("This release goes on with its own settings")
    back = await releases.enter(engine, running, Phase.ROLLING_BACK)
    await releases.enter(engine, back, Phase.ROLLED_BACK)
    assert (await read(engine, "here")).differences == ()


async def test_the_way_back_without_the_ledger_has_the_settings_of_the_release(
    here: Here, engine: AsyncEngine
) -> None:
    """From the copy on this machine: the newest release, or the one that the hosts name. Without one, the file."""
    assert len((await without_ledger("here")).hosts) == 2
    for hosts in (("web-1", "web-2"), ("web-1", "web-3")):
        here.write(*hosts)
        release = await here.planned(engine)
        await environment_of(release)
    here.write("web-1")
    former = f"{release.id.partition('.')[0]}.1"
    for wanted, hosts in (("", "web-3"), (release.id, "web-3"), (former, "web-2"), ("2001-01-01.1", "web-1")):
        assert (await without_ledger("here", wanted)).hosts[-1].name == hosts, wanted


async def test_settings_are_known_while_the_database_is_away(here: Here, engine: AsyncEngine) -> None:
    """In a new process: from the copy on this machine. A release that it does not know waits for the database."""
    release = await here.planned(engine)
    await environment_of(release)
    release_settings._FROZEN.clear()
    here.write("web-1", url="postgresql://runbook@127.0.0.1:1/none")
    assert len((await environment_of(release)).hosts) == 2
    with pytest.raises(DatabaseDown):
        await environment_of(replace(release, id="2001-01-01.1"))
    here.write("web-1")
    assert len((await environment_of(release)).hosts) == 2
    assert release_settings._FROZEN


async def test_a_step_waits_while_the_password_is_changed(
    here: Here, engine: AsyncEngine, postgres: Postgres, tmp_path: Path
) -> None:
    """First in the database, then in the file: a running release waits between the two, and uses the new one."""
    release = await here.planned(engine)
    role, secret = f"runbook_{uuid4().hex[:8]}", tmp_path / "password"
    url = make_url(here.url).set(username=role, password=None).render_as_string()
    async with engine.begin() as tx:
        await tx.execute(text(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'former'"))
    try:
        secret.write_text("former")
        here.write(url=f'{url}", password = "file:{secret}')
        assert await ledger.get("here", release.id) == release
        async with engine.begin() as tx:
            await tx.execute(text(f"ALTER ROLE {role} PASSWORD 'new'"))
        waiting = asyncio.create_task(ledger.get("here", release.id))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        secret.write_text("new")
        assert await waiting == release
    finally:
        async with engine.begin() as tx:
            await tx.execute(text(f"DROP ROLE {role}"))


async def test_a_person_may_give_a_release_the_file_of_now(here: Here, engine: AsyncEngine) -> None:
    """A host has another address: who, when and what is in the ledger, plan and hash stay, and nobody else's word
    counts. Before the start, and with a file that cannot be used, it is refused."""
    planned = await here.planned(engine)
    here.write("web-1", good=90)
    with pytest.raises(Refused, match="has not started: run `runbook plan`"):
        await release_settings.adopt(engine, planned, by="ops-b")
    release = await deploying(engine, release=planned)
    assert len((await environment_of(release)).hosts) == 2
    before = await releases.plan(engine, release.id)
    changes = [
        "hosts: web-2 is not in the file now, the release had it",
        "gate.good_percent is 90 now, the release had 95",
    ]
    assert await release_settings.adopt(engine, release, by="ops-b") == changes
    assert await release_settings.adopt(engine, release, by="ops-c") == []
    for memory in (release_settings._FROZEN, last_good._KEPT):
        assert (await environment_of(release)).gate.good_percent == 90
        memory.clear()
    assert (await without_ledger("here", release.id)).gate.good_percent == 90
    assert (await read(engine, "here")).differences == ()
    assert (await releases.plan(engine, release.id)) == before
    query = text(
        "SELECT plan #>> '{adopted,by}' AS by, plan #> '{adopted,differences}' AS what FROM runbook.release"
    )
    async with engine.connect() as connection:
        assert (await connection.execute(query)).one() == ("ops-b", changes)
    here.path.write_text("name = ")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        await release_settings.adopt(engine, release, by="ops-b")
