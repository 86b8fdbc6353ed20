"""Rehearsals under faults, run on the command line as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEED = "120"
SECONDS = 3000
"""The timeout of one rehearsal; it only ends a failed test."""
EXIT_CODES = {"good": 0, "sick": 2, "treacherous": 2, "slow": 2, "empty": 0}


@dataclass(frozen=True, kw_only=True)
class FaultRun:
    """The output of a rehearsal under faults."""

    story: str
    exit_status: int
    result: dict[str, Any]
    stderr: str

    @property
    def shown(self) -> str:
        """Everything a failed test should say."""
        return f"{json.dumps(self.result, indent=1)}\n{self.stderr}"

    def assert_consistent(self) -> None:
        """Every fault that came was injected, and hosts, ledger and queue agree."""
        assert "Traceback" not in self.stderr, self.stderr
        assert self.result.get("inconsistencies") == [], self.shown
        assert {fault["outcome"] for fault in self.result["faults"]} <= {"injected", "never came"}, self.shown

    def assert_injected(self) -> None:
        """Every fault came: the case tests what it says."""
        assert {fault["outcome"] for fault in self.result["faults"]} == {"injected"}, self.shown

    def assert_ends_as_without(self) -> None:
        """The release ends as it does when nothing breaks."""
        self.assert_consistent()
        assert self.exit_status == EXIT_CODES[self.story], self.shown

    def assert_ends(self) -> None:
        """The release ends as without, or safely on the previous revision; never undecided or failed."""
        self.assert_consistent()
        assert self.exit_status in {EXIT_CODES[self.story], 2, 5}, self.shown


def rehearse(home: Path, story: str, *faults: str, options: tuple[str, ...] = ()) -> FaultRun:
    """Run a rehearsal to its end. Its files are in *home*."""
    words = [word for fault in faults for word in ("--fault", fault)]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "rehearse", story, "--json", "--speed", SPEED, *words, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
    )
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise AssertionError(f"no result of {story} {faults}: {done.stdout} {done.stderr}") from error
    return FaultRun(story=story, exit_status=done.returncode, result=result, stderr=done.stderr)
