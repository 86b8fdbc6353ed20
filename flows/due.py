"""The schedule's part of "somebody always carries it on": once a minute it continues what nobody carries."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

log = logging.getLogger(__name__)

LIMIT_SECONDS = 110.0
"""The command waits up to a minute for the end of a silent controller's lock, then starts a driver and returns."""


@flow(name="resume-due", flow_run_name="resume-due")
async def resume_due() -> State[None]:
    """Continue every release that is due, in all environments: the same as `runbook resume --due --detach`.

    The releases run in processes of their own, so that this run ends in seconds, and its end ends no release.
    """
    return await run_command("resume", "--due", limit_seconds=LIMIT_SECONDS, found="Continued")


async def run_command(*words: str, limit_seconds: float, found: str) -> State[None]:
    """Run a command of the command line that looks at all environments, and return what it says.

    *found* is the name of the state where it found something to do.
    """
    command = [sys.executable, "-m", "flows.cli", *words, "--detach", "--json"]
    # The driver is no part of this flow run, and must not take itself for it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_seconds):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Completed(name="TimedOutLooking", message=f"no answer within {limit_seconds:g} s")
    return _as_state(out.decode(errors="replace"), errors.decode(errors="replace"), found)


def _as_state(out: str, errors: str, found: str) -> State[None]:
    """What was found in each environment. A fault of one is shown, and is no failure of the schedule."""
    for line in errors.splitlines():
        log.warning("%s", line)
    try:
        results = json.loads(out.strip().splitlines()[-1])["environments"]
    except (IndexError, KeyError, ValueError):
        return Completed(name="NotLooked", message=(errors or out).strip()[-500:] or "no answer")
    sentences = "; ".join(f"{each['environment']}: {each['sentence']}" for each in results)
    is_due = any(each["due"] for each in results)
    return Completed(name=found if is_due else "NothingDue", message=sentences[:1000])
