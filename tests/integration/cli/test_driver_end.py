"""The message about a driver that died has its real error, whatever a library logged last."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import follow
from flows.driver_log import read_end, write_end
from handlers.errors import Refused

NOISE = "2026-11-28 10:00:00,000 WARNING prefect.events: could not send the last events\n"
TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
    raise KeyError("first")
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 2, in <module>
    connect()
sqlalchemy.exc.OperationalError: (x) the server closed the connection
[SQL: SELECT 1]
(Background on this error at: https://sqlalche.me/e/20/e3q8)
"""


BEFORE_MAIN = """Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
ModuleNotFoundError: No module named 'x'
"""


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        (TRACEBACK + NOISE, 1, "sqlalchemy.exc.OperationalError: (x) the server closed the connection"),
        (BEFORE_MAIN, 1, "ModuleNotFoundError: No module named 'x'"),
        (NOISE, 1, "could not send the last events"),
        ("", 1, "exit status 1, without any output"),
        (
            NOISE,
            -9,
            "it was killed by signal 9 (SIGKILL): by a person, or by the kernel when memory was short",
        ),
        (TRACEBACK, -15, "it was killed by signal 15 (SIGTERM)"),
    ],
)
def test_without_a_marked_error_the_best_evidence_counts(text: str, status: int, expected: str) -> None:
    """A signal, then the error of the last traceback, then the last line."""
    assert read_end(text, status) == expected


def test_a_marked_error_wins_over_later_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """It is one line, also when the sentence has several."""
    write_end(Refused("web-1 has the host key X,\nwhich is not recorded"))
    assert read_end(NOISE + capfd.readouterr().err + TRACEBACK + NOISE, 5) == (
        "web-1 has the host key X, which is not recorded"
    )
    write_end(ValueError("first\nsecond"))
    assert read_end(capfd.readouterr().err + NOISE, 1) == "ValueError: first"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of the test."""
    monkeypatch.setattr(follow, "STATE", tmp_path / "state")
    monkeypatch.setattr("handlers.state_folder.STATE", tmp_path / "state")
    return tmp_path / "state"


def test_a_real_driver_tells_its_error(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot read its environment; its log is private, and an older log of the same name does not count."""
    (state / "drivers").mkdir(parents=True)
    first = follow.start("execute", "no-such-place", "2026-11-28.1", "--without-prefect")
    first.process.wait(60)
    assert first.last_line().startswith("there is no environment 'no-such-place'")
    assert first.refused()
    assert stat.S_IMODE(first.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.log.parent.stat().st_mode) == 0o700
    second = follow.start("execute", "no-such-place", "2026-11-28.1", "--without-prefect")
    second.process.send_signal(signal.SIGKILL)
    second.process.wait(60)
    assert second.last_line().startswith("it was killed by signal 9 (SIGKILL)")


def test_an_unexpected_error_of_a_driver_is_its_last_word(tmp_path: Path) -> None:
    """A bug in the middle, and a thread that logs after it."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import asyncio, sys, threading, time\n"
        "from flows import driver\n"
        "async def broken(_):\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('noise', file=sys.stderr))).start()\n"
        "    raise KeyError('a bug')\n"
        "driver._run_until_signal = broken\n"
        "sys.argv = ['driver', 'execute', 'x', 'y']\n"
        "driver.main()\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.stderr.splitlines()[-1] == "noise"
    assert "Traceback" in done.stderr
    assert (done.returncode, read_end(done.stderr, done.returncode)) == (1, "KeyError: 'a bug'")
