"""`runbook verify`: whether an environment is well, at any time; what cannot be read is never well."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.core import Core, open_core
from handlers.measurements.measurement import State
from handlers.phases import synthetic
from handlers.queue.event import EntityType
from handlers.report.gather import gather_place, texts
from tests.integration.host.ssh_target import Target, serve
from tests.integration.queue.events import change, dead_letter, event

DAY = 86_400.0
NO_LOGS = {"web": [], "workers": [], "logs": [], "log_files": []}
HEALTH = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"revision": "abcdef0123"}'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One host for all tests."""
    async with serve(tmp_path_factory.mktemp("verify")) as target:
        yield target


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def health() -> AsyncIterator[str]:
    """A service that answers as a healthy ERP does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEALTH)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/health"


@pytest_asyncio.fixture(loop_scope="session")
async def core(target: Target, health: str, engine: AsyncEngine) -> AsyncIterator[Core]:
    """The tools of a step, on the test's database and one healthy host."""
    environment = target.environment(services=NO_LOGS)
    host = environment.hosts[0].model_copy(update={"health_url": health})
    async with open_core(environment.model_copy(update={"hosts": (host,)})) as core:
        yield replace(core, database=engine)


async def applied(engine: AsyncEngine, number: int) -> None:
    """So many customers that were applied a second ago."""
    done = {"status": "completed", "started_at": "sql:now() - interval '1 s'", "completed_at": "sql:now()"}
    for each in range(number):
        await event(engine, f"done {each}", entity=EntityType.CUSTOMER, age=2, **done)


async def test_a_place_that_is_well_is_good(core: Core, engine: AsyncEngine) -> None:
    """No release is needed. The hosts and their revisions are there."""
    await applied(engine, 20)
    report = await gather_place(core, seconds=DAY)
    assert report["verification"]["answer"] == "good", report["verification"]["sentence"]
    assert report["hosts_now"] == [
        {"name": "web-1", "revision": "abcdef0123", "problem": "", "answered": True}
    ]
    assert report["release"] is None


async def test_the_five_sections_of_the_source_are_there(core: Core, engine: AsyncEngine) -> None:
    """Queue with percentages, dead letters, times, by type, and errors with the text of one."""
    await applied(engine, 18)
    died = {
        "error_message": "Failing row contains (7, Ms Customer). no rate for item 31",
        "started_at": "sql:now()",
    }
    await dead_letter(engine, "31", **died)
    await dead_letter(engine, "32", **died | {"error_message": "no rate for item 32"})
    report = await gather_place(core, seconds=DAY)
    statuses = {row["status"]: (row["events"], row["percent"]) for row in report["window"]["statuses"]}
    assert statuses == {"completed": (18, 90.0), "dead_letter": (2, 10.0)}
    assert [(row["entity"], row["code"], row["events"]) for row in report["letters"]] == [
        ("Product", "xd2s", 2)
    ]
    [times] = report["processing"]
    assert times["completed"] == report["all_processing"]["completed"] == 18
    assert 0.9 < times["applying_average"] < 1.1
    assert times["a_minute"] == pytest.approx(18 / 1440)
    assert {(row["entity"], row["completed"], row["failed"]) for row in report["types"]} == {
        ("Customer", 18, 0),
        ("Product", 0, 2),
    }
    actual = {error["fingerprint"]: error["actual"] for error in report["errors"]}
    assert actual["no rate for item <n>"] == "no rate for item 32"
    assert "Ms Customer" not in json.dumps(report)
    assert report["verification"]["answer"] == "not good"
    assert any(step.startswith("runbook drain -e test") for step in report["verification"]["next"])
    assert report["course"][-1]["ended"] == 20
    made = texts(report)
    for form in ("md", "html"):
        assert "no rate for item 32" in made[form]
        assert "90.0 %" in made[form]
    assert made["html"].count("<svg") == 3
    assert "<script" not in made["html"]


async def test_depth_and_age_follow_the_events(core: Core, engine: AsyncEngine) -> None:
    """An event that waits for half a day is in the second half of the picture."""
    await event(engine, "waits", age=DAY / 2)
    course = (await gather_place(core, seconds=DAY))["course"]
    assert [point["open"] for point in course[:23]] == [0] * 23
    assert [point["open"] for point in course[25:]] == [1] * 23
    assert course[-1]["oldest_seconds"] == pytest.approx(DAY / 2, abs=60)
    assert {point["success_percent"] for point in course} == {None}


async def test_what_is_older_than_the_window_is_not_in_it(core: Core, engine: AsyncEngine) -> None:
    """But what waits since before is."""
    await event(engine, "old", age=7200, status="completed", completed_at="sql:now() - interval '1 h 59 min'")
    await event(engine, "waits", age=7200)
    report = await gather_place(core, seconds=3600)
    assert {row["status"]: row["events"] for row in report["window"]["statuses"]} == {"pending": 1}
    assert report["processing"] == []


