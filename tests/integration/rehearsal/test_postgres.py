"""The embedded PostgreSQL comes up, survives being killed, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from rehearsal import postgres as module
from rehearsal.postgres import Postgres


def wait_until(true: object, seconds: float = 15) -> None:
    """Poll *true* until it holds or the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not become true in time")


async def value(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_wrong_password_is_refused(postgres: Postgres) -> None:
    """A TCP port is open to every local user, so the password must count."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres")


async def test_fresh_database_has_the_erps_tables(engine: AsyncEngine) -> None:
    """The ten pipeline tables are there, and the enum keeps its mixed case."""
    async with engine.connect() as connection:
        tables = await connection.scalar(
            text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'tds\\_%'")
        )
        kinds = await connection.scalar(text("SELECT enum_range(NULL::tds_entity_type)::text"))
    assert tables == 10
    assert "order,USER,PAYMENT,VENDOR,SUPPLIER" in kinds


async def test_databases_of_two_tests_do_not_meet(postgres: Postgres, erp_template: str) -> None:
    """What one clone holds, the next does not see."""
    first = await postgres.create_database("meet_1", template=erp_template)
    second = await postgres.create_database("meet_2", template=erp_template)
    try:
        await value(first, "INSERT INTO customers (zoho_contact_id) VALUES ('1') RETURNING 1")
        assert await value(second, "SELECT count(*) FROM customers") == 0
    finally:
        await postgres.drop_database("meet_1")
        await postgres.drop_database("meet_2")


async def test_killed_server_restarts_with_what_was_committed(short_folder: Path) -> None:
    """After kill -9 the same address answers again, and a committed row is still there."""
    server = Postgres.start(short_folder)
    try:
        await value(server.url(), "CREATE TABLE kept AS SELECT 7 AS seven")
        server.stop(signal.SIGKILL)
        server.restart()
        assert await value(server.url(), "SELECT seven FROM kept") == 7
    finally:
        server.stop()
    assert not server._answers()


def test_shared_memory_goes_with_the_folder(postgres: Postgres) -> None:
    """A killed server cannot remove its shared memory: it lies in the folder, and not in /dev/shm."""
    assert list((postgres.folder / "data" / "pg_dynshmem").iterdir()) != []


def test_port_that_somebody_took_is_replaced(short_folder: Path) -> None:
    """Between choosing a port and using it another program may take it."""
    server = Postgres.create(short_folder)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        taken = server.port
        server.launch()
    try:
        assert server.port != taken
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_server_ends_when_its_owner_is_killed(short_folder: Path) -> None:
    """kill -9 of the owner is no reason for a server to live on."""
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from rehearsal.postgres import Postgres;"
            "print(Postgres.start(Path(sys.argv[1])).process.pid, flush=True); time.sleep(600)",
            str(short_folder),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner.stdout:
        server = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
    wait_until(lambda: not alive(server))


def others_may_enter(path: Path) -> bool:
    """Whether an account that owns nothing can reach *path*: a checkout below root's own home is closed to it."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only for root")
@pytest.mark.skipif(
    not others_may_enter(module.binaries()),
    reason="the environment lies in a folder that is closed to nobody",
)
async def test_root_without_namespaces_runs_it_as_nobody(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where user namespaces are forbidden root still gets a server, and no folder is opened to others."""
    monkeypatch.setattr(module, "_NAMESPACE", ("false",))
    module._as_ordinary_user.cache_clear()
    try:
        server = Postgres.start(short_folder / "private")
        try:
            assert await value(server.url(), "SELECT 1") == 1
            assert os.lstat(short_folder / "private" / "data").st_uid == 65534
            assert os.lstat(short_folder).st_mode & 0o077 == 0
        finally:
            server.stop()
    finally:
        module._as_ordinary_user.cache_clear()


def test_missing_binaries_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without PostgreSQL the sentence names the extra and the variable."""
    monkeypatch.setenv(module.BINARIES_VARIABLE, str(tmp_path))
    module.binaries.cache_clear()
    try:
        with pytest.raises(module.PostgresError, match=r"tds-runbook\[rehearsal\].*TDS_PG_BIN"):
            module.binaries()
    finally:
        module.binaries.cache_clear()


def alive(pid: int) -> bool:
    """Whether *pid* runs; a zombie that nobody has collected yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
