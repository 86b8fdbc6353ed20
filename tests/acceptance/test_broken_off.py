"""Ctrl-C while a rehearsal runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    folder = tmp_path_factory.mktemp("broken-off")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_ctrl_c_removes_the_target_and_says_so(home: Path) -> None:
    """An interrupted rehearsal prints one sentence, exits with 130, and leaves neither traceback nor target."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "rehearse", "good", "--plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert _until(process, "ready after"), process.communicate(timeout=600)
        assert list(home.glob("tds-rehearsal-*"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert errors == "runbook: rehearsal interrupted; its target was removed\n"
    assert list(home.glob("tds-rehearsal-*")) == []


def _until(process: subprocess.Popen[str], needle: str) -> bool:
    """Read what *process* prints up to a line with *needle*; false when it ends before."""
    assert process.stdout is not None
    return any(needle in line for line in process.stdout)
