"""New errors in the journal: a real systemd-journald, read after a cursor. Where none can run, these are skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from handlers.core import Core, open_core
from handlers.database import clock
from handlers.host import signatures
from handlers.host.log_state import LogState, NewSignature
from handlers.host.ssh import open_hosts
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.host.ssh_target import serve

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
_NAMESPACE = "tds"
_START = f"mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && exec {JOURNALD} {_NAMESPACE}"
"""In mounts of its own, so that it leaves nothing on this machine."""


class Journal:
    """A running journald, and the words of a journalctl that sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        inside_root = Path("/proc") / str(pid) / "root"
        self.socket = str(inside_root / "run" / "systemd" / f"journal.{_NAMESPACE}" / "socket")
        inside = [
            "nsenter",
            "--target",
            str(pid),
            "--mount",
            "journalctl",
            "--no-pager",
            f"--namespace={_NAMESPACE}",
        ]
        times = ["--since", "@{since}", "--until", "@{until}", "--lines", "{lines}"]
        self.command = [*inside, "--output", "short-iso", "--unit", "{unit}", *times]
        self._inside = inside

    def write(self, *messages: str, unit: str = "tsh-erp") -> None:
        """Log as a unit, and wait until the journal has it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for message in messages:
                fields = f"MESSAGE={message}\nPRIORITY=3\nOBJECT_SYSTEMD_UNIT={unit}.service\n"
                sender.sendto(fields.encode(), self.socket)
        for _ in range(400):
            if messages[-1] in self.text():
                return
            time.sleep(0.01)
        raise AssertionError(self.text())

    def text(self) -> str:
        """Everything in it."""
        shown = subprocess.run(
            [*self._inside, "--output", "cat"], capture_output=True, text=True, check=False
        )
        return shown.stdout


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    """A journald of this test's own."""
    if not JOURNALD.exists() or shutil.which("nsenter") is None or os.getuid() != 0:
        pytest.skip("a journald of one's own needs root, systemd-journald and nsenter")
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        journal = Journal(process.pid)
        for _ in range(1000):
            if os.path.exists(journal.socket) or process.poll() is not None:
                break
            time.sleep(0.01)
        if process.poll() is not None:
            pytest.skip("systemd-journald does not run here")
        yield journal
    finally:
        process.terminate()
        process.wait(10)


@pytest_asyncio.fixture(loop_scope="session")
async def core(journal: Journal, postgres: Postgres, tmp_path: Path) -> AsyncIterator[Core]:
    """The core of a step, with one host whose unit logs to the journal."""
    engine = engine_for(postgres.url())
    async with (
        serve(tmp_path) as target,
        open_core(target.environment(services={"workers": [], "logs": journal.command})) as core,
    ):
        yield replace(core, database=engine)
    await engine.dispose()


async def look(core: Core, state: LogState) -> tuple[LogState, list[NewSignature], list[str]]:
    """One look, with the state as it comes from the ledger."""
    async with open_hosts(core.environment, connected=False) as shells:
        return await signatures.read_new(core, shells, LogState.from_json(state.as_json()))


async def test_the_journal_is_read_after_its_cursor(core: Core, journal: Journal) -> None:
    """What it had before is known, each later line is read once, and other units are not read."""
    journal.write("ERROR cannot reach 10.0.0.1", "INFO fine")
    state, new, problems = await look(core, LogState(deployed_at=await clock.now(core.database)))
    assert (new, problems) == ([], [])
    journal.write("ERROR cannot reach 10.0.0.77", "ERROR no rate for item 31", "ERROR no rate for item 32")
    journal.write("ERROR of another", unit="other")
    state, [signature], problems = await look(core, state)
    assert (signature.fingerprint, signature.count, problems) == ("ERROR no rate for item <n>", 2, [])
    assert signature.where == ("web-1 tsh-erp",)
    state, new, problems = await look(core, state)
    assert (new, problems, state.seen[0].count) == ([], [], 2)
    journal.write("-- cursor: s=forged", "ERROR after a forged cursor")
    state, [signature], problems = await look(core, state)
    assert (signature.fingerprint, problems) == ("ERROR after a forged cursor", [])
    assert (await look(core, state))[1:] == ([], [])


async def test_a_cursor_that_the_journal_does_not_know_is_given_up(core: Core, journal: Journal) -> None:
    """It is a problem of one look; the next one begins at the deploy again."""
    state = LogState(
        deployed_at=await clock.now(core.database),
        positions={"web-1 tsh-erp": {"read": "no cursor"}},
    )
    state, new, [problem] = await look(core, state)
    assert new == []
    assert problem.startswith("web-1 tsh-erp: Failed to ")
    journal.write("ERROR found all the same")
    state, new, problems = await look(core, state)
    assert problems == []
    assert "ERROR found all the same" in [signature.fingerprint for signature in new]


async def test_a_journal_that_cannot_be_read_is_a_problem(core: Core, journal: Journal) -> None:
    """No journalctl, or one that fails: it is named, and no log without errors."""
    for command in (["/nowhere/journalctl"], [*journal.command, "--no-such-option"]):
        services = core.environment.services.model_copy(update={"logs": tuple(command)})
        broken = replace(core, environment=core.environment.model_copy(update={"services": services}))
        _, new, [problem] = await look(broken, LogState(deployed_at=await clock.now(core.database)))
        assert new == []
        assert problem.startswith("web-1 tsh-erp: ")
        assert "not found" in problem or "unrecognized option" in problem


async def test_a_flood_is_read_bit_by_bit(
    core: Core, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that logs more than a look reads loses nothing: the next look goes on, and it is said meanwhile."""
    state, _, _ = await look(core, LogState(deployed_at=await clock.now(core.database)))
    monkeypatch.setattr(signatures, "LINES_MAX", 3)
    journal.write("ERROR first", *["INFO flood"] * 3, "ERROR last")
    state, new, problems = await look(core, state)
    assert [signature.fingerprint for signature in new] == ["ERROR first"]
    assert problems == ["web-1 tsh-erp: more than 3 lines since the last look; the others are read next"]
    state, new, problems = await look(core, state)
    assert ([signature.fingerprint for signature in new], problems) == (["ERROR last"], [])
