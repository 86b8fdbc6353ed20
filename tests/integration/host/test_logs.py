"""The units' logs: a bounded, redacted extract in the evidence, and in the report the errors that are new."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.database import clock
from handlers.host import logs
from handlers.report import evidence, gather
from tests.integration.host.ssh_target import Target, serve
from tests.integration.release.steps import deploying

READ = """awk -v since="$1" -v until="$2" '$1 >= since && $1 <= until' "$HOME/$3.log" | tail -n "$4" """
SECRET = "s3ntinel-passw0rd"


@pytest_asyncio.fixture(loop_scope="session")
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """Two hosts with a log that has times in it."""
    async with serve(tmp_path, "web-1", "web-2") as target:
        yield target


@pytest_asyncio.fixture(loop_scope="session")
async def core(target: Target, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Core]:
    """The core of a step; the database password is a secret that logs may contain."""
    (tmp_path / "password").write_text(SECRET)
    environment = target.environment(
        database={"password": f"file:{tmp_path / 'password'}"},
        services={"workers": [], "logs": ["sh", "-c", READ, "logs", "{since}", "{until}", "{unit}", "{lines}"]},
        reports={"directory": str(tmp_path / "reports")},
    )  # fmt: skip
    async with open_core(environment) as core:
        yield replace(core, database=engine)


def wrote(target: Target, host: str, *lines: tuple[float, str]) -> None:
    """Write lines to the log of a unit, with a time in the past."""
    now = time.time()
    told = "".join(f"{now - ago:.0f} {line}\n" for ago, line in lines)
    (target.hosts[host] / "tsh-erp.log").write_text(told)


async def test_errors_since_the_deploy_are_listed_new_ones_first(core: Core, target: Target) -> None:
    """Errors that differ only in numbers are grouped, old errors are marked, and a missing log is named."""
    deployed_at = await clock.now(core.database) - timedelta(seconds=100)
    wrote(
        target,
        "web-1",
        (5000, "ERROR cannot reach 10.0.0.1"),
        (4000, "ERROR only before"),
        (50, "ERROR cannot reach 10.0.0.9"),
        (40, "ERROR cannot reach 10.0.0.7"),
        (30, "INFO an order came"),
        (20, "ERROR no rate for item 31"),
    )
    found, missing = await logs.errors(core, deployed_at)
    assert [(one.lines, one.new) for one in found] == [(1, True), (2, False)]
    assert "no rate for item" in found[0].fingerprint
    assert found[1].where == ("web-1 tsh-erp",)
    assert len(missing) == 1
    assert missing[0].startswith("web-2 tsh-erp: ")


async def test_the_evidence_holds_a_bounded_and_redacted_extract(core: Core, target: Target) -> None:
    """The evidence has the last lines of each log without secrets, and the problem of a host that is down."""
    release = await deploying(core.database, "test")
    lines = [(0.0, f"line {number} password={SECRET}") for number in range(3 * logs.LINES_MAX)]
    wrote(target, "web-1", *lines)
    target.servers["web-2"].stop()
    saved = await evidence.save(core, release)
    assert "logs.txt" in saved.files
    text = (Path(saved.folder) / "logs.txt").read_text()
    assert SECRET not in text
    assert text.count("\n") < logs.LINES_MAX + 20
    assert f"line {len(lines) - 1} " in text
    assert "== web-2 tsh-erp\nweb-2 " in text


async def test_the_report_shows_the_errors_of_the_logs(core: Core, target: Target) -> None:
    """All forms of the report have the errors, and the logs that could not be read."""
    release = await deploying(core.database, "test")
    wrote(target, "web-1", (0, "ERROR no rate for item 31"))
    written = await gather.write(core, release)
    for form in ("md", "html", "json"):
        text = written[form].read_text()
        assert "no rate for item" in text
        assert "web-2 tsh-erp" in text
