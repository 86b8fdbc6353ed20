"""Runs stories of a rehearsal on the command line, keeps their targets for the tests, and ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEED = "120"
AT_ONCE = 2
"""Stories that run at the same time: as many as a small machine has cores, which also shows that they do not meet."""
STORY_SECONDS = 280


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a story printed and how it ended; its target still runs."""

    exit_status: int
    stdout: str
    stderr: str
    folder: Path

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
    """Starts the stories that were asked for, a few at once, and ends their targets."""

    def __init__(self, home: Path, names: list[str]) -> None:
        self._environment = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home)}
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._home = home
        self._told: dict[str, Future[Told]] = {name: self._pool.submit(self._tell, name) for name in names}

    def __getitem__(self, name: str) -> Told:
        """The story, told to its end."""
        if name not in self._told:
            self._told[name] = self._pool.submit(self._tell, name)
        return self._told[name].result(timeout=6 * STORY_SECONDS)

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Another command of the same user."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=self._environment,
        )

    def end(self) -> None:
        """End every target that was kept."""
        self._pool.shutdown(cancel_futures=True)
        for told in self._told.values():
            if told.done() and not told.cancelled() and told.exception() is None:
                self.run("rehearse", "--end", told.result().json["kept"])

    def _tell(self, name: str) -> Told:
        done = self.run("rehearse", name, "--json", "--keep", "--speed", SPEED, timeout=STORY_SECONDS)
        try:
            kept = json.loads(done.stdout.strip().splitlines()[-1])["kept"]
        except (IndexError, KeyError, ValueError) as error:
            raise AssertionError(f"story {name} told nothing: {done.stdout} {done.stderr}") from error
        return Told(
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            folder=self._home / f"tds-rehearsal-{kept}",
        )
