"""Run stories on the command line, keep their targets for the tests, and remove them at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.sentinels import VARIABLE
from tests.acceptance.scanning import ProcessList

SPEED = "60"
CONCURRENT = 2
"""Stories that run concurrently: as many as a small machine has cores. It also tests that they do not interfere."""
STORY_SECONDS = 900
FAULTS: dict[str, tuple[str, ...]] = {
    "empty": ("database-away@activate:2", "environment-torn@watching:1", "second-manager@watching"),
    "slow": ("controller-killed@rolling_back",),
    "sick": ("host-away@back-activate/web-1:4", "noisy-shell@activate/web-1"),
}
"""Faults that these stories run under: the sample of what `make soak` tries. The other stories run without."""

OPTIONS = {"slow": ("--strategy", "releases")}
"""More options of these stories."""
WITH_SENTINELS = "treacherous"
"""The story with planted secrets: it has a drain, a rollback, evidence, a report and logs."""


@dataclass(frozen=True, kw_only=True)
class StoryRun:
    """The output and the exit status of a story; its target still runs."""

    exit_status: int
    stdout: str
    stderr: str
    folder: Path
    processes: ProcessList
    """The process list while it ran."""

    @property
    def json(self) -> dict[str, Any]:
        """The object in the last line of stdout."""
        last: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return last

    @property
    def environment(self) -> str:
        """The environment file of the kept target."""
        return str(self.folder / "rehearsal.toml")


class Stories:
    """Starts the requested stories, a few at a time, and removes their targets."""

    def __init__(self, home: Path, names: list[str]) -> None:
        self._environment = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home)}
        self.state = home / "state"
        self._pool = ThreadPoolExecutor(CONCURRENT)
        self._home = home
        self._runs: dict[str, Future[StoryRun]] = {
            name: self._pool.submit(self._run_story, name) for name in names
        }

    def __getitem__(self, name: str) -> StoryRun:
        """The finished run of a story."""
        if name not in self._runs:
            self._runs[name] = self._pool.submit(self._run_story, name)
        return self._runs[name].result(timeout=6 * STORY_SECONDS)

    def run(
        self, *words: str, timeout: float = 600, sentinels: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run another command of the same user."""
        planted = {VARIABLE: "1"} if sentinels else {}
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=self._environment | planted,
        )

    def end(self) -> None:
        """Remove every kept target."""
        self._pool.shutdown(cancel_futures=True)
        for future in self._runs.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                self.run("rehearse", "--end", future.result().json["kept"])

    def _run_story(self, name: str) -> StoryRun:
        faults = [word for fault in FAULTS.get(name, ()) for word in ("--fault", fault)]
        words = ("rehearse", name, "--json", "--keep", "--speed", SPEED, *OPTIONS.get(name, ()), *faults)
        with ProcessList() as processes:
            done = self.run(*words, timeout=STORY_SECONDS, sentinels=name == WITH_SENTINELS)
        try:
            kept = json.loads(done.stdout.strip().splitlines()[-1])["kept"]
        except (IndexError, KeyError, ValueError) as error:
            raise AssertionError(f"story {name} printed no result: {done.stdout} {done.stderr}") from error
        return StoryRun(
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            folder=self._home / f"tds-rehearsal-{kept}",
            processes=processes,
        )
