"""The command line of this project, run by the people and the timers of a rehearsal as processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RUN = [sys.executable, "-m", "flows.cli"]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The object in the last line of stdout; empty where there is none."""
        try:
            value = json.loads(self.stdout.strip().rsplit("\n", 1)[-1])
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def sentence(self) -> str:
        """What it said, for a person."""
        return str(self.json.get("error") or self.json.get("reason") or self.stderr.strip()[-300:])


async def runbook(*words: str, variables: Mapping[str, str]) -> Done:
    """Run a command to its end, with *variables* as its whole environment. It is killed when we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        *_RUN,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=dict(variables),
    )
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Done(exit_code=process.returncode, stdout=stdout.decode(), stderr=stderr.decode())
