"""Who holds a lock: a process is told from all others, and is dead only where this machine certainly knows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.release.controller import Controller, controller_name, this_controller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[bytes], Controller]]:
    """A running process, and what it would write into a lock."""
    us = this_controller()
    assert us is not None
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    try:
        yield process, replace(us, name=f"vm:{process.pid}", pid=process.pid, started=int(stat[19]))
    finally:
        process.kill()
        process.wait()


def test_this_process_has_not_ended() -> None:
    """It names itself, and is alive."""
    us = this_controller()
    assert us is not None
    assert us.name == controller_name()
    assert not us.has_ended()


def test_a_killed_process_has_ended_even_if_its_parent_took_no_notice(
    child: tuple[subprocess.Popen[bytes], Controller],
) -> None:
    """A zombie still has its number, and carries nothing on."""
    process, controller = child
    assert not controller.has_ended()
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert controller.has_ended()
    process.wait()
    assert controller.has_ended()


def test_a_suspended_process_has_not_ended(child: tuple[subprocess.Popen[bytes], Controller]) -> None:
    """It may wake at any time: only the expiry of its lock lets another one in."""
    process, controller = child
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not controller.has_ended()


def test_another_process_with_the_same_number_is_another_one(
    child: tuple[subprocess.Popen[bytes], Controller],
) -> None:
    """Numbers are used again: the start tells the two apart."""
    _, controller = child
    assert replace(controller, started=controller.started - 1).has_ended()


@pytest.mark.parametrize("elsewhere", [{"boot": "another kernel"}, {"namespace": "pid:[1]"}])
def test_what_happens_elsewhere_is_not_known(elsewhere: dict[str, str]) -> None:
    """Another machine, or another container with the same host name: its processes cannot be seen from here."""
    us = this_controller()
    assert us is not None
    assert not replace(us, pid=2**22 + 1, **elsewhere).has_ended()


def test_a_lock_that_another_version_took_says_nothing() -> None:
    """An older controller leaves the former process in the row, under its own name."""
    us = this_controller()
    assert us is not None
    assert Controller.from_json(us.as_json(), us.name) == us
    assert Controller.from_json(us.as_json(), "vm:1") is None
    for stored in (None, {}, {"name": us.name, "pid": 3}):
        assert Controller.from_json(stored, us.name) is None
