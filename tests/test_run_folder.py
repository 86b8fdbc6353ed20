"""A run of the tests that is ended from outside leaves no process and no folder, whatever it had started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import run_folder

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leftovers are looked for in /proc")

TEST = """
import asyncio, os, signal, subprocess, sys
from pathlib import Path

from rehearsal.hosts.host import RehearsalHost
from rehearsal.postgres import Postgres


def test_starts_and_waits(postgres, tmp_path):
    \"\"\"A server that ends with us, one that does not, a unit of a host, and a command of a session of its own.\"\"\"
    Postgres.start(tmp_path / "kept", tied=False)
    host = RehearsalHost.make("web-1", tmp_path / "host", rehearsal_id="none")
    (host.folder / "units" / "sleeper.service").write_text("[Service]\\nExecStart=/bin/sleep 600\\nRestart=always\\n")
    assert host.systemctl("start", "sleeper").returncode == 0
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    place = Path(os.environ["TELL"])
    (place / "new").write_text(str(os.getpid()))
    (place / "new").rename(place / "started")
    signal.pause()


def test_ends_at_once():
    pass
"""
STARTED = 5
"""Two servers, a supervisor, its unit, and a command; the servers have children."""


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Look again and again, with a bound, until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


class Inner:
    """Runs of pytest below this one, whose temporary files are all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "tmp"
        self.tell = folder / "tell"
        self.file = folder / "test_inner.py"
        for path in (self.place, self.tell):
            path.mkdir()
        self.file.write_text(TEST, encoding="utf-8")

    @contextmanager
    def start(self, *options: str, name: str = "test_starts_and_waits") -> Iterator[subprocess.Popen[str]]:
        """A run with the fixtures of this project; killed at the end if it still lives."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
                *(*options, f"{self.file}::{name}"),
            ],
            cwd=ROOT,
            env={**ours, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.place), "TELL": str(self.tell)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run:
            try:
                yield run
            finally:
                run.kill()

    def test_pid(self, run: subprocess.Popen[str]) -> int:
        """Wait until its test has started everything; the process that the test runs in."""
        file = self.tell / "started"
        until(lambda: file.exists() or run.poll() is not None, "the inner test has started everything")
        assert run.poll() is None, run.communicate()[0]
        assert len(run_folder.find(self.place)) > STARTED
        return int(file.read_text())

    def reapers(self) -> list[int]:
        """The reapers of runs in the folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"run_folder.py\0" in command and os.fsencode(self.place) in command:
                found.append(int(process.name))
        return found

    def has_nothing(self, *, kept: bool = False) -> bool:
        """Whether neither process, nor reaper, nor folder is there; *kept* is the folder of a run that failed."""
        folders = [path for path in self.place.iterdir() if not kept or not (path / "kept").exists()]
        return not run_folder.find(self.place) and not self.reapers() and folders == []


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    """A place for runs; whatever a failed test left in it is ended."""
    made = Inner(tmp_path)
    yield made
    run_folder.end(made.place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_run_that_is_ended_leaves_nothing(
    inner: Inner, options: tuple[str, ...], number: signal.Signals
) -> None:
    """SIGTERM or SIGKILL of pytest: servers, detached processes, workers and folders go by themselves."""
    with inner.start(*options) as run:
        inner.test_pid(run)
        run.send_signal(number)
        assert run.wait(60) == -number
    until(inner.has_nothing, "everything is gone")


def test_what_a_killed_worker_left_ends_with_the_run(inner: Inner) -> None:
    """xdist goes on when a worker is killed; at the end of the run nothing of that worker is there."""
    with inner.start("-n", "1", "--max-worker-restart", "0") as run:
        worker = inner.test_pid(run)
        assert worker != run.pid
        os.kill(worker, signal.SIGKILL)
        assert "crashed" in run.communicate()[0]
    assert inner.has_nothing(kept=True)


def test_the_next_run_clears_what_nobody_could(inner: Inner) -> None:
    """The reaper is killed with its run: the next run ends the processes and removes the folder."""
    with inner.start() as run:
        inner.test_pid(run)
        [reaper] = inner.reapers()
        os.kill(reaper, signal.SIGKILL)
        run.kill()
    assert not inner.has_nothing()
    with inner.start(name="test_ends_at_once") as following:
        assert "1 passed" in following.communicate()[0]
    assert inner.has_nothing()


def test_a_failed_run_keeps_its_files_until_the_next(inner: Inner) -> None:
    """Whoever asks why a test failed finds its logs; nothing runs any more, and the next run removes them."""
    with inner.start(name="test_that_is_not_there") as failed:
        failed.communicate()
    assert failed.returncode != 0
    assert not inner.has_nothing()
    assert inner.has_nothing(kept=True)
    with inner.start(name="test_ends_at_once") as following:
        following.communicate()
    assert inner.has_nothing()


def test_a_run_spares_one_that_lives_and_what_it_did_not_start(inner: Inner) -> None:
    """A second run beside it, and a stranger that looks at its files, are nobody's leftovers."""
    with inner.start() as run:
        inner.test_pid(run)
        [folder] = inner.place.iterdir()
        stranger = subprocess.Popen(["sleep", "600"], cwd=folder, env={"PWD": str(folder)})
        try:
            with inner.start(name="test_ends_at_once") as second:
                assert "1 passed" in second.communicate()[0]
            assert run.poll() is None
            assert len(run_folder.find(folder)) >= STARTED
            run.terminate()
            run.wait(60)
            until(inner.has_nothing, "everything is gone")
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()
