"""What a process does with the signals that end it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, os, signal, sys
from handlers.process import cancelled_by_sigterm
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
async def work():
    with cancelled_by_sigterm():
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.2)
    print("done", signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
asyncio.run(work())
"""


def run(how: str) -> subprocess.CompletedProcess[str]:
    """Run a process that sends SIGHUP to itself."""
    command = [sys.executable, "-c", PROGRAM, how]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_with_nohup_a_closed_terminal_ends_nothing() -> None:
    """The process goes on, and ignores SIGHUP afterwards too."""
    done = run("nohup")
    assert (done.returncode, done.stdout) == (0, "done True\n"), done.stderr


def test_a_closed_terminal_ends_the_work() -> None:
    """Its cleanup runs, and the exit code is that of a signal."""
    assert run("plain").returncode == 143