async def test_synthetic_events_are_in_no_section(core: Core, engine: AsyncEngine) -> None:
    """They are the release's own."""
    async with engine.begin() as tx:
        ids = [await synthetic.insert(tx, "r"), await synthetic.remove(tx, "r")]
    await change(engine, ids[0], status="dead_letter", error_message="boom", error_code="x")
    report = await gather_place(core, seconds=DAY)
    assert (report["types"], report["letters"], report["errors"], report["window"]["events"]) == (
        [],
        [],
        [],
        0,
    )


async def test_an_empty_queue_is_not_decidable(core: Core) -> None:
    """No data is never good."""
    report = await gather_place(core, seconds=DAY)
    assert report["verification"]["answer"] == "not decidable"
    assert "fewer than 20 tell nothing" in report["verification"]["sentence"]
    assert "There is no picture" in texts(report)["html"]


async def test_without_the_database_there_is_a_report_that_says_so(core: Core) -> None:
    """The hosts are asked in any case."""
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    report = await gather_place(replace(core, database=nowhere), seconds=DAY)
    await nowhere.dispose()
    assert report["verification"]["answer"] == "not decidable"
    assert report["hosts_now"][0]["revision"] == "abcdef0123"
    assert "does not answer" in texts(report)["md"]
    assert texts(report)["html"]


async def test_a_queue_that_row_security_hides_is_not_an_empty_one(
    core: Core, engine: AsyncEngine, database_url: str
) -> None:
    """It would look well."""
    await applied(engine, 20)
    async with engine.begin() as tx:
        await tx.exec_driver_sql("DROP ROLE IF EXISTS verify_reader")
        await tx.exec_driver_sql("CREATE ROLE verify_reader LOGIN PASSWORD 'verify'")
        await tx.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO verify_reader")
        await tx.exec_driver_sql("GRANT USAGE ON SCHEMA runbook TO verify_reader")
        await tx.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA runbook TO verify_reader")
        await tx.exec_driver_sql("ALTER TABLE tds_sync_queue ENABLE ROW LEVEL SECURITY")
    reader = create_async_engine(
        make_url(database_url).set(
            drivername="postgresql+asyncpg", username="verify_reader", password="verify"
        )
    )
    report = await gather_place(replace(core, database=reader), seconds=DAY)
    await reader.dispose()
    async with engine.begin() as tx:
        await tx.exec_driver_sql("DROP OWNED BY verify_reader")
        await tx.exec_driver_sql("DROP ROLE verify_reader")
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["success_24h"]["state"] == State.SOURCE_DOWN
    assert "row" in checks["success_24h"]["sentence"], checks["success_24h"]["sentence"]
    assert checks["silent_workers"]["state"] == State.SOURCE_DOWN
    assert report["verification"]["answer"] == "not decidable"


async def test_text_from_outside_cannot_break_the_report(core: Core, engine: AsyncEngine) -> None:
    """An error text makes no script, cell or heading."""
    await dead_letter(engine, "1", error_message="<script>alert(1)</script> | `x`\n# heading")
    made = texts(await gather_place(core, seconds=DAY))
    assert "<script" not in made["html"]
    assert not [line for line in made["md"].splitlines() if line.startswith("# heading")]


async def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """`runbook verify` as a process: its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows.cli", "verify", *arguments,
        cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_says_what_is_wrong_and_what_to_type(
    engine: AsyncEngine, database_url: str, health: str, tmp_path: Path
) -> None:
    """Exit code 4, the page in a private file, and one JSON object for programs."""
    await applied(engine, 30)
    file = tmp_path / "shop.toml"
    url = make_url(database_url).render_as_string(hide_password=False)
    file.write_text(
        f'name = "shop"\n[database]\nurl = "{url}"\n[ssh]\nuser = "nobody"\nkey_file = "/none"\n'
        'known_hosts_file = "/none"\n[[hosts]]\nname = "web-1"\naddress = "127.0.0.1"\nport = 1\n'
        f'health_url = "{health}"\n[deploy]\ndirectory = "/srv/erp"\n[services]\nlogs = []\n'
    )
    page = tmp_path / "page.html"
    code, out, err = await run("-e", str(file), "--html", str(page), cwd=tmp_path)
    assert (code, err) == (4, "")
    assert out.startswith("shop is NOT DECIDABLE: load web-1: it could not be read: ")
    assert f"  next: runbook check -e {file}" in out
    assert "[good] success_24h: 30 of 30" in out
    assert page.stat().st_mode & 0o777 == 0o600
    assert page.read_text().startswith("<!doctype html>")
    code, out, _ = await run("-e", str(file), "--json", "--since", "90m", cwd=tmp_path)
    found: dict[str, Any] = json.loads(out)
    assert (code, found["verification"]["answer"]) == (4, "not decidable")
    async with engine.begin() as tx:
        await tx.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "yesterday"), "--since 'yesterday' is no span of time: say 90m, 24h or 7d"),
        (("--since", "0h"), "--since '0h' must be between 1m and 31d"),
        (("--since", "40d"), "--since '40d' must be between 1m and 31d"),
        (("--json", "--markdown"), "two formats"),
    ],
)
async def test_bad_input_is_refused_in_one_sentence(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    """Before anything is asked."""
    code, _, err = await run("-e", "nowhere", *arguments, cwd=tmp_path)
    assert code == 5
    assert says in err
    assert err.count("\n") == 1
