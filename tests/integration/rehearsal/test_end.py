"""The end of a rehearsal, however it comes: nothing stays, and nobody else's is touched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from handlers.environment.load import load_environment
from handlers.erp.adopt import adopt
from rehearsal import erp, lifecycle, processes
from rehearsal.running import in_thread
from rehearsal.target import Target
from rehearsal.webhooks import backlog
from tests.conftest import engine_for
from tests.integration.rehearsal.target_steps import folders, health, statuses

UP = """
import asyncio, signal, sys
from pathlib import Path
from rehearsal.target import Target

# Whoever runs the tests in the background made us ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

async def main():
    async with Target.create("empty", folder=Path(sys.argv[1]), keep="keep" in sys.argv) as target:
        print(target.id, flush=True)
        if "keep" not in sys.argv:
            await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def parent(short_folder: Path) -> Iterator[Path]:
    """A folder for the folders of rehearsals; whatever a failed test left in it is ended."""
    yield short_folder
    for folder in folders(short_folder):
        lifecycle.end(folder.name.removeprefix("tds-rehearsal-"), short_folder)


def start(parent: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UP, str(parent), *words], stdout=subprocess.PIPE, text=True
    )


def left(parent: Path, pid: int) -> list[int]:
    """The processes that carry the marker of a rehearsal that *pid* started, or work on something in *parent*."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        mark = f"{processes.MARKER}={pid}-".encode()
        if f"{parent}/".encode() in command or any(word.startswith(mark) for word in words):
            found.append(int(entry.name))
    return found


def nothing_left(parent: Path, pid: int) -> bool:
    return not folders(parent) and not left(parent, pid)


async def test_two_rehearsals_do_not_meet(parent: Path) -> None:
    """Two at once have folders, ports and databases of their own; the end of one leaves the other alone."""
    async with Target.create("empty", folder=parent) as first:
        async with Target.create("good", folder=parent) as second:
            ports = [
                port
                for one in (first, second)
                for host in one.hosts
                for port in (host.http_port, host.door.port)
            ]
            assert len({*ports, first.server.port, second.server.port}) == 10
            assert await statuses(first) == {}
            assert await statuses(second) == {"dead_letter": 58}
        assert (await health(first.hosts[0]))[0] == 200
        assert await statuses(first) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_leaves_nothing(parent: Path, number: signal.Signals) -> None:
    """SIGTERM, Ctrl-C or a closed terminal: no process and no folder stays."""
    with start(parent) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        owner.send_signal(number)
        assert owner.wait(timeout=30) != 0
    assert nothing_left(parent, owner.pid)


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.5])
def test_sigterm_in_the_middle_of_the_start_leaves_nothing(parent: Path, delay: float) -> None:
    """Whatever was being started at that moment is taken away."""
    with start(parent) as owner:
        with pytest.raises(subprocess.TimeoutExpired):
            owner.wait(timeout=delay)
        owner.send_signal(signal.SIGTERM)
        owner.wait(timeout=30)
    assert nothing_left(parent, owner.pid)


@pytest.mark.parametrize("delay", [None, 1.0])
def test_next_start_clears_what_a_sigkill_left(parent: Path, delay: float | None) -> None:
    """kill -9, also in the middle of the start: a later rehearsal ends the orphans and removes the folder."""
    with start(parent) as owner:
        assert owner.stdout is not None
        if delay is None:
            assert owner.stdout.readline()
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                owner.wait(timeout=delay)
        owner.kill()
        owner.wait()
    orphaned = folders(parent)
    assert len(lifecycle.sweep(parent)) == len(orphaned)
    assert nothing_left(parent, owner.pid)
    assert lifecycle.sweep(parent) == []


async def test_sweep_spares_the_living_and_the_kept(parent: Path) -> None:
    """Only what nobody owns any more is cleared."""
    async with Target.create("empty", folder=parent) as living:
        with start(parent, "keep") as owner:
            assert owner.stdout is not None
            kept = owner.stdout.readline().strip()
            assert owner.wait(timeout=30) == 0
        assert lifecycle.sweep(parent) == []
        assert lifecycle.kept(parent) == [kept]
        assert (await health(living.hosts[0]))[0] == 200
        environment = load_environment(str(parent / f"tds-rehearsal-{kept}" / "rehearsal.toml"))
        async with httpx.AsyncClient(trust_env=False) as http:
            for host in environment.hosts:
                assert (await http.get(host.health_url)).status_code == 200
        assert lifecycle.end(kept, parent)
        assert not lifecycle.end(kept, parent)
    assert nothing_left(parent, owner.pid)


def test_foreign_process_with_the_owners_number_saves_nobody(parent: Path) -> None:
    """A process id that was given again is not the owner: its start time tells."""
    rehearsal_id, folder = lifecycle.make(parent)
    owner = lifecycle.Owner(id=rehearsal_id, pid=os.getpid(), started_at="1")
    lifecycle._write(folder, owner)
    assert lifecycle.sweep(parent) == [rehearsal_id]


@pytest.mark.parametrize("looks", [3, 5, 8, 13, 21])
async def test_a_start_that_is_cancelled_while_it_fills_the_database_ends(erp_url: str, looks: int) -> None:
    """Its driver swallows a cancellation in the middle of many rows, and then waits for ever."""
    engine = engine_for(erp_url)
    try:
        await adopt(engine)
        filling = asyncio.create_task(backlog.seed(engine))
        for _ in range(looks):
            await asyncio.sleep(0.01)
        filling.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait({filling})
        assert filling.cancelled()
    finally:
        await engine.dispose()


async def test_cancelled_start_waits_for_its_thread() -> None:
    """A thread cannot be cancelled: leaving it behind would go on starting things after the clean-up."""
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    asyncio.get_running_loop().call_later(0.2, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_error_in_the_story_takes_the_target_away(parent: Path) -> None:
    """An exception in the middle of a story is no reason to leave processes behind."""
    with pytest.raises(RuntimeError, match="in the middle"):
        async with Target.create("empty", folder=parent) as target:
            raise RuntimeError("in the middle")
    assert not folders(parent)
    assert processes.find(target.id, target.folder) == []


async def test_target_that_cannot_start_says_why(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one part does not come up there is one error that names it, and the other parts are taken away."""
    monkeypatch.setattr(erp, "HISTORY", {**erp.HISTORY, "bad name": "a revision that git refuses"})
    with pytest.raises(RuntimeError, match="git fast-import failed"):
        async with Target.create("empty", folder=parent):
            raise AssertionError("it must not come up")
    assert not folders(parent)
