"""`runbook up --database`: the server is on the PostgreSQL that it is told of, and nobody else learns its address."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from rehearsal.postgres import Postgres
from tests.flows.local_prefect import ROOT, Project, marked
from tests.flows.machines import contrib, database
from tests.integration.worker.steps import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")

SECRET = "wLkzUf3-not-to-be-seen"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose server has no database yet."""
    project = Project.make(tmp_path)
    yield project
    project.end()


@pytest.mark.skipif(
    contrib() is None, reason="PostgreSQL with pg_trgm is missing: Debian's postgresql has it"
)
async def test_runs_are_kept_in_the_postgresql_that_it_is_told_of(project: Project) -> None:
    """No SQLite is made, and of all processes only the server has the address."""
    with database(project.folder / "postgres") as address:
        project.variables["UP_DATABASE"] = address
        up = project.up(deploy=True)
        up.says("Ctrl-C stops it", 240)
        project.run("once")
        assert not (project.state / "prefect.db").exists()
        told = {
            line.split(maxsplit=1)[1]
            for line in marked("PREFECT_SERVER_DATABASE_CONNECTION_URL=")
            if project.marker.encode() in Path(f"/proc/{line.split()[0]}/environ").read_bytes()
        }
        assert len(told) == 1
        assert "flows.local.serving" in told.pop()
        connection = await asyncpg.connect(address)
        try:

            async def is_kept() -> bool:
                query = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'"
                return bool(await connection.fetchval(query) == 1)

            # The run tells the server of its end after its last step.
            await until(is_kept, 30)
        finally:
            await connection.close()
        up.signal(signal.SIGTERM)
        assert up.ended() == 0, up.text()
        assert address not in up.text()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("sqlite:////tmp/x.db", "must refer to an address like postgresql://"),
        (f"mysql://prefect:{SECRET}@db/prefect", "must refer to an address like postgresql://"),
        (SECRET, "must refer to an address like postgresql://"),
        (f"postgresql://prefect:{SECRET}@127.0.0.1:none/prefect", "its address cannot be read"),
    ],
)
def test_what_is_no_postgresql_is_refused(tmp_path: Path, address: str, words: str) -> None:
    """Before anything starts; the text is not shown, because it may be a password."""
    code, said = up_on(tmp_path, address)
    assert (code, words in said) == (5, True), said


def test_a_postgresql_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    """The server would try for minutes without a word."""
    code, said = up_on(tmp_path, f"postgresql://prefect:{SECRET}@127.0.0.1:1/prefect")
    assert (code, "the database of --database does not answer" in said) == (1, True), said


async def test_a_refused_login_and_a_missing_module_are_said(tmp_path: Path, postgres: Postgres) -> None:
    """The PostgreSQL that the rehearsal brings has no pg_trgm: Prefect's migration would fail at it."""
    wrong = f"postgresql://postgres:{SECRET}@127.0.0.1:{postgres.port}/postgres"
    code, said = await asyncio.to_thread(up_on, tmp_path, wrong)
    assert (code, "refuses the login" in said) == (5, True), said
    code, said = await asyncio.to_thread(up_on, tmp_path, postgres.url())
    assert (code, "has no module pg_trgm" in said) == (5, True), said


def up_on(folder: Path, address: str) -> tuple[int, str]:
    """The exit code of `up` with this database, and what it said."""
    variables = {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "HERE": address}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up", "--database", "env:HERE"],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert SECRET not in said
    assert "Traceback" not in said
    assert marked(f"XDG_STATE_HOME={folder}") == []
    return done.returncode, " ".join(said.split())
